//! What a whole small service costs before the first request: `hello` of the facade's examples,
//! beside the same routes on bare axum, each built from nothing for release.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use chassis_test::figures::{Asked, Figure, median};
use tokio::time::Instant;

use crate::{
    Outcome,
    load::{Until, requests},
};

pub(crate) const FIGURES: [&str; 5] =
    ["start_ms", "rss_idle_mb", "rss_64_mb", "build_s", "binary_mb"];
const STARTS: usize = 15;
const CONNECTIONS: usize = 64;
/// How long a start may take.
const SOON: Duration = Duration::from_secs(20);
const MIB: f64 = 1024.0 * 1024.0;

/// The same route on the framework alone.
const BARE: &str = r#"
use axum::{Json, Router, extract::Path, routing::get};

#[derive(serde::Serialize)]
struct Greeting { id: u64, status: &'static str }

async fn show(Path(id): Path<u64>) -> Json<Greeting> {
    Json(Greeting { id, status: "confirmed" })
}

#[tokio::main]
async fn main() {
    let port: u16 = std::env::var("HTTP__PORT").unwrap().parse().unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, Router::new().route("/orders/{id}", get(show))).await.unwrap();
}
"#;

/// The example of the facade.
const OURS: &str = include_str!("../../../../crates/chassis/examples/hello.rs");

const BARE_DEPENDENCIES: &str = r#"
axum = { version = "0.8", default-features = false, features = ["http1", "json", "tokio"] }
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }
"#;

/// What a service needs that speaks HTTP and nothing else.
const OUR_DEPENDENCIES: &str = r#"
axum = { version = "0.8", default-features = false }
chassis = { path = "ROOT/crates/chassis", default-features = false, features = ["otlp", "tls"] }
serde = { version = "1", features = ["derive"] }
"#;

const MANIFEST: &str = r#"
[package]
name = "hello"
edition = "2024"

[dependencies]
DEPENDENCIES

[profile.release]
lto = "thin"
codegen-units = 4

[workspace]
"#;

/// A program, and how long it took to build.
struct Built {
    program: PathBuf,
    seconds: f64,
}

/// Builds both and prints what is asked for.
pub(crate) fn measure(asked: &Asked) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let ours = build(&folder.path().join("ours"), OURS, OUR_DEPENDENCIES)?;
    let bare = build(&folder.path().join("bare"), BARE, BARE_DEPENDENCIES)?;
    let figure = |name: &str, unit, value, anchor| {
        if asked.wants(name) {
            asked.print(&Figure::new(name, value, unit, "bare axum", anchor));
        }
    };
    if asked.wants("start_ms") {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..STARTS {
            for (built, times) in [&ours, &bare].into_iter().zip(&mut times) {
                times.push(Running::start(&built.program)?.took.as_secs_f64() * 1e3);
            }
        }
        let [value, anchor] = times.map(median);
        figure("start_ms", "ms to the first 200", value, anchor);
    }
    for (name, connections) in [("rss_idle_mb", 0), ("rss_64_mb", CONNECTIONS)] {
        if asked.wants(name) {
            let [value, anchor] = [&ours, &bare].map(|built| resident(&built.program, connections));
            figure(name, "MiB", value?, anchor?);
        }
    }
    figure("build_s", "s, clean, for release", ours.seconds, bare.seconds);
    let size = |built: &Built| Ok::<_, std::io::Error>(fs::metadata(&built.program)?.len() as f64);
    figure("binary_mb", "MiB, with symbols", size(&ours)? / MIB, size(&bare)? / MIB);
    Ok(())
}

/// Builds a package of its own, as a user's is, from nothing and with our versions.
fn build(package: &Path, program: &str, dependencies: &str) -> Outcome<Built> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
    let dependencies = dependencies.replace("ROOT", &root.to_string_lossy());
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/main.rs"), program)?;
    fs::write(package.join("Cargo.toml"), MANIFEST.replace("DEPENDENCIES", &dependencies))?;
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--release"]).current_dir(package);
    // Where it is built is its own, whatever cargo was told for this program.
    cargo.env("CARGO_TARGET_DIR", package.join("target"));
    Ok(Built { seconds: timed(&mut cargo)?, program: package.join("target/release/hello") })
}

fn timed(cargo: &mut Command) -> Outcome<f64> {
    let started = Instant::now();
    match cargo.status()? {
        status if status.success() => Ok(started.elapsed().as_secs_f64()),
        status => Err(format!("cargo build: {status}").into()),
    }
}

/// Memory after one request, or under load from so many connections.
fn resident(program: &Path, connections: usize) -> Outcome<f64> {
    let running = Running::start(program)?;
    if connections > 0 {
        requests(running.address, connections, &Until::Elapsed(Duration::from_secs(3)))?;
    }
    crate::child::resident_mib(running.child.id())
}

/// A program that has answered once.
struct Running {
    child: Child,
    address: SocketAddr,
    took: Duration,
}

impl Running {
    fn start(program: &Path) -> Outcome<Running> {
        // Known beforehand: reading it from the log would measure the log.
        let [http, admin] = free_ports()?;
        let started = Instant::now();
        let child = Command::new(program)
            .env("HTTP__PORT", http.port().to_string())
            .env("ADMIN__PORT", admin.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut running = Running { child, address: http, took: Duration::ZERO };
        while !answers(http).unwrap_or(false) {
            if let Some(status) = running.child.try_wait()? {
                return Err(format!("{} ended with {status}", program.display()).into());
            }
            if started.elapsed() > SOON {
                return Err(format!("{} does not answer", program.display()).into());
            }
            std::thread::yield_now();
        }
        running.took = started.elapsed();
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two that nobody has now. Both are taken at once, or they might be the same.
fn free_ports() -> std::io::Result<[SocketAddr; 2]> {
    let (one, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([one.local_addr()?, other.local_addr()?])
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"GET /orders/7 HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(&head == b"HTTP/1.1 200")
}
