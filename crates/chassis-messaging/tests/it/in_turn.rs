//! What a consumer that takes messages in turn does with those that come out of it.

use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::Tx;
use chassis_messaging::broker::Answer;
use chassis_messaging::consumer::{BatchConfig, InTurnConfig, Late, Overdue};
use chassis_messaging::outbox::Outbox;
use chassis_messaging::{Consumer, ConsumerConfig, Event, Message};
use serde::{Deserialize, Serialize};

use crate::scripted::Script;
use crate::world::{Greeting, Ordered, SOON, World, config, note};

async fn note_ordered(_: (), tx: &mut Tx, event: Ordered) -> Result<()> {
    if event.0.name == "poison" && event.0.number == 1 {
        return Err(Error::invalid_argument("POISON", "never"));
    }
    note((), tx, event.0).await
}

async fn note_all(_: (), tx: &mut Tx, events: Vec<Ordered>) -> Result<()> {
    for event in events {
        note((), tx, event.0).await?;
    }
    Ok(())
}

/// Messages of one key as an outbox writes them, numbered from 1.
async fn line(world: &World, key: &str, count: i64) -> Vec<Message> {
    let outbox = Outbox::new(&world.db, "test");
    world.db.migrate(&outbox.migrations()).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    for number in 1..=count {
        outbox.append(&mut tx, &Ordered(Greeting::new(key, number))).await.unwrap();
    }
    tx.commit().await.unwrap();
    let rows = outbox.pending(1000).await.unwrap();
    let messages: Vec<Message> =
        rows.into_iter().filter(|message| message.key.as_deref() == Some(key)).collect();
    assert_eq!(messages.len() as i64, count);
    messages
}

fn patient(in_turn: InTurnConfig) -> ConsumerConfig {
    ConsumerConfig { in_turn, ..config() }
}

/// Gives up at once.
fn hasty() -> InTurnConfig {
    let (settle, patience) = (Duration::ZERO, Duration::ZERO);
    InTurnConfig { settle, patience, ..InTurnConfig::default() }
}

fn consumer(world: &World, in_turn: InTurnConfig) -> Consumer<()> {
    world.consumer().with_config(patient(in_turn)).in_turn().on::<Ordered>(note_ordered)
}

fn numbers(effects: &[(String, i64)]) -> Vec<i64> {
    effects.iter().map(|(_, number)| *number).collect()
}

#[tokio::test]
async fn one_that_comes_before_its_predecessor_is_deferred_and_not_counted() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 2).await;
    let running = world.start(consumer(&world, InTurnConfig::default())).await;
    // More often than a message may fail.
    for attempt in 1..=12 {
        script.deliver(&messages[1], attempt);
        let answers = script.until_answers(attempt as usize).await;
        let (id, answer) = &answers[attempt as usize - 1];
        assert_eq!(*id, messages[1].id);
        assert!(matches!(answer, Answer::Defer(delay) if !delay.is_zero()), "{answer:?}");
    }
    script.deliver(&messages[0], 1);
    script.until_answers(13).await;
    script.deliver(&messages[1], 13);
    let answers = script.until_answers(14).await;
    assert_eq!(answers[13], (messages[1].id.clone(), Answer::Ack));
    assert_eq!(numbers(&world.effects().await), [1, 2]);
    assert_eq!(world.count("consumer_early", &[]), 12);
    assert_eq!(world.count("consumer_failed", &[]), 0);
    // One that comes again after all that is a repetition.
    script.deliver(&messages[0], 2);
    assert_eq!(script.until_answers(15).await[14].1, Answer::Ack);
    assert_eq!(world.effects().await.len(), 2);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn deferrals_use_up_no_attempts() {
    async fn fails(_: (), _: &mut Tx, event: Ordered) -> Result<()> {
        if event.0.number == 2 { Err(Error::internal("not yet")) } else { Ok(()) }
    }
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 2).await;
    let consumer = world.consumer().with_config(config()).in_turn().on::<Ordered>(fails);
    let running = world.start(consumer).await;
    for attempt in 1..=5 {
        script.deliver(&messages[1], attempt);
        script.until_answers(attempt as usize).await;
    }
    script.deliver(&messages[0], 1);
    script.until_answers(6).await;
    // Its first, second and third attempt.
    for attempt in 6..=8 {
        script.deliver(&messages[1], attempt);
        script.until_answers(attempt as usize + 1).await;
    }
    let answers: Vec<Answer> = script.until_answers(9).await.into_iter().map(|(_, a)| a).collect();
    assert!(matches!(answers[6..], [Answer::Nak(_), Answer::Nak(_), Answer::Term]), "{answers:?}");
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_is_not_waited_for_and_is_handled_when_it_comes_back() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let mut messages = line(&world, "poison", 2).await;
    let running = world.start(consumer(&world, InTurnConfig::default())).await;
    script.deliver(&messages[0], 1);
    assert_eq!(script.until_answers(1).await[0].1, Answer::Term);
    script.deliver(&messages[1], 1);
    assert_eq!(script.until_answers(2).await[1].1, Answer::Ack);
    assert_eq!(numbers(&world.effects().await), [2]);
    // Somebody mended it and sent it again.
    let mended = Ordered(Greeting::new("mended", 1));
    messages[0].payload = Message::event("test", &mended).unwrap().payload;
    let again = messages[0].clone().with_header("dlq-redrives", "1");
    script.deliver(&again, 1);
    script.until_answers(3).await;
    assert_eq!(numbers(&world.effects().await), [2, 1]);
    assert_eq!(world.count("consumer_gaps", &[("end", "gone_on")]), 0);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn what_is_passed_over_is_not_waited_for() {
    #[derive(Serialize, Deserialize)]
    struct Other(String);
    impl Event for Other {
        const TOPIC: &'static str = Greeting::TOPIC;
        const TYPE: &'static str = "other-thing.v1";
        const IN_TURN: bool = true;
        fn key(&self) -> Option<String> {
            Some(self.0.clone())
        }
    }
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let outbox = Outbox::new(&world.db, "test");
    world.db.migrate(&outbox.migrations()).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    outbox.append(&mut tx, &Other("Ada".into())).await.unwrap();
    outbox.append(&mut tx, &Ordered(Greeting::new("Ada", 1))).await.unwrap();
    tx.commit().await.unwrap();
    let running =
        world.start(consumer(&world, InTurnConfig::default()).ignoring_other_types()).await;
    for message in outbox.pending(10).await.unwrap() {
        script.deliver(&message, 1);
    }
    world.until_effects(1).await;
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_gap_does_not_block_for_ever_and_what_comes_late_is_handled() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 3).await;
    let running = world.start(consumer(&world, hasty())).await;
    for (index, done) in [(1, 1), (2, 2), (0, 3)] {
        script.deliver(&messages[index], 1);
        world.until_effects(done).await;
    }
    assert_eq!(numbers(&world.until_effects(3).await), [2, 3, 1]);
    script.until_answers(3).await;
    assert_eq!(world.count("consumer_gaps", &[("end", "gone_on")]), 1);
    assert_eq!(world.count("consumer_late", &[("end", "handled")]), 1);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn what_comes_late_can_be_skipped() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 2).await;
    let running = world.start(consumer(&world, InTurnConfig { late: Late::Skip, ..hasty() })).await;
    script.deliver(&messages[1], 1);
    script.until_answers(1).await;
    script.deliver(&messages[0], 1);
    assert_eq!(script.until_answers(2).await[1].1, Answer::Ack);
    assert_eq!(numbers(&world.effects().await), [2]);
    assert_eq!(world.count("consumer_late", &[("end", "skipped")]), 1);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn what_has_no_predecessor_can_become_a_dead_letter() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 3).await;
    let in_turn = InTurnConfig { overdue: Overdue::DeadLetter, ..hasty() };
    let running = world.start(consumer(&world, in_turn)).await;
    script.deliver(&messages[1], 1);
    assert_eq!(script.until_answers(1).await[0].1, Answer::Term);
    assert_eq!(script.published()[0].header("dlq-reason"), Some("PREDECESSOR_MISSING"));
    // Its successor goes on.
    script.deliver(&messages[2], 1);
    assert_eq!(numbers(&world.until_effects(1).await), [3]);
    running.stop(SOON).await.unwrap();
}

/// What is older than the inbox remembers cannot come any more.
#[tokio::test]
async fn a_key_that_was_quiet_for_long_goes_on_at_once() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let message = Message::event("test", &Ordered(Greeting::new("Ada", 7))).unwrap();
    script.deliver(&message.with_header("x-previous", "1500000000000 long-gone"), 1);
    let running = world.start(consumer(&world, InTurnConfig::default())).await;
    assert_eq!(numbers(&world.until_effects(1).await), [7]);
    assert_eq!(world.count("consumer_early", &[]), 0);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_batch_takes_its_messages_in_turn() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "Ada", 6).await;
    let batch = BatchConfig { size: 4, within: Duration::from_millis(100), lanes: 1 };
    let consumer = world
        .consumer()
        .with_config(ConsumerConfig { batch, ..config() })
        .in_turn()
        .on_batch::<Ordered>(note_all);
    // The third before the second, a repetition, and one whose predecessor is missing.
    for index in [0, 2, 1, 0] {
        script.deliver(&messages[index], 1);
    }
    let running = world.start(consumer).await;
    assert_eq!(numbers(&world.until_effects(3).await), [1, 2, 3]);
    script.deliver(&messages[4], 1);
    script.deliver(&messages[5], 1);
    let answers = script.until_answers(6).await;
    assert!(answers[4..].iter().all(|(_, answer)| matches!(answer, Answer::Defer(_))));
    for message in &messages[3..6] {
        script.deliver(message, 2);
    }
    assert_eq!(numbers(&world.until_effects(6).await), [1, 2, 3, 4, 5, 6]);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_consumer_in_turn_of_events_without_is_an_error_at_start() {
    let world = World::new().await;
    let consumer = world.consumer().in_turn().on::<Greeting>(note);
    let error = chassis_core::Component::validate(&consumer).unwrap_err();
    assert_eq!(error.reason(), "NO_EVENT_IN_TURN");
}

#[tokio::test]
async fn what_was_given_up_is_not_passed_before_what_came_before_it() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let messages = line(&world, "ada", 4).await;
    // The third was parked: this says so in its place.
    let given_up = Message::new(Greeting::TOPIC, "chassis-given-up.v1", Vec::new())
        .with_key("ada")
        .with_header("x-given-up", &messages[2].id)
        .with_header("x-previous", messages[2].header("x-previous").unwrap());
    let consumer = consumer(&world, InTurnConfig::default());
    script.deliver(&messages[0], 1);
    script.deliver(&given_up, 1);
    script.deliver(&messages[3], 1);
    let running = world.start(consumer).await;
    let answers = script.until_answers(3).await;
    let sent_back = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Defer(_)));
    assert_eq!(sent_back.count(), 2, "{answers:?}");
    // One at a time: one that is behind another of its key may be sent back once more.
    for (count, message) in [&messages[1], &given_up, &messages[3]].into_iter().enumerate() {
        script.deliver(message, 2);
        script.until_answers(4 + count).await;
    }
    assert_eq!(numbers(&world.until_effects(3).await), [1, 2, 4]);
    running.stop(SOON).await.unwrap();
}
