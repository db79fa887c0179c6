//! Work at a rate, from a seed, as the runner asks for it.
//!
//! The runner speaks on standard input, a line at a time, and needs no answer: what it
//! wants to know stands in the tables. Which item a change is of and what a purchase is
//! worth comes out of the seed; what of it is done before the next crash does not.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis::data::{Tx, params};
use chassis::messaging::failpoint::{self, Arming};
use chassis::messaging::saga::Sagas;
use chassis::{BoxFuture, Code, Component, Env, Ready, Result, Shutdown};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::purchase::Purchase;
use super::schema::ACCOUNTS;
use super::troubles::Trouble;
use super::work::{Damage, Venom, Work};

/// The longest time between two looks at whether there is something to do.
const IDLE: Duration = Duration::from_millis(50);

/// How much of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadConfig {
    /// Where the numbers come from.
    pub seed: u64,
    /// Transactions a second, until the runner says otherwise.
    pub rate: u32,
    /// Transactions at the same time.
    pub workers: u32,
    /// Items that are changed.
    pub items: u32,
}

impl Default for LoadConfig {
    fn default() -> LoadConfig {
        LoadConfig { seed: 1, rate: 0, workers: 4, items: 40 }
    }
}

/// Does work and hears the runner: a component.
pub struct Load {
    work: Work,
    sagas: Sagas<Purchase, Work>,
    config: LoadConfig,
    rate: Arc<AtomicU32>,
}

impl Load {
    /// The load of one copy of the service.
    #[must_use]
    pub fn new(work: Work, sagas: Sagas<Purchase, Work>, config: LoadConfig) -> Load {
        let rate = Arc::new(AtomicU32::new(config.rate));
        Load { work, sagas, config, rate }
    }

    async fn hear(self: Arc<Self>) {
        let (said, mut lines) = mpsc::channel(64);
        // A thread of its own: reading standard input blocks.
        std::thread::spawn(move || {
            let lines = std::io::stdin().lines().map_while(std::result::Result::ok);
            lines.take_while(|line| said.blocking_send(line.clone()).is_ok()).for_each(drop);
        });
        // At the end of the input nobody is left to say anything: the load goes on.
        while let Some(line) = lines.recv().await {
            let mut words = line.split_whitespace();
            let (what, argument) = (words.next(), words.next().unwrap_or_default());
            match (what, argument) {
                (Some("rate"), rate) => {
                    self.rate.store(rate.parse().unwrap_or(0), Ordering::Relaxed);
                }
                (Some("fail"), point) => match point.split_once('=') {
                    Some((point, how)) if let Some(how) = Arming::parse(how) => {
                        failpoint::arm(point, how);
                    }
                    _ => tracing::error!(line, "not a fail point"),
                },
                (Some("clear"), _) => {
                    failpoint::clear();
                    self.work.troubles.clear();
                }
                (Some("trouble"), place) => {
                    let trouble = words.next().and_then(Trouble::parse);
                    let lasts = words.next().and_then(|ms| ms.parse().ok());
                    match (trouble, lasts.map(Duration::from_millis)) {
                        (Some(trouble), Some(lasts)) => {
                            self.work.troubles.begin(place, trouble, lasts);
                        }
                        _ => tracing::error!(line, "not a trouble"),
                    }
                }
                (Some("hold"), ms) => {
                    let pause = Duration::from_millis(ms.parse().unwrap_or(0));
                    let count = words.next().and_then(|count| count.parse().ok()).unwrap_or(1_u32);
                    for number in 0..count {
                        let this = self.clone();
                        tokio::spawn(async move { warn(this.hold(number, pause).await) });
                    }
                }
                _ => tracing::error!(line, "not a command"),
            }
        }
    }

    /// A transaction that says something and then stays open.
    async fn hold(&self, number: u32, pause: Duration) -> Result<()> {
        let mut tx = self.work.db.begin().await?;
        // Of its own: who changes the same item would wait for it.
        self.work.change(&mut tx, &format!("held-{}-{number}", self.config.seed)).await?;
        sleep(pause).await;
        tx.commit().await
    }

    async fn work(self: Arc<Self>, worker: u32) {
        let mut rng = Rng::with_seed(self.config.seed ^ (u64::from(worker) << 32));
        loop {
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 {
                sleep(IDLE).await;
                continue;
            }
            let mean = f64::from(self.config.workers) / f64::from(rate);
            sleep(Duration::from_secs_f64(mean * 2.0 * rng.f64())).await;
            warn(self.unit(&mut rng).await);
        }
    }

    async fn unit(&self, rng: &mut Rng) -> Result<()> {
        let dice = rng.u32(..1000);
        if dice < 150 {
            return self.buy(rng).await;
        }
        let mut tx = self.work.db.begin().await?;
        self.say(&mut tx, rng, dice).await?;
        tx.commit().await
    }

    async fn say(&self, tx: &mut Tx, rng: &mut Rng, dice: u32) -> Result<()> {
        let venoms = [Venom::Panics, Venom::Fails, Venom::WrongSchema, Venom::UnknownVersion];
        let damages = [Damage::HeadersCut, Damage::HeadersGone, Damage::Payload];
        match dice {
            150..165 => self.work.poison(tx, venoms[rng.usize(..venoms.len())]).await,
            165..170 => self.work.oversize(tx, &self.item(rng)).await,
            170..175 => {
                let damage = damages[rng.usize(..damages.len())];
                self.work.damaged(tx, &self.item(rng), damage).await
            }
            _ => {
                // One after the other in one order: who locks two rows meets no deadlock.
                let mut items: Vec<String> = (0..rng.u32(1..4)).map(|_| self.item(rng)).collect();
                items.sort_unstable();
                for item in items {
                    self.work.change(tx, &item).await?;
                }
                Ok(())
            }
        }
    }

    fn item(&self, rng: &mut Rng) -> String {
        format!("item-{}", rng.u32(..self.config.items))
    }

    /// Begins one of the next purchases. The copies of the service all try the same ones,
    /// so that most of them are begun more than once.
    async fn buy(&self, rng: &mut Rng) -> Result<()> {
        let mut tx = self.work.db.begin().await?;
        let count = tx.fetch_optional("SELECT COUNT(*) FROM torture_started", vec![]).await?;
        let count = count.map(|row| row.int(0)).transpose()?.unwrap_or(0);
        let purchase = format!("purchase-{}", count + rng.i64(-1..4));
        let line = rng.i64(0..ACCOUNTS).to_string();
        let data = Purchase { purchase: purchase.clone(), line, amount: rng.i64(1..1000) };
        match self.sagas.start(&mut tx, &purchase, data).await {
            Ok(_) => {}
            Err(error) if error.code() == Code::AlreadyExists => {
                tx.rollback().await;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        tx.execute("INSERT INTO torture_started (purchase) VALUES ($1)", params![purchase]).await?;
        tx.commit().await
    }
}

impl Component for Load {
    fn name(&self) -> Cow<'static, str> {
        "load".into()
    }

    fn run(
        self: Box<Self>,
        env: Env,
        ready: Ready,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let this = Arc::new(*self);
            let mut tasks = JoinSet::new();
            tasks.spawn(env.scope(this.clone().hear()));
            for worker in 0..this.config.workers {
                tasks.spawn(env.scope(this.clone().work(worker)));
            }
            ready.ready();
            // Dropping the set ends what it holds; what was open is rolled back.
            shutdown.requested().await;
            Ok(())
        })
    }
}

/// A transaction that fails is no news here: the auditor counts what was committed.
fn warn(result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(error = %error.chain(), "a unit of work failed");
    }
}
