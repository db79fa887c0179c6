//! Scenarios of how far a group is behind, for a broker that can say.

use std::time::Duration;

use super::kit::{Bench, Kit, Verdict, ensure, said};
use crate::broker::{Lag, Subscription};

async fn lag(bench: &Bench, group: &str) -> std::result::Result<Lag, chassis_core::Error> {
    match bench.broker.lag() {
        Some(lag) => lag.measure(group.to_owned(), bench.topic.clone()).await,
        None => Err(chassis_core::Error::internal("the broker cannot measure")),
    }
}

pub(super) async fn the_lag_of_a_group_is_known(kit: &Kit) -> Verdict {
    let bench = kit.open().await?;
    if bench.broker.lag().is_none() {
        return bench.close().await;
    }
    bench.send("0").await?;
    let unknown = lag(&bench, "group").await.err().map(|error| error.reason().to_owned());
    ensure!(
        unknown.as_deref() == Some("GROUP_NOT_FOUND"),
        "a group that never joined: {unknown:?}"
    );
    let one = Subscription { max_in_flight: 1, ..bench.subscription() };
    let mut inlet = bench.subscribe(one).await?;
    for text in ["1", "2", "3"] {
        bench.send(text).await?;
    }
    let expect = async |waiting: u64, unanswered: u64| {
        let expected = Lag { waiting, unanswered };
        let mut found = Lag::default();
        for _ in 0..100 {
            found = lag(&bench, "group").await.map_err(said)?;
            if found == expected {
                return Ok(());
            }
            // The server tells it a moment later than it does it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(format!("expected {expected:?}, found {found:?}"))
    };
    let first = inlet.expect("0", 1).await?;
    expect(3, 1).await?;
    first.ack().await.map_err(said)?;
    let second = inlet.expect("1", 1).await?;
    expect(2, 1).await?;
    // Given back with a delay it is still to be done.
    second.nak(Duration::from_secs(20)).await.map_err(said)?;
    let third = inlet.expect("2", 1).await?;
    expect(1, 2).await?;
    third.ack().await.map_err(said)?;
    inlet.finish("3", 1).await?;
    expect(0, 1).await?;
    bench.close().await
}
