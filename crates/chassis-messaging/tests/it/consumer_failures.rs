//! What a consumer does with messages that cannot be handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::Tx;
use chassis_messaging::broker::Answer;
use chassis_messaging::{Broker, Consumer, ConsumerConfig, Delivery, Message, Subscription};

use crate::scripted::Script;
use crate::world::{Greeting, SOON, World, config, note};

const DEAD: &str = "dlq.greeter.greetings.said";

async fn picky(state: (), tx: &mut Tx, greeting: Greeting) -> Result<()> {
    note(state, tx, greeting.clone()).await?;
    match greeting.name.as_str() {
        "panic" => panic!("the handler was asked to panic"),
        "refuse" => Err(Error::invalid_argument("BAD_NAME", "this name cannot be greeted")),
        "fail" => Err(Error::internal("the disk is on fire")),
        _ => Ok(()),
    }
}

async fn dead_letters(broker: &Broker, count: usize) -> Vec<Message> {
    let mut deliveries = broker.subscribe(Subscription::new("test", DEAD)).await.unwrap();
    let mut letters = Vec::new();
    while letters.len() < count {
        let next = tokio::time::timeout(SOON, deliveries.next()).await.expect("a dead letter");
        let delivery: Delivery = next.unwrap().unwrap();
        letters.push(delivery.message.clone());
        delivery.ack().await.unwrap();
    }
    letters
}

#[tokio::test]
async fn poison_goes_to_the_dead_letters_and_the_others_go_on() {
    let world = World::new().await;
    let mut poison = Vec::new();
    for name in ["panic", "refuse", "fail"] {
        poison.push(world.publish(&Greeting::new(name, 0)).await);
    }
    for (kind, payload) in
        [("greeting-said.v1", "not json"), ("greeting-said.v9", "{}"), ("weather-changed.v1", "{}")]
    {
        let message = Message::new("greetings.said", kind, payload).with_header("tenant", "blue");
        world.broker.publish(message.clone()).await.unwrap();
        poison.push(message);
    }
    for number in 0..20 {
        world.publish(&Greeting::new("Ada", number)).await;
    }
    let running = world.start(world.consumer().on::<Greeting>(picky)).await;
    let letters = dead_letters(&world.broker, poison.len()).await;
    let effects = world.until_effects(20).await;
    assert_eq!(effects, (0..20).map(|i| ("Ada".to_owned(), i)).collect::<Vec<_>>());
    for (poison, reason, code, attempts) in [
        (&poison[0], "INTERNAL", "INTERNAL", "3"),
        (&poison[1], "BAD_NAME", "INVALID_ARGUMENT", "1"),
        (&poison[2], "INTERNAL", "INTERNAL", "3"),
        (&poison[3], "UNDECODABLE_EVENT", "INVALID_ARGUMENT", "1"),
        (&poison[4], "UNKNOWN_EVENT_VERSION", "INVALID_ARGUMENT", "1"),
        (&poison[5], "UNKNOWN_EVENT_TYPE", "INVALID_ARGUMENT", "1"),
    ] {
        let letter = letters.iter().find(|letter| letter.id == poison.id).unwrap();
        let header = |name| letter.header(name).unwrap_or_default();
        assert_eq!(header("dlq-reason"), reason);
        assert_eq!(header("dlq-code"), code, "{reason}");
        assert_eq!(header("dlq-attempts"), attempts, "{reason}");
        assert_eq!(header("dlq-original-topic"), "greetings.said");
        assert_eq!(header("dlq-group"), "greeter");
        assert_eq!((&letter.payload, &letter.key), (&poison.payload, &poison.key));
        assert!(poison.headers.iter().all(|(name, value)| header(name) == value));
        // What went wrong inside is for the log, not for the wire.
        assert!(!letter.headers.values().any(|value| value.contains("fire")));
    }
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_handler_that_fails_for_a_while_is_tried_until_it_works() {
    #[derive(Clone, Default)]
    struct Moody(Arc<AtomicUsize>);
    async fn moody(state: Moody, tx: &mut Tx, greeting: Greeting) -> Result<()> {
        note((), tx, greeting).await?;
        // Two tries each for the first two deliveries, then it works.
        if state.0.fetch_add(1, Ordering::SeqCst) < 4 {
            return Err(Error::unavailable("BUSY", "not now"));
        }
        Ok(())
    }
    let world = World::new().await;
    let state = Moody::default();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", state.clone())
        .with_config(config())
        .on::<Greeting>(moody);
    world.publish(&Greeting::new("Ada", 1)).await;
    world.publish(&Greeting::new("Ada", 2)).await;
    let running = world.start(consumer).await;
    let effects = world.until_effects(2).await;
    assert_eq!(effects, [("Ada".to_owned(), 1), ("Ada".to_owned(), 2)]);
    assert_eq!(state.0.load(Ordering::SeqCst), 6);
    assert_eq!(world.count("consumer_failed", &[]), 4);
    assert_eq!(world.count("consumer_retried", &[("how", "now")]), 2);
    assert_eq!(world.count("consumer_retried", &[("how", "later")]), 2);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_handler_that_hangs_has_failed() {
    async fn hang(_: (), tx: &mut Tx, greeting: Greeting) -> Result<()> {
        note((), tx, greeting).await?;
        std::future::pending().await
    }
    let world = World::new().await;
    let hasty = ConsumerConfig {
        handler_timeout: Duration::from_millis(100),
        max_attempts: 2,
        immediate_retries: 0,
        ..config()
    };
    world.publish(&Greeting::new("Ada", 1)).await;
    let running = world.start(world.consumer().with_config(hasty).on::<Greeting>(hang)).await;
    let letters = dead_letters(&world.broker, 1).await;
    assert_eq!(letters[0].header("dlq-code"), Some("DEADLINE_EXCEEDED"));
    assert_eq!(world.effects().await, []);
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn a_message_is_not_given_up_before_its_dead_letter_is_stored() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    script.refuse_to_publish();
    script.deliver(&Message::event("test", &Greeting::new("refuse", 1)).unwrap(), 1);
    let running = world.start(world.consumer().on::<Greeting>(picky)).await;
    let answers = script.until_answers(1).await;
    assert!(matches!(answers[0].1, Answer::Nak(delay) if !delay.is_zero()), "{answers:?}");
    running.stop(SOON).await.unwrap();
}

/// Counts its calls and never returns.
async fn hang(tried: Arc<AtomicUsize>, _: &mut Tx, _: Greeting) -> Result<()> {
    tried.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

/// Each of these deliveries ends with the process: the handler never returns, and nobody
/// answers.
#[tokio::test]
async fn a_message_that_never_gets_as_far_as_failing_is_not_tried_for_ever() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let killer = Message::event("test", &Greeting::new("Ada", 1)).unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    let config = ConsumerConfig { handler_timeout: SOON * 10, ..config() };
    for times in 1..=3 {
        script.deliver(&killer, 9 + times);
        let consumer = Consumer::new(&world.broker, &world.db, "greeter", tried.clone());
        let consumer = consumer.with_config(config.clone()).on::<Greeting>(hang);
        let running = world.start(consumer).await;
        chassis_test::eventually("it is tried", SOON, async || {
            (tried.load(Ordering::SeqCst) == times as usize).then_some(())
        })
        .await;
        running.die().await;
    }
    assert!(script.published().is_empty());
    script.deliver(&killer, 13);
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    let answers = script.until_answers(1).await;
    assert_eq!(answers[0].1, Answer::Term);
    assert_eq!(script.published()[0].header("dlq-reason"), Some("DELIVERED_TOO_OFTEN"));
    assert_eq!(world.effects().await, []);
    running.stop(SOON).await.unwrap();
}

/// A broker's count is too high where other processes gave the message back untried, or
/// this one did before it was started again.
#[tokio::test]
async fn a_message_that_was_often_given_back_untried_is_handled() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    script.deliver(&Message::event("test", &Greeting::new("Ada", 1)).unwrap(), 1000);
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    let answers = script.until_answers(1).await;
    assert_eq!(answers[0].1, Answer::Ack);
    assert_eq!(world.effects().await, [("Ada".to_owned(), 1)]);
    assert!(script.published().is_empty());
    running.stop(SOON).await.unwrap();
}

/// A drain interrupts the try of a suspect again and again: that is not the message's fault.
#[tokio::test]
async fn a_suspect_that_was_interrupted_by_drains_is_still_tried() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let slow = Message::event("test", &Greeting::new("Ada", 1)).unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    let config = ConsumerConfig { handler_timeout: SOON * 10, ..config() };
    for times in 1..=5 {
        script.deliver(&slow, 20 + times);
        let consumer = Consumer::new(&world.broker, &world.db, "greeter", tried.clone());
        let consumer = consumer.with_config(config.clone()).on::<Greeting>(hang);
        let running = world.start(consumer).await;
        chassis_test::eventually("it is tried", SOON, async || {
            (tried.load(Ordering::SeqCst) == times as usize).then_some(())
        })
        .await;
        running.stop(Duration::from_millis(10)).await.unwrap();
        let answers = script.until_answers(times as usize).await;
        assert_eq!(answers.last().unwrap().1, Answer::Nak(Duration::ZERO));
    }
    assert!(script.published().is_empty());
}

/// After a replay almost everything is a repetition. Beside those the few that failed before
/// and fail again are no reason to leave the topic alone.
#[tokio::test]
async fn a_replay_with_poison_in_it_does_not_pause_the_consumer() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let message = |name, number| Message::event("test", &Greeting::new(name, number)).unwrap();
    let good: Vec<Message> = (0..60).map(|number| message("Ada", number)).collect();
    let poison: Vec<Message> = (0..30).map(|number| message("refuse", number)).collect();
    let running = world.start(world.consumer().on::<Greeting>(picky)).await;
    good.iter().for_each(|message| script.deliver(message, 1));
    script.until_answers(60).await;
    running.stop(SOON).await.unwrap();
    // Another process, which has seen none of this.
    let running = world.start(world.consumer().on::<Greeting>(picky)).await;
    for (good, poison) in good.chunks(2).zip(&poison) {
        good.iter().chain([poison]).for_each(|message| script.deliver(message, 2));
    }
    script.until_answers(150).await;
    assert_eq!(world.count("consumer_repeated", &[]), 60);
    assert_eq!(world.count("consumer_pauses", &[]), 0);
    running.stop(SOON).await.unwrap();
}

/// The database is away at each of its deliveries, far more often than a message may fail.
/// None of these is its fault, so it does not go to the dead letters.
#[tokio::test]
async fn a_database_that_is_away_for_long_makes_no_dead_letters() {
    let script = Script::default();
    let world = World::with(script.broker(), Duration::from_millis(50)).await;
    let mut lock = world.lock().await;
    // Beyond `max_attempts`, and beyond the count at which a message is a suspect.
    for (number, attempt) in [(1, 3), (2, 9), (3, 10)] {
        let message = Message::event("test", &Greeting::new("Ada", number)).unwrap();
        script.deliver(&message, attempt);
    }
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    for (_, answer) in script.until_answers(3).await {
        assert!(matches!(answer, Answer::Nak(delay) if !delay.is_zero()), "{answer:?}");
    }
    running.stop(SOON).await.unwrap();
    assert!(script.published().is_empty());
    sqlx::raw_sql("rollback").execute(&mut lock).await.unwrap();
    let message = Message::event("test", &Greeting::new("Ada", 3)).unwrap();
    script.deliver(&message, 11);
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    assert_eq!(script.until_answers(4).await[3].1, Answer::Ack);
    assert_eq!(world.effects().await, [("Ada".to_owned(), 3)]);
    running.stop(SOON).await.unwrap();
}
