//! Scenarios of closing and coming back.

use std::time::Duration;

use super::kit::{Kit, QUIET, Verdict, ensure, said};

pub(super) async fn unanswered_messages_survive_a_restart(kit: &Kit) -> Verdict {
    let mut bench = kit.open().await?;
    for text in ["done", "delayed", "never delivered"] {
        bench.send_keyed("a", text).await?;
    }
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("done", 1).await?;
    let delay = Duration::from_millis(200);
    inlet.expect("delayed", 1).await?.nak(delay).await.map_err(said)?;
    drop(inlet);
    bench.broker.close().await;
    bench.broker = kit.connect().await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    // Across a restart JetStream keeps no order within a key.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let delivery = inlet.next().await?;
        seen.push(super::kit::text_of(&delivery));
        delivery.ack().await.map_err(said)?;
    }
    seen.sort();
    ensure!(seen == ["delayed", "never delivered"], "got {seen:?}");
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn attempts_survive_a_restart(kit: &Kit) -> Verdict {
    let mut bench = kit.open().await?;
    bench.send("hello").await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.expect("hello", 1).await?.nak(Duration::ZERO).await.map_err(said)?;
    inlet.expect("hello", 2).await?.nak(Duration::from_millis(100)).await.map_err(said)?;
    drop(inlet);
    bench.broker.close().await;
    bench.broker = kit.connect().await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("hello", 3).await?;
    bench.close().await
}

pub(super) async fn a_repetition_after_a_restart_is_known(kit: &Kit) -> Verdict {
    let mut bench = kit.open().await?;
    let message = bench.message("hello");
    bench.publish(message.clone()).await?;
    bench.broker.close().await;
    bench.broker = kit.connect().await?;
    bench.publish(message).await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.finish("hello", 1).await?;
    inlet.quiet(QUIET).await?;
    bench.close().await
}

pub(super) async fn closing_ends_deliveries_and_publishing(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    let mut inlet = bench.subscribe(bench.subscription()).await?;
    inlet.quiet(QUIET).await?;
    let (next, ()) = tokio::join!(inlet.0.next(), bench.broker.close());
    ensure!(matches!(next, Ok(None)), "a delivery after the closing: {next:?}");
    let refused = bench.broker.publish(bench.message("too late")).await;
    ensure!(refused.is_err(), "published to a closed broker");
    bench.close().await
}
