//! Scenarios of single messages: they arrive, and come again when they should.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::kit::{Kit, QUIET, Verdict, ensure, said, text_of};
use crate::broker::Subscription;

pub(super) async fn a_message_arrives_as_it_was_sent(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let mut message = bench
        .message("hello")
        .with_key("a key with spaces, Größe and a\r\nline break")
        .with_header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .with_header("tenant", "blue");
    message.source = "some-service".to_owned();
    message.content_type = "text/plain; charset=utf-8".to_owned();
    bench.publish(message.clone()).await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let delivery = inlet.expect("hello", 1).await?;
    ensure!(delivery.message == message, "got {:?}, sent {message:?}", delivery.message);
    delivery.ack().await.map_err(said)?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn each_group_gets_each_message(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let mut first = bench.subscribe(Subscription::new("first", bench.topic.clone())).await?;
    let mut second = bench.subscribe(Subscription::new("second", bench.topic.clone())).await?;
    bench.send("hello").await?;
    first.finish("hello", 1).await?;
    second.finish("hello", 1).await?;
    bench.close().await
}

pub(super) async fn one_group_shares_the_messages(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let most = Subscription { max_in_flight: 10, ..bench.subscription() };
    let mut first = bench.subscribe(most.clone()).await?;
    let mut second = bench.subscribe(most).await?;
    for i in 0..20 {
        bench.send(&i.to_string()).await?;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 20 {
        let delivery = tokio::select! {
            delivery = first.next() => delivery?,
            delivery = second.next() => delivery?,
        };
        let text = text_of(&delivery);
        ensure!(seen.insert(text.clone()), "{text} came twice");
        delivery.ack().await.map_err(said)?;
    }
    first.quiet(QUIET).await?;
    second.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn a_new_group_begins_with_the_oldest_message(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("before").await?;
    let mut early = bench.subscribe(Subscription::new("early", bench.topic.clone())).await?;
    early.finish("before", 1).await?;
    let mut late = bench.subscribe(Subscription::new("late", bench.topic.clone())).await?;
    late.finish("before", 1).await?;
    bench.close().await
}

pub(super) async fn no_answer_means_again(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let wait = Duration::from_millis(400);
    let mut inlet =
        bench.subscribe(Subscription { ack_wait: wait, ..bench.subscription() }).await?;
    let held = inlet.expect("hello", 1).await?;
    let since = Instant::now();
    let again = inlet.expect("hello", 2).await?;
    let took = since.elapsed();
    ensure!(took > wait / 2, "it came again after {took:?}");
    // Whoever was late may still say that it is done.
    held.ack().await.map_err(said)?;
    again.ack().await.map_err(said)?;
    inlet.quiet(wait * 2).await?;
    bench.close().await
}

pub(super) async fn a_dropped_delivery_comes_again(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let since = Instant::now();
    drop(inlet.expect("hello", 1).await?);
    inlet.finish("hello", 2).await?;
    let took = since.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?}, the ack wait is 30 s");
    bench.close().await
}

pub(super) async fn nak_brings_it_back_at_once(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.expect("hello", 1).await?.nak(Duration::ZERO).await.map_err(said)?;
    inlet.finish("hello", 2).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn nak_with_delay_waits(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let delay = Duration::from_millis(500);
    inlet.expect("hello", 1).await?.nak(delay).await.map_err(said)?;
    let since = Instant::now();
    inlet.finish("hello", 2).await?;
    let took = since.elapsed();
    ensure!(took > delay.mul_f64(0.8), "it came again after {took:?}");
    bench.close().await
}

pub(super) async fn progress_extends_the_wait(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let wait = Duration::from_millis(600);
    let mut inlet =
        bench.subscribe(Subscription { ack_wait: wait, ..bench.subscription() }).await?;
    let held = inlet.expect("hello", 1).await?;
    for _ in 0..8 {
        inlet.quiet(wait / 4).await?;
        held.in_progress().await.map_err(said)?;
    }
    held.ack().await.map_err(said)?;
    inlet.quiet(wait * 2).await?;
    bench.close().await
}

pub(super) async fn term_ends_it(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let wait = Duration::from_millis(300);
    let mut inlet =
        bench.subscribe(Subscription { ack_wait: wait, ..bench.subscription() }).await?;
    inlet.expect("hello", 1).await?.term().await.map_err(said)?;
    inlet.quiet(wait * 2).await?;
    bench.close().await
}

pub(super) async fn max_deliver_ends_it(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send("hello").await?;
    let wait = Duration::from_millis(300);
    let limited = Subscription { ack_wait: wait, max_deliver: Some(2), ..bench.subscription() };
    let mut inlet = bench.subscribe(limited).await?;
    let first = inlet.expect("hello", 1).await?;
    let second = inlet.expect("hello", 2).await?;
    inlet.quiet(wait * 3).await?;
    drop((first, second));
    bench.close().await
}

pub(super) async fn the_same_id_is_stored_once(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let message = bench.message("hello");
    for _ in 0..3 {
        bench.publish(message.clone()).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("hello", 1).await?;
    bench.publish(message).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn the_same_id_on_another_topic_is_another_message(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let message = bench.message("hello");
    let mut other = message.clone();
    other.topic = format!("{}.other", bench.topic);
    let subscription = Subscription::new("group", other.topic.clone());
    bench.publish(message).await?;
    bench.publish(other).await?;
    let mut inlet = bench.subscribe(subscription).await?;
    inlet.finish("hello", 1).await?;
    bench.close().await
}
