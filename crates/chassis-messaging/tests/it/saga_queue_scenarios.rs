//! A second saga for a key that waits until the first has ended, as scenarios that run on
//! any database.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chassis_core::{Code, Component, Env, Ready, Shutdown};
use chassis_data::{Backend, Db, Dialect, params};
use chassis_messaging::saga::{SagaConfig, SagaDefinition, SagaState, Sagas, StepInfo};
use chassis_test::eventually;

use super::saga_stage::{
    Data, Fault, SOON, Stage, WAIT, World, config, confirm, definition, finish,
};

async fn waiting<B: Backend>(db: &Db<B>, world: World) -> Stage<B> {
    Stage::of(db, world, definition(1).second_start_waits(2)).await
}

/// It begins when the first has ended, whichever way, and not while that is parked.
pub(crate) async fn a_second_start_waits<B: Backend>(db: Db<B>) {
    let stage = waiting(&db, World::default()).await;
    let first = stage.start("key").await;
    assert_eq!(stage.settle(&first).await.step, "heard");
    let second = stage.start("key").await;
    let view = stage.view(&second).await;
    assert_eq!((view.state, view.key.as_str()), (SagaState::Queued, "key"));
    assert_eq!(view.why, "it waits until the saga of its key before it has ended");
    assert_eq!(view.remaining.len(), 6);
    assert!(!stage.sagas.runner().due(10).await.unwrap().contains(&second));
    assert_eq!(stage.sagas.find("key").await.unwrap().unwrap().id, first);
    assert_eq!(stage.sagas.list(Some(SagaState::Queued), 10).await.unwrap().len(), 1);

    stage.signal("key").await;
    assert_eq!(stage.settle(&first).await.state, SagaState::Completed);
    let view = stage.view(&second).await;
    assert_eq!((view.state, view.step.as_str()), (SagaState::Running, "ask"));
    assert_eq!((view.log[0].step.as_str(), view.log[0].what.as_str()), ("ask", "begun"));
    assert_eq!(stage.sagas.find("key").await.unwrap().unwrap().id, second);
    let view = stage.view(&first).await;
    assert_eq!((view.state, view.key.as_str()), (SagaState::Completed, "key"));

    // Another key is not concerned.
    let other = stage.start("other").await;
    assert_eq!(stage.view(&other).await.state, SagaState::Running);

    // The second is undone, and the third begins all the same.
    let third = stage.start("key").await;
    stage.world.set("confirm", Fault::Refuse, 1);
    assert_eq!(stage.settle(&second).await.state, SagaState::Cancelled);
    assert_eq!(stage.view(&third).await.state, SagaState::Running);

    // The third is parked, which is no end.
    stage.world.set("finish", Fault::Refuse, u32::MAX);
    let fourth = stage.start("key").await;
    stage.signal("key").await;
    assert_eq!(stage.settle(&third).await.state, SagaState::Parked);
    assert_eq!(stage.view(&fourth).await.state, SagaState::Queued);
    stage.world.heal();
    stage.sagas.retry(&third).await.unwrap();
    assert_eq!(stage.settle(&third).await.state, SagaState::Completed);
    assert_eq!(stage.view(&fourth).await.state, SagaState::Running);

    // What has ended is removed with its log, whatever it is called by now.
    let keys = "SELECT COUNT(*) FROM chassis_saga WHERE saga_key = 'key'";
    assert_eq!(db.fetch_optional(keys, Vec::new()).await.unwrap().unwrap().int(0).unwrap(), 1);
}

/// Nobody has the key any more, so nothing is waited for.
pub(crate) async fn a_second_start_after_the_end_begins_at_once<B: Backend>(db: Db<B>) {
    // The first was started before second starts were let wait.
    let stage = Stage::new(&db, World::default()).await;
    stage.signal("key").await;
    let first = stage.start("key").await;
    assert_eq!(stage.settle(&first).await.state, SagaState::Completed);
    let stage = waiting(&db, stage.world.clone()).await;
    let mut before = first;
    for _ in 0..3 {
        let next = stage.start("key").await;
        assert_eq!(stage.view(&next).await.state, SagaState::Running);
        assert_eq!(stage.sagas.find("key").await.unwrap().unwrap().id, next);
        assert_eq!(stage.view(&before).await.key, "key");
        stage.settle(&next).await;
        stage.signal("key").await;
        assert_eq!(stage.settle(&next).await.state, SagaState::Completed);
        before = next;
    }
    assert_eq!(stage.sagas.list(Some(SagaState::Completed), 10).await.unwrap().len(), 4);

    // The start is rolled back: the ended one has its key as before.
    let mut tx = db.begin().await.unwrap();
    stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap();
    tx.rollback().await;
    assert_eq!(stage.sagas.find("key").await.unwrap().unwrap().id, before);
}

/// A queue has an end, and the transaction lives on.
pub(crate) async fn too_many_are_refused<B: Backend>(db: Db<B>) {
    let stage = waiting(&db, World::default()).await;
    for _ in 0..3 {
        stage.start("key").await;
    }
    let mut tx = db.begin().await.unwrap();
    let error = stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "SAGA_QUEUE_FULL"));
    tx.execute("INSERT INTO effects (what) VALUES ($1)", params!["still usable"]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.effects().await, ["still usable"]);
    stage.start("other").await;
}

/// What the first was told is not told to the second; what comes later is.
pub(crate) async fn a_signal_belongs_to_the_saga_that_has_the_key<B: Backend>(db: Db<B>) {
    let stage = waiting(&db, World::default()).await;
    let first = stage.start("key").await;
    let second = stage.start("key").await;
    stage.signal("key").await;
    assert_eq!(stage.settle(&first).await.state, SagaState::Completed);
    let view = stage.settle(&second).await;
    assert_eq!((view.state, view.step.as_str()), (SagaState::Running, "heard"));
    stage.signal("key").await;
    assert_eq!(stage.settle(&second).await.state, SagaState::Completed);
    // Nobody has the key: it is for the next.
    stage.signal("key").await;
    let third = stage.start("key").await;
    assert_eq!(stage.settle(&third).await.state, SagaState::Completed);
}

/// The time to wait for a signal is not used up in the queue.
pub(crate) async fn a_wait_begins_with_its_saga<B: Backend>(db: Db<B>) {
    let definition = SagaDefinition::new("patient", 1)
        .wait_for("heard", WAIT)
        .local("finish", finish::<B>)
        .second_start_waits(5);
    let stage = Stage::of(&db, World::default(), definition).await;
    let first = stage.start("key").await;
    let second = stage.start("key").await;
    stage.clock.advance(WAIT - Duration::from_secs(1));
    stage.signal("key").await;
    assert_eq!(stage.settle(&first).await.state, SagaState::Completed);
    let runner = stage.sagas.runner();
    stage.clock.advance(WAIT - Duration::from_secs(1));
    assert_eq!(runner.step(&stage.env, &second).await.unwrap(), None, "its time is not over");
    assert!(stage.view(&second).await.why.contains("waits for the signal heard"));
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(runner.step(&stage.env, &second).await.unwrap(), Some(SagaState::Compensating));
}

/// A first that is stuck is ended by hand; what waits cannot be moved.
pub(crate) async fn an_operator_can_end_the_first<B: Backend>(db: Db<B>) {
    let stage = waiting(&db, World::with("finish", Fault::Refuse, u32::MAX)).await;
    let first = stage.start("key").await;
    let second = stage.start("key").await;
    stage.signal("key").await;
    assert_eq!(stage.settle(&first).await.state, SagaState::Parked);
    for result in [
        stage.sagas.retry(&second).await,
        stage.sagas.skip(&second, "").await,
        stage.sagas.compensate(&second, "").await,
    ] {
        assert_eq!(result.unwrap_err().reason(), "SAGA_NOT_BEGUN");
    }
    assert_eq!(stage.sagas.skip(&first, "").await.unwrap().state, SagaState::Completed);
    assert_eq!(stage.view(&second).await.state, SagaState::Running);
}

/// A start that has not committed when the first ends is not forgotten: the end waits for it.
pub(crate) async fn an_end_waits_for_a_start_under_way<B: Backend>(db: Db<B>) {
    let definition =
        SagaDefinition::new("short", 1).pivot("confirm", confirm::<B>).second_start_waits(5);
    let stage = Stage::of(&db, World::default(), definition).await;
    let first = stage.start("key").await;
    let mut tx = db.begin().await.unwrap();
    let second = stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap();
    let (runner, env, id) = (stage.sagas.runner(), stage.env.clone(), first.clone());
    let step = tokio::spawn(async move { runner.step(&env, &id).await });
    if db.dialect() == Dialect::Postgres {
        // SQLite has one writer at a time: there the step cannot even begin.
        eventually("the end is at the lock, or past it", SOON, async || {
            let sql = "SELECT COUNT(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'";
            let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
            (step.is_finished() || row.int(0).unwrap() > 0).then_some(())
        })
        .await;
    }
    tx.commit().await.unwrap();
    // The claim itself may have collided on SQLite; the saga ends all the same.
    step.await.unwrap().ok();
    assert_eq!(stage.settle(&first).await.state, SagaState::Completed);
    assert_eq!(stage.view(&second).await.state, SagaState::Running);
    assert_eq!(stage.settle(&second).await.state, SagaState::Completed);
}

/// Many starts at the same time and two runners: each runs, one after the other.
pub(crate) async fn a_crowd_runs_one_by_one<B: Backend>(db: Db<B>) {
    const SAGAS: u32 = 12;
    let inside = Arc::new(AtomicU32::new(0));
    let ran = Arc::new(AtomicU32::new(0));
    let definition = || {
        let (inside, ran) = (inside.clone(), ran.clone());
        SagaDefinition::new("alone", 1)
            .action("enter", move |_: World, data: Data, _: StepInfo| {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at the same time");
                let (inside, ran) = (inside.clone(), ran.clone());
                async move {
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    ran.fetch_add(1, Ordering::SeqCst);
                    Ok(data)
                }
            })
            .pivot("confirm", confirm::<B>)
            .second_start_waits(SAGAS)
    };
    let stage = Stage::new(&db, World::default()).await;
    let config = SagaConfig { max_concurrent: 4, ..config() };
    let sagas = || Sagas::new(&db, definition(), World::default()).with_config(config.clone());
    let mut running = Vec::new();
    let handles = [sagas(), sagas()];
    for sagas in &handles {
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let task = tokio::spawn(Box::new(sagas.runner()).run(Env::test("alone"), ready, shutdown));
        is_ready.await.unwrap();
        running.push((trigger, task));
    }
    let starts = (0..SAGAS).map(|number| {
        let (db, sagas) = (db.clone(), handles[number as usize % 2].clone());
        tokio::spawn(async move {
            // Two transactions may collide; then it is tried again, as a caller would.
            loop {
                let mut tx = db.begin().await.unwrap();
                let started = sagas.start(&mut tx, "key", Data::default()).await;
                let committed = match started {
                    Ok(_) => tx.commit().await,
                    Err(error) => Err(error),
                };
                match committed {
                    Ok(()) => return,
                    Err(error) => assert_eq!(error.code(), Code::Aborted, "{error}"),
                }
            }
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap();
    }
    eventually("all are complete", SOON, async || {
        let done = handles[0].list(Some(SagaState::Completed), 100).await.unwrap();
        (done.len() == SAGAS as usize).then_some(())
    })
    .await;
    for (trigger, task) in running {
        trigger.shutdown(SOON);
        task.await.unwrap().unwrap();
    }
    assert_eq!(ran.load(Ordering::SeqCst), SAGAS);
    assert_eq!(stage.effects().await.len(), SAGAS as usize);
}
