//! What the command line asks for.

use std::fmt;

/// The text for `--help`.
pub(crate) const HELP: &str = "\
Runs a service under faults and lets an auditor look for what was lost.

Usage: cargo xtask torture [--minutes <n>] [--seed <n>] [--copies <n>] [--rate <n>] [--sqlite]
                           [--within <seconds>]

  --minutes <n>  how long faults are inflicted (2)
  --seed <n>     where load and faults come from (1)
  --copies <n>   copies of the service on one PostgreSQL and one JetStream (3)
  --rate <n>     transactions a second, of each copy (20)
  --sqlite       one copy on SQLite and the embedded broker
  --within <n>   seconds in which all work must be done after the faults (30); more where the
                 machine has other work

Faults come out of a shuffled deck, so that each kind comes in about every ninety seconds: copies
killed, stopped, dying at fail points; transactions left open, the pool dry; PostgreSQL stopped,
once and in a loop, or standing still; the broker killed, once, in a loop and for long; its
stream cut or deleted; messages again, one by one and all of them three times in disorder; steps
of sagas that fail, break, refuse or hang, undo included; late replies. The load itself sends
poison, what is too large and what is damaged in the outbox, and starts sagas twice.

From --minutes 5 on there are long faults too, one every three minutes, the first after one
minute: the broker gone for two minutes; for one minute PostgreSQL standing still, a transaction
open in each copy, and the pools dry. In the last half minute the broker loses nothing more.

Of the two groups that hear of changes one takes them in turn, and must. The other one takes
them as they come, where JetStream lets one process overtake another: what it did out of turn
is counted, as `overtaken`. So is what came to a broker out of order that lost something.

Exit code: 0 clean, 1 a violation, 64 a wrong command line.";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) minutes: f64,
    pub(crate) seed: u64,
    pub(crate) copies: usize,
    pub(crate) rate: u32,
    pub(crate) sqlite: bool,
    pub(crate) within: f64,
}

impl Options {
    pub(crate) fn parse(args: &[String]) -> Result<Options, String> {
        let mut options =
            Options { minutes: 2.0, seed: 1, copies: 3, rate: 20, sqlite: false, within: 30.0 };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            match name.as_str() {
                "--sqlite" => options.sqlite = true,
                _ => options.read(name, args.next().map_or("", String::as_str))?,
            }
        }
        if options.sqlite {
            // The embedded broker serves one process.
            options.copies = 1;
        }
        if !(1..=20).contains(&options.copies) {
            return Err("between 1 and 20 copies can run".to_owned());
        }
        Ok(options)
    }

    fn read(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("`{name}` needs a number, not `{value}`");
        match name {
            "--minutes" => {
                let minutes = value.parse().ok().filter(|n| (0.0..=100_000.0).contains(n));
                self.minutes = minutes.ok_or_else(wrong)?;
            }
            "--within" => {
                let seconds = value.parse().ok().filter(|n| (1.0..=100_000.0).contains(n));
                self.within = seconds.ok_or_else(wrong)?;
            }
            "--seed" => self.seed = value.parse().map_err(|_| wrong())?,
            "--copies" => self.copies = value.parse().map_err(|_| wrong())?,
            "--rate" => self.rate = value.parse().map_err(|_| wrong())?,
            _ => return Err(format!("unknown option `{name}`")),
        }
        Ok(())
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { minutes, seed, copies, rate, sqlite, within } = self;
        write!(f, "cargo xtask torture --minutes {minutes} --seed {seed} --rate {rate}")?;
        if *within != 30.0 {
            write!(f, " --within {within}")?;
        }
        if *sqlite { f.write_str(" --sqlite") } else { write!(f, " --copies {copies}") }
    }
}
