//! What programs pay that run in a sandbox: one that does nothing but call the kernel, and one that
//! does nothing but compute. They take their own time.

use crate::figures::median;
use crate::ways::{Place, Way};
use anyhow::{Context as _, Result};
use serde_json::json;

const ROUND_COUNT: usize = 7;
/// How many calls, and how many steps of computing.
const CALL_COUNT: &str = "100000";
const STEP_COUNT: &str = "50000000";

pub(crate) async fn measure(place: &Place) -> Result<()> {
    for (what, count) in [("calls", CALL_COUNT), ("work", STEP_COUNT)] {
        let ways: Vec<Way> = Way::ALL.into_iter().filter(|way| *way != Way::Cold).collect();
        let mut taken = vec![Vec::new(); ways.len()];
        for _ in 0..ROUND_COUNT {
            for (way, taken) in ways.iter().zip(&mut taken) {
                let text = place.start(*way, &[what, count])?.finish().await?;
                let nanos: f64 = text.trim().parse().with_context(|| way.name())?;
                taken.push(nanos / count.parse::<f64>()?);
            }
        }
        let of = |(way, taken): (&Way, Vec<f64>)| (way.name().into(), json!(median(taken)));
        let figures: serde_json::Map<_, _> = ways.iter().zip(taken).map(of).collect();
        println!("{}", json!({"piece": "overhead", "what": what, "nanos": figures}));
    }
    Ok(())
}
