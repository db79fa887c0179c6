//! Scenarios of limits: how many, how large, which names.

use super::kit::{Kit, QUIET, Verdict, ensure, said, text_of};
use crate::broker::Subscription;
use crate::message::Message;

pub(super) async fn no_more_in_hand_than_asked(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for i in 0..10 {
        bench.send(&i.to_string()).await?;
    }
    let two = Subscription { max_in_flight: 2, ..bench.subscription() };
    let mut inlet = bench.subscribe(two).await?;
    let first = inlet.next().await?;
    let second = inlet.next().await?;
    inlet.quiet(QUIET).await?;
    first.ack().await.map_err(said)?;
    let third = inlet.next().await?;
    inlet.quiet(QUIET).await?;
    for delivery in [second, third] {
        delivery.ack().await.map_err(said)?;
    }
    for _ in 3..10 {
        inlet.next().await?.ack().await.map_err(said)?;
    }
    bench.close().await
}

pub(super) async fn a_large_message_passes(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let text = "x".repeat(900 * 1024);
    bench.send(&text).await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let delivery = inlet.next().await?;
    ensure!(text_of(&delivery) == text, "the payload changed on its way");
    delivery.ack().await.map_err(said)?;
    bench.close().await
}

pub(super) async fn a_message_over_the_limit_is_refused(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let refused = bench.broker.publish(bench.message(&"x".repeat(1024 * 1024 + 1))).await;
    let reason = refused.err().map(|error| error.reason().to_owned());
    ensure!(reason.as_deref() == Some("MESSAGE_TOO_LARGE"), "got {reason:?}");
    // The connection is none the worse for it.
    bench.send("small").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("small", 1).await?;
    bench.close().await
}

pub(super) async fn bad_topics_and_groups_are_refused(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    for topic in ["", "a..b", "a.*", "a.>", "a b", "a\r\nPUB b 0\r\n", "$JS.API.INFO"] {
        let published = bench.broker.publish(Message::new(topic, "note.v1", "x")).await;
        let reason = published.err().map(|error| error.reason().to_owned());
        ensure!(reason.as_deref() == Some("INVALID_TOPIC"), "publish to {topic:?}: {reason:?}");
        let joined = bench.broker.subscribe(Subscription::new("group", topic)).await;
        let reason = joined.err().map(|error| error.reason().to_owned());
        ensure!(reason.as_deref() == Some("INVALID_TOPIC"), "subscribe to {topic:?}: {reason:?}");
    }
    for group in ["", "a.b", "a b", "*"] {
        let joined = bench.broker.subscribe(Subscription::new(group, bench.topic.clone())).await;
        let reason = joined.err().map(|error| error.reason().to_owned());
        ensure!(reason.as_deref() == Some("INVALID_GROUP"), "group {group:?}: {reason:?}");
    }
    bench.close().await
}
