//! What an inbox promises, as scenarios that run on any database.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use chassis_core::{Component, Env, Ready, Shutdown};
use chassis_data::{Backend, Db, params};
use chassis_messaging::inbox::Inbox;
use chassis_test::eventually;

const SOON: Duration = Duration::from_secs(20);

async fn inbox<B: Backend>(db: &Db<B>) -> Inbox<B> {
    let inbox = Inbox::new(db);
    db.migrate(&inbox.migrations()).await.unwrap();
    inbox
}

async fn handle<B: Backend>(db: &Db<B>, inbox: &Inbox<B>, consumer: &str, id: &str) -> bool {
    let mut tx = db.begin().await.unwrap();
    let first = inbox.first_time(&mut tx, consumer, id).await.unwrap();
    tx.commit().await.unwrap();
    first
}

/// The first time is first for each consumer, and only once.
pub(crate) async fn a_message_takes_effect_once<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await;
    assert!(handle(&db, &inbox, "a", "m-1").await);
    assert!(!handle(&db, &inbox, "a", "m-1").await);
    assert!(handle(&db, &inbox, "b", "m-1").await);
    assert!(handle(&db, &inbox, "a", "m-2").await);
}

/// A handler that fails leaves no note, and the transaction stays usable after a
/// repetition.
pub(crate) async fn a_note_lives_and_dies_with_the_work<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await;
    let mut tx = db.begin().await.unwrap();
    assert!(inbox.first_time(&mut tx, "a", "m-1").await.unwrap());
    tx.rollback().await;
    let mut tx = db.begin().await.unwrap();
    assert!(inbox.first_time(&mut tx, "a", "m-1").await.unwrap());
    assert!(!inbox.first_time(&mut tx, "a", "m-1").await.unwrap());
    assert!(inbox.first_time(&mut tx, "a", "m-2").await.unwrap());
    tx.commit().await.unwrap();
    assert!(!handle(&db, &inbox, "a", "m-2").await);
}

/// Deliveries at the same time: one of them is the first.
pub(crate) async fn one_of_many_is_first<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (db, inbox) = (db.clone(), inbox.clone());
        tasks.push(tokio::spawn(async move { handle(&db, &inbox, "a", "m-1").await }));
    }
    let mut firsts = 0;
    for task in tasks {
        firsts += u32::from(task.await.unwrap());
    }
    assert_eq!(firsts, 1);
}

/// A batch says of each message whether it is the first time, in its order.
pub(crate) async fn a_batch_is_noted_at_once<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await;
    handle(&db, &inbox, "a", "m-2").await;
    handle(&db, &inbox, "b", "m-1").await;
    let mut tx = db.begin().await.unwrap();
    let ids = ["m-3", "m-2", "m-1", "m-3", "\"quoted\", \\"];
    let first = inbox.first_times(&mut tx, "a", &ids).await.unwrap();
    assert_eq!(first, [true, false, true, false, true]);
    assert!(inbox.first_times(&mut tx, "a", &[]).await.unwrap().is_empty());
    tx.commit().await.unwrap();
    assert!(!handle(&db, &inbox, "a", "\"quoted\", \\").await);

    let many: Vec<String> = (0..2500).map(|n| format!("n-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut tx = db.begin().await.unwrap();
    let first = inbox.first_times(&mut tx, "a", &many).await.unwrap();
    tx.rollback().await;
    assert_eq!(first, vec![true; 2500]);
    assert!(handle(&db, &inbox, "a", "n-7").await, "the note went with the work");
}

/// Batches at the same time, with the same messages in different orders: each is
/// first once, and none waits for ever.
pub(crate) async fn batches_share_their_messages<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await;
    let mut tasks = Vec::new();
    for turn in 0..8 {
        let (db, inbox) = (db.clone(), inbox.clone());
        tasks.push(tokio::spawn(async move {
            let mut ids: Vec<String> = (0..50).map(|n| format!("m-{n}")).collect();
            ids.rotate_left(turn * 6);
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut tx = db.begin().await.unwrap();
            let first = inbox.first_times(&mut tx, "a", &ids).await.unwrap();
            tx.commit().await.unwrap();
            first.into_iter().filter(|first| *first).count()
        }));
    }
    let mut firsts = 0;
    for task in tasks {
        firsts += task.await.unwrap();
    }
    assert_eq!(firsts, 50);
}

/// Notes past their retention are removed, others stay.
pub(crate) async fn old_notes_are_removed<B: Backend>(db: Db<B>) {
    let inbox = inbox(&db).await.with_retention(Duration::from_secs(3600));
    for id in ["m-1", "m-2", "m-3"] {
        handle(&db, &inbox, "a", id).await;
    }
    let sql = "UPDATE chassis_inbox SET received_at = received_at - 3601000
        WHERE message_id <> $1";
    assert_eq!(db.execute(sql, params!["m-3"]).await.unwrap(), 2);
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let task = tokio::spawn(Box::new(inbox.cleaner()).run(Env::test("t"), ready, shutdown));
    is_ready.await.unwrap();
    eventually("two are gone", SOON, async || {
        let row = db.fetch_optional("SELECT COUNT(*) FROM chassis_inbox", Vec::new()).await;
        (row.unwrap().unwrap().int(0).unwrap() == 1).then_some(())
    })
    .await;
    trigger.shutdown(SOON);
    task.await.unwrap().unwrap();
    assert!(!handle(&db, &inbox, "a", "m-3").await);
    assert_eq!(inbox.clean().await.unwrap(), 0);
}

/// A retention within which the broker may still redeliver is refused.
pub(crate) async fn a_short_retention_is_refused<B: Backend>(db: Db<B>) {
    let inbox = Inbox::new(&db).with_retention(Duration::from_secs(60));
    inbox.check_retention(Duration::from_secs(59)).unwrap();
    let error = inbox.check_retention(Duration::from_secs(60)).unwrap_err();
    assert_eq!(error.reason(), "INBOX_RETENTION_TOO_SHORT");
}
