//! What requests and replies promise, as scenarios that run on any broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chassis_core::{
    Code, Component, Context, Deadline, Env, Error, Priority, Ready, Result, Shutdown,
    ShutdownTrigger, SpanKind,
};
use chassis_messaging::request::{RequesterConfig, ResponderConfig};
use chassis_messaging::{Broker, Event, Request, Requester, Responder};
use chassis_test::eventually;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::world::SOON;

#[derive(Serialize, Deserialize)]
struct Double {
    number: i64,
}

impl Event for Double {
    const TOPIC: &'static str = "numbers.double";
    const TYPE: &'static str = "double.v1";

    fn key(&self) -> Option<String> {
        None
    }
}

impl Request for Double {
    type Reply = i64;
}

#[derive(Clone)]
struct Calculator {
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Calculator {
    fn with_gate(open: usize) -> Calculator {
        Calculator { asked: Arc::default(), gate: Arc::new(Semaphore::new(open)) }
    }

    async fn until_asked(&self, count: usize) {
        eventually("requests arrive", SOON, async || {
            (self.asked.load(Ordering::SeqCst) >= count).then_some(())
        })
        .await;
    }
}

async fn double(calculator: Calculator, request: Double) -> Result<i64> {
    calculator.asked.fetch_add(1, Ordering::SeqCst);
    let _pass = calculator.gate.acquire().await.map_err(Error::internal)?;
    if request.number == 13 {
        let error = Error::failed_precondition("UNLUCKY", "thirteen cannot be doubled");
        return Err(error.with_source("it is cursed"));
    }
    if request.number == 0 {
        panic!("the responder was asked to panic");
    }
    Ok(request.number * 2)
}

struct Running {
    env: Env,
    trigger: ShutdownTrigger,
    task: JoinHandle<Result<()>>,
}

impl Running {
    async fn start(broker: &Broker, calculator: &Calculator, config: ResponderConfig) -> Running {
        let env = Env::test("calculator");
        let responder = Responder::new(broker, "calculator", calculator.clone())
            .with_config(config)
            .on::<Double>(double);
        let (trigger, shutdown) = Shutdown::new();
        let (ready, is_ready) = Ready::channel();
        let task = tokio::spawn(Box::new(responder).run(env.clone(), ready, shutdown));
        is_ready.await.unwrap();
        Running { env, trigger, task }
    }

    fn responses(&self, result: &str) -> u64 {
        let labels = [("topic", Double::TOPIC), ("result", result)];
        self.env.metrics().counter("responses", "", &labels).get()
    }

    async fn stop(self) {
        self.trigger.shutdown(SOON);
        tokio::time::timeout(SOON, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn config(max_open: usize, timeout: Duration) -> RequesterConfig {
    RequesterConfig { max_open, timeout }
}

pub(crate) async fn a_request_gets_its_reply_or_what_went_wrong(broker: Broker) {
    let env = Env::test("asker");
    let requester = Requester::connect(&env, &broker, config(100, SOON)).await.unwrap();
    let nobody = requester.ask(&Double { number: 1 }).await.unwrap_err();
    assert_eq!((nobody.code(), nobody.reason()), (Code::Unavailable, "NO_RESPONDER"));
    assert!(nobody.was_not_sent());

    let calculator = Calculator::with_gate(1000);
    let one = Running::start(&broker, &calculator, ResponderConfig::default()).await;
    let two = Running::start(&broker, &calculator, ResponderConfig::default()).await;
    let ask = |number| {
        let requester = requester.clone();
        async move { requester.ask(&Double { number }).await }
    };
    let replies = futures_util::future::join_all((1..=12).map(ask)).await;
    let replies: Vec<i64> = replies.into_iter().map(Result::unwrap).collect();
    assert_eq!(replies, (1..=12).map(|number| number * 2).collect::<Vec<_>>());
    // One of the group for each.
    assert_eq!(calculator.asked.load(Ordering::SeqCst), 12);

    let unlucky = ask(13).await.unwrap_err();
    assert_eq!((unlucky.code(), unlucky.reason()), (Code::FailedPrecondition, "UNLUCKY"));
    assert_eq!(unlucky.message(), "thirteen cannot be doubled");
    assert!(!unlucky.chain().contains("cursed"), "{}", unlucky.chain());
    assert_eq!(ask(0).await.unwrap_err().code(), Code::Internal);
    assert_eq!(ask(21).await.unwrap(), 42);
    one.stop().await;
    two.stop().await;
    assert_eq!(ask(1).await.unwrap_err().reason(), "NO_RESPONDER");
    assert_eq!(env.metrics().gauge("requests_open", "", &[]).get(), 0);
}

pub(crate) async fn deadline_and_trace_travel(broker: Broker) {
    #[derive(Clone, Default)]
    struct Seen(Arc<parking_lot::Mutex<Option<Context>>>);
    async fn look(seen: Seen, _: Double) -> Result<i64> {
        *seen.0.lock() = Some(Context::current());
        Ok(0)
    }
    let seen = Seen::default();
    let env = Env::test("calculator");
    let responder = Responder::new(&broker, "calculator", seen.clone()).on::<Double>(look);
    let (trigger, shutdown) = Shutdown::new();
    let (ready, is_ready) = Ready::channel();
    let task = tokio::spawn(Box::new(responder).run(env.clone(), ready, shutdown));
    is_ready.await.unwrap();
    let asker = Env::test("asker");
    let requester = Requester::connect(&asker, &broker, RequesterConfig::default()).await.unwrap();
    let caller =
        Context::background(&asker).with_request_id("request-1").with_priority(Priority::Sheddable);
    let given = Duration::from_secs(3);
    let context = caller.clone().with_deadline(Deadline::after(given));
    context.scope(requester.ask(&Double { number: 1 })).await.unwrap();
    let inside = seen.0.lock().take().unwrap();
    assert_eq!(inside.trace().trace_id, caller.trace().trace_id);
    assert_eq!(inside.request_id(), "request-1");
    assert_eq!(inside.priority(), Priority::Sheddable);
    assert!(inside.deadline().unwrap().remaining() <= given);
    trigger.shutdown(SOON);
    task.await.unwrap().unwrap();
    let asked = asker.captured_spans();
    assert_eq!((asked[0].kind, &*asked[0].name), (SpanKind::Client, "request numbers.double"));
    let answered = env.captured_spans();
    assert_eq!(answered[0].kind, SpanKind::Server);
    assert_eq!(answered[0].trace.parent, Some(asked[0].trace.span_id));
}

pub(crate) async fn nothing_waits_longer_or_in_greater_number_than_it_may(broker: Broker) {
    let env = Env::test("asker");
    let patience = Duration::from_millis(400);
    let requester = Requester::connect(&env, &broker, config(2, patience)).await.unwrap();
    let calculator = Calculator::with_gate(0);
    let slow = ResponderConfig { concurrency: 1, queue: 0, ..ResponderConfig::default() };
    let running = Running::start(&broker, &calculator, slow).await;
    let ask = || {
        let requester = requester.clone();
        tokio::spawn(async move { requester.ask(&Double { number: 4 }).await })
    };
    let first = ask();
    calculator.until_asked(1).await;
    // The only hand is taken and nobody may wait.
    let busy = ask().await.unwrap().unwrap_err();
    assert_eq!((busy.code(), busy.reason()), (Code::ResourceExhausted, "RESPONDER_BUSY"));
    // Both sides give up at the same time; either may be the first to say so.
    let late = first.await.unwrap().unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    // The handler gave up with its caller, so it can be asked again.
    calculator.gate.add_permits(1000);
    let again = eventually("it answers again", SOON, async || ask().await.unwrap().ok()).await;
    assert_eq!(again, 8);
    assert!(running.responses("busy") >= 1);
    running.stop().await;
}

pub(crate) async fn more_open_requests_than_allowed_are_refused(broker: Broker) {
    let env = Env::test("asker");
    let requester = Requester::connect(&env, &broker, config(2, SOON)).await.unwrap();
    let calculator = Calculator::with_gate(0);
    let running = Running::start(&broker, &calculator, ResponderConfig::default()).await;
    let ask = |number| {
        let requester = requester.clone();
        tokio::spawn(async move { requester.ask(&Double { number }).await })
    };
    let open = [ask(1), ask(2)];
    calculator.until_asked(2).await;
    let refused = ask(3).await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), "TOO_MANY_OPEN_REQUESTS");
    assert!(refused.was_not_sent());
    // A caller that leaves makes room; the reply that comes then finds nobody.
    let [first, second] = open;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let third = ask(3);
    calculator.until_asked(3).await;
    calculator.gate.add_permits(1000);
    assert_eq!(second.await.unwrap().unwrap(), 4);
    assert_eq!(third.await.unwrap().unwrap(), 6);
    let late = env.metrics().counter("requests_late_replies", "", &[]);
    eventually("the late reply is counted", SOON, async || (late.get() == 1).then_some(())).await;
    assert_eq!(env.metrics().counter("requests_refused", "", &[]).get(), 1);
    running.stop().await;
}

/// Who waits for a reply when the broker is closed learns of it at once.
pub(crate) async fn closing_the_broker_ends_open_requests(broker: Broker) {
    let env = Env::test("asker");
    let requester = Requester::connect(&env, &broker, config(2, SOON * 3)).await.unwrap();
    let calculator = Calculator::with_gate(0);
    let running = Running::start(&broker, &calculator, ResponderConfig::default()).await;
    let asker = requester.clone();
    let open = tokio::spawn(async move { asker.ask(&Double { number: 1 }).await });
    calculator.until_asked(1).await;
    running.task.abort();
    broker.close().await;
    let closed = tokio::time::timeout(SOON, open).await.unwrap().unwrap().unwrap_err();
    assert_eq!(closed.reason(), "BROKER_CLOSED");
    let after = requester.ask(&Double { number: 1 }).await.unwrap_err();
    assert_eq!(after.reason(), "BROKER_CLOSED");
}
