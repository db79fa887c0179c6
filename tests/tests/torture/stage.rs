//! A database, a broker and the parts of a service that a scenario puts on them.
//!
//! Fail points belong to the whole process, so the scenarios run one after the other.

use std::future::Future;
use std::thread::JoinHandle;
use std::time::Duration;

use chassis::data::DatabaseConfig;
use chassis::messaging::{BrokerConfig, failpoint};
use chassis::{Component, Env, Ready, Shutdown};
use chassis_test::eventually;
use chassis_test::servers::{Nats, Postgres};
use chassis_tests::torture::handlers::{Group, MIRROR, changed};
use chassis_tests::torture::service::{Config, Service};
use chassis_tests::torture::{Auditor, Expected, Report, Source};
use tokio::sync::{Mutex, MutexGuard, oneshot};

/// Long enough for a busy machine; nothing here should come near it.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// What a planted bug loses is not there after this long either.
const NEVER: Duration = Duration::from_secs(3);

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Only the mirror hears of changes here.
const EXPECTED: &[Expected] = &[Expected { topic: "torture.changed", handlers: &[MIRROR] }];

pub(crate) struct Stage {
    pub(crate) config: Config,
    pub(crate) service: Service,
    pub(crate) nats: Nats,
    auditor: Auditor,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) async fn set(name: &str) -> Stage {
        let turn = ONE_AT_A_TIME.lock().await;
        failpoint::clear();
        let database = Postgres::shared().await.database(name).await;
        let nats = Nats::start().await;
        let mut config = Config {
            database: DatabaseConfig::url(&database),
            broker: BrokerConfig::at(nats.url()),
            ..Config::default()
        };
        config.outbox.lease = Duration::from_millis(500);
        config.consumer.ack_wait = Duration::from_millis(500);
        let service = Service::connect(&config).await.unwrap();
        let source = Source::Nats(nats.url().to_owned());
        let auditor = Auditor::new(database, source).expecting(EXPECTED);
        Stage { config, service, nats, auditor, _turn: turn }
    }

    /// Commits so many changes of an item.
    pub(crate) async fn change(&self, item: &str, times: usize) {
        for _ in 0..times {
            let mut tx = self.service.work.db.begin().await.unwrap();
            self.service.work.change(&mut tx, item).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    /// Waits until the broker has so many messages.
    pub(crate) async fn until_stored(&self, count: usize) {
        eventually(&format!("{count} messages"), SOON, async || {
            let evidence = self.auditor.evidence().await.unwrap();
            (evidence.stored.len() == count).then_some(())
        })
        .await;
    }

    /// Waits until a fail point was hit.
    pub(crate) async fn until_hit(&self, point: &str, before: u64) {
        eventually(point, SOON, async || (failpoint::hits(point) > before).then_some(())).await;
    }

    /// The verdict once nothing is left to do.
    pub(crate) async fn verdict(&self) -> Report {
        self.auditor.settled(SOON).await.unwrap()
    }

    /// The verdict where something will always be left to do.
    pub(crate) async fn verdict_on_a_bug(&self) -> Report {
        self.auditor.settled(NEVER).await.unwrap()
    }
}

/// A part of a service on a thread and a runtime of its own: for the others a process.
pub(crate) struct Copy {
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Copy {
    /// Runs `life` until it is killed.
    pub(crate) fn start<F, Fut>(life: F) -> Copy
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let (kill, killed) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = life() => {}
                    _ = killed => {}
                }
            });
            // Dropping the runtime drops what it runs, wherever that stands.
        });
        Copy { kill, thread }
    }

    /// The chassis's own relay.
    pub(crate) fn relay(stage: &Stage) -> Copy {
        let config = stage.config.clone();
        Copy::start(|| async move {
            let service = Service::connect(&config).await.unwrap();
            run(service.work.outbox.relay(&service.broker)).await;
        })
    }

    /// The chassis's own consumer.
    pub(crate) fn consumer(stage: &Stage) -> Copy {
        let config = stage.config.clone();
        Copy::start(|| async move {
            let service = Service::connect(&config).await.unwrap();
            let group = Group { name: MIRROR, work: service.work.clone() };
            let (broker, db) = (&service.broker, &service.work.db);
            let consumer = chassis::messaging::Consumer::new(broker, db, MIRROR, group);
            run(consumer.with_config(config.consumer.clone()).on(changed)).await;
        })
    }

    /// Ends it without a farewell, and returns once it is gone.
    pub(crate) async fn kill(self) {
        let _ = self.kill.send(());
        tokio::task::spawn_blocking(|| self.thread.join()).await.unwrap().unwrap();
    }
}

async fn run(component: impl Component) {
    let (_trigger, shutdown) = Shutdown::new();
    Box::new(component).run(Env::test("torture"), Ready::channel().0, shutdown).await.unwrap();
}
