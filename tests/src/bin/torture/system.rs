//! The servers and the copies, and what is done to them.
//!
//! A fault begins here and ends by itself later, so that several are under way at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream;
use chassis_test::servers::{Nats, Postgres};
use chassis_tests::torture::handlers::{LEDGER, MIRROR};
use chassis_tests::torture::{Auditor, Source};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::copy::Copy;
use crate::freeze::Frozen;
use crate::options::Options;
use crate::plan::Fault;

/// Between two looks at the copies.
const LOOK: Duration = Duration::from_millis(50);
/// A copy that ended by itself is started again after this.
const RESTART: Duration = Duration::from_millis(500);

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Start(usize),
    Continue(usize),
    Disarm(usize),
    Database,
    Thaw,
    Broker,
}

pub(crate) struct System {
    strict_order: bool,
    begin: Instant,
    copies: Vec<Copy>,
    /// Before the folder, which a copy uses.
    folder: TempDir,
    /// Before the server, which it keeps from ending.
    frozen: Frozen,
    servers: Option<(Postgres, Nats)>,
    database: String,
    ends: Vec<(Instant, End)>,
    tally: BTreeMap<String, usize>,
    /// Faults that a copy should die of soon.
    doomed: Vec<bool>,
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
        let doomed = vec![false; copies.len()];
        let mut system = System {
            strict_order: options.strict_order,
            begin: Instant::now(),
            copies,
            folder,
            frozen: Frozen::default(),
            servers,
            database,
            ends: Vec::new(),
            tally: BTreeMap::new(),
            doomed,
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
        // the ledger does, the mirror does not.
        match (&self.servers, self.strict_order) {
            (None, _) => auditor,
            (Some(_), true) => auditor.may_be_overtaken(&[MIRROR]),
            (Some(_), false) => auditor.may_be_overtaken(&[MIRROR, LEDGER]),
        }
    }

    fn say(&self, what: &str) {
        println!("[{:7.2} s] {what}", self.begin.elapsed().as_secs_f64());
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    /// Lets time pass: ends faults when their time has come, starts copies that died.
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

    /// Begins a fault. One that is under way already is left to it.
    pub(crate) async fn inflict(&mut self, fault: Fault) -> Result<(), Failure> {
        let after = |lasts| Instant::now() + lasts;
        match fault {
            Fault::Kill { copy, down } => {
                self.say(&format!("kill -9 of copy {copy}, back in {down:?}"));
                self.copies[copy].kill().await?;
                self.ends.push((after(down), End::Start(copy)));
                self.count("killed");
            }
            Fault::AtPoint { copy, point, how, down } => {
                self.say(&format!("copy {copy}: {point}={how}"));
                self.copies[copy].tell(&format!("fail {point}={how}")).await;
                self.doomed[copy] = true;
                self.ends.push((after(down), End::Disarm(copy)));
                self.count(format!("{point} armed"));
            }
            Fault::Pause { copy, lasts } => {
                self.say(&format!("copy {copy} stands still for {lasts:?}"));
                self.copies[copy].signal(Signal::STOP)?;
                self.ends.push((after(lasts), End::Continue(copy)));
                self.count("paused");
            }
            Fault::Hold { copy, count, lasts } => {
                self.say(&format!("copy {copy} holds {count} transactions open for {lasts:?}"));
                self.copies[copy].tell(&format!("hold {} {count}", lasts.as_millis())).await;
                self.count("transactions held open");
            }
            Fault::Database { down } => {
                let Some((postgres, _)) = &self.servers else { return Ok(()) };
                self.say(&format!("PostgreSQL is stopped (immediate) for {down:?}"));
                // It cannot end while it stands still.
                self.frozen.thaw();
                postgres.stop();
                self.ends.push((after(down), End::Database));
                self.count("PostgreSQL stopped");
            }
            Fault::DatabasePause { lasts } => {
                if self.servers.is_none() {
                    return Ok(());
                }
                self.say(&format!("PostgreSQL stands still for {lasts:?}"));
                self.frozen.thaw();
                let frozen = Frozen::postgres(&self.database);
                match tokio::time::timeout(Duration::from_secs(2), frozen).await {
                    Ok(Ok(frozen)) => self.frozen = frozen,
                    Ok(Err(failure)) => self.say(&format!("it does not: {failure}")),
                    Err(_) => self.say("it does not: no answer"),
                }
                self.ends.push((after(lasts), End::Thaw));
                self.count("PostgreSQL paused");
            }
            Fault::Broker { down } => {
                let Some((_, nats)) = &self.servers else { return Ok(()) };
                self.say(&format!("the broker is killed for {down:?}"));
                nats.stop();
                self.ends.push((after(down), End::Broker));
                self.count("broker killed");
            }
            Fault::Redeliver { messages } => {
                let Some((_, nats)) = &self.servers else { return Ok(()) };
                let again = redeliver(nats.url(), messages);
                let again = tokio::time::timeout(Duration::from_secs(2), again).await;
                let done = again.unwrap_or_else(|_| Err("no answer".into()));
                self.say(&match done {
                    Ok(count) => format!("{count} messages come again"),
                    Err(failure) => format!("no messages come again: {failure}"),
                });
                self.count("messages again");
            }
        }
        Ok(())
    }

    /// Ends all faults and the load.
    pub(crate) async fn heal(&mut self) -> Result<(), Failure> {
        self.say("all faults end, and the load");
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

/// Publishes stored messages again, each under a new id of the broker's.
async fn redeliver(url: &str, count: usize) -> Result<usize, Failure> {
    let client = async_nats::connect(url).await?;
    let context = jetstream::new(client);
    let mut stream = context.get_stream("torture").await?;
    let state = stream.info().await?.state.clone();
    let mut done = 0;
    if state.messages == 0 {
        return Ok(done);
    }
    for _ in 0..count {
        let seq = fastrand::u64(state.first_sequence..=state.last_sequence);
        let message = stream.get_raw_message(seq).await?;
        let mut headers = message.headers;
        headers.insert("Nats-Msg-Id", format!("again-{seq}-{}", fastrand::u64(..)));
        context.publish_with_headers(message.subject, headers, message.payload).await?.await?;
        done += 1;
    }
    Ok(done)
}
