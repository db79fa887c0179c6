//! What only the embedded broker promises: one process per folder, limits on
//! what it keeps.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

use chassis_messaging::{Broker, BrokerConfig, Message, Subscription};
use chassis_test::eventually;

use crate::world::SOON;

fn at(folder: &tempfile::TempDir) -> BrokerConfig {
    BrokerConfig::at(format!("embedded:{}", folder.path().display()))
}

fn message(text: String) -> Message {
    Message::new("notes", "note.v1", text)
}

#[tokio::test]
async fn all_of_a_process_share_one_broker() {
    let folder = tempfile::tempdir().unwrap();
    let one = Broker::connect(&at(&folder)).await.unwrap();
    let other = Broker::connect(&at(&folder)).await.unwrap();
    one.publish(message("hello".into())).await.unwrap();
    let mut deliveries = other.subscribe(Subscription::new("group", "notes")).await.unwrap();
    let delivery = deliveries.next().await.unwrap().unwrap();
    assert_eq!(delivery.message.payload, "hello");
    delivery.ack().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_second_process_is_told_why_it_cannot_join() {
    let folder = tempfile::tempdir().unwrap();
    // A lock belongs to an open file, so this stands for another process.
    let lock = File::create(folder.path().join("broker.lock")).unwrap();
    lock.try_lock().unwrap();
    let error = Broker::connect(&at(&folder)).await.unwrap_err();
    assert_eq!(error.reason(), "BROKER_IN_USE");
    assert!(error.message().contains("another process"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("broker");
    let config = BrokerConfig::at(format!("embedded:{}", inside.display()));
    let error = Broker::connect(&config).await.unwrap_err();
    assert_eq!(error.reason(), "BROKER_FOLDER");
    assert!(error.message().contains(&inside.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_temporary_broker_leaves_no_folder() {
    let before = temporary_folders();
    let broker = Broker::temporary().await.unwrap();
    broker.publish(message("hello".into())).await.unwrap();
    broker.check().await.unwrap();
    broker.close().await;
    assert_eq!(broker.check().await.unwrap_err().reason(), "BROKER_CLOSED");
    let ours = || temporary_folders().into_iter().filter(|name| !before.contains(name)).count();
    // Other tests have some too: they come and go.
    eventually("the folders are gone", SOON, async || (ours() == 0).then_some(())).await;
}

fn temporary_folders() -> Vec<String> {
    let names = std::fs::read_dir(std::env::temp_dir()).unwrap();
    names
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("chassis-broker-"))
        .collect()
}

#[tokio::test]
async fn a_full_broker_drops_only_what_all_groups_have_had() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        max_bytes: 20_000,
        max_message_bytes: 2_000,
        duplicate_window: Duration::ZERO,
        ..at(&folder)
    };
    let broker = Broker::connect(&config).await.unwrap();
    let mut fast = broker.subscribe(Subscription::new("fast", "notes")).await.unwrap();
    let mut slow = broker.subscribe(Subscription::new("slow", "notes")).await.unwrap();
    let text = "x".repeat(900);
    let mut stored = 0;
    let full = loop {
        match broker.publish(message(text.clone())).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 30, "it took more than it may keep");
    };
    assert_eq!(full.reason(), "BROKER_FULL");
    assert!(stored >= 15, "{stored}");
    for _ in 0..stored {
        fast.next().await.unwrap().unwrap().ack().await.unwrap();
    }
    // One group has had them; the other has not.
    assert!(broker.publish(message(text.clone())).await.is_err());
    for _ in 0..stored {
        slow.next().await.unwrap().unwrap().ack().await.unwrap();
    }
    eventually("there is room again", SOON, async || {
        broker.publish(message(text.clone())).await.ok()
    })
    .await;
    fast.next().await.unwrap().unwrap().ack().await.unwrap();
}

#[tokio::test]
async fn old_messages_go_and_dead_letters_stay() {
    let folder = tempfile::tempdir().unwrap();
    let config = BrokerConfig {
        max_age: Duration::from_millis(1),
        duplicate_window: Duration::ZERO,
        ..at(&folder)
    };
    let broker = Broker::connect(&config).await.unwrap();
    for topic in ["notes", "dlq.group.notes"] {
        broker.publish(Message::new(topic, "note.v1", "x")).await.unwrap();
    }
    // Opening the broker again sweeps; by then the messages are older than allowed.
    broker.close().await;
    let broker = Broker::connect(&config).await.unwrap();
    let mut dead = broker.subscribe(Subscription::new("test", "dlq.group.notes")).await.unwrap();
    assert_eq!(dead.next().await.unwrap().unwrap().message.payload, "x");
    let mut notes = broker.subscribe(Subscription::new("test", "notes")).await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(50), notes.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_backlog_larger_than_the_window_is_read_in_order() {
    const ROUNDS: usize = 60;
    const EACH: usize = 50;
    let broker = Broker::temporary().await.unwrap();
    for round in 0..ROUNDS {
        // Within a round the order of storing is open, from round to round it is not.
        let publishes =
            (0..EACH).map(|i| broker.publish(message(format!("{round} {i}")).with_key("one")));
        for result in futures_util::future::join_all(publishes).await {
            result.unwrap();
        }
    }
    let mut deliveries = broker.subscribe(Subscription::new("group", "notes")).await.unwrap();
    for round in 0..ROUNDS {
        let mut seen = BTreeSet::new();
        for _ in 0..EACH {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&delivery.message.payload).into_owned();
            assert!(text.starts_with(&format!("{round} ")), "{text} in round {round}");
            assert!(seen.insert(text), "delivered twice");
            delivery.ack().await.unwrap();
        }
    }
}
