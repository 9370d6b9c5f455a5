//! What idle sandboxes hold in memory: each page divided among the processes that map it, of all
//! processes that stand between the caller and the program. Memory of the kernel is not in it.

use crate::ways::{Place, Way};
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;

/// How many run at a time.
const COUNT: usize = 10;

pub(crate) async fn measure(place: &Place) -> Result<()> {
    let mut figures = serde_json::Map::new();
    for way in Way::ALL.into_iter().filter(|way| *way != Way::Cold) {
        let mut one = place.start(way, &["idle"])?;
        one.first().await?;
        let before = descendants_kib();
        let mut others = Vec::new();
        for _ in 1..COUNT {
            let mut started = place.start(way, &["idle"])?;
            started.first().await?;
            others.push(started);
        }
        let each = descendants_kib().saturating_sub(before) / (COUNT as u64 - 1);
        figures.insert(way.name().into(), json!(each));
        for started in others.into_iter().chain([one]) {
            started.kill().await?;
        }
    }
    println!("{}", json!({"piece": "memory", "kib": figures}));
    Ok(())
}

/// Adds up what all processes below this one hold, in KiB.
fn descendants_kib() -> u64 {
    let mut children = BTreeMap::<u32, Vec<u32>>::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split(' ').nth(2));
        if let Some(parent) = parent.and_then(|text| text.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (vec![std::process::id()], 0);
    while let Some(parent) = found.get(next) {
        found.extend(children.get(parent).into_iter().flatten());
        next += 1;
    }
    found.iter().skip(1).map(|pid| held_kib(*pid)).sum()
}

fn held_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
