//! What an outbox promises, as scenarios that run on any database.
//!
//! The broker is a fake whose answers the scenario decides. Each scenario gets a
//! fresh database of its own.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis_core::{
    BoxFuture, Code, Component, Context, Env, Error, Ready, Result, Shutdown, ShutdownTrigger,
    SpanKind, TraceContext,
};
use chassis_data::{Backend, Db, Dialect, params};
use chassis_messaging::outbox::{Clock, Outbox, OutboxConfig};
use chassis_messaging::{Event, Message, Publisher};
use chassis_test::eventually;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

pub(crate) const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ItemAdded {
    pub(crate) key: String,
    pub(crate) number: u32,
}

impl Event for ItemAdded {
    const TOPIC: &'static str = "items.added";
    const TYPE: &'static str = "item-added.v1";

    fn key(&self) -> Option<String> {
        Some(self.key.clone())
    }
}

/// What the fake broker does with a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Accept,
    /// Stored, but the acknowledgement is lost.
    AcceptSilently,
    Refuse,
    Away,
}

type Decide = Box<dyn FnMut(&Message) -> Answer + Send>;

/// A broker in memory that answers as it is told.
#[derive(Clone)]
pub(crate) struct Fake {
    decide: Arc<parking_lot::Mutex<Decide>>,
    /// Each message in the order of its arrival, with repetitions.
    stored: Arc<parking_lot::Mutex<Vec<Message>>>,
    pub(crate) calls: Arc<AtomicU32>,
    /// A publish takes one permit before it is answered.
    pub(crate) gate: Arc<Semaphore>,
    /// The only key whose messages stop at the gate; `None`: all do.
    gated: Option<&'static str>,
}

impl Fake {
    fn new(decide: impl FnMut(&Message) -> Answer + Send + 'static) -> Fake {
        Fake {
            decide: Arc::new(parking_lot::Mutex::new(Box::new(decide))),
            stored: Arc::default(),
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            gated: None,
        }
    }

    pub(crate) fn accepting() -> Fake {
        Fake::new(|_| Answer::Accept)
    }

    pub(crate) fn behind_a_gate() -> Fake {
        Fake { gate: Arc::new(Semaphore::new(0)), ..Fake::accepting() }
    }

    fn now_accept(&self) {
        *self.decide.lock() = Box::new(|_| Answer::Accept);
    }

    pub(crate) fn stored(&self) -> Vec<Message> {
        self.stored.lock().clone()
    }

    /// Payload numbers by key, first arrivals only.
    fn numbers(&self) -> BTreeMap<String, Vec<u32>> {
        let mut seen = HashSet::new();
        let mut numbers: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for message in self.stored() {
            if seen.insert(message.id.clone()) {
                let item: ItemAdded = message.to_event().unwrap();
                numbers.entry(item.key).or_default().push(item.number);
            }
        }
        numbers
    }
}

impl Publisher for Fake {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.gated.is_none() || self.gated == message.key.as_deref() {
                self.gate.acquire().await.unwrap().forget();
            }
            let answer = (self.decide.lock())(&message);
            tokio::task::yield_now().await;
            match answer {
                Answer::Accept => self.stored.lock().push(message),
                Answer::AcceptSilently => {
                    self.stored.lock().push(message);
                    return Err(Error::deadline_exceeded("NO_ACK", "the answer was lost"));
                }
                Answer::Refuse => return Err(Error::new(Code::Internal, "REFUSED", "no, thanks")),
                Answer::Away => return Err(Error::unavailable("AWAY", "nobody home")),
            }
            Ok(())
        })
    }
}

pub(crate) fn quick() -> OutboxConfig {
    OutboxConfig {
        poll: Duration::from_millis(20),
        lease: Duration::from_millis(600),
        backoff: Duration::from_millis(2),
        max_backoff: Duration::from_millis(20),
        max_attempts: 1_000_000,
        ..OutboxConfig::default()
    }
}

pub(crate) async fn outbox<B: Backend>(db: &Db<B>, config: OutboxConfig) -> Outbox<B> {
    let outbox = Outbox::new(db, "tester").with_config(config);
    db.migrate(&outbox.migrations()).await.unwrap();
    outbox
}

pub(crate) struct Running {
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
    pub(crate) env: Env,
}

impl Running {
    pub(crate) async fn start<B: Backend, P: Publisher + Clone>(
        outbox: &Outbox<B>,
        broker: &P,
    ) -> Running {
        let env = Env::test("relay");
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let relay = Box::new(outbox.relay(broker));
        let task = tokio::spawn(relay.run(env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        Running { trigger, task, env }
    }

    pub(crate) async fn stop(self, drain: Duration) {
        self.trigger.shutdown(drain);
        self.task.await.unwrap().unwrap();
    }

    /// Ends it as a killed process ends: nothing more is written.
    pub(crate) async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub(crate) async fn append<B: Backend>(
    db: &Db<B>,
    outbox: &Outbox<B>,
    key: &str,
    number: u32,
) -> String {
    let mut tx = db.begin().await.unwrap();
    let event = ItemAdded { key: key.to_owned(), number };
    let id = outbox.append(&mut tx, &event).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// Rows by state: pending, published, parked.
pub(crate) async fn states<B: Backend>(db: &Db<B>) -> [i64; 3] {
    let sql = "SELECT state, COUNT(*) FROM chassis_outbox GROUP BY state";
    // Delayed ones come last and are left out.
    let mut states = [0; 4];
    for row in db.fetch_all(sql, Vec::new()).await.unwrap() {
        states[usize::try_from(row.int(0).unwrap()).unwrap()] = row.int(1).unwrap();
    }
    let [pending, published, parked, _] = states;
    [pending, published, parked]
}

pub(crate) async fn until_states<B: Backend>(db: &Db<B>, what: &str, expected: [i64; 3]) {
    eventually(what, SOON, async || (states(db).await == expected).then_some(())).await;
}

/// Order per key under lost answers, refusals and outages, with several relays.
pub(crate) async fn order_per_key_survives_failures<B: Backend>(db: Db<B>, relays: usize) {
    const KEYS: u32 = 12;
    const ROWS: u32 = 12;
    let outbox = outbox(&db, quick()).await;
    let mut dice = fastrand::Rng::with_seed(7);
    let broker = Fake::new(move |_| match dice.u8(..10) {
        0 => Answer::Refuse,
        1 => Answer::Away,
        2 => Answer::AcceptSilently,
        _ => Answer::Accept,
    });
    let mut running = Vec::new();
    for _ in 0..relays {
        // Handles of their own, as in processes of their own.
        let other = Outbox::new(&db, "tester").with_config(quick());
        running.push(Running::start(&other, &broker).await);
    }
    eventually("all relays hold a share", SOON, async || {
        let sql = "SELECT COUNT(DISTINCT owner) FROM chassis_outbox_lease WHERE owner <> ''";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        (row.int(0).unwrap() == relays as i64).then_some(())
    })
    .await;
    for number in 0..ROWS {
        for key in 0..KEYS {
            append(&db, &outbox, &format!("key-{key}"), number).await;
        }
    }
    until_states(&db, "all rows are published", [0, i64::from(KEYS * ROWS), 0]).await;
    for relay in running {
        relay.stop(SOON).await;
    }
    let numbers = broker.numbers();
    assert_eq!(numbers.len(), KEYS as usize);
    for (key, numbers) in numbers {
        assert_eq!(numbers, (0..ROWS).collect::<Vec<_>>(), "{key}");
    }
}

/// Rolled back is never published, committed is, and the wake-up needs no poll.
pub(crate) async fn only_what_commits_is_published_and_at_once<B: Backend>(db: Db<B>) {
    let slow = OutboxConfig { poll: Duration::from_secs(3600), ..quick() };
    let outbox = outbox(&db, OutboxConfig { lease: Duration::from_secs(3600), ..slow }).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let mut tx = db.begin().await.unwrap();
    let event = ItemAdded { key: "ghost".into(), number: 1 };
    outbox.append(&mut tx, &event).await.unwrap();
    tx.rollback().await;
    append(&db, &outbox, "real", 1).await;
    eventually("the commit woke the relay", SOON, async || {
        (!broker.stored().is_empty()).then_some(())
    })
    .await;
    relay.stop(SOON).await;
    assert_eq!(broker.numbers(), BTreeMap::from([("real".to_owned(), vec![1])]));
}

/// A row that is refused again and again is parked with its reason, its key
/// goes on, and it can be tried again.
pub(crate) async fn poison_is_parked_and_blocks_only_its_key<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { max_attempts: 3, ..quick() };
    let outbox = outbox(&db, config).await;
    let poison = append(&db, &outbox, "a", 1).await;
    append(&db, &outbox, "a", 2).await;
    append(&db, &outbox, "b", 1).await;
    let refused = poison.clone();
    let attempts = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = attempts.clone();
    let broker = Fake::new(move |message| {
        seen.lock().push((message.key.clone().unwrap(), message.id == refused));
        if message.id == refused { Answer::Refuse } else { Answer::Accept }
    });
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "the poison is parked, the rest published", [0, 2, 1]).await;
    let of_a: Vec<bool> =
        attempts.lock().iter().filter(|(key, _)| key == "a").map(|(_, poison)| *poison).collect();
    assert_eq!(of_a, [true, true, true, false], "three tries, and only then the next row");
    let parked = outbox.parked(10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].id.as_str(), parked[0].attempts), (poison.as_str(), 3));
    assert!(parked[0].reason.contains("no, thanks"), "{}", parked[0].reason);

    broker.now_accept();
    assert!(outbox.retry_parked(parked[0].seq).await.unwrap());
    assert!(!outbox.retry_parked(parked[0].seq).await.unwrap());
    until_states(&db, "the parked row is published", [0, 3, 0]).await;
    relay.stop(SOON).await;
    assert!(broker.stored().iter().any(|message| message.id == poison));
}

/// A row with damaged content or damaged headers is parked with the reason, never
/// published in part, and its key goes on. Mended, it is published as it was meant.
pub(crate) async fn a_damaged_row_is_parked_and_stops_nobody<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::accepting();
    let mut damages = vec![
        "headers = 'not JSON'",
        "headers = ''",
        "headers = '[\"tenant\"]'",
        "headers = '{\"tenant\": 7}'",
        "headers = '{\"tenant\": \"one\"'",
    ];
    if db.dialect() == Dialect::Sqlite {
        // A typed column of PostgreSQL holds what it says.
        damages.push("payload = 'not bytes'");
    }
    let mut damaged = Vec::new();
    let mut tx = db.begin().await.unwrap();
    for damage in &damages {
        let message = Message::event("tester", &ItemAdded { key: "key".into(), number: 1 });
        let message = message.unwrap().with_header("tenant", "one");
        let id = outbox.append_message(&mut tx, message).await.unwrap();
        let sql = format!("UPDATE chassis_outbox SET {damage} WHERE id = $1");
        assert_eq!(tx.execute(AssertSqlSafe(sql), params![id.clone()]).await.unwrap(), 1);
        damaged.push(id);
    }
    tx.commit().await.unwrap();
    append(&db, &outbox, "key", 2).await;
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "the rest is published", [0, 1, damages.len() as i64]).await;
    assert_eq!(broker.numbers()["key"], [2], "a message without its headers is another one");
    let parked = outbox.parked(10).await.unwrap();
    assert_eq!(parked.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), damaged);
    for row in parked.iter().take(5) {
        assert!(row.reason.starts_with("OUTBOX_ROW_DAMAGED: "), "{}", row.reason);
    }
    assert!(parked.iter().all(|row| !row.reason.is_empty()));
    // Still damaged: parked again.
    assert!(outbox.retry_parked(parked[0].seq).await.unwrap());
    until_states(&db, "parked again", [0, 1, damages.len() as i64]).await;
    let mend = "UPDATE chassis_outbox SET headers = '{\"tenant\":\"one\"}' WHERE seq = $1";
    db.execute(mend, params![parked[0].seq]).await.unwrap();
    assert!(outbox.retry_parked(parked[0].seq).await.unwrap());
    until_states(&db, "mended", [0, 2, damages.len() as i64 - 1]).await;
    relay.stop(SOON).await;
    let mended = broker.stored().into_iter().find(|message| message.id == damaged[0]).unwrap();
    assert_eq!(mended.header("tenant"), Some("one"));
}

/// A broker that does not answer costs no attempt.
pub(crate) async fn an_outage_parks_nothing<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { max_attempts: 1, ..quick() };
    let outbox = outbox(&db, config).await;
    for number in 0..20 {
        append(&db, &outbox, &format!("key-{}", number % 5), number).await;
    }
    let mut left = 30;
    let broker = Fake::new(move |_| {
        left -= 1;
        if left > 0 { Answer::Away } else { Answer::Accept }
    });
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "the broker is back and has everything", [0, 20, 0]).await;
    relay.stop(SOON).await;
}

/// A row whose transaction commits after that of a later row is not skipped.
pub(crate) async fn a_late_commit_is_not_skipped<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let late = ItemAdded { key: "late".into(), number: 1 };
    match db.dialect() {
        Dialect::Postgres => {
            let mut open = db.begin().await.unwrap();
            outbox.append(&mut open, &late).await.unwrap();
            append(&db, &outbox, "early", 2).await;
            until_states(&db, "the later row is published", [0, 1, 0]).await;
            open.commit().await.unwrap();
        }
        // One writer at a time: the same picture, painted by hand.
        Dialect::Sqlite => {
            for number in 0..5 {
                append(&db, &outbox, "early", number).await;
            }
            until_states(&db, "the later rows are published", [0, 5, 0]).await;
            let mut tx = db.begin().await.unwrap();
            let id = outbox.append(&mut tx, &late).await.unwrap();
            let sql = "UPDATE chassis_outbox SET seq = -1 WHERE id = $1";
            assert_eq!(tx.execute(sql, params![id]).await.unwrap(), 1);
            tx.commit().await.unwrap();
        }
    }
    eventually("the late row is published", SOON, async || {
        broker.numbers().contains_key("late").then_some(())
    })
    .await;
    relay.stop(SOON).await;
}

/// Published rows stay for the grace window and are then removed; others stay.
pub(crate) async fn grace_then_clean_up<B: Backend>(db: Db<B>) {
    let clock = Clock::manual(1_000_000);
    let config = OutboxConfig {
        max_attempts: 1,
        grace: Duration::from_secs(3600),
        clean_every: Duration::from_millis(10),
        clean_batch: 2,
        ..quick()
    };
    let outbox = outbox(&db, config).await.with_clock(clock.clone());
    let poison = append(&db, &outbox, "poison", 0).await;
    for number in 1..=5 {
        append(&db, &outbox, "key", number).await;
    }
    let broker = Fake::new(
        move |message| {
            if message.id == poison { Answer::Refuse } else { Answer::Accept }
        },
    );
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "published or parked", [0, 5, 1]).await;
    clock.advance(Duration::from_secs(3599));
    append(&db, &outbox, "key", 6).await;
    until_states(&db, "nothing is removed within the window", [0, 6, 1]).await;
    clock.advance(Duration::from_secs(10));
    until_states(&db, "the five old ones are gone", [0, 1, 1]).await;
    relay.stop(SOON).await;
}

/// A replay publishes again under the same ids what is still in the window.
pub(crate) async fn a_replay_publishes_again<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    for number in 0..3 {
        append(&db, &outbox, "key", number).await;
    }
    until_states(&db, "published", [0, 3, 0]).await;
    assert_eq!(outbox.replay(Duration::from_secs(60)).await.unwrap(), 3);
    eventually("published twice", SOON, async || (broker.stored().len() == 6).then_some(())).await;
    relay.stop(SOON).await;
    let mut times: HashMap<String, u32> = HashMap::new();
    broker.stored().into_iter().for_each(|message| *times.entry(message.id).or_default() += 1);
    assert!(times.values().all(|&n| n == 2), "{times:?}");
}

/// A relay that lost its lease while a publish was under way marks nothing.
pub(crate) async fn a_fenced_relay_marks_nothing<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { lease: Duration::from_secs(3600), ..quick() };
    let outbox = outbox(&db, config).await;
    let broker = Fake::behind_a_gate();
    let relay = Running::start(&outbox, &broker).await;
    let id = append(&db, &outbox, "a", 1).await;
    eventually("the publish is under way", SOON, async || {
        (broker.calls.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    // Another relay takes the partition over, as if this one had been paused.
    let sql = "UPDATE chassis_outbox_lease SET owner = 'thief', token = token + 1
        WHERE part = (SELECT part FROM chassis_outbox WHERE id = $1)";
    assert_eq!(db.execute(sql, params![id.clone()]).await.unwrap(), 1);
    let sql = "SELECT part FROM chassis_outbox WHERE id = $1";
    let stolen = db.fetch_optional(sql, params![id.clone()]).await.unwrap().unwrap();
    // Rows of partitions that it still holds, so that its progress can be seen.
    let mut others = 0;
    for number in 0..40 {
        let other = append(&db, &outbox, &format!("other-{number}"), 1).await;
        let row = db.fetch_optional(sql, params![other]).await.unwrap().unwrap();
        others += i64::from(row.int(0).unwrap() != stolen.int(0).unwrap());
    }
    broker.gate.add_permits(1000);
    eventually("the other partitions go on", SOON, async || {
        (states(&db).await[1] == others).then_some(())
    })
    .await;
    let sql = "SELECT state FROM chassis_outbox WHERE id = $1";
    let row = db.fetch_optional(sql, params![id]).await.unwrap().unwrap();
    assert_eq!(row.int(0).unwrap(), 0, "it is the thief's to mark");
    relay.stop(SOON).await;
    assert_eq!(states(&db).await, [41 - others, others, 0]);
}

/// On shutdown what is there is flushed, and the leases are free at once.
pub(crate) async fn a_drain_flushes_and_leaves<B: Backend>(db: Db<B>) {
    let config = OutboxConfig {
        poll: Duration::from_secs(3600),
        lease: Duration::from_secs(3600),
        ..quick()
    };
    let outbox = outbox(&db, config.clone()).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    // Appended by another process: nothing wakes the relay here.
    let other = Outbox::new(&db, "tester").with_config(config);
    for number in 0..30 {
        append(&db, &other, "key", number).await;
    }
    relay.stop(SOON).await;
    assert_eq!(states(&db).await, [0, 30, 0]);
    let sql = "SELECT COUNT(*) FROM chassis_outbox_lease WHERE owner <> '' OR expires_at > 0";
    let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
    assert_eq!(row.int(0).unwrap(), 0);
}

/// On shutdown with a broker that is away, the deadline ends the drain.
pub(crate) async fn a_drain_ends_at_its_deadline<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::new(|_| Answer::Away);
    let relay = Running::start(&outbox, &broker).await;
    append(&db, &outbox, "key", 1).await;
    relay.stop(Duration::from_millis(50)).await;
    assert_eq!(states(&db).await, [1, 0, 0], "kept for the next start");
}

/// The publish is a child of the span that appended, and the message carries it.
pub(crate) async fn the_trace_goes_through<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let caller = Context::background(&Env::test("caller")).with_request_id("request-1");
    caller.clone().scope(append(&db, &outbox, "key", 1)).await;
    until_states(&db, "published", [0, 1, 0]).await;
    let spans = relay.env.captured_spans();
    relay.stop(SOON).await;
    assert_eq!(spans.len(), 1);
    assert_eq!(
        (spans[0].kind, spans[0].name.as_ref()),
        (SpanKind::Producer, "publish items.added")
    );
    assert_eq!(spans[0].trace.trace_id, caller.trace().trace_id);
    assert_eq!(spans[0].trace.parent, Some(caller.trace().span_id));
    let message = &broker.stored()[0];
    let carried = TraceContext::parse(message.header("traceparent").unwrap()).unwrap();
    assert_eq!(carried.trace_id, caller.trace().trace_id);
    assert_eq!(carried.span_id, spans[0].trace.span_id);
    // The handler's span is below the publish; this links it to what appended.
    let appended = caller.trace().span_id.to_string();
    assert_eq!(message.header("x-appended-by"), Some(&*appended));
    assert_eq!(message.header("x-request-id"), Some("request-1"));
}

/// A delayed row is published when it is due and not before, and holds back nothing of
/// its key; one that was rolled back never is.
pub(crate) async fn a_delayed_row_waits_and_blocks_nobody<B: Backend>(db: Db<B>) {
    let clock = Clock::manual(1_000_000);
    let outbox = outbox(&db, quick()).await.with_clock(clock.clone());
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let later = async |at: i64, number: u32| {
        let mut tx = db.begin().await.unwrap();
        let event = ItemAdded { key: "key".to_owned(), number };
        outbox.append_at(&mut tx, at, &event).await.unwrap();
        tx
    };
    later(1_060_000, 2).await.commit().await.unwrap();
    later(1_030_000, 1).await.commit().await.unwrap();
    later(1_010_000, 9).await.rollback().await;
    append(&db, &outbox, "key", 0).await;
    let numbers = async |expected: &[u32]| {
        eventually("published so far", SOON, async || {
            (broker.numbers().get("key").map(Vec::as_slice) == Some(expected)).then_some(())
        })
        .await;
    };
    let delayed = relay.env.metrics().gauge("outbox_delayed", "", &[]);
    numbers(&[0]).await;
    eventually("two wait", SOON, async || (delayed.get() == 2).then_some(())).await;
    clock.advance(Duration::from_secs(29));
    append(&db, &outbox, "key", 3).await;
    numbers(&[0, 3]).await;
    clock.advance(Duration::from_secs(1));
    numbers(&[0, 3, 1]).await;
    // Another relay finds what this one leaves.
    relay.stop(SOON).await;
    let relay = Running::start(&outbox, &broker).await;
    clock.advance(Duration::from_secs(30));
    numbers(&[0, 3, 1, 2]).await;
    relay.stop(SOON).await;
}

/// A delayed row is listed until it is due, and can be taken back, by the service in a
/// transaction and by an operator.
pub(crate) async fn a_delayed_row_is_listed_and_cancelled<B: Backend>(db: Db<B>) {
    let clock = Clock::manual(1_000_000);
    let outbox = outbox(&db, quick()).await.with_clock(clock.clone());
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let mut ids = Vec::new();
    let mut tx = db.begin().await.unwrap();
    for (number, at) in [(3, 1_030_000), (1, 1_010_000), (2, 1_020_000), (4, 1_040_000)] {
        let event = ItemAdded { key: "key".to_owned(), number };
        ids.push(outbox.append_at(&mut tx, at, &event).await.unwrap());
    }
    tx.commit().await.unwrap();
    let ask = async |name: &str, args: serde_json::Value| {
        relay.env.operations().run(name, args, true).await
    };
    let due = async |outbox: &Outbox<B>| {
        let delayed = outbox.delayed(10).await.unwrap();
        delayed.iter().map(|row| row.due_at).collect::<Vec<_>>()
    };
    assert_eq!(due(&outbox).await, [1_010_000, 1_020_000, 1_030_000, 1_040_000]);
    let listed = ask("outbox/delayed", json!({ "limit": "1" })).await.unwrap();
    let first = json!([{ "id": ids[1], "topic": "items.added", "type": "item-added.v1",
        "key": "key", "due_at": 1_010_000 }]);
    assert_eq!(listed, first);

    // Rolled back, it stays.
    let mut tx = db.begin().await.unwrap();
    assert!(outbox.cancel(&mut tx, &ids[2]).await.unwrap());
    tx.rollback().await;
    assert_eq!(due(&outbox).await.len(), 4);
    let mut tx = db.begin().await.unwrap();
    assert!(outbox.cancel(&mut tx, &ids[2]).await.unwrap());
    assert!(!outbox.cancel(&mut tx, &ids[2]).await.unwrap(), "once");
    tx.commit().await.unwrap();
    assert_eq!(ask("outbox/cancel", json!({ "id": ids[0] })).await.unwrap()["rows"], 1);
    let gone = ask("outbox/cancel", json!({ "id": ids[0] })).await.unwrap_err();
    assert_eq!(gone.reason(), "ROW_NOT_DELAYED");
    assert_eq!(due(&outbox).await, [1_010_000, 1_040_000]);

    clock.advance(Duration::from_secs(60));
    until_states(&db, "the others are published", [0, 2, 0]).await;
    assert_eq!(broker.numbers()["key"].iter().copied().collect::<HashSet<_>>(), [1, 4].into());
    let late = ask("outbox/cancel", json!({ "id": ids[1] })).await.unwrap_err();
    assert_eq!(late.reason(), "ROW_NOT_DELAYED", "what was published is not called back");
    assert_eq!(ask("outbox/delayed", json!({})).await.unwrap(), json!([]));
    relay.stop(SOON).await;
}

/// By the clock of the machine, as a service does it.
pub(crate) async fn a_delay_passes_by_itself<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, OutboxConfig { poll: SOON * 10, ..quick() }).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let started = tokio::time::Instant::now();
    let mut tx = db.begin().await.unwrap();
    let event = ItemAdded { key: "key".to_owned(), number: 1 };
    let delay = Duration::from_millis(300);
    outbox.append_after(&mut tx, delay, &event).await.unwrap();
    tx.commit().await.unwrap();
    eventually("it is published", SOON, async || (!broker.stored().is_empty()).then_some(())).await;
    // The clocks of database and machine may differ a little.
    assert!(started.elapsed() >= delay.mul_f64(0.8), "after {:?}", started.elapsed());
    relay.stop(SOON).await;
}

/// Depth, age and counts are shown.
pub(crate) async fn the_backlog_is_shown<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { lease: Duration::from_millis(60), ..quick() };
    let outbox = outbox(&db, config).await;
    let broker = Fake::behind_a_gate();
    let relay = Running::start(&outbox, &broker).await;
    for number in 0..3 {
        append(&db, &outbox, "key", number).await;
    }
    let depth = relay.env.metrics().gauge("outbox_depth", "", &[]);
    eventually("three wait", SOON, async || (depth.get() == 3).then_some(())).await;
    broker.gate.add_permits(1000);
    eventually("none waits", SOON, async || (depth.get() == 0).then_some(())).await;
    let published = relay.env.metrics().counter("outbox_published", "", &[]);
    assert!(published.get() >= 3);
    relay.stop(SOON).await;
}

/// Appends and relays at the same time from many tasks: nothing is lost.
pub(crate) async fn nothing_is_lost_among_many_writers<B: Backend>(db: Db<B>) {
    let outbox = outbox(&db, quick()).await;
    let broker = Fake::accepting();
    let relay = Running::start(&outbox, &broker).await;
    let ids = Arc::new(Mutex::new(HashSet::new()));
    let mut writers = Vec::new();
    for writer in 0..8 {
        let (db, outbox, ids) = (db.clone(), outbox.clone(), ids.clone());
        writers.push(tokio::spawn(async move {
            for number in 0..20 {
                let id = append(&db, &outbox, &format!("writer-{writer}"), number).await;
                ids.lock().await.insert(id);
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    until_states(&db, "published", [0, 160, 0]).await;
    relay.stop(SOON).await;
    let stored: HashSet<String> = broker.stored().into_iter().map(|message| message.id).collect();
    assert_eq!(stored, *ids.lock().await);
    for (writer, numbers) in broker.numbers() {
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{writer}");
    }
}

/// What an operator may ask: how it stands, what was given up, again, away, replay.
pub(crate) async fn an_operator_looks_and_helps<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { max_attempts: 1, ..quick() };
    let outbox = outbox(&db, config).await;
    let broker = Fake::new(|_| Answer::Refuse);
    for number in 0..3 {
        append(&db, &outbox, "key", number).await;
    }
    let pending = outbox.pending(2).await.unwrap();
    assert_eq!(pending[0].to_event::<ItemAdded>().unwrap().number, 0);
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "all are parked", [0, 0, 3]).await;
    let ask = async |name: &str, args: serde_json::Value| {
        relay.env.operations().run(name, args, true).await
    };
    let status = ask("outbox/status", json!({})).await.unwrap();
    assert_eq!((&status["depth"], &status["parked"]), (&json!(0), &json!(3)));
    let held = status["partitions"]["held"].as_object().unwrap();
    assert_eq!(held.values().next().unwrap().as_array().unwrap().len(), 16);

    let parked = ask("outbox/parked", json!({ "limit": "2" })).await.unwrap();
    let parked = parked.as_array().unwrap();
    assert_eq!(parked.len(), 2);
    assert!(parked[0]["reason"].as_str().unwrap().contains("no, thanks"), "{parked:?}");

    broker.now_accept();
    let seq = &parked[0]["seq"];
    assert_eq!(ask("outbox/retry", json!({ "seq": seq })).await.unwrap()["rows"], 1);
    until_states(&db, "one is published", [0, 1, 2]).await;
    let gone = ask("outbox/retry", json!({ "seq": seq })).await.unwrap_err();
    assert_eq!(gone.reason(), "ROW_NOT_PARKED");
    let seq = &parked[1]["seq"];
    assert_eq!(ask("outbox/discard", json!({ "seq": seq })).await.unwrap()["rows"], 1);
    assert_eq!(ask("outbox/retry", json!({ "seq": "all" })).await.unwrap()["rows"], 1);
    until_states(&db, "the last one is published", [0, 2, 0]).await;
    assert_eq!(ask("outbox/discard", json!({ "seq": "all" })).await.unwrap()["rows"], 0);

    assert_eq!(ask("outbox/replay", json!({ "since": "10m" })).await.unwrap()["rows"], 2);
    eventually("published twice", SOON, async || (broker.stored().len() == 4).then_some(())).await;
    until_states(&db, "and marked again", [0, 2, 0]).await;
    assert_eq!(ask("outbox/pending", json!({})).await.unwrap(), json!([]));
    let future = json!({ "since": i64::MAX });
    assert_eq!(ask("outbox/replay", future).await.unwrap()["rows"], 0);
    assert!(ask("outbox/replay", json!({ "since": "soon" })).await.is_err());
    relay.stop(SOON).await;
}

/// A key whose messages the broker does not answer, with a backlog far beyond the
/// window, keeps no other key from being published; and it loses its order to
/// nobody when it goes on.
pub(crate) async fn a_hot_key_delays_no_other<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { window: 32, per_key: 8, max_in_flight: 16, ..quick() };
    let outbox = outbox(&db, config).await;
    let mut tx = db.begin().await.unwrap();
    for number in 0..300 {
        let event = ItemAdded { key: "hot".into(), number };
        outbox.append(&mut tx, &event).await.unwrap();
    }
    // All partitions, the one of the hot key among them.
    for key in 0..60 {
        let event = ItemAdded { key: format!("calm-{key}"), number: 0 };
        outbox.append(&mut tx, &event).await.unwrap();
    }
    tx.commit().await.unwrap();
    let broker = Fake { gated: Some("hot"), ..Fake::behind_a_gate() };
    let relay = Running::start(&outbox, &broker).await;
    until_states(&db, "the others are published", [300, 60, 0]).await;
    broker.gate.add_permits(10_000);
    until_states(&db, "all are published", [0, 360, 0]).await;
    relay.stop(SOON).await;
    assert_eq!(broker.numbers()["hot"], (0..300).collect::<Vec<_>>());
}

/// Large rows wait in the table, not in memory; a row larger than the whole window
/// gets through, and those behind it keep their places.
pub(crate) async fn what_is_held_is_bounded_in_bytes<B: Backend>(db: Db<B>) {
    let config = OutboxConfig { window_bytes: 150_000, ..quick() };
    let outbox = outbox(&db, config).await;
    let mut ids = Vec::new();
    let mut tx = db.begin().await.unwrap();
    for number in 0..12_usize {
        let bytes = if number == 5 { 400_000 } else { 60_000 };
        let key = format!("key-{}", number % 3);
        let message = Message::new("items.large", "item.v1", vec![7; bytes]).with_key(key);
        ids.push(outbox.append_message(&mut tx, message).await.unwrap());
    }
    tx.commit().await.unwrap();
    let broker = Fake::behind_a_gate();
    let relay = Running::start(&outbox, &broker).await;
    eventually("what fits is under way", SOON, async || {
        (broker.calls.load(Ordering::SeqCst) == 2).then_some(())
    })
    .await;
    broker.gate.add_permits(1000);
    until_states(&db, "all are published", [0, 12, 0]).await;
    relay.stop(SOON).await;
    for key in 0..3 {
        let of_key = broker.stored().into_iter().filter(|m| m.key == Some(format!("key-{key}")));
        let expected: Vec<_> = ids.iter().skip(key).step_by(3).cloned().collect();
        assert_eq!(of_key.map(|m| m.id).collect::<Vec<_>>(), expected);
    }
    assert!(broker.stored().iter().any(|message| message.payload.len() == 400_000));
}
