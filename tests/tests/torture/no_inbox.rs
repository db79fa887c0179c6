//! A process dies between its commit and its acknowledgement, and the message comes again.

use chassis::messaging::failpoint::{self, Action, Arming};
use chassis::messaging::{Broker, Event, Subscription};
use chassis_tests::torture::events::Changed;
use chassis_tests::torture::handlers::{MIRROR, note};
use chassis_tests::torture::service::Service;

use super::stage::{Copy, Stage};

const POINT: &str = "handler.before_ack";

/// A consumer without an inbox: the handler, the commit, the answer.
fn without_inbox(stage: &Stage) -> Copy {
    let config = stage.config.clone();
    Copy::start(|| async move {
        let service = Service::connect(&config).await.unwrap();
        let broker = Broker::connect(&config.broker).await.unwrap();
        let subscription = Subscription {
            ack_wait: config.consumer.ack_wait,
            ..Subscription::new(MIRROR, Changed::TOPIC)
        };
        let mut deliveries = broker.subscribe(subscription).await.unwrap();
        while let Some(delivery) = deliveries.next().await.unwrap() {
            let event: Changed = delivery.message.to_event().unwrap();
            let mut tx = service.work.db.begin().await.unwrap();
            note(&mut tx, MIRROR, &event.id, &event.item, Some(event.version)).await.unwrap();
            tx.commit().await.unwrap();
            if failpoint::reach(POINT).await.is_ok() {
                delivery.ack().await.unwrap();
            }
        }
    })
}

async fn scenario(stage: &Stage, consumer: impl Fn() -> Copy) -> [Copy; 2] {
    stage.change("one", 2).await;
    let before = failpoint::hits(POINT);
    failpoint::arm(POINT, Arming::once(Action::Error));
    let copies = [Copy::relay(stage), consumer()];
    stage.until_hit(POINT, before).await;
    // Of the same key, so it comes after the one that comes again.
    stage.change("one", 1).await;
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_without_an_inbox_is_caught() {
    let stage = Stage::set("no_inbox").await;
    let _copies = scenario(&stage, || without_inbox(&stage)).await;
    let report = stage.verdict().await;
    assert_eq!(report.kinds().into_keys().collect::<Vec<_>>(), ["Twice"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_again_takes_effect_once() {
    let stage = Stage::set("inbox").await;
    let _copies = scenario(&stage, || Copy::consumer(&stage)).await;
    let report = stage.verdict().await;
    assert_eq!((report.violations.as_slice(), report.counts.effects), (&[][..], 3));
}
