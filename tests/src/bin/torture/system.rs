//! The servers and the copies, and what is done to them.
//!
//! A fault ends by itself some time after it began ([`inflict`](crate::inflict)), so that
//! several are under way at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chassis_test::servers::{Nats, Postgres};
use chassis_tests::torture::handlers::MIRROR;
use chassis_tests::torture::{Auditor, Report, Source, Violation};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::alerts::Alerts;
use crate::copy::Copy;
use crate::freeze::Frozen;
use crate::options::Options;
use crate::plan::Fault;

/// Between two looks at the copies.
const LOOK: Duration = Duration::from_millis(50);
/// A copy that ended by itself is started again after this.
const RESTART: Duration = Duration::from_millis(500);

/// The broker loses nothing more this long before the end: that is mended while the load goes
/// on, and not counted into the time after it.
const NO_MORE_LOSSES: Duration = Duration::from_secs(30);

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Start(usize),
    Continue(usize),
    Disarm(usize),
    Database,
    Thaw,
    Broker,
}

pub(crate) struct System {
    begin: Instant,
    pub(crate) copies: Vec<Copy>,
    /// Before the folder, which a copy uses.
    folder: TempDir,
    /// Before the server, which it keeps from ending.
    pub(crate) frozen: Frozen,
    pub(crate) servers: Option<(Postgres, Nats)>,
    pub(crate) database: String,
    pub(crate) ends: Vec<(Instant, End)>,
    /// Faults whose time has not come yet.
    pub(crate) postponed: Vec<(Instant, Fault)>,
    tally: BTreeMap<String, usize>,
    /// Faults that a copy should die of soon.
    pub(crate) doomed: Vec<bool>,
    pub(crate) alerts: Alerts,
    /// When the broker last lost something, and until when it may.
    pub(crate) lost_at: Option<Instant>,
    pub(crate) losses_end: Instant,
}

impl System {
    pub(crate) async fn start(options: &Options) -> Result<System, Failure> {
        let folder = tempfile::Builder::new().prefix("chassis-torture-").tempdir()?;
        let (servers, database, broker) = if options.sqlite {
            let database = format!("sqlite://{}?mode=rwc", folder.path().join("work.db").display());
            (None, database, format!("embedded:{}", folder.path().join("broker").display()))
        } else {
            let (postgres, nats) = tokio::join!(Postgres::start(), Nats::start());
            let (database, broker) = (postgres.database("torture").await, nats.url().to_owned());
            (Some((postgres, nats)), database, broker)
        };
        let variables = [("DATABASE_URL", database.clone()), ("NATS_URL", broker)];
        let copies = (0..options.copies)
            .map(|n| Copy::new(n, folder.path(), options.seed, options.rate, &variables));
        let copies = copies.collect::<Result<Vec<_>, _>>()?;
        let length = Duration::from_secs_f64(options.minutes * 60.0);
        let doomed = vec![false; copies.len()];
        let alerts = Alerts::new(copies.iter().map(|copy| copy.log().to_owned()).collect());
        let mut system = System {
            begin: Instant::now(),
            copies,
            folder,
            frozen: Frozen::default(),
            servers,
            database,
            ends: Vec::new(),
            postponed: Vec::new(),
            tally: BTreeMap::new(),
            doomed,
            alerts,
            lost_at: None,
            losses_end: Instant::now() + length.saturating_sub(NO_MORE_LOSSES),
        };
        for copy in &mut system.copies {
            copy.start()?;
        }
        Ok(system)
    }

    /// The auditor of this system.
    pub(crate) fn auditor(&self) -> Auditor {
        let source = match &self.servers {
            Some((_, nats)) => Source::Nats(nats.url().to_owned()),
            None => Source::Folder(self.folder.path().join("broker")),
        };
        let auditor = Auditor::new(self.database.clone(), source);
        // The embedded broker keeps the order by itself, JetStream where a group asks for it:
        // the mirror does not.
        match &self.servers {
            None => auditor,
            Some(_) => auditor.may_be_overtaken(&[MIRROR]).broker_lost(self.lost_at.is_some()),
        }
    }

    pub(crate) fn say(&self, what: &str) {
        println!("[{:7.2} s] {what}", self.begin.elapsed().as_secs_f64());
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    /// Lets time pass: ends faults when their time has come, begins those that had to wait,
    /// starts copies that died.
    pub(crate) async fn run_until(&mut self, until: Instant) -> Result<(), Failure> {
        loop {
            self.look_after().await?;
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            sleep_until((now + LOOK).min(until)).await;
        }
    }

    async fn look_after(&mut self) -> Result<(), Failure> {
        for index in 0..self.copies.len() {
            if let Some(status) = self.copies[index].ended()? {
                let doomed = std::mem::take(&mut self.doomed[index]);
                self.say(&format!("copy {index} ended: {status}"));
                self.count(if doomed { "died at a point" } else { "ended by itself" });
                self.ends.retain(|(_, end)| *end != End::Disarm(index));
                self.ends.push((Instant::now() + RESTART, End::Start(index)));
            }
        }
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.ends).into_iter().partition(|(at, _)| *at <= now);
        self.ends = later;
        let due: Vec<(Instant, End)> = due;
        for (_, end) in due {
            self.end_fault(end).await?;
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.postponed).into_iter().partition(|(at, _)| *at <= now);
        self.postponed = later;
        for (_, fault) in due {
            self.inflict(fault).await?;
        }
        Ok(())
    }

    async fn end_fault(&mut self, end: End) -> Result<(), Failure> {
        match end {
            End::Start(copy) => self.copies[copy].start()?,
            End::Continue(copy) => self.copies[copy].signal(Signal::CONT)?,
            End::Disarm(copy) => {
                self.doomed[copy] = false;
                self.copies[copy].tell("clear").await;
                self.copies[copy].signal(Signal::CONT)?;
            }
            End::Database => {
                if let Some((postgres, _)) = &self.servers {
                    postgres.restart().await;
                    self.say("PostgreSQL is back");
                }
            }
            End::Thaw => self.frozen.thaw(),
            End::Broker => {
                if let Some((_, nats)) = &self.servers {
                    nats.restart().await;
                    self.say("the broker is back");
                }
            }
        }
        Ok(())
    }

    /// Ends all faults and the load.
    pub(crate) async fn heal(&mut self) -> Result<(), Failure> {
        self.say("all faults end, and the load");
        self.postponed.clear();
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end_fault(end).await?;
        }
        self.look_after().await?;
        for index in 0..self.copies.len() {
            let copy = &mut self.copies[index];
            copy.signal(Signal::CONT)?;
            copy.tell("clear").await;
            copy.quiet().await;
            copy.start()?;
        }
        self.ends.clear();
        Ok(())
    }

    /// How many faults of each kind there were.
    pub(crate) fn tally(&self) -> String {
        let counts: Vec<String> =
            self.tally.iter().map(|(what, count)| format!("{what} {count}")).collect();
        format!("faults: {}", counts.join(", "))
    }

    /// The report with what only the runner knows: of each loss somebody must be told.
    pub(crate) fn complete(&self, mut report: Report) -> Report {
        let unnoticed = self.alerts.unnoticed().into_iter().map(str::to_owned);
        report.violations.extend(unnoticed.map(|what| Violation::LossUnnoticed { what }));
        report
    }

    /// Ends everything. The logs stay where they are needed.
    pub(crate) async fn end(mut self, clean: bool) {
        for copy in &mut self.copies {
            let _ = copy.kill().await;
        }
        if !clean {
            let kept: PathBuf = self.folder.keep();
            println!("the logs of the copies are in {}", kept.display());
        }
    }
}
