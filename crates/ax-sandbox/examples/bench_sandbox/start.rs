//! From the decision to start to the first byte.

use crate::figures::parts;
use crate::ways::{Place, Way};
use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::{Duration, Instant};

/// How often each way is measured; the slow ones less often.
const ROUND_COUNT: usize = 200;
const SLOW_ROUND_COUNT: usize = 30;

pub(crate) async fn measure(place: &Place) -> Result<()> {
    for way in Way::ALL {
        // Files that are read for the first time, and what stays ready.
        once(place, way).await.with_context(|| format!("{} does not run", way.name()))?;
    }
    let mut taken = Way::ALL.map(|_| Vec::<Duration>::new());
    for round in 0..ROUND_COUNT {
        for (way, taken) in Way::ALL.into_iter().zip(&mut taken) {
            let slow = matches!(way, Way::Runc | Way::Runsc);
            if !slow || round % (ROUND_COUNT / SLOW_ROUND_COUNT) == 0 {
                taken.push(once(place, way).await?);
            }
        }
    }
    let of = |(way, taken): (Way, &mut Vec<Duration>)| (way.name().into(), json!(parts(taken)));
    let figures: serde_json::Map<_, _> = Way::ALL.into_iter().zip(&mut taken).map(of).collect();
    println!("{}", json!({"piece": "start", "micros": figures}));
    Ok(())
}

async fn once(place: &Place, way: Way) -> Result<Duration> {
    let begun_at = Instant::now();
    let mut started = place.start(way, &["first"])?;
    started.first().await?;
    let taken = begun_at.elapsed();
    started.finish().await?;
    Ok(taken)
}
