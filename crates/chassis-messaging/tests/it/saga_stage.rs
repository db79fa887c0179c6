//! What the saga scenarios share: a world of services in memory, whose answers the scenario
//! decides, a saga over them, and a stage on which it is driven by hand.
//!
//! The clock is moved by hand, transitions are made one by one, and a crash is a future that
//! is dropped. Each scenario gets a fresh database.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Env, Error, Result};
use chassis_data::{Backend, Db, Tx, params};
use chassis_messaging::outbox::Clock;
use chassis_messaging::saga::{
    Failure, SagaConfig, SagaDefinition, SagaId, SagaRunner, SagaState, SagaView, Sagas, StepInfo,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const WAIT: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Data {
    pub(crate) done: Vec<String>,
    pub(crate) heard: Option<String>,
}

impl Data {
    pub(crate) fn and(mut self, step: &str) -> Data {
        self.done.push(step.to_owned());
        self
    }
}

/// What goes wrong at a place. A place is a step, or `undo` and a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// A definite no, without effect.
    Refuse,
    /// No answer, without effect.
    Away,
    /// No answer, with effect.
    Late,
    /// Stops before the effect, and never goes on.
    CrashBefore,
    /// Stops after the effect, and never goes on.
    CrashAfter,
    Panic,
}

pub(crate) const FAULTS: [Fault; 6] =
    [Fault::Refuse, Fault::Away, Fault::Late, Fault::CrashBefore, Fault::CrashAfter, Fault::Panic];

/// The services around the saga. What they hold is what must not be left over.
#[derive(Clone, Default)]
pub(crate) struct World(pub(crate) Arc<Mutex<Inside>>, pub(crate) Arc<Notify>);

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) held: BTreeSet<(String, String)>,
    /// Undone: a late call must not take effect any more.
    pub(crate) closed: HashSet<(String, String)>,
    /// Fault of a place, and for how many calls.
    pub(crate) faults: HashMap<String, (Fault, u32)>,
    pub(crate) calls: HashMap<String, u32>,
    pub(crate) keys: HashMap<String, HashSet<String>>,
}

impl World {
    pub(crate) fn with(place: &str, fault: Fault, calls: u32) -> World {
        let world = World::default();
        world.set(place, fault, calls);
        world
    }

    pub(crate) fn set(&self, place: &str, fault: Fault, calls: u32) {
        self.0.lock().faults.insert(place.to_owned(), (fault, calls));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().faults.clear();
    }

    pub(crate) fn calls(&self, place: &str) -> u32 {
        self.0.lock().calls.get(place).copied().unwrap_or_default()
    }

    /// Waits until a call has stopped for ever.
    pub(crate) async fn stuck(&self) {
        self.1.notified().await;
    }

    pub(crate) async fn stop_here(&self) {
        self.1.notify_one();
        std::future::pending::<()>().await;
    }

    pub(crate) fn begin(&self, place: &str) -> Option<Fault> {
        let mut inside = self.0.lock();
        *inside.calls.entry(place.to_owned()).or_default() += 1;
        let (fault, left) = inside.faults.get_mut(place)?;
        *left = left.checked_sub(1)?;
        Some(*fault)
    }

    /// A call of the saga, with the fault of its place.
    pub(crate) async fn call(&self, place: &str, effect: impl FnOnce(&mut Inside)) -> Result<()> {
        let fault = self.begin(place);
        tokio::task::yield_now().await;
        match fault {
            Some(Fault::Refuse) => {
                return Err(
                    Error::failed_precondition("REFUSED", "not today").with_detail("place", place)
                );
            }
            Some(Fault::Away) => return Err(Error::unavailable("AWAY", "nobody home")),
            Some(Fault::Panic) => panic!("a bug at {place}"),
            Some(Fault::CrashBefore) => self.stop_here().await,
            _ => {}
        }
        effect(&mut self.0.lock());
        match fault {
            Some(Fault::Late) => Err(Error::deadline_exceeded("LATE", "took too long")),
            Some(Fault::CrashAfter) => {
                self.stop_here().await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) async fn ask(world: World, data: Data, _: StepInfo) -> Result<Data> {
    world.call("ask", |_| {}).await?;
    Ok(data.and("ask"))
}

pub(crate) async fn hold(world: World, data: Data, info: StepInfo) -> Result<Data> {
    let item = (info.saga.to_string(), info.step.to_owned());
    let closed = world.0.lock().closed.contains(&item);
    if closed {
        return Err(Error::failed_precondition("CLOSED", "it was undone before"));
    }
    let key = info.idempotency_key();
    world
        .call(info.step, |inside| {
            inside.keys.entry(info.step.to_owned()).or_default().insert(key);
            inside.held.insert(item);
        })
        .await?;
    Ok(data.and(info.step))
}

pub(crate) async fn release(world: World, data: Data, info: StepInfo) -> Result<Data> {
    assert!(info.undo);
    let item = (info.saga.to_string(), info.step.to_owned());
    let place = format!("undo {}", info.step);
    world
        .call(&place, |inside| {
            inside.held.remove(&item);
            inside.closed.insert(item);
        })
        .await?;
    Ok(data.and(&place))
}

/// A row in the saga's own database, then the fault: what must be rolled back.
pub(crate) async fn write<B: Backend>(
    world: &World,
    tx: &mut Tx<B>,
    place: &str,
    text: &str,
) -> Result<()> {
    tx.execute("INSERT INTO effects (what) VALUES ($1)", params![text]).await?;
    world.call(place, |_| {}).await
}

pub(crate) async fn confirm<B: Backend>(world: World, tx: &mut Tx<B>, data: Data) -> Result<Data> {
    write(&world, tx, "confirm", "confirmed").await?;
    Ok(data.and("confirm"))
}

pub(crate) async fn finish<B: Backend>(world: World, tx: &mut Tx<B>, data: Data) -> Result<Data> {
    write(&world, tx, "finish", "finished").await?;
    Ok(data.and("finish"))
}

pub(crate) async fn cancelled<B: Backend>(
    world: World,
    tx: &mut Tx<B>,
    _: Data,
    why: Failure,
) -> Result<()> {
    write(&world, tx, "cancel", &format!("cancelled {} {}", why.step, why.reason)).await
}

pub(crate) fn definition<B: Backend>(version: u32) -> SagaDefinition<Data, World, B> {
    SagaDefinition::new("greet", version)
        .action("ask", ask)
        .step("hold-a", hold, release)
        .step("hold-b", hold, release)
        .pivot("confirm", confirm::<B>)
        .wait_for_with("heard", WAIT, |mut data: Data, payload| {
            data.heard = payload["by"].as_str().map(str::to_owned);
            Ok(data)
        })
        .local("finish", finish::<B>)
        .on_cancelled(cancelled::<B>)
}

pub(crate) fn config() -> SagaConfig {
    SagaConfig { attempts: 3, persistent_attempts: 4, ..SagaConfig::default() }
}

/// One saga system on a database, driven by hand.
pub(crate) struct Stage<B: Backend> {
    pub(crate) db: Db<B>,
    pub(crate) sagas: Sagas<Data, World, B>,
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) env: Env,
}

impl<B: Backend> Stage<B> {
    pub(crate) async fn new(db: &Db<B>, world: World) -> Stage<B> {
        Stage::of(db, world, definition(1)).await
    }

    pub(crate) async fn of(
        db: &Db<B>,
        world: World,
        definition: SagaDefinition<Data, World, B>,
    ) -> Stage<B> {
        let clock = Clock::manual(1_000_000);
        let sagas = Sagas::new(db, definition, world.clone())
            .with_config(config())
            .with_clock(clock.clone());
        db.migrate(&sagas.migrations()).await.unwrap();
        let table = "CREATE TABLE IF NOT EXISTS effects (what TEXT NOT NULL)";
        db.execute(table, Vec::new()).await.unwrap();
        Stage { db: db.clone(), sagas, world, clock, env: Env::test("sagas") }
    }

    pub(crate) async fn start(&self, key: &str) -> SagaId {
        let mut tx = self.db.begin().await.unwrap();
        let id = self.sagas.start(&mut tx, key, Data::default()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) async fn signal(&self, key: &str) {
        let mut tx = self.db.begin().await.unwrap();
        self.sagas.signal(&mut tx, key, "heard", json!({ "by": "Ada" })).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) async fn view(&self, id: &SagaId) -> SagaView {
        self.sagas.show(id).await.unwrap().unwrap()
    }

    /// Rows that the saga wrote into its own database, in order of their text.
    pub(crate) async fn effects(&self) -> Vec<String> {
        let sql = "SELECT what FROM effects ORDER BY what";
        let rows = self.db.fetch_all(sql, Vec::new()).await.unwrap();
        rows.iter().map(|row| row.text(0).unwrap().to_owned()).collect()
    }

    pub(crate) fn held(&self) -> Vec<String> {
        self.world.0.lock().held.iter().map(|(_, step)| step.clone()).collect()
    }

    /// One transition; a call that stops for ever is a crash.
    pub(crate) async fn step_or_crash(
        &self,
        runner: &SagaRunner<Data, World, B>,
        id: &SagaId,
    ) -> Stepped {
        tokio::select! {
            state = runner.step(&self.env, id) => match state.unwrap() {
                Some(_) => Stepped::Moved,
                None => Stepped::NotDue,
            },
            () = self.world.stuck() => Stepped::Crashed,
        }
    }

    /// Goes on until the saga ends, is parked or waits for its signal. A runner
    /// that crashed is replaced.
    pub(crate) async fn settle(&self, id: &SagaId) -> SagaView {
        let mut runner = self.sagas.runner();
        for _ in 0..2_000 {
            let view = self.view(id).await;
            let waits = view.step == "heard" && view.why.contains("waits for the signal");
            if !view.state.is_active() || waits {
                return view;
            }
            match self.step_or_crash(&runner, id).await {
                Stepped::Moved => {}
                Stepped::NotDue => self.clock.advance(Duration::from_secs(1)),
                Stepped::Crashed => runner = self.sagas.runner(),
            }
        }
        panic!("it does not end: {:?}", self.view(id).await);
    }

    /// All done or all undone, nothing in between.
    pub(crate) async fn assert_clean(&self, view: &SagaView, case: &str) {
        match view.state {
            SagaState::Completed => {
                assert_eq!(self.held(), ["hold-a", "hold-b"], "{case}");
                assert_eq!(self.effects().await, ["confirmed", "finished"], "{case}");
                let data: Data = serde_json::from_value(view.data.clone()).unwrap();
                assert_eq!(data.heard.as_deref(), Some("Ada"), "{case}");
                assert_eq!(data.done, ["ask", "hold-a", "hold-b", "confirm", "finish"], "{case}");
            }
            SagaState::Cancelled => {
                assert_eq!(self.held(), [""; 0], "{case}");
                let effects = self.effects().await;
                assert_eq!(effects.len(), 1, "{case}: {effects:?}");
                let failure = view.failure.as_ref().unwrap();
                let expected = format!("cancelled {} {}", failure.step, failure.reason);
                assert_eq!(effects[0], expected, "{case}");
            }
            state => panic!("{case}: {state:?}: {view:?}"),
        }
        // Each try of a step had the same key.
        for (step, keys) in &self.world.0.lock().keys {
            assert_eq!(keys.len(), 1, "{case}: {step}");
        }
        self.db.execute("DELETE FROM effects", Vec::new()).await.unwrap();
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Stepped {
    Moved,
    NotDue,
    Crashed,
}
