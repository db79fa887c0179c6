//! What outbox and inbox promise about the turns of messages, as scenarios that run on any
//! database.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use chassis_core::{BoxFuture, Component, Env, Error, Ready, Result, Shutdown};
use chassis_data::{Backend, Db, Dialect, Tx, params};
use chassis_messaging::consumer::BatchConfig;
use chassis_messaging::inbox::Inbox;
use chassis_messaging::outbox::{Outbox, OutboxConfig};
use chassis_messaging::{Consumer, ConsumerConfig, Event, Message, Publisher};
use chassis_test::eventually;
use serde::{Deserialize, Serialize};

use super::scripted::Script;

const SOON: Duration = Duration::from_secs(20);
const PREVIOUS: &str = "x-previous";

#[derive(Debug, Serialize, Deserialize)]
struct Step {
    key: String,
    number: i64,
}

impl Event for Step {
    const TOPIC: &'static str = "steps.made";
    const TYPE: &'static str = "step-made.v1";
    const IN_TURN: bool = true;

    fn key(&self) -> Option<String> {
        Some(self.key.clone())
    }
}

fn step(key: &str, number: i64) -> Step {
    Step { key: key.to_owned(), number }
}

async fn set<B: Backend>(db: &Db<B>) -> Outbox<B> {
    let outbox = Outbox::new(db, "test");
    for migrations in [outbox.migrations(), Inbox::new(db).migrations()] {
        db.migrate(&migrations).await.unwrap();
    }
    // `place` is the order in which rows came: without it a read has none, and PostgreSQL shows rows
    // of several connections page by page.
    let place = match db.dialect() {
        Dialect::Sqlite => "INTEGER PRIMARY KEY",
        Dialect::Postgres => "BIGSERIAL PRIMARY KEY",
    };
    let sql =
        format!("CREATE TABLE made (place {place}, msg_key TEXT NOT NULL, number BIGINT NOT NULL)");
    db.execute(sqlx::AssertSqlSafe(sql), params![]).await.unwrap();
    outbox
}

async fn append<B: Backend>(outbox: &Outbox<B>, db: &Db<B>, step: Step) -> String {
    let mut tx = db.begin().await.unwrap();
    let id = outbox.append(&mut tx, &step).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// The id of the message before each message, by id; `None` for the first of a key.
async fn previous<B: Backend>(outbox: &Outbox<B>) -> HashMap<String, Option<String>> {
    let pending = outbox.pending(10_000).await.unwrap();
    let previous = |message: &Message| {
        let header = message.header(PREVIOUS).unwrap();
        (!header.is_empty()).then(|| header.split_once(' ').unwrap().1.to_owned())
    };
    pending.iter().map(|message| (message.id.clone(), previous(message))).collect()
}

/// A message names the last one of its key and topic that was committed.
pub(crate) async fn an_event_in_turn_names_the_one_before_it<B: Backend>(db: Db<B>) {
    let outbox = set(&db).await;
    let first = append(&outbox, &db, step("a", 1)).await;
    let other = append(&outbox, &db, step("b", 1)).await;
    let mut undone = db.begin().await.unwrap();
    outbox.append(&mut undone, &step("a", 9)).await.unwrap();
    undone.rollback().await;
    let second = append(&outbox, &db, step("a", 2)).await;
    let mut tx = db.begin().await.unwrap();
    let third = outbox.append(&mut tx, &step("a", 3)).await.unwrap();
    let fourth = outbox.append(&mut tx, &step("a", 4)).await.unwrap();
    let elsewhere = Message::new("steps.lost", "step-lost.v1", "{}").with_key("a").in_turn();
    let elsewhere = outbox.append_message(&mut tx, elsewhere).await.unwrap();
    // It has no place until it is due.
    outbox.append_after(&mut tx, Duration::from_secs(3600), &step("a", 5)).await.unwrap();
    tx.commit().await.unwrap();
    let found = previous(&outbox).await;
    let expected = [
        (first.clone(), None),
        (other, None),
        (second.clone(), Some(first)),
        (third.clone(), Some(second)),
        (fourth, Some(third)),
        (elsewhere, None),
    ];
    assert_eq!(found, HashMap::from(expected));
    let sql = "SELECT headers FROM chassis_outbox WHERE state = 3";
    let delayed = db.fetch_optional(sql, params![]).await.unwrap().unwrap();
    assert!(!delayed.text(0).unwrap().contains(PREVIOUS));
}

/// Those who append under one key at the same time stand in one line.
pub(crate) async fn writers_of_a_key_stand_in_one_line<B: Backend>(db: Db<B>) {
    const WRITERS: i64 = 6;
    const EACH: i64 = 10;
    let outbox = set(&db).await;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (db, outbox) = (db.clone(), outbox.clone());
        tasks.push(tokio::spawn(async move {
            for number in 0..EACH {
                append(&outbox, &db, step("hot", writer * EACH + number)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // In the order in which a relay reads them.
    let pending = outbox.pending(10_000).await.unwrap();
    assert_eq!(pending.len() as i64, WRITERS * EACH);
    let previous = previous(&outbox).await;
    let mut before = None;
    for message in &pending {
        assert_eq!(previous[&message.id], before);
        before = Some(message.id.clone());
    }
}

/// A key that was quiet for longer than it is remembered begins anew.
pub(crate) async fn quiet_keys_are_forgotten<B: Backend>(db: Db<B>) {
    let keep_turns = Duration::from_millis(1);
    let outbox = set(&db).await.with_config(OutboxConfig { keep_turns, ..OutboxConfig::default() });
    append(&outbox, &db, step("a", 1)).await;
    let (trigger, shutdown) = Shutdown::new();
    let relay = Box::new(outbox.relay(&Script::default().broker()));
    let relay = tokio::spawn(relay.run(Env::test("relay"), Ready::channel().0, shutdown));
    eventually("the key is forgotten", SOON, async || {
        let sql = "SELECT COUNT(*) FROM chassis_outbox_turn";
        let row = db.fetch_optional(sql, params![]).await.unwrap().unwrap();
        (row.int(0).unwrap() == 0).then_some(())
    })
    .await;
    trigger.shutdown(SOON);
    relay.await.unwrap().unwrap();
    let second = append(&outbox, &db, step("a", 2)).await;
    assert_eq!(previous(&outbox).await[&second], None);
}

/// Refuses the first step of each key for good.
#[derive(Clone, Default)]
struct Picky(Script);

impl Publisher for Picky {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        match message.to_event::<Step>() {
            Ok(step) if step.number == 1 => Box::pin(std::future::ready(Err(
                Error::invalid_argument("MESSAGE_TOO_LARGE", "too large"),
            ))),
            _ => self.0.publish(message),
        }
    }
}

/// A row that is parked is never published: those who wait for it are told in its place.
pub(crate) async fn nobody_waits_for_a_parked_row<B: Backend>(db: Db<B>) {
    let backoff = Duration::from_millis(10);
    let config = OutboxConfig { max_attempts: 2, backoff, ..OutboxConfig::default() };
    let outbox = set(&db).await.with_config(config);
    let first = append(&outbox, &db, step("a", 1)).await;
    let second = append(&outbox, &db, step("a", 2)).await;
    // One without a turn is parked without a word.
    let mut tx = db.begin().await.unwrap();
    let plain = serde_json::to_vec(&step("a", 1)).unwrap();
    let plain = Message::new(Step::TOPIC, Step::TYPE, plain).with_key("b");
    outbox.append_message(&mut tx, plain).await.unwrap();
    tx.commit().await.unwrap();
    let broker = Picky::default();
    let (trigger, shutdown) = Shutdown::new();
    let relay = Box::new(outbox.relay(&broker));
    let relay = tokio::spawn(relay.run(Env::test("relay"), Ready::channel().0, shutdown));
    eventually("both are parked", SOON, async || {
        (outbox.parked(10).await.unwrap().len() == 2).then_some(())
    })
    .await;
    let published = eventually("two messages", SOON, async || {
        let published = broker.0.published();
        (published.len() >= 2).then_some(published)
    })
    .await;
    trigger.shutdown(SOON);
    relay.await.unwrap().unwrap();
    assert_eq!(published.len(), 2);
    let told = published.iter().find(|message| message.kind == "chassis-given-up.v1").unwrap();
    assert_eq!(told.header("x-given-up"), Some(first.as_str()));
    assert_eq!((told.key.as_deref(), told.topic.as_str()), (Some("a"), Step::TOPIC));

    let script = broker.0;
    published.iter().for_each(|message| script.deliver(message, 1));
    let driver = script.broker();
    let consumer = Consumer::new(&driver, &db, "maker", ()).in_turn().on::<Step>(made);
    let (trigger, shutdown) = Shutdown::new();
    let running =
        tokio::spawn(Box::new(consumer).run(Env::test("x"), Ready::channel().0, shutdown));
    eventually("the second is handled", SOON, async || {
        let before = script.until_answers(0).await.len();
        published.iter().filter(|m| m.id == second).for_each(|m| script.deliver(m, 2));
        script.until_answers(before + 1).await;
        let made = db.fetch_all("SELECT number FROM made", params![]).await.unwrap();
        (made.len() == 1 && made[0].int(0).unwrap() == 2).then_some(())
    })
    .await;
    trigger.shutdown(SOON);
    running.await.unwrap().unwrap();
}

/// A row whose headers are damaged does not say any more what comes before it; those who wait
/// for it are told in its place all the same, and not before its turn.
pub(crate) async fn nobody_waits_for_a_damaged_row<B: Backend>(db: Db<B>) {
    let outbox = set(&db).await;
    let first = append(&outbox, &db, step("a", 1)).await;
    let mut damaged = Vec::new();
    for (number, damage) in [(2, "SUBSTR(headers, 1, LENGTH(headers) - 1)"), (3, "'not json'")] {
        let id = append(&outbox, &db, step("a", number)).await;
        append(&outbox, &db, step("b", number)).await;
        let sql = format!("UPDATE chassis_outbox SET headers = {damage} WHERE id = $1");
        db.execute(sqlx::AssertSqlSafe(sql), params![&id]).await.unwrap();
        damaged.push(id);
    }
    let broker = Script::default();
    let (trigger, shutdown) = Shutdown::new();
    let relay = Box::new(outbox.relay(&broker.broker()));
    let relay = tokio::spawn(relay.run(Env::test("relay"), Ready::channel().0, shutdown));
    let told = eventually("both are told of", SOON, async || {
        let mut told = broker.published();
        told.retain(|message| message.kind == "chassis-given-up.v1");
        (told.len() >= 2).then_some(told)
    })
    .await;
    trigger.shutdown(SOON);
    relay.await.unwrap().unwrap();
    let parked = outbox.parked(10).await.unwrap();
    assert_eq!(parked.iter().map(|row| &row.id).collect::<Vec<_>>(), [&damaged[0], &damaged[1]]);
    let previous =
        |message: &Message| message.header(PREVIOUS).unwrap().split_once(' ').unwrap().1.to_owned();
    let of = |id: &str| told.iter().find(|message| message.header("x-given-up") == Some(id));
    assert_eq!(previous(of(&damaged[0]).unwrap()), first);
    // What the first one left of its headers still says that it had a turn; what comes before
    // it is what is waited for then.
    let second = previous(of(&damaged[1]).unwrap());
    assert!(second == first || second == damaged[0], "{second}");
    assert!(told.iter().all(|message| message.key.as_deref() == Some("a")));
}

async fn made<B: Backend>(_: (), tx: &mut Tx<B>, step: Step) -> Result<()> {
    let sql = "INSERT INTO made (msg_key, number) VALUES ($1, $2)";
    tx.execute(sql, params![step.key, step.number]).await.map(drop)
}

async fn all_made<B: Backend>(_: (), tx: &mut Tx<B>, steps: Vec<Step>) -> Result<()> {
    for step in steps {
        made((), tx, step).await?;
    }
    Ok(())
}

/// Whatever the order in which they are delivered, and however often, they take effect in
/// their order: one by one, and in batches.
pub(crate) async fn shuffled_messages_take_effect_in_their_order<B: Backend>(db: Db<B>) {
    const KEYS: [&str; 3] = ["a", "b", "c"];
    const EACH: i64 = 5;
    let outbox = set(&db).await;
    for number in 1..=EACH {
        for key in KEYS {
            append(&outbox, &db, step(key, number)).await;
        }
    }
    let messages = outbox.pending(10_000).await.unwrap();
    for batches in [false, true] {
        db.execute("DELETE FROM made", params![]).await.unwrap();
        let script = Script::default();
        let broker = script.broker();
        let group = if batches { "batches" } else { "singles" };
        let batch = BatchConfig { size: 10, within: Duration::from_millis(20), lanes: 2 };
        let consumer = Consumer::new(&broker, &db, group, ())
            .with_config(ConsumerConfig { batch, ..ConsumerConfig::default() })
            .in_turn();
        let consumer = match batches {
            true => consumer.on_batch::<Step>(all_made),
            false => consumer.on::<Step>(made),
        };
        let (trigger, shutdown) = Shutdown::new();
        let running =
            tokio::spawn(Box::new(consumer).run(Env::test("x"), Ready::channel().0, shutdown));
        let mut rng = fastrand::Rng::with_seed(7);
        let mut attempt = 0;
        let rows = eventually("all effects", SOON, async || {
            attempt += 1;
            let mut again = [messages.as_slice(), messages.as_slice()].concat();
            rng.shuffle(&mut again);
            let before = script.until_answers(0).await.len();
            again.iter().for_each(|message| script.deliver(message, attempt));
            script.until_answers(before + again.len()).await;
            let sql = "SELECT msg_key, number FROM made ORDER BY place";
            let rows = db.fetch_all(sql, params![]).await.unwrap();
            (rows.len() as i64 >= EACH * KEYS.len() as i64).then_some(rows)
        })
        .await;
        for key in KEYS {
            let of_key = rows.iter().filter(|row| row.text(0).unwrap() == key);
            let numbers: Vec<i64> = of_key.map(|row| row.int(1).unwrap()).collect();
            assert_eq!(numbers, (1..=EACH).collect::<Vec<_>>(), "{group} {key}");
        }
        trigger.shutdown(SOON);
        running.await.unwrap().unwrap();
    }
}
