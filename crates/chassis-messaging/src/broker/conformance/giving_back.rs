//! Scenarios of giving back what was not begun.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kit::{Kit, QUIET, SOON, Verdict, ensure, said, text_of};
use crate::broker::Subscription;
use crate::message::GIVEN_UP;

pub(super) async fn a_released_delivery_does_not_count(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send_keyed("a", "hello").await?;
    bench.send_keyed("a", "next").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    for _ in 0..3 {
        inlet.expect("hello", 1).await?.release().await.map_err(said)?;
    }
    inlet.expect("hello", 1).await?.nak(Duration::ZERO).await.map_err(said)?;
    inlet.expect("hello", 2).await?.release().await.map_err(said)?;
    inlet.finish("hello", 2).await?;
    inlet.finish("next", 1).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn a_deferred_message_comes_again_in_its_place(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send_keyed("a", "hello").await?;
    bench.send_keyed("a", "next").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let delay = Duration::from_millis(200);
    inlet.expect("hello", 1).await?.defer(delay).await.map_err(said)?;
    inlet.quiet(delay / 2).await?;
    inlet.finish("hello", 2).await?;
    inlet.finish("next", 1).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

/// The word that a message will not come stands behind those that wait for it, and is not
/// held back by them.
pub(super) async fn a_word_of_what_was_given_up_passes_its_key(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send_keyed("a", "waits").await?;
    bench.send_keyed("a", "waits too").await?;
    let word = bench.message("word").with_key("a").with_header(GIVEN_UP, "id");
    bench.publish(word).await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let held = inlet.expect("waits", 1).await?;
    inlet.finish("word", 1).await?;
    ensure!(held.is_oldest().await.map_err(said)?, "nothing stands before the first");
    held.ack().await.map_err(said)?;
    inlet.finish("waits too", 1).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

/// Who waits for an earlier message learns when there is none left.
pub(super) async fn the_oldest_of_a_key_is_known(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    bench.send_keyed("a", "first").await?;
    bench.send_keyed("a", "second").await?;
    let both = Subscription { max_in_flight: 2, per_key: 2, ..bench.subscription() };
    let mut inlet = bench.subscribe(both).await?;
    let first = inlet.expect("first", 1).await?;
    let second = inlet.expect("second", 1).await?;
    ensure!(first.is_oldest().await.map_err(said)?, "nothing stands before the first");
    ensure!(!second.is_oldest().await.map_err(said)?, "the first is not answered");
    first.ack().await.map_err(said)?;
    let end = Instant::now() + SOON;
    while !second.is_oldest().await.map_err(said)? {
        ensure!(Instant::now() < end, "the second is not known to be the oldest");
        sleep(Duration::from_millis(10)).await;
    }
    second.ack().await.map_err(said)?;
    bench.close().await
}

/// What a subscriber holds back while it pauses, another one of the group gets, as a
/// first attempt; and nothing is lost or repeated when it goes on.
pub(super) async fn a_pause_leaves_the_messages_to_others(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let wide = Subscription { max_in_flight: 10, ..bench.subscription() };
    let mut first = bench.subscribe(wide.clone()).await?;
    for i in 0..10 {
        bench.send(&i.to_string()).await?;
    }
    let held = first.next().await?;
    first.0.pause().await;
    let mut second = bench.subscribe(wide).await?;
    for _ in 0..9 {
        let delivery = second.next().await?;
        let (text, attempt) = (text_of(&delivery), delivery.attempt);
        ensure!(attempt == 1, "{text} came as attempt {attempt} without a first one");
        delivery.ack().await.map_err(said)?;
    }
    held.ack().await.map_err(said)?;
    drop(second);
    bench.send("after").await?;
    first.finish("after", 1).await?;
    first.quiet(QUIET).await?;
    bench.close().await
}

/// A key with more messages than find room to wait: none of them runs out of attempts
/// before it had one.
pub(super) async fn a_long_line_costs_no_attempts(kit: &Kit) -> Verdict {
    const COUNT: usize = 1300;
    let bench = kit.open().await?;
    let sends = (0..COUNT).map(async |number| bench.send_keyed("hot", &number.to_string()).await);
    for sent in futures_util::future::join_all(sends).await {
        sent?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    let first = inlet.next().await?;
    // Time for the rest to be fetched, and for what finds no room to come once more.
    inlet.quiet(Duration::from_millis(2500)).await?;
    let mut seen = BTreeSet::from([text_of(&first)]);
    first.ack().await.map_err(said)?;
    while seen.len() < COUNT {
        let delivery = inlet.next().await?;
        let (text, attempt) = (text_of(&delivery), delivery.attempt);
        ensure!(attempt == 1, "{text} came as attempt {attempt} without a first one");
        ensure!(seen.insert(text), "{} came twice", text_of(&delivery));
        delivery.ack().await.map_err(said)?;
    }
    bench.close().await
}
