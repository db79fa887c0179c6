//! CPU time of everybody at work: this process, and the servers where they are told.
//!
//! On a machine that has other work a rate says more about that work than about us; the
//! CPU time of a message hardly changes. `CHASSIS_BENCH_PIDS` holds the process ids of the
//! servers, with commas; `cargo xtask bench` sets it where it started them.

use std::fs;

/// Microseconds of one tick of `/proc/<pid>/stat`: always a hundredth of a second.
const TICK: f64 = 10_000.0;

/// Microseconds of CPU up to now. `None` where the servers are not known.
pub(crate) fn total() -> Option<f64> {
    let servers = std::env::var("CHASSIS_BENCH_PIDS").ok()?;
    let servers: Vec<u32> = servers.split(',').filter_map(|pid| pid.parse().ok()).collect();
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        // It may have ended meanwhile; then its parent has its time.
        let Some(stat) = read(pid) else { continue };
        if pid == std::process::id() || servers.contains(&stat.parent) {
            ticks += stat.own;
        } else if servers.contains(&pid) {
            ticks += stat.own + stat.children;
        }
    }
    Some(ticks as f64 * TICK)
}

struct Stat {
    parent: u32,
    own: u64,
    /// Of those that ended.
    children: u64,
}

fn read(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        children: number(13)? + number(14)?,
    })
}
