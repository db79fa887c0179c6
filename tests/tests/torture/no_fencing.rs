//! A relay stands still past its lease, and writes down what it knew then when everything
//! has changed: another relay has done its work, the broker has lost its stream, and
//! somebody has asked for the rows to be published again.

use std::time::Duration;

use chassis::messaging::failpoint::{self, Action, Arming};
use chassis_test::eventually;

use super::bad_relay::{Bug, marked, tables};
use super::stage::{Copy, SOON, Stage};

const POINT: &str = "relay.before_mark";

/// `marked` waits until the second relay has noted the rows, `replay` takes that back.
async fn scenario(
    stage: &Stage,
    relay: impl Fn(&'static str) -> Copy,
    marked: impl AsyncFnOnce(),
    replay: impl AsyncFnOnce(),
) -> [Copy; 2] {
    stage.change("one", 3).await;
    let before = failpoint::hits(POINT);
    failpoint::arm(POINT, Arming::once(Action::Freeze));
    let zombie = relay("zombie");
    stage.until_hit(POINT, before).await;
    let second = relay("second");
    marked().await;
    second.kill().await;
    let client = async_nats::connect(stage.nats.url()).await.unwrap();
    async_nats::jetstream::new(client).delete_stream("torture").await.unwrap();
    replay().await;
    failpoint::clear();
    [zombie, Copy::consumer(stage)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_without_fencing_is_caught() {
    let stage = Stage::set("no_fencing").await;
    let mut watcher = tables(&stage).await;
    let mut operator = tables(&stage).await;
    let until_marked = async || {
        while marked(&mut watcher).await < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let replay = async || {
        sqlx::query("DELETE FROM bad_mark").execute(&mut operator).await.unwrap();
    };
    let relay = |name| Copy::bad_relay(&stage, Bug::NoFencing, name);
    let _copies = scenario(&stage, relay, until_marked, replay).await;
    let report = stage.verdict_on_a_bug().await;
    assert!(report.kinds().contains_key("Lost"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_comes_back_late_changes_nothing() {
    let stage = Stage::set("fencing").await;
    let outbox = &stage.service.work.outbox;
    let until_marked = async || {
        eventually("marked", SOON, async || {
            outbox.pending(10).await.unwrap().is_empty().then_some(())
        })
        .await;
    };
    let replay = async || {
        assert_eq!(outbox.replay(SOON).await.unwrap(), 3);
    };
    let _copies = scenario(&stage, |_| Copy::relay(&stage), until_marked, replay).await;
    let report = stage.verdict().await;
    assert_eq!((report.violations.as_slice(), report.counts.effects), (&[][..], 3));
}
