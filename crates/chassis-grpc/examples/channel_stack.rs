//! What the stack of a channel costs, beside bare tonic channels in the same run.
//!
//! `cargo run --release -p chassis-grpc --example channel_stack`. One JSON line for each figure;
//! `ratio` is `value` by `anchor_value`. Both call the same three servers, in
//! another process, in slices that alternate; the figure is CPU time of this process's one
//! thread for a call, the median of all slices, so that a busy machine slows both alike.
//!
//! `cost CLIENT CALLS` makes calls with one client and nothing else: for a profiler.
#![allow(clippy::print_stdout, reason = "the figures are the output")]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chassis_core::{BoxError, Context, Env, Metrics};
use chassis_discovery::{Discovery, Endpoint, Registrar, Registry, Target};
use chassis_grpc::Channel;
use chassis_test::figures::{Asked, Callees, Figure, alternate, median, thread_cpu};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

type Outcome<T> = Result<T, BoxError>;

const ENDPOINTS: usize = 3;
/// Calls under way at a time.
const TASKS: usize = 16;
const CALLS_PER_SLICE: usize = 4_000;
const SLICES: usize = 25;

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
        let (_, health) = tonic_health::server::health_reporter();
        let server = transport::Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }
    // Until the parent is gone: it holds the other end.
    tokio::task::spawn_blocking(Callees::until_orphaned).await?;
    Ok(())
}

/// The clients that are compared.
struct Clients {
    tonic: Vec<HealthClient<transport::Channel>>,
    chassis: HealthClient<Channel>,
    next: Arc<AtomicUsize>,
}

impl Clients {
    async fn of(addresses: &[SocketAddr]) -> Outcome<Clients> {
        let registry = Registry::new();
        let mut tonic = Vec::new();
        for address in addresses {
            let target = Target::new("greeter", "grpc");
            // Held until the process ends.
            let lease = registry.register(target, Endpoint::new(*address)).await?;
            std::mem::forget(lease);
            let endpoint = transport::Endpoint::from_shared(format!("http://{address}"))?;
            tonic.push(HealthClient::new(endpoint.connect_lazy()));
        }
        let discovery = Discovery::in_process(registry);
        let channel = Channel::builder("greeter", &discovery).metrics(&Metrics::default());
        let chassis = HealthClient::new(channel.build()?);
        Ok(Clients { tonic, chassis, next: Arc::default() })
    }

    async fn call(&self, name: &str) -> Outcome<i32> {
        let request = HealthCheckRequest::default();
        let answer = if name == "tonic" {
            // The bare ones go round.
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            self.tonic[turn % self.tonic.len()].clone().check(request).await?
        } else {
            self.chassis.clone().check(request).await?
        };
        Ok(answer.into_inner().status)
    }
}

/// CPU µs of one call.
async fn slice<F>(calls: usize, call: impl Fn() -> F) -> Outcome<f64>
where
    F: Future<Output = Outcome<i32>>,
{
    let left = AtomicUsize::new(calls);
    let begun = thread_cpu()?;
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    let tasks = (0..TASKS).map(|_| async {
        while take().is_ok() {
            if call().await? != ServingStatus::Serving as i32 {
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
    let names = ["tonic", "chassis"];
    let costs = alternate::<2, BoxError>(SLICES, async |candidate| {
        let context = Context::background(&env).with_request_id("bench-1");
        context.scope(slice(CALLS_PER_SLICE, || clients.call(names[candidate]))).await
    });
    let [tonic, chassis] = costs.await?.map(median);
    let figure = Figure::new("grpc_client_stack", chassis, "us/call", "tonic_channel", tonic);
    asked.print(&figure);
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
