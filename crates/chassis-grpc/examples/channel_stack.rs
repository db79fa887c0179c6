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
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chassis_core::{BoxError, Context, Env, Metrics};
use chassis_discovery::{Discovery, Endpoint, Registrar, Registry, Target};
use chassis_grpc::Channel;
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
        _ => runtime.block_on(compare()),
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
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await;
    Ok(())
}

/// The process of the servers; dropping it ends them.
struct Servers {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Servers {
    fn start() -> Outcome<Servers> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let lines = BufReader::new(output).lines().take(ENDPOINTS);
        let addresses = lines.map(|line| Ok(line?.parse()?)).collect::<Outcome<Vec<_>>>()?;
        Ok(Servers { child, addresses })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
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

/// CPU time of this thread so far, in nanoseconds; Linux counts it for each thread.
fn cpu() -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("no schedstat")?.parse()?)
}

/// CPU µs of one call.
async fn slice<F>(calls: usize, call: impl Fn() -> F) -> Outcome<f64>
where
    F: Future<Output = Outcome<i32>>,
{
    let left = AtomicUsize::new(calls);
    let begun = cpu()?;
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
    Ok((cpu()? - begun) as f64 / 1e3 / calls as f64)
}

async fn compare() -> Outcome<()> {
    let servers = Servers::start()?;
    let clients = Clients::of(&servers.addresses).await?;
    let env = Env::new(chassis_core::service_info!("bench"));
    let names = ["tonic", "chassis"];
    let mut costs = [const { Vec::new() }; 2];
    for round in 0..=SLICES {
        for (name, costs) in names.iter().zip(&mut costs) {
            let context = Context::background(&env).with_request_id("bench-1");
            let cost = context.scope(slice(CALLS_PER_SLICE, || clients.call(name))).await?;
            // The first round opens the connections.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let [tonic, chassis] = costs.map(median);
    print("grpc_client_stack", chassis, "tonic_channel", tonic);
    Ok(())
}

async fn cost(args: &[String]) -> Outcome<()> {
    let [name, calls] = args else { return Err("cost CLIENT CALLS".into()) };
    let servers = Servers::start()?;
    let clients = Clients::of(&servers.addresses).await?;
    let env = Env::new(chassis_core::service_info!("bench"));
    let context = Context::background(&env).with_request_id("bench-1");
    let calls = calls.parse()?;
    let cost = context.scope(slice(calls, || clients.call(name))).await?;
    println!("{}", json!({ "client": name, "calls": calls, "us": cost }));
    Ok(())
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

fn print(bench: &str, value: f64, anchor: &str, anchor_value: f64) {
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    let line = json!({
        "bench": bench,
        "value": round(value),
        "unit": "us/call",
        "anchor": anchor,
        "anchor_value": round(anchor_value),
        "ratio": round(value / anchor_value),
    });
    println!("{line}");
}
