//! From the poison to the effect by way of the dead letters, on any broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis_core::{Error, Result};
use chassis_data::{Tx, params};
use chassis_messaging::dead_letters::{DeadLetters, Filter};
use chassis_messaging::{Broker, Consumer, Event, Message};
use chassis_test::eventually;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::world::{Greeting, Running, SOON, World, config};

/// A handler that cannot greet "poison" until somebody mends it.
#[derive(Clone)]
struct Greeter {
    group: &'static str,
    mended: Arc<AtomicBool>,
}

async fn greet(state: Greeter, tx: &mut Tx, greeting: Greeting) -> Result<()> {
    let name = format!("{} greets {}", state.group, greeting.name);
    let sql = "insert into effects (name, number) values ($1, $2)";
    tx.execute(sql, params![name, greeting.number]).await?;
    if greeting.name == "poison" && !state.mended.load(Ordering::SeqCst) {
        return Err(Error::invalid_argument("BAD_NAME", "this name cannot be greeted"));
    }
    Ok(())
}

struct Stage {
    world: World,
    mended: Arc<AtomicBool>,
    running: Vec<Running>,
}

impl Stage {
    /// Each group has a consumer; the first cannot greet "poison".
    async fn with(broker: Broker, groups: &[&'static str]) -> Stage {
        let world = World::with_broker(broker).await;
        let mended = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for (n, group) in groups.iter().enumerate() {
            let mended = if n == 0 { mended.clone() } else { Arc::new(AtomicBool::new(true)) };
            let consumer =
                Consumer::new(&world.broker, &world.db, *group, Greeter { group, mended })
                    .with_config(config())
                    .on::<Greeting>(greet);
            running.push(world.start(consumer).await);
        }
        Stage { world, mended, running }
    }

    async fn run(&self, operation: &str, args: Value) -> Result<Value> {
        let name = format!("dlq/greeter/{operation}");
        self.world.env.operations().run(&name, args, true).await
    }

    /// Waits until the list has exactly so many that fit.
    async fn until_listed(&self, filter: Value, count: usize) -> Vec<Value> {
        eventually(&format!("{count} dead letters"), SOON, async || {
            let list = self.run("list", filter.clone()).await.unwrap();
            let letters = list["letters"].as_array().unwrap().clone();
            (letters.len() == count).then_some(letters)
        })
        .await
    }

    async fn effects(&self, count: usize) -> Vec<(String, i64)> {
        let mut effects = self.world.until_effects(count).await;
        effects.sort();
        effects
    }

    async fn stop(self) {
        for running in self.running {
            running.stop(SOON).await.unwrap();
        }
        self.world.broker.close().await;
    }
}

fn reason(result: Result<Value>) -> String {
    result.unwrap_err().reason().to_owned()
}

/// Poison is dead-lettered, edited, redriven, and then handled once: by the group that
/// gave it up, while another group, which has had it, does nothing.
pub(crate) async fn edited_and_redriven_it_is_handled_once(broker: Broker) {
    let stage = Stage::with(broker, &["greeter", "listener"]).await;
    let poison = stage.world.publish(&Greeting::new("poison", 1)).await;
    let letters = stage.until_listed(json!({}), 1).await;
    for (name, value) in [
        ("id", json!(poison.id)),
        ("topic", json!("greetings.said")),
        ("reason", json!("BAD_NAME")),
        ("code", json!("INVALID_ARGUMENT")),
        ("attempts", json!(1)),
        ("redrives", json!(0)),
    ] {
        assert_eq!(letters[0][name], value, "{name}");
    }
    assert!(letters[0]["died_at"].as_i64().unwrap() >= poison.time);
    let shown = stage.run("show", json!({ "id": poison.id })).await.unwrap();
    assert_eq!(shown["payload"], json!({ "name": "poison", "number": 1 }));
    assert_eq!(shown["headers"]["dlq-group"], "greeter");

    let old = letters[0]["position"].clone();
    let not_json = json!({ "position": old, "payload": "{" });
    assert_eq!(reason(stage.run("edit", not_json).await), "PAYLOAD_NOT_JSON");
    let mended = json!({ "position": old, "payload": { "name": "Ada", "number": 1 } });
    let edited = stage.run("edit", mended.clone()).await.unwrap();
    assert_eq!(edited["letter"]["edits"], 1);
    assert_eq!(reason(stage.run("edit", mended).await), "DEAD_LETTER_NOT_FOUND");
    assert_eq!(stage.until_listed(json!({}), 1).await[0], edited["letter"]);

    stage.effects(1).await;
    // Letters are kept for longer than notes.
    stage.world.db.execute("delete from chassis_inbox", params![]).await.unwrap();
    let redriven = stage.run("redrive", json!({ "id": poison.id })).await.unwrap();
    assert_eq!((&redriven["done"], &redriven["more"]), (&json!(1), &json!(false)));
    stage.until_listed(json!({}), 0).await;
    stage.effects(2).await;
    // Behind it, under its key: once this one is handled, so is all before it.
    let last = Message::event("test", &Greeting::new("Eve", 2)).unwrap().with_key("poison");
    stage.world.broker.publish(last).await.unwrap();
    let expected = [("greeter greets Ada", 1), ("greeter greets Eve", 2)]
        .into_iter()
        .chain([("listener greets Eve", 2), ("listener greets poison", 1)]);
    let expected: Vec<_> = expected.map(|(name, n)| (name.to_owned(), n)).collect();
    assert_eq!(stage.effects(4).await, expected);
    stage.stop().await;
}

/// However often it dies, it is there once, and the broker takes none of them for a
/// repetition.
pub(crate) async fn one_that_dies_again_is_there_again(broker: Broker) {
    let stage = Stage::with(broker, &["greeter"]).await;
    stage.world.publish(&Greeting::new("poison", 1)).await;
    for redrives in 0..4 {
        let letter = eventually("the dead letter", SOON, async || {
            let letters = stage.until_listed(json!({}), 1).await;
            (letters[0]["redrives"] == redrives).then(|| letters[0].clone())
        })
        .await;
        let position = json!({ "position": letter["position"] });
        stage.run("redrive", position).await.unwrap();
    }
    let last = stage.until_listed(json!({}), 1).await;
    let position = json!({ "position": last[0]["position"] });
    stage.run("discard", position.clone()).await.unwrap();
    assert_eq!(reason(stage.run("discard", position.clone()).await), "DEAD_LETTER_NOT_FOUND");
    assert_eq!(reason(stage.run("redrive", position).await), "DEAD_LETTER_NOT_FOUND");
    stage.until_listed(json!({}), 0).await;
    assert_eq!(stage.world.effects().await, []);
    stage.stop().await;
}

/// Those that fit a filter are redriven at the rate that was asked for, or discarded;
/// the others stay.
pub(crate) async fn many_are_redriven_at_a_rate_or_discarded(broker: Broker) {
    let stage = Stage::with(broker, &["greeter"]).await;
    for number in 0..5 {
        stage.world.publish(&Greeting::new("poison", number)).await;
        let nonsense = Message::new(Greeting::TOPIC, Greeting::TYPE, "nonsense");
        stage.world.broker.publish(nonsense).await.unwrap();
    }
    stage.until_listed(json!({}), 10).await;
    let bad_name = json!({ "reason": "BAD_NAME" });
    stage.until_listed(bad_name.clone(), 5).await;
    stage.until_listed(json!({ "topic": "greetings.unsaid" }), 0).await;
    for operation in ["redrive", "discard"] {
        assert_eq!(reason(stage.run(operation, json!({ "limit": 3 })).await), "ARGUMENT_MISSING");
    }

    // In pages, each once.
    let first = stage.run("list", json!({ "limit": "3", "reason": "BAD_NAME" })).await.unwrap();
    let rest = json!({ "from": first["next"], "reason": "BAD_NAME" });
    assert_eq!(stage.until_listed(rest, 2).await.len(), 2);

    stage.mended.store(true, Ordering::SeqCst);
    let since = Instant::now();
    let four = json!({ "reason": "BAD_NAME", "rate": 20, "limit": 4 });
    let swept = stage.run("redrive", four).await.unwrap();
    assert_eq!((&swept["done"], &swept["more"]), (&json!(4), &json!(true)));
    assert!(since.elapsed() > Duration::from_millis(140), "took {:?}", since.elapsed());
    stage.until_listed(bad_name, 1).await;
    let topic = json!({ "topic": "greetings.said", "reason": "BAD_NAME" });
    assert_eq!(stage.run("redrive", topic).await.unwrap()["done"], 1);
    let expected: Vec<_> = (0..5).map(|n| ("greeter greets poison".to_owned(), n)).collect();
    assert_eq!(stage.effects(5).await, expected);

    let swept = stage.run("discard", json!({ "all": "true" })).await.unwrap();
    assert_eq!((&swept["done"], &swept["failed"]), (&json!(5), &json!(0)), "{swept}");
    stage.until_listed(json!({}), 0).await;
    stage.stop().await;
}

/// A position is unique among the dead letters of all groups; each group has its own.
pub(crate) async fn letters_of_another_group_are_out_of_reach(broker: Broker) {
    let stage = Stage::with(broker, &["greeter"]).await;
    stage.world.publish(&Greeting::new("poison", 1)).await;
    let position = stage.until_listed(json!({}), 1).await[0]["position"].as_u64().unwrap();
    for group in ["greet", "greeter-2"] {
        let others = DeadLetters::new(&stage.world.broker, group).unwrap();
        assert_eq!(others.list(&Filter::default(), 0, 10).await.unwrap().letters, []);
        for error in [
            others.show(position).await.unwrap_err(),
            others.redrive(position).await.unwrap_err(),
            others.discard(position).await.unwrap_err(),
            others.edit(position, "{}".into()).await.unwrap_err(),
        ] {
            assert_eq!(error.reason(), "DEAD_LETTER_NOT_FOUND");
        }
    }
    assert_eq!(stage.until_listed(json!({}), 1).await[0]["position"], position);
    stage.stop().await;
}
