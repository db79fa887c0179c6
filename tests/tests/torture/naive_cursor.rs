//! A transaction takes its place in the table and commits after a later one.

use super::bad_relay::{Bug, tables};
use super::stage::{Copy, Stage};

async fn scenario(stage: &Stage, relay: impl Fn() -> Copy) -> [Copy; 2] {
    let work = &stage.service.work;
    let mut late = work.db.begin().await.unwrap();
    work.change(&mut late, "late").await.unwrap();
    stage.change("early", 1).await;
    let copies = [relay(), Copy::consumer(stage)];
    stage.until_stored(1).await;
    late.commit().await.unwrap();
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_with_a_naive_cursor_is_caught() {
    let stage = Stage::set("naive_cursor").await;
    let _tables = tables(&stage).await;
    let _copies = scenario(&stage, || Copy::bad_relay(&stage, Bug::NaiveCursor, "")).await;
    let report = stage.verdict_on_a_bug().await;
    assert!(report.kinds().contains_key("Lost"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_commits_late_is_not_lost() {
    let stage = Stage::set("late_commit").await;
    let _copies = scenario(&stage, || Copy::relay(&stage)).await;
    let report = stage.verdict().await;
    assert_eq!((report.violations.as_slice(), report.counts.effects), (&[][..], 2));
}
