//! A relay dies between its two writes, and another one takes over.

use chassis::messaging::failpoint::{self, Action, Arming};

use super::bad_relay::{Bug, tables};
use super::stage::{Copy, Stage};

async fn scenario(stage: &Stage, point: &str, relay: impl Fn() -> Copy) -> [Copy; 2] {
    stage.change("one", 2).await;
    stage.change("two", 2).await;
    let before = failpoint::hits(point);
    failpoint::arm(point, Arming::once(Action::Wait));
    let first = relay();
    stage.until_hit(point, before).await;
    first.kill().await;
    failpoint::clear();
    [relay(), Copy::consumer(stage)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_marks_before_it_publishes_is_caught() {
    let stage = Stage::set("mark_before_publish").await;
    let _tables = tables(&stage).await;
    let relay = || Copy::bad_relay(&stage, Bug::MarkBeforePublish, "");
    let _copies = scenario(&stage, "relay.before_publish", relay).await;
    let report = stage.verdict_on_a_bug().await;
    assert!(report.kinds().contains_key("Lost"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_dies_between_its_two_writes_loses_nothing() {
    for point in ["relay.before_publish", "relay.after_publish", "relay.before_mark"] {
        let stage = Stage::set("marks_after").await;
        let _copies = scenario(&stage, point, || Copy::relay(&stage)).await;
        let report = stage.verdict().await;
        assert_eq!((report.violations.as_slice(), report.counts.effects), (&[][..], 4), "{point}");
    }
}
