//! Which fault comes next, and when: numbers from the seed, without I/O.

use std::time::Duration;

use chassis::messaging::failpoint::POINTS;
use fastrand::Rng;

use crate::options::Options;

/// Connections of a copy's pool.
const POOL: usize = 20;

/// Something that goes wrong, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A copy is killed, and started again later.
    Kill { copy: usize, down: Duration },
    /// A copy dies, fails or stands still when it reaches a point.
    AtPoint { copy: usize, point: &'static str, how: String, down: Duration },
    /// A copy stands still.
    Pause { copy: usize, lasts: Duration },
    /// So many transactions of a copy stay open.
    Hold { copy: usize, count: usize, lasts: Duration },
    /// PostgreSQL is stopped as by a crash.
    Database { down: Duration },
    /// PostgreSQL stands still.
    DatabasePause { lasts: Duration },
    /// The broker is killed.
    Broker { down: Duration },
    /// Messages come again, after the broker has forgotten their ids.
    Redeliver { messages: usize },
}

pub(crate) struct Plan {
    rng: Rng,
    copies: usize,
    servers: bool,
}

impl Plan {
    pub(crate) fn new(options: &Options) -> Plan {
        let rng = Rng::with_seed(options.seed);
        Plan { rng, copies: options.copies, servers: !options.sqlite }
    }

    /// The next fault, and how long after the one before it begins.
    pub(crate) fn next(&mut self) -> (Duration, Fault) {
        let pause = self.millis(300, 2500);
        let copy = self.rng.usize(..self.copies);
        let dice = self.rng.u32(..if self.servers { 100 } else { 70 });
        let fault = match dice {
            0..20 => Fault::Kill { copy, down: self.millis(0, 2000) },
            20..50 => {
                let point = POINTS[self.rng.usize(..POINTS.len())];
                let how = ["abort", "abort", "abort", "stop", "error"][self.rng.usize(..5)];
                let how = format!("{how}@{}", self.rng.u32(1..20));
                Fault::AtPoint { copy, point, how, down: self.millis(3000, 6000) }
            }
            50..62 => Fault::Pause { copy, lasts: self.millis(2500, 6000) },
            62..70 => {
                // One, or all that the pool has.
                let count = if self.rng.bool() { 1 } else { POOL };
                Fault::Hold { copy, count, lasts: self.millis(1000, 8000) }
            }
            70..78 => Fault::Database { down: self.millis(0, 3000) },
            78..82 => Fault::DatabasePause { lasts: self.millis(2000, 8000) },
            82..91 => {
                // Now and then longer than any lease, window or patience.
                let long = self.rng.u32(..5) == 0;
                let down = if long { self.millis(6000, 12_000) } else { self.millis(0, 2000) };
                Fault::Broker { down }
            }
            _ => Fault::Redeliver { messages: self.rng.usize(1..50) },
        };
        (pause, fault)
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(least..most))
    }
}
