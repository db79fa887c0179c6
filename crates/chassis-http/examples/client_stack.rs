//! What the client stack costs, beside a bare hyper client and reqwest in the same run.
//!
//! `cargo run --release -p chassis-http --example client_stack`. One JSON line for each figure;
//! `ratio` is `value` by `anchor_value`. The three clients call the same three servers, in
//! another process, in slices that alternate; the figure is CPU time of this process's one
//! thread for a call, the median of all slices, so that a busy machine slows all three alike.
//!
//! `cost CLIENT CALLS` makes calls with one client and nothing else: for a profiler.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chassis_core::{BoxError, Context, Env, Metrics};
use chassis_discovery::{Discovery, Endpoint, Registrar, Registry, Target};
use chassis_http::Client;
use chassis_test::figures::{Asked, Callees, Figure, alternate, median, thread_cpu};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Bytes, service::service_fn};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo},
};
use serde_json::json;

type Outcome<T> = Result<T, BoxError>;

const ENDPOINTS: usize = 3;
/// Calls under way at a time.
const TASKS: usize = 16;
const CALLS_PER_SLICE: usize = 4_000;
const SLICES: usize = 25;
const BODY: &[u8] = br#"{"id":7,"text":"hello"}"#;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve()),
        Some("cost") => runtime.block_on(cost(&args[1..])),
        _ => runtime.block_on(compare(&Asked::parse(args, &["--quick"])?)),
    }
}

/// The three servers, in a process of their own.
async fn serve() -> Outcome<()> {
    for _ in 0..ENDPOINTS {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(async |_: Request<hyper::body::Incoming>| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY))))
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
    }
    // Until the parent is gone: it holds the other end.
    tokio::task::spawn_blocking(Callees::until_orphaned).await?;
    Ok(())
}

/// The clients that are compared.
#[derive(Clone)]
struct Clients {
    hyper: legacy::Client<legacy::connect::HttpConnector, Empty<Bytes>>,
    reqwest: reqwest::Client,
    chassis: Client,
    addresses: Arc<[SocketAddr]>,
    next: Arc<AtomicUsize>,
}

impl Clients {
    async fn of(addresses: &[SocketAddr]) -> Outcome<Clients> {
        let registry = Registry::new();
        for address in addresses {
            let target = Target::new("greeter", "http");
            // Held until the process ends.
            let lease = registry.register(target, Endpoint::new(*address)).await?;
            std::mem::forget(lease);
        }
        let discovery = Discovery::in_process(registry);
        let mut connector = legacy::connect::HttpConnector::new();
        connector.set_nodelay(true);
        Ok(Clients {
            hyper: legacy::Client::builder(TokioExecutor::new()).build(connector),
            reqwest: reqwest::Client::builder().build()?,
            chassis: Client::builder("greeter", &discovery).metrics(&Metrics::default()).build()?,
            addresses: addresses.into(),
            next: Arc::default(),
        })
    }

    /// The bare ones go round.
    fn url(&self) -> String {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        format!("http://{}/greetings/7", self.addresses[turn % self.addresses.len()])
    }

    async fn call(&self, name: &str) -> Outcome<usize> {
        Ok(match name {
            "hyper" => {
                let request = Request::get(self.url()).body(Empty::new())?;
                let answer = self.hyper.request(request).await?;
                answer.into_body().collect().await?.to_bytes().len()
            }
            "reqwest" => self.reqwest.get(self.url()).send().await?.bytes().await?.len(),
            _ => self.chassis.get("/greetings/7").send().await?.bytes().await?.len(),
        })
    }
}

/// CPU µs of one call.
async fn slice<F>(calls: usize, call: impl Fn() -> F) -> Outcome<f64>
where
    F: Future<Output = Outcome<usize>>,
{
    let left = AtomicUsize::new(calls);
    let begun = thread_cpu()?;
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    let tasks = (0..TASKS).map(|_| async {
        while take().is_ok() {
            if call().await? != BODY.len() {
                return Err::<(), BoxError>("a wrong answer".into());
            }
        }
        Ok(())
    });
    futures_util::future::try_join_all(tasks).await?;
    Ok((thread_cpu()? - begun) as f64 / 1e3 / calls as f64)
}

async fn compare(asked: &Asked) -> Outcome<()> {
    let servers = Callees::start(ENDPOINTS)?;
    let clients = Clients::of(servers.addresses()).await?;
    let env = Env::new(chassis_core::service_info!("bench"));
    let names = ["hyper", "reqwest", "chassis"];
    let costs = alternate::<3, BoxError>(SLICES, async |candidate| {
        let context = Context::background(&env).with_request_id("bench-1");
        context.scope(slice(CALLS_PER_SLICE, || clients.call(names[candidate]))).await
    });
    let [hyper, reqwest, chassis] = costs.await?.map(median);
    let figure =
        |anchor, value| Figure::new("http_client_stack", chassis, "us/call", anchor, value);
    asked.print(&figure("hyper_client", hyper));
    asked.print(&figure("reqwest", reqwest));
    Ok(())
}

async fn cost(args: &[String]) -> Outcome<()> {
    let [name, calls] = args else { return Err("cost CLIENT CALLS".into()) };
    let servers = Callees::start(ENDPOINTS)?;
    let clients = Clients::of(servers.addresses()).await?;
    let env = Env::new(chassis_core::service_info!("bench"));
    let context = Context::background(&env).with_request_id("bench-1");
    let calls = calls.parse()?;
    let cost = context.scope(slice(calls, || clients.call(name))).await?;
    println!("{}", json!({ "client": name, "calls": calls, "us": cost }));
    Ok(())
}
