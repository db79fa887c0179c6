//! What sagas promise, as scenarios that run on any database.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Component, Context, Env, Ready, Shutdown};
use chassis_data::{Backend, Db, params};
use chassis_messaging::saga::{SagaConfig, SagaDefinition, SagaState, Sagas, StepInfo};
use chassis_test::eventually;
use tokio::sync::Notify;

use super::saga_stage::{
    Data, FAULTS, Fault, SOON, Stage, Stepped, WAIT, World, ask, cancelled, config, confirm,
    definition, finish, hold, release,
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Signal {
    BeforeTheStart,
    WhileItRuns,
    WhenItWaits,
    Twice,
}

/// Each step × each fault × each time of the signal ends clean.
pub(crate) async fn fail_every_step<B: Backend>(db: Db<B>) {
    let forward = ["ask", "hold-a", "hold-b", "confirm", "finish"];
    let backward = ["undo hold-b", "undo hold-a", "cancel"];
    let signals = [Signal::BeforeTheStart, Signal::WhileItRuns, Signal::WhenItWaits, Signal::Twice];
    let mut number = 0;
    for place in forward.iter().chain(&backward) {
        for fault in FAULTS {
            for signal in signals {
                if backward.contains(place) && signal != Signal::BeforeTheStart {
                    // A saga that goes back takes no signal: one time is enough.
                    continue;
                }
                number += 1;
                let key = format!("key-{number}");
                let case = format!("{place} × {fault:?} × {signal:?}");
                let world = World::with(place, fault, 1);
                let back = backward.contains(place);
                if back {
                    // Something must make it go back in the first place.
                    world.set("confirm", Fault::Refuse, 1);
                }
                let stage = Stage::new(&db, world).await;
                if signal == Signal::BeforeTheStart {
                    stage.signal(&key).await;
                }
                let id = stage.start(&key).await;
                if signal == Signal::WhileItRuns {
                    stage.signal(&key).await;
                }
                let mut view = stage.settle(&id).await;
                if view.state == SagaState::Running {
                    let late = matches!(signal, Signal::WhenItWaits | Signal::Twice);
                    assert!(late && view.step == "heard", "{case}: {view:?}");
                    stage.signal(&key).await;
                    if signal == Signal::Twice {
                        stage.signal(&key).await;
                    }
                    view = stage.settle(&id).await;
                }
                let tried_again = matches!(
                    fault,
                    Fault::Away | Fault::Late | Fault::CrashBefore | Fault::CrashAfter
                );
                // Before the pivot only what may pass is tried again; after it everything.
                let expected = if back || !tried_again && *place != "finish" {
                    SagaState::Cancelled
                } else {
                    SagaState::Completed
                };
                assert_eq!(view.state, expected, "{case}: {view:?}");
                stage.assert_clean(&view, &case).await;
                // A late signal and a late runner change nothing.
                stage.signal(&key).await;
                stage.clock.advance(WAIT);
                assert!(stage.sagas.runner().due(10).await.unwrap().is_empty(), "{case}");
                assert_eq!(stage.view(&id).await.log, view.log, "{case}");
            }
        }
    }
}

/// A fault that lasts: undone before the pivot, parked where there is no way
/// back, and resumed when it is over.
pub(crate) async fn a_fault_that_lasts<B: Backend>(db: Db<B>) {
    let mut number = 0;
    for fault in [Fault::Refuse, Fault::Away, Fault::Late, Fault::Panic] {
        for place in ["ask", "hold-a", "hold-b", "confirm"] {
            number += 1;
            let (key, case) = (format!("before-{number}"), format!("{place} × {fault:?}"));
            let stage = Stage::new(&db, World::with(place, fault, u32::MAX)).await;
            let view = {
                let id = stage.start(&key).await;
                stage.settle(&id).await
            };
            assert_eq!(view.state, SagaState::Cancelled, "{case}");
            assert_eq!(view.failure.as_ref().unwrap().step, *place, "{case}");
            let retried = matches!(fault, Fault::Away | Fault::Late);
            assert_eq!(stage.world.calls(place), if retried { 3 } else { 1 }, "{case}");
            stage.assert_clean(&view, &case).await;
        }
        for place in ["finish", "undo hold-b", "undo hold-a", "cancel"] {
            number += 1;
            let (key, case) = (format!("after-{number}"), format!("{place} × {fault:?}"));
            let stage = Stage::new(&db, World::with(place, fault, u32::MAX)).await;
            if place != "finish" {
                stage.world.set("confirm", Fault::Refuse, 1);
            }
            stage.signal(&key).await;
            let id = stage.start(&key).await;
            let view = stage.settle(&id).await;
            assert_eq!(view.state, SagaState::Parked, "{case}");
            assert_eq!(stage.world.calls(place), 4, "{case}");
            assert!(view.why.contains("parked") && view.last_error.is_some(), "{case}: {view:?}");
            stage.clock.advance(WAIT);
            assert!(stage.sagas.runner().due(10).await.unwrap().is_empty(), "{case}");

            stage.world.heal();
            assert!(stage.sagas.resume(&id).await.unwrap(), "{case}");
            assert!(!stage.sagas.resume(&id).await.unwrap(), "{case}");
            let view = stage.settle(&id).await;
            let end = if place == "finish" { SagaState::Completed } else { SagaState::Cancelled };
            assert_eq!(view.state, end, "{case}");
            stage.assert_clean(&view, &case).await;
        }
    }
}

/// What provably did nothing is not undone; what may have happened is.
pub(crate) async fn the_current_step_is_undone_if_it_may_have_happened<B: Backend>(db: Db<B>) {
    for (number, (fault, undone)) in
        [(Fault::Refuse, 0), (Fault::Panic, 1), (Fault::Away, 1), (Fault::Late, 1)]
            .into_iter()
            .enumerate()
    {
        let stage = Stage::new(&db, World::with("hold-b", fault, u32::MAX)).await;
        let id = stage.start(&format!("key-{number}")).await;
        assert_eq!(stage.settle(&id).await.state, SagaState::Cancelled);
        assert_eq!(stage.world.calls("undo hold-b"), undone, "{fault:?}");
        assert_eq!(stage.world.calls("undo hold-a"), 1, "{fault:?}");
    }
    // A crash, and then a definite no: the first try may have happened.
    let stage = Stage::new(&db, World::with("hold-b", Fault::CrashAfter, 1)).await;
    let id = stage.start("crashed").await;
    let runner = stage.sagas.runner();
    while stage.step_or_crash(&runner, &id).await != Stepped::Crashed {}
    stage.world.set("hold-b", Fault::Refuse, 1);
    let view = stage.settle(&id).await;
    assert_eq!(view.state, SagaState::Cancelled);
    assert_eq!(stage.world.calls("undo hold-b"), 1);
    assert_eq!(stage.held(), [""; 0]);
}

/// A key has one saga: a second start is refused and its transaction lives on.
pub(crate) async fn a_second_start_is_refused<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let mut tx = db.begin().await.unwrap();
    stage.sagas.start(&mut tx, "ghost", Data::default()).await.unwrap();
    tx.rollback().await;
    assert!(stage.sagas.find("ghost").await.unwrap().is_none());

    let id = stage.start("key").await;
    let mut tx = db.begin().await.unwrap();
    let error = stage.sagas.start(&mut tx, "key", Data::default()).await.unwrap_err();
    assert_eq!((error.code().as_str(), error.reason()), ("ALREADY_EXISTS", "SAGA_EXISTS"));
    tx.execute("INSERT INTO effects (what) VALUES ($1)", params!["still usable"]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.effects().await, ["still usable"]);
    assert_eq!(stage.sagas.list(None, 10).await.unwrap().len(), 1);
    assert_eq!(stage.sagas.find("key").await.unwrap().unwrap().id, id);
    let error = {
        let mut tx = db.begin().await.unwrap();
        stage.sagas.start(&mut tx, "", Data::default()).await.unwrap_err()
    };
    assert_eq!(error.reason(), "INVALID_SAGA_KEY");
}

/// A signal that does not come: parked after the pivot, undone before it.
pub(crate) async fn a_wait_that_times_out<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let id = stage.start("after").await;
    assert_eq!(stage.settle(&id).await.step, "heard");
    stage.clock.advance(WAIT - Duration::from_secs(1));
    assert_eq!(stage.sagas.runner().step(&stage.env, &id).await.unwrap(), None);
    stage.clock.advance(Duration::from_secs(1));
    let runner = stage.sagas.runner();
    assert_eq!(runner.step(&stage.env, &id).await.unwrap(), Some(SagaState::Parked));
    assert!(stage.view(&id).await.last_error.unwrap().contains("SIGNAL_TIMEOUT"));
    // The signal comes after all, and somebody lets the saga go on.
    stage.signal("after").await;
    assert_eq!(runner.step(&stage.env, &id).await.unwrap(), None, "parked stays parked");
    assert!(stage.sagas.resume(&id).await.unwrap());
    let view = stage.settle(&id).await;
    assert_eq!(view.state, SagaState::Completed);
    stage.assert_clean(&view, "after").await;

    let definition = SagaDefinition::new("early", 1)
        .step("hold-a", hold, release)
        .wait_for("heard", WAIT)
        .pivot("confirm", confirm::<B>)
        .on_cancelled(cancelled::<B>);
    let stage = Stage::of(&db, World::default(), definition).await;
    let id = stage.start("before").await;
    assert_eq!(stage.settle(&id).await.step, "heard");
    stage.clock.advance(WAIT);
    let runner = stage.sagas.runner();
    assert_eq!(runner.step(&stage.env, &id).await.unwrap(), Some(SagaState::Compensating));
    // Too late by now.
    stage.signal("before").await;
    let view = stage.settle(&id).await;
    assert_eq!(view.state, SagaState::Cancelled);
    stage.assert_clean(&view, "before").await;
}

/// An instance of a version that is not known is parked with the reason; a
/// newer one is left alone; an older one that is known goes on.
pub(crate) async fn versions<B: Backend>(db: Db<B>) {
    let old = Stage::new(&db, World::default()).await;
    let lost = old.start("lost").await;
    let kept = old.start("kept").await;
    let runner = old.sagas.runner();
    runner.step(&old.env, &kept).await.unwrap();

    let new = Stage::of(&db, old.world.clone(), definition(2)).await;
    let runner = new.sagas.runner();
    assert_eq!(runner.step(&new.env, &lost).await.unwrap(), Some(SagaState::Parked));
    let view = new.view(&lost).await;
    assert!(view.why.contains("version 1 of greet; this process knows 2"), "{}", view.why);

    let ahead = new.start("ahead").await;
    assert_eq!(old.sagas.runner().step(&old.env, &ahead).await.unwrap(), None);
    assert!(!old.sagas.runner().due(10).await.unwrap().contains(&ahead));

    let both = Stage {
        sagas: new.sagas.clone().with_older(definition(1)),
        ..Stage::of(&db, old.world.clone(), definition(2)).await
    };
    new.signal("kept").await;
    assert_eq!(both.settle(&kept).await.state, SagaState::Completed);
    // Once its version is known, what was parked can go on.
    both.signal("lost").await;
    assert!(both.sagas.resume(&lost).await.unwrap());
    assert_eq!(both.settle(&lost).await.state, SagaState::Completed);
    both.signal("ahead").await;
    assert_eq!(both.settle(&ahead).await.state, SagaState::Completed);
}

/// A runner that was paused past its lease writes nothing when it wakes up.
pub(crate) async fn a_paused_runner_writes_nothing<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let id = stage.start("key").await;
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    // The pivot of the first runner waits inside its step, outside any lock.
    let definition = SagaDefinition::new("greet", 1)
        .action("ask", move |world: World, data: Data, info: StepInfo| {
            let gate = gate.clone();
            async move {
                world.1.notify_one();
                gate.notified().await;
                ask(world, data, info).await
            }
        })
        .step("hold-a", hold, release)
        .step("hold-b", hold, release)
        .pivot("confirm", confirm::<B>)
        .wait_for("heard", WAIT)
        .local("finish", finish::<B>);
    let slow = Stage {
        clock: stage.clock.clone(),
        sagas: Sagas::new(&db, definition, stage.world.clone())
            .with_config(config())
            .with_clock(stage.clock.clone()),
        ..Stage::new(&db, stage.world.clone()).await
    };
    let runner = slow.sagas.runner();
    let paused = runner.step(&slow.env, &id);
    tokio::pin!(paused);
    tokio::select! {
        _ = &mut paused => panic!("it should wait at its gate"),
        () = stage.world.stuck() => {}
    }
    stage.clock.advance(config().lease + Duration::from_millis(1));
    let before = stage.settle(&id).await;
    assert_eq!(before.step, "heard", "another runner went on");
    open.notify_one();
    paused.await.unwrap();
    let after = stage.view(&id).await;
    assert_eq!((after.log.len(), after.data), (before.log.len(), before.data));
}

/// A step that takes longer than the lease keeps it, and runs once.
pub(crate) async fn a_long_step_keeps_its_lease<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let lease = Duration::from_millis(60);
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let definition = SagaDefinition::new("greet", 1).action(
        "ask",
        move |world: World, data: Data, info: StepInfo| {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                ask(world, data, info).await
            }
        },
    );
    let sagas = Sagas::new(&db, definition, stage.world.clone())
        .with_config(SagaConfig { lease, ..config() })
        .with_clock(stage.clock.clone());
    let stage = Stage { sagas, ..stage };
    let id = stage.start("key").await;
    let runner = stage.sagas.runner();
    let step = runner.step(&stage.env, &id);
    tokio::pin!(step);
    let lease_until = async || {
        let sql = "SELECT lease_until FROM chassis_saga";
        let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
        row.int(0).unwrap()
    };
    for _ in 0..5 {
        // Not yet over, but it would be at the next turn.
        stage.clock.advance(lease / 2);
        let before = lease_until().await;
        let renewed = eventually("the lease is renewed", SOON, async || {
            (lease_until().await > before).then_some(())
        });
        tokio::select! {
            _ = &mut step => panic!("it should wait at its gate"),
            () = renewed => {}
        }
        assert!(stage.sagas.runner().due(10).await.unwrap().is_empty());
    }
    open.notify_one();
    assert_eq!(step.await.unwrap(), Some(SagaState::Completed));
    assert_eq!(stage.world.calls("ask"), 1);
}

/// Where it is, what remains, why it waits.
pub(crate) async fn an_instance_can_be_asked<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-b", Fault::Away, 1)).await;
    let id = stage.start("key").await;
    let runner = stage.sagas.runner();
    let view = stage.view(&id).await;
    assert_eq!((view.step.as_str(), view.remaining.len()), ("ask", 6));
    assert_eq!(view.why, "it is about to run ask");
    for _ in 0..3 {
        assert!(runner.step(&stage.env, &id).await.unwrap().is_some());
    }
    let view = stage.view(&id).await;
    assert_eq!(view.remaining, ["hold-b", "confirm", "heard", "finish"]);
    assert!(view.why.contains("run hold-b, try 2, after: AWAY: nobody home"), "{}", view.why);
    let view = stage.settle(&id).await;
    assert_eq!(view.why, "it waits for the signal heard until 1970-01-01T00:26:41Z");
    stage.signal("key").await;
    let view = stage.settle(&id).await;
    assert_eq!((view.state, view.remaining.len()), (SagaState::Completed, 0));
    let log: Vec<String> =
        view.log.iter().map(|line| format!("{} {}", line.step, line.what)).collect();
    assert_eq!(
        log,
        [
            "ask done",
            "hold-a done",
            "hold-b retrying",
            "hold-b done",
            "confirm done",
            "heard done",
            "finish done"
        ]
    );
    assert_eq!(stage.sagas.list(Some(SagaState::Completed), 10).await.unwrap().len(), 1);
    assert_eq!(stage.sagas.list(Some(SagaState::Parked), 10).await.unwrap().len(), 0);

    // Undoing is shown the other way round.
    let stage = Stage::new(&db, World::with("confirm", Fault::Refuse, 1)).await;
    let id = stage.start("other").await;
    let runner = stage.sagas.runner();
    while stage.view(&id).await.state == SagaState::Running {
        runner.step(&stage.env, &id).await.unwrap();
    }
    let view = stage.view(&id).await;
    assert_eq!(view.remaining, ["hold-b", "hold-a"]);
    assert_eq!(view.why, "it is about to undo hold-b");
    let failure = view.failure.unwrap();
    assert_eq!((failure.step.as_str(), failure.details["place"].as_str()), ("confirm", "confirm"));
}

/// Each step is a child of the span that started the saga.
pub(crate) async fn steps_belong_to_the_trace_of_the_start<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-a", Fault::Away, 1)).await;
    let caller = Context::background(&Env::test("caller")).with_request_id("request-1");
    let id = caller.clone().scope(stage.start("key")).await;
    stage.signal("key").await;
    stage.settle(&id).await;
    let spans = stage.env.captured_spans();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(
        names,
        [
            "saga greet ask",
            "saga greet hold-a",
            "saga greet hold-a",
            "saga greet hold-b",
            "saga greet confirm",
            "saga greet heard",
            "saga greet finish"
        ]
    );
    for span in &spans {
        assert_eq!(span.trace.trace_id, caller.trace().trace_id);
        assert_eq!(span.trace.parent, Some(caller.trace().span_id));
    }
    let failed: Vec<bool> = spans.iter().map(|span| span.error.is_some()).collect();
    assert_eq!(failed, [false, true, false, false, false, false, false]);
}

/// What has ended is removed after its retention, with its log and signals.
pub(crate) async fn what_has_ended_is_removed_in_time<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let ended = stage.start("ended").await;
    stage.signal("ended").await;
    stage.signal("never-started").await;
    assert_eq!(stage.settle(&ended).await.state, SagaState::Completed);
    let waits = stage.start("waits").await;
    stage.settle(&waits).await;
    let config = SagaConfig {
        retention: Duration::from_secs(3600),
        clean_every: Duration::from_millis(10),
        ..config()
    };
    let sagas = stage.sagas.clone().with_config(config);
    stage.clock.advance(Duration::from_secs(3601));
    stage.signal("fresh").await;
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let runner = Box::new(sagas.runner());
    let task = tokio::spawn(runner.run(stage.env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    eventually("the old is gone", SOON, async || {
        let sql = "SELECT (SELECT COUNT(*) FROM chassis_saga_signal),
            (SELECT COUNT(*) FROM chassis_saga_log WHERE saga_id = $1)";
        let row = db.fetch_optional(sql, params![ended.as_str()]).await.unwrap().unwrap();
        let gone = stage.sagas.show(&ended).await.unwrap().is_none();
        (gone && (row.int(0).unwrap(), row.int(1).unwrap()) == (1, 0)).then_some(())
    })
    .await;
    trigger.shutdown(SOON);
    task.await.unwrap().unwrap();
    assert!(stage.sagas.show(&waits).await.unwrap().is_some());
}

/// Two runners as components share many sagas: each step runs once, a commit
/// wakes them, and a drain lets go of everything.
pub(crate) async fn runners_share_the_work<B: Backend>(db: Db<B>) {
    const SAGAS: u32 = 25;
    let world = World::default();
    let config = SagaConfig { max_concurrent: 4, ..SagaConfig::default() };
    let sagas = || Sagas::new(&db, definition(1), world.clone()).with_config(config.clone());
    let stage = Stage { sagas: sagas(), ..Stage::new(&db, world.clone()).await };
    let mut running = Vec::new();
    // One shares its handle with the starter, one is as in another process.
    for sagas in [stage.sagas.clone(), sagas()] {
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let runner = Box::new(sagas.runner());
        let task = tokio::spawn(runner.run(stage.env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        running.push((trigger, task));
    }
    for number in 0..SAGAS {
        let key = format!("key-{number}");
        stage.start(&key).await;
        stage.signal(&key).await;
    }
    eventually("all are complete", SOON, async || {
        let done = stage.sagas.list(Some(SagaState::Completed), 100).await.unwrap();
        (done.len() == SAGAS as usize).then_some(())
    })
    .await;
    for (trigger, task) in running {
        trigger.shutdown(SOON);
        task.await.unwrap().unwrap();
    }
    for place in ["ask", "hold-a", "hold-b", "confirm", "finish"] {
        assert_eq!(world.calls(place), SAGAS, "{place}");
    }
    let sql = "SELECT COUNT(*) FROM chassis_saga WHERE owner IS NOT NULL";
    let row = db.fetch_optional(sql, Vec::new()).await.unwrap().unwrap();
    assert_eq!(row.int(0).unwrap(), 0);
    let done =
        stage.env.metrics().counter("saga_ended", "", &[("saga", "greet"), ("state", "completed")]);
    assert_eq!(done.get(), u64::from(SAGAS));
}

/// A drain whose deadline passes drops the step; the next runner goes on.
pub(crate) async fn a_drain_that_takes_too_long_is_a_crash<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-a", Fault::CrashAfter, 1)).await;
    let id = stage.start("key").await;
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let runner = Box::new(stage.sagas.runner());
    let task = tokio::spawn(runner.run(stage.env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    stage.world.stuck().await;
    trigger.shutdown(Duration::from_millis(20));
    task.await.unwrap().unwrap();
    stage.signal("key").await;
    let view = stage.settle(&id).await;
    assert_eq!(view.state, SagaState::Completed);
    assert_eq!(stage.world.calls("hold-a"), 2);
    stage.assert_clean(&view, "drain").await;
}

/// A definition that makes no sense is refused before it runs.
pub(crate) async fn a_wrong_definition_is_refused<B: Backend>(db: Db<B>) {
    let pivot = || SagaDefinition::<Data, World, B>::new("wrong", 1).pivot("confirm", confirm::<B>);
    for (definition, problem) in [
        (SagaDefinition::new("wrong", 1), "no steps"),
        (pivot().local("confirm", finish::<B>), "two steps are called confirm"),
        (pivot().pivot("again", confirm::<B>), "second pivot"),
        (pivot().step("hold-a", hold, release), "after the pivot"),
    ] {
        let stage = Stage::of(&db, World::default(), definition).await;
        let (_trigger, shutdown) = Shutdown::new();
        let (ready, _) = Ready::channel();
        let run = Box::new(stage.sagas.runner()).run(stage.env.clone(), ready, shutdown);
        let error = run.await.unwrap_err();
        assert_eq!(error.reason(), "INVALID_SAGA");
        assert!(error.message().contains(problem), "{error}");
    }
}
