//! What a consumer does with messages that can be handled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{Context, Env, Error, Priority, Result, SpanKind, Status};
use chassis_data::Tx;
use chassis_messaging::broker::Answer;
use chassis_messaging::{Consumer, ConsumerConfig, Event, Message};
use chassis_test::eventually;
use serde::{Deserialize, Serialize};

use crate::scripted::Script;
use crate::world::{Greeting, SOON, World, config, note};

#[tokio::test]
async fn a_second_delivery_has_no_second_effect() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let message = Message::event("test", &Greeting::new("Ada", 1)).unwrap();
    for attempt in 1..=3 {
        script.deliver(&message, attempt);
    }
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    let answers = script.until_answers(3).await;
    assert!(answers.iter().all(|(_, answer)| *answer == Answer::Ack), "{answers:?}");
    assert_eq!(world.effects().await, [("Ada".to_owned(), 1)]);
    assert_eq!(world.count("consumer_handled", &[]), 1);
    assert_eq!(world.count("consumer_repeated", &[]), 2);
    assert_eq!(world.env.in_flight().counts().get("message"), Some(&0));
    running.stop(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_slots_keep_the_order_of_each_key() {
    const KEYS: i64 = 10;
    const EACH: i64 = 20;
    async fn slow_note(state: (), tx: &mut Tx, greeting: Greeting) -> Result<()> {
        // Later ones would overtake if they could.
        for _ in 0..(7 * greeting.number) % 5 {
            tokio::task::yield_now().await;
        }
        note(state, tx, greeting).await
    }
    let world = World::new().await;
    let running = world.start(world.consumer().on::<Greeting>(slow_note)).await;
    for number in 0..EACH {
        for key in 0..KEYS {
            world.publish(&Greeting::new(&key.to_string(), number)).await;
        }
    }
    let effects = world.until_effects((KEYS * EACH) as usize).await;
    for key in 0..KEYS {
        let key = key.to_string();
        let numbers: Vec<i64> =
            effects.iter().filter(|(name, _)| *name == key).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..EACH).collect::<Vec<_>>(), "key {key}");
    }
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn no_more_in_hand_than_slots() {
    #[derive(Clone, Default)]
    struct Gauge {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }
    async fn count(gauge: Gauge, _tx: &mut Tx, _: Greeting) -> Result<()> {
        let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        gauge.most.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        gauge.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    for number in 0..30 {
        let greeting = Greeting::new(&number.to_string(), number);
        script.deliver(&Message::event("test", &greeting).unwrap(), 1);
    }
    let gauge = Gauge::default();
    let consumer = Consumer::new(&world.broker, &world.db, "greeter", gauge.clone())
        .with_config(ConsumerConfig { concurrency: 3, ..config() })
        .on::<Greeting>(count);
    let running = world.start(consumer).await;
    script.until_answers(30).await;
    assert!((1..=3).contains(&gauge.most.load(Ordering::SeqCst)));
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn the_trace_goes_on_in_the_handler() {
    #[derive(Clone, Default)]
    struct Seen(Arc<parking_lot::Mutex<Vec<Context>>>);
    async fn look(seen: Seen, _tx: &mut Tx, _: Greeting) -> Result<()> {
        seen.0.lock().push(Context::current());
        Ok(())
    }
    let world = World::new().await;
    let seen = Seen::default();
    let consumer =
        Consumer::new(&world.broker, &world.db, "greeter", seen.clone()).on::<Greeting>(look);
    let running = world.start(consumer).await;
    let sender = Context::background(&Env::test("sender"))
        .with_request_id("request-1")
        .with_priority(Priority::Critical);
    let message = Message::event("test", &Greeting::new("Ada", 1)).unwrap();
    let appended = "00000000000000aa";
    let sent = message.clone().with_context(&sender).with_header("x-appended-by", appended);
    world.broker.publish(sent).await.unwrap();
    let inside = eventually("the handler ran", SOON, async || seen.0.lock().first().cloned()).await;
    assert_eq!(inside.trace().trace_id, sender.trace().trace_id);
    assert_eq!(inside.request_id(), "request-1");
    assert_eq!(inside.env().info().name, "greeter");
    assert_eq!(inside.priority(), Priority::Critical, "the calls that it makes have it too");
    assert!(inside.deadline().is_some());
    running.stop(SOON).await.unwrap();
    let spans = world.env.captured_spans();
    let span = spans.iter().find(|span| matches!(span.kind, SpanKind::Consumer)).unwrap();
    assert_eq!(span.trace.trace_id, sender.trace().trace_id);
    assert_eq!(span.trace.parent, Some(sender.trace().span_id));
    assert_eq!(span.name, "process greetings.said");
    let links: Vec<_> =
        span.links.iter().map(|link| (link.trace_id, link.span_id.to_string())).collect();
    assert_eq!(links, [(sender.trace().trace_id, appended.to_owned())]);
    let exemplar = format!("# {{trace_id=\"{}\"", sender.trace().trace_id);
    let metrics = world.env.metrics().encode();
    let mut took =
        metrics.lines().filter(|line| line.starts_with("consumer_handle_seconds_bucket"));
    assert!(took.any(|line| line.contains(&exemplar)), "{metrics}");
    assert!(span.attributes.contains(&("messaging.message.id", message.id)));
}

#[derive(Serialize, Deserialize)]
struct Farewell;

impl Event for Farewell {
    const TOPIC: &'static str = "greetings.said";
    const TYPE: &'static str = "farewell-said.v1";

    fn key(&self) -> Option<String> {
        None
    }
}

#[tokio::test]
async fn other_types_can_be_passed_over_but_not_unknown_versions() {
    let script = Script::default();
    let world = World::with_broker(script.broker()).await;
    let farewell = Message::event("test", &Farewell).unwrap();
    let newer = Message::new("greetings.said", "greeting-said.v2", "{}");
    script.deliver(&farewell, 1);
    script.deliver(&newer, 1);
    let consumer = world.consumer().on::<Greeting>(note).ignoring_other_types();
    let running = world.start(consumer).await;
    let mut answers = script.until_answers(2).await;
    answers.sort_by_key(|(id, _)| *id != farewell.id);
    assert_eq!(answers, [(farewell.id, Answer::Ack), (newer.id, Answer::Term)]);
    assert_eq!(script.published()[0].header("dlq-reason"), Some("UNKNOWN_EVENT_VERSION"));
    running.stop(SOON).await.unwrap();
}

#[tokio::test]
async fn two_handlers_for_a_type_are_an_error_at_start() {
    let world = World::new().await;
    let consumer = world.consumer().on::<Greeting>(note).on::<Greeting>(note);
    let (trigger, shutdown) = chassis_core::Shutdown::new();
    let (ready, _) = chassis_core::Ready::channel();
    let component: Box<dyn chassis_core::Component> = Box::new(consumer);
    let error = component.run(world.env.clone(), ready, shutdown).await.unwrap_err();
    assert_eq!(error.reason(), "DUPLICATE_HANDLER");
    drop(trigger);
}

#[tokio::test]
async fn an_unhealthy_process_takes_no_messages() {
    let world = World::new().await;
    let (set, ok) = tokio::sync::watch::channel(false);
    world.env.health().add("disk", true, move || {
        let ok = *ok.borrow();
        async move { if ok { Ok(()) } else { Err(Error::unavailable("DISK", "no disk")) } }
    });
    world.env.health().set_started();
    world.env.health().check_now().await;
    assert_eq!(world.env.health().status(), Status::Down);
    let running = world.start(world.consumer().on::<Greeting>(note)).await;
    world.publish(&Greeting::new("Ada", 1)).await;
    // A second group shows that the message is there to be had.
    let other = chassis_messaging::Subscription::new("other", Greeting::TOPIC);
    world.broker.subscribe(other).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(world.effects().await, []);
    set.send(true).unwrap();
    world.env.health().check_now().await;
    world.until_effects(1).await;
    running.stop(Duration::from_secs(5)).await.unwrap();
}
