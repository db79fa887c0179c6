//! What a person can ask of a saga and do to it, as scenarios that run on any database.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Component, Ready, Result, Shutdown};
use chassis_data::{Backend, Db};
use chassis_messaging::saga::{SagaDefinition, SagaId, SagaState, Sagas, StepInfo};
use chassis_test::eventually;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::saga_stage::{
    Data, Fault, SOON, Stage, Stepped, World, ask, cancelled, config, confirm, definition, finish,
    hold, release,
};

fn reason<T: Debug>(result: Result<T>) -> String {
    result.unwrap_err().reason().to_owned()
}

/// Steps of the log: which, and what happened.
async fn log<B: Backend>(stage: &Stage<B>, id: &SagaId) -> Vec<String> {
    let view = stage.view(id).await;
    view.log.iter().map(|line| format!("{} {}", line.step, line.what)).collect()
}

/// Starts a saga and lets it make `steps` transitions.
async fn after<B: Backend>(stage: &Stage<B>, key: &str, steps: usize) -> SagaId {
    let id = stage.start(key).await;
    let runner = stage.sagas.runner();
    for _ in 0..steps {
        assert!(runner.step(&stage.env, &id).await.unwrap().is_some());
    }
    id
}

/// Parked after the pivot it can be retried or skipped, not undone; parked while undoing the
/// undo can be skipped; what has ended stays as it is.
pub(crate) async fn a_parked_saga_is_moved_by_hand<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("finish", Fault::Refuse, u32::MAX)).await;
    let id = stage.start("skipped").await;
    stage.signal("skipped").await;
    assert_eq!(stage.settle(&id).await.state, SagaState::Parked);
    assert_eq!(reason(stage.sagas.compensate(&id, "").await), "SAGA_PAST_PIVOT");
    assert_eq!(stage.view(&id).await.state, SagaState::Parked);
    let view = stage.sagas.skip(&id, "done by hand").await.unwrap();
    assert_eq!((view.state, view.last_error), (SagaState::Completed, None));
    let last = view.log.last().unwrap();
    assert_eq!((last.step.as_str(), last.what.as_str()), ("finish", "skipped"));
    assert_eq!(last.error.as_deref(), Some("done by hand"));
    assert_eq!(stage.effects().await, ["confirmed"], "a skipped step does nothing");
    assert_eq!(reason(stage.sagas.skip(&id, "").await), "SAGA_ENDED");
    assert_eq!(reason(stage.sagas.retry(&id).await), "SAGA_ENDED");
    assert_eq!(reason(stage.sagas.compensate(&id, "").await), "SAGA_ENDED");
    assert_eq!(reason(stage.sagas.skip(&SagaId::from("nobody"), "").await), "SAGA_NOT_FOUND");
    db.execute("DELETE FROM effects", Vec::new()).await.unwrap();

    let id = stage.start("retried").await;
    stage.signal("retried").await;
    assert_eq!(stage.settle(&id).await.state, SagaState::Parked);
    stage.world.heal();
    assert_eq!(stage.sagas.retry(&id).await.unwrap().state, SagaState::Running);
    assert_eq!(stage.settle(&id).await.state, SagaState::Completed);
    assert_eq!(stage.effects().await, ["confirmed", "finished"]);
    db.execute("DELETE FROM effects", Vec::new()).await.unwrap();

    let stage = Stage::new(&db, World::with("undo hold-b", Fault::Away, u32::MAX)).await;
    stage.world.set("confirm", Fault::Refuse, 1);
    let id = stage.start("undone").await;
    assert_eq!(stage.settle(&id).await.state, SagaState::Parked);
    assert_eq!(reason(stage.sagas.compensate(&id, "").await), "SAGA_COMPENSATING");
    let view = stage.sagas.skip(&id, "").await.unwrap();
    assert_eq!((view.state, view.remaining), (SagaState::Compensating, vec!["hold-a".to_owned()]));
    let view = stage.settle(&id).await;
    assert_eq!(view.state, SagaState::Cancelled);
    assert_eq!(view.failure.unwrap().reason, "REFUSED", "the first failure is the reason");
    assert_eq!(stage.held(), ["hold-b"], "nobody undid what was skipped");
}

/// Between two tries a person need not wait for the pause.
pub(crate) async fn a_step_between_two_tries_is_moved_by_hand<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-b", Fault::Away, 1)).await;
    stage.signal("retried").await;
    let id = after(&stage, "retried", 3).await;
    let runner = stage.sagas.runner();
    assert_eq!(runner.step(&stage.env, &id).await.unwrap(), None, "it pauses");
    assert_eq!(stage.sagas.retry(&id).await.unwrap().attempts, 0);
    assert!(runner.step(&stage.env, &id).await.unwrap().is_some(), "not any more");
    let view = stage.settle(&id).await;
    stage.assert_clean(&view, "retried").await;

    let stage = Stage::new(&db, World::with("hold-b", Fault::Away, 1)).await;
    stage.signal("skipped").await;
    let id = after(&stage, "skipped", 3).await;
    let view = stage.sagas.skip(&id, "").await.unwrap();
    assert_eq!(view.remaining, ["confirm", "heard", "finish"]);
    assert_eq!(stage.settle(&id).await.state, SagaState::Completed);
    assert_eq!(stage.held(), ["hold-a"]);
    stage.effects().await;
    db.execute("DELETE FROM effects", Vec::new()).await.unwrap();

    // It may have happened in the try before: it is undone too.
    let stage = Stage::new(&db, World::with("hold-b", Fault::Late, 1)).await;
    let id = after(&stage, "undone", 3).await;
    stage.sagas.compensate(&id, "").await.unwrap();
    let view = stage.settle(&id).await;
    stage.assert_clean(&view, "undone").await;
    assert_eq!(stage.world.calls("undo hold-b"), 1);
}

/// A wait counts as over; the signal is late then and changes nothing.
pub(crate) async fn a_signal_that_will_not_come_is_skipped<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let id = stage.start("key").await;
    assert_eq!(stage.settle(&id).await.step, "heard");
    let view = stage.sagas.skip(&id, "heard by telephone").await.unwrap();
    assert_eq!((view.state, view.step.as_str()), (SagaState::Running, "finish"));
    stage.signal("key").await;
    let view = stage.settle(&id).await;
    assert_eq!((view.state, &view.data["heard"]), (SagaState::Completed, &Value::Null));
    assert_eq!(log(&stage, &id).await[4..], ["heard skipped", "finish done"]);
}

/// What goes on by itself cannot be skipped or retried.
pub(crate) async fn what_moves_by_itself_is_left_alone<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let id = after(&stage, "key", 1).await;
    assert_eq!(reason(stage.sagas.skip(&id, "").await), "SAGA_NOT_STUCK");
    assert_eq!(reason(stage.sagas.retry(&id).await), "SAGA_NOT_STUCK");
    assert_eq!(stage.settle(&id).await.step, "heard");
    let before = stage.view(&id).await;
    assert_eq!(reason(stage.sagas.retry(&id).await), "SAGA_NOT_STUCK");
    assert_eq!(reason(stage.sagas.compensate(&id, "").await), "SAGA_PAST_PIVOT");
    let after = stage.view(&id).await;
    assert_eq!((before.log, before.why), (after.log, after.why));
}

/// While a runner holds it, nobody moves it; and whoever comes first, it ends clean.
pub(crate) async fn a_runner_at_work_is_not_raced<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-a", Fault::CrashBefore, 1)).await;
    let id = after(&stage, "key", 1).await;
    let runner = stage.sagas.runner();
    let step = runner.step(&stage.env, &id);
    tokio::pin!(step);
    tokio::select! {
        _ = &mut step => panic!("it should stop inside its step"),
        () = stage.world.stuck() => {}
    }
    for result in [
        stage.sagas.retry(&id).await,
        stage.sagas.skip(&id, "").await,
        stage.sagas.compensate(&id, "").await,
    ] {
        let error = result.unwrap_err();
        assert_eq!((error.code().as_str(), error.reason()), ("ABORTED", "SAGA_BUSY"));
        assert!(error.retry_after().is_some());
    }
    assert_eq!(log(&stage, &id).await, ["ask done"]);

    for number in 0..24 {
        let stage = Stage::new(&db, World::default()).await;
        let key = format!("raced-{number}");
        stage.signal(&key).await;
        let id = after(&stage, &key, number % 4).await;
        let runner = stage.sagas.runner();
        let (stepped, moved) =
            tokio::join!(runner.step(&stage.env, &id), stage.sagas.compensate(&id, "enough"));
        stepped.unwrap();
        let view = stage.settle(&id).await;
        stage.assert_clean(&view, &key).await;
        match moved {
            Ok(_) => assert_eq!(view.failure.unwrap().message, "enough", "{key}"),
            Err(error) => {
                let refused = ["SAGA_BUSY", "SAGA_PAST_PIVOT", "SAGA_ENDED"];
                assert!(refused.contains(&error.reason()), "{key}: {error}");
                assert_eq!(view.state, SagaState::Completed, "{key}");
            }
        }
    }
}

/// A lease that ran out holds nobody back: the step may have happened, and a runner that
/// wakes up again writes nothing.
pub(crate) async fn a_dead_runner_is_no_obstacle<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::with("hold-a", Fault::CrashAfter, 1)).await;
    let id = stage.start("dead").await;
    let runner = stage.sagas.runner();
    while stage.step_or_crash(&runner, &id).await != Stepped::Crashed {}
    assert_eq!(reason(stage.sagas.compensate(&id, "").await), "SAGA_BUSY");
    stage.clock.advance(config().lease);
    stage.sagas.compensate(&id, "").await.unwrap();
    let view = stage.settle(&id).await;
    stage.assert_clean(&view, "dead").await;
    assert_eq!(stage.world.calls("undo hold-a"), 1);

    let stage = Stage::new(&db, World::default()).await;
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let slow = move |world: World, data: Data, info: StepInfo| {
        let gate = gate.clone();
        async move {
            world.1.notify_one();
            gate.notified().await;
            hold(world, data, info).await
        }
    };
    let definition = SagaDefinition::new("slow", 1)
        .step("hold-a", slow, release)
        .pivot("confirm", confirm::<B>)
        .on_cancelled(cancelled::<B>);
    let sagas = Sagas::new(&db, definition, stage.world.clone())
        .with_config(config())
        .with_clock(stage.clock.clone());
    let stage = Stage { sagas, ..stage };
    let id = stage.start("paused").await;
    let runner = stage.sagas.runner();
    let paused = runner.step(&stage.env, &id);
    tokio::pin!(paused);
    tokio::select! {
        _ = &mut paused => panic!("it should wait at its gate"),
        () = stage.world.stuck() => {}
    }
    stage.clock.advance(config().lease);
    let compensated = stage.sagas.compensate(&id, "too slow").await.unwrap();
    let before = stage.settle(&id).await;
    assert_eq!(before.state, SagaState::Cancelled);
    assert_eq!(compensated.remaining, ["hold-a"], "its step may have happened");
    open.notify_one();
    paused.await.unwrap();
    let view = stage.view(&id).await;
    assert_eq!(view.log, before.log);
    assert_eq!(stage.held(), [""; 0], "the late call found the door closed");
}

/// Undone from wherever it stands before the pivot, for a reason that everybody can read.
pub(crate) async fn a_saga_is_turned_back_at_each_step<B: Backend>(db: Db<B>) {
    for steps in 0..4 {
        let stage = Stage::new(&db, World::default()).await;
        let key = format!("key-{steps}");
        let id = after(&stage, &key, steps).await;
        let view = stage.sagas.compensate(&id, "changed their mind").await.unwrap();
        assert_eq!(view.state, SagaState::Compensating, "{key}");
        let view = stage.settle(&id).await;
        assert_eq!(view.state, SagaState::Cancelled, "{key}");
        let failure = view.failure.as_ref().unwrap();
        assert_eq!(failure.step, ["ask", "hold-a", "hold-b", "confirm"][steps]);
        assert_eq!(failure.reason, "COMPENSATED_BY_OPERATOR");
        assert_eq!(failure.message, "changed their mind");
        stage.assert_clean(&view, &key).await;
        for (step, n) in [("hold-a", 2), ("hold-b", 3)] {
            let undone = stage.world.calls(&format!("undo {step}"));
            assert_eq!(undone, u32::from(steps >= n), "{key} {step}");
        }
    }
}

/// Which step would be skipped is not guessed where the definition is not known.
pub(crate) async fn a_version_that_is_not_known_is_not_guessed_at<B: Backend>(db: Db<B>) {
    let old = Stage::new(&db, World::default()).await;
    let lost = old.start("lost").await;
    let renamed = old.start("renamed").await;
    let new = Stage::of(&db, old.world.clone(), definition(2)).await;
    let runner = new.sagas.runner();
    assert_eq!(runner.step(&new.env, &lost).await.unwrap(), Some(SagaState::Parked));
    assert_eq!(reason(new.sagas.skip(&lost, "").await), "SAGA_VERSION_UNKNOWN");
    assert_eq!(reason(new.sagas.compensate(&lost, "").await), "SAGA_VERSION_UNKNOWN");
    assert!(new.sagas.diagram(&lost).await.unwrap().is_none());
    // Whoever knows it may go on.
    assert_eq!(old.sagas.retry(&lost).await.unwrap().state, SagaState::Running);

    let other =
        SagaDefinition::new("greet", 1).step("hold-b", hold, release).local("finish", finish::<B>);
    let other = Stage::of(&db, old.world.clone(), other).await;
    let runner = other.sagas.runner();
    assert_eq!(runner.step(&other.env, &renamed).await.unwrap(), Some(SagaState::Parked));
    assert_eq!(reason(other.sagas.skip(&renamed, "").await), "SAGA_DEFINITION_DIFFERS");

    // The sagas of another definition in the same database are not ours.
    let foreign = SagaDefinition::new("other", 1).action("ask", ask);
    let foreign = Stage::of(&db, World::default(), foreign).await;
    assert!(foreign.sagas.show(&lost).await.unwrap().is_none());
    assert_eq!(reason(foreign.sagas.retry(&lost).await), "SAGA_NOT_FOUND");
}

/// The log holds what each step changed, and neither it nor a view what is private.
pub(crate) async fn the_log_tells_what_changed<B: Backend>(db: Db<B>) {
    let definition = definition(1).private(&["heard"]);
    let stage = Stage::of(&db, World::with("hold-a", Fault::Away, 1), definition).await;
    let rows = async || {
        let sql = "SELECT id FROM chassis_saga WHERE data LIKE '%Ada%'";
        db.fetch_all(sql, Vec::new()).await.unwrap().len()
    };
    let id = stage.start("key").await;
    stage.signal("key").await;
    while stage.view(&id).await.step != "finish" {
        stage.step_or_crash(&stage.sagas.runner(), &id).await;
        stage.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(stage.view(&id).await.data["heard"], "(private)");
    assert_eq!(rows().await, 1, "the steps need it");
    let view = stage.settle(&id).await;
    assert_eq!((view.state, rows().await), (SagaState::Completed, 0));
    let changes: Vec<Value> = view.log.iter().map(|line| json!(line.changes)).collect();
    assert_eq!(
        json!(changes),
        json!([
            { "set": { "/done/0": "ask" } },
            null,
            { "set": { "/done/1": "hold-a" } },
            { "set": { "/done/2": "hold-b" } },
            { "set": { "/done/3": "confirm" } },
            { "set": { "/heard": "(private)" } },
            { "set": { "/done/4": "finish" } },
        ])
    );
    let sql = "SELECT changes FROM chassis_saga_log WHERE changes LIKE '%Ada%'";
    assert!(db.fetch_all(sql, Vec::new()).await.unwrap().is_empty());
}

/// The picture of the definition, with the place of one saga in it.
pub(crate) async fn the_picture_shows_the_place<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let id = after(&stage, "key", 2).await;
    let picture = stage.sagas.diagram(&id).await.unwrap().unwrap();
    assert!(picture.starts_with(&stage.sagas.mermaid()), "{picture}");
    assert!(picture.contains("class s0,s1 done\n") && picture.contains("class s2 here\n"));
    stage.sagas.compensate(&id, "").await.unwrap();
    let picture = stage.sagas.diagram(&id).await.unwrap().unwrap();
    assert!(picture.contains("class s2 failed\n") && picture.contains("class u1 here\n"));
    assert!(stage.sagas.diagram(&SagaId::from("nobody")).await.unwrap().is_none());
}

/// A runner offers it all under the name of its definition.
pub(crate) async fn the_admin_port_offers_it<B: Backend>(db: Db<B>) {
    let stage = Stage::new(&db, World::default()).await;
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let runner = Box::new(stage.sagas.runner());
    let task = tokio::spawn(runner.run(stage.env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    let operations = stage.env.operations().clone();
    let offered: BTreeMap<String, bool> =
        operations.list().into_iter().map(|info| (info.name.into_owned(), info.writes)).collect();
    let expected = [
        ("sagas/greet/compensate", true),
        ("sagas/greet/diagram", false),
        ("sagas/greet/list", false),
        ("sagas/greet/retry", true),
        ("sagas/greet/show", false),
        ("sagas/greet/skip", true),
    ];
    assert_eq!(offered, expected.map(|(name, writes)| (name.to_owned(), writes)).into());
    let run = async |name: &str, args: Value| {
        operations.run(&format!("sagas/greet/{name}"), args, true).await
    };

    let id = stage.start("key").await;
    let waits = async || {
        let shown = run("show", json!({ "key": "key" })).await.unwrap();
        (shown["step"] == "heard").then_some(shown)
    };
    let shown = eventually("it waits", SOON, waits).await;
    assert_eq!(
        (shown["id"].as_str(), shown["state"].as_str()),
        (Some(id.as_str()), Some("running"))
    );
    assert_eq!(shown["remaining"], json!(["heard", "finish"]));
    assert_eq!(shown["log"][0]["changes"], json!({ "set": { "/done/0": "ask" } }));
    for args in [json!({ "id": id }), json!({ "saga": id }), json!({ "saga": "key" })] {
        assert_eq!(run("show", args).await.unwrap(), shown);
    }
    let listed = run("list", json!({ "state": "running", "limit": "5" })).await.unwrap();
    assert_eq!(
        (listed["sagas"][0]["key"].as_str(), listed["sagas"][1].is_null()),
        (Some("key"), true)
    );
    assert_eq!(run("list", json!({ "state": "parked" })).await.unwrap(), json!({ "sagas": [] }));
    // Page by page, each saga once, the newest first.
    for number in 0..4 {
        stage.start(&format!("more-{number}")).await;
    }
    let (mut keys, mut args) = (Vec::new(), json!({ "limit": "2" }));
    loop {
        let page = run("list", args).await.unwrap();
        let sagas = page["sagas"].as_array().unwrap();
        assert!(sagas.len() <= 2);
        keys.extend(sagas.iter().map(|saga| saga["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => args = json!({ "limit": "2", "before": next }),
            None => break,
        }
    }
    assert_eq!(keys, ["more-3", "more-2", "more-1", "more-0", "key"]);
    let drawn = run("diagram", json!({})).await.unwrap();
    assert_eq!(drawn["mermaid"].as_str(), Some(stage.sagas.mermaid().as_str()));
    let drawn = run("diagram", json!({ "key": "key" })).await.unwrap();
    assert!(drawn["mermaid"].as_str().unwrap().contains("class s4 here"), "{drawn}");

    for (name, args, expected) in [
        ("show", json!({}), "ARGUMENT_MISSING"),
        ("show", json!({ "saga": "nobody" }), "SAGA_NOT_FOUND"),
        ("show", json!({ "id": "key" }), "SAGA_NOT_FOUND"),
        ("diagram", json!({ "key": "nobody" }), "SAGA_NOT_FOUND"),
        ("list", json!({ "state": "lost" }), "ARGUMENT_WRONG"),
        ("list", json!({ "limit": "many" }), "ARGUMENT_WRONG"),
        ("retry", json!({ "key": "key" }), "SAGA_NOT_STUCK"),
        ("compensate", json!({ "key": "key" }), "SAGA_PAST_PIVOT"),
    ] {
        assert_eq!(reason(run(name, args.clone()).await), expected, "{name} {args}");
    }
    let moved = run("skip", json!({ "saga": "key", "reason": "by telephone" })).await.unwrap();
    assert_eq!(moved["log"][4]["error"], "by telephone");
    let ended = async || {
        let shown = run("show", json!({ "key": "key" })).await.unwrap();
        (shown["state"] == "completed").then_some(())
    };
    eventually("the runner goes on at once", SOON, ended).await;
    trigger.shutdown(SOON);
    task.await.unwrap().unwrap();
}

/// How many are where, and since when the oldest.
pub(crate) async fn instances_are_counted_by_state_and_age<B: Backend>(db: Db<B>) {
    let definition = definition(1).second_start_waits(5);
    let stage = Stage::of(&db, World::with("finish", Fault::Refuse, u32::MAX), definition).await;
    let parked = stage.start("parked").await;
    stage.signal("parked").await;
    stage.settle(&parked).await;
    stage.clock.advance(Duration::from_secs(30));
    for key in ["a", "b"] {
        let id = stage.start(key).await;
        assert_eq!(stage.settle(&id).await.step, "heard");
    }
    stage.clock.advance(Duration::from_secs(30));
    stage.start("a").await;
    stage.clock.advance(Duration::from_secs(30));
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let runner = Box::new(stage.sagas.runner());
    let task = tokio::spawn(runner.run(stage.env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    let gauges = |state: &str| {
        let labels = [("saga", "greet"), ("state", state)];
        let gauge = |name| stage.env.metrics().gauge(name, "", &labels).get();
        (gauge("saga_instances"), gauge("saga_oldest_age_seconds"))
    };
    // The clock of the settling above moved on by whole seconds at times.
    let near = |(count, age): (i64, i64), expected: (i64, i64)| {
        count == expected.0 && (expected.1..expected.1 + 20).contains(&age)
    };
    eventually("they are counted", SOON, async || {
        let counted = near(gauges("running"), (2, 60))
            && near(gauges("queued"), (1, 30))
            && near(gauges("parked"), (1, 90))
            && gauges("compensating") == (0, 0);
        counted.then_some(())
    })
    .await;
    trigger.shutdown(SOON);
    task.await.unwrap().unwrap();
}
