//! The figures, each beside its anchor.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use chassis_test::figures::{Asked, Figure, median};

use crate::{
    Outcome,
    child::Server,
    collector::Collector,
    hello,
    load::{Until, requests},
};

/// The server's core, and the other one.
const PINNED: [&str; 3] = ["taskset", "-c", "0"];
const OTHER: [&str; 3] = ["taskset", "-c", "1"];
const CONNECTIONS: usize = 64;
const SLICES: usize = 11;
const SLICE_MILLIS: u64 = 1_000;
/// Instructions that we may add to a request. They are the same in each run, so a change that
/// costs some is seen at once: whoever raises this says what for.
const MOST_ADDED: f64 = 8_000.0;

/// What is measured beside what.
struct Pair {
    name: &'static str,
    value: &'static str,
    anchor: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Http {
        connections: usize,
    },
    /// On both cores, which the load shares.
    TwoCores,
    /// The same server with a collector and without one.
    Exported {
        hangs: bool,
    },
    Grpc,
    Instructions {
        /// More than these beside the anchor is a failure.
        most_added: Option<f64>,
    },
}

const PAIRS: &[Pair] = &[
    Pair {
        name: "http_full",
        value: "http-full",
        anchor: "http-bare",
        kind: Kind::Http { connections: CONNECTIONS },
    },
    Pair {
        name: "http_sampled_100",
        value: "http-sampled-100",
        anchor: "http-bare",
        kind: Kind::Http { connections: CONNECTIONS },
    },
    Pair {
        name: "http_usual",
        value: "http-usual",
        anchor: "http-full",
        kind: Kind::Http { connections: CONNECTIONS },
    },
    Pair {
        name: "http_low_load",
        value: "http-full",
        anchor: "http-bare",
        kind: Kind::Http { connections: 1 },
    },
    Pair {
        name: "http_two_cores",
        value: "http-full-two-cores",
        anchor: "http-bare-two-cores",
        kind: Kind::TwoCores,
    },
    Pair {
        name: "otlp_export",
        value: "http-sampled-100",
        anchor: "http-sampled-100 to nowhere",
        kind: Kind::Exported { hangs: false },
    },
    Pair {
        name: "otlp_hanging",
        value: "http-full",
        anchor: "http-full to nowhere",
        kind: Kind::Exported { hangs: true },
    },
    Pair { name: "grpc_full", value: "grpc-full", anchor: "grpc-bare", kind: Kind::Grpc },
    Pair {
        name: "http_instructions",
        value: "http-full",
        anchor: "http-bare",
        kind: Kind::Instructions { most_added: Some(MOST_ADDED) },
    },
    // What the time of both has in common, the kernel's, is not in it.
    Pair {
        name: "http_usual_instructions",
        value: "http-usual",
        anchor: "http-full",
        kind: Kind::Instructions { most_added: None },
    },
];

/// Measures the figures that are asked for.
pub(crate) fn measure(args: Vec<String>) -> Outcome<()> {
    let asked = Asked::parse(args, &["--quick"])?;
    let names: Vec<&str> = PAIRS.iter().map(|pair| pair.name).chain(hello::FIGURES).collect();
    asked.check(&names)?;
    asked.print_head();
    for pair in PAIRS.iter().filter(|pair| asked.wants(pair.name)) {
        let (value, anchor, unit) = match pair.kind {
            Kind::Instructions { .. } => {
                let value = instructions(pair.value)?;
                (value, instructions(pair.anchor)?, "instructions/request")
            }
            kind => {
                let (value, anchor) = cpu_micros(pair, kind)?;
                (value, anchor, "CPU us/request")
            }
        };
        asked.print(&Figure::new(pair.name, value, unit, pair.anchor, anchor));
        let added = value - anchor;
        if let Kind::Instructions { most_added: Some(most) } = pair.kind
            && added > most
        {
            let name = pair.name;
            return Err(format!("{name}: {added:.0} added, held to {most:.0}").into());
        }
    }
    // Two builds from nothing take minutes.
    if !asked.has("--quick") && hello::FIGURES.iter().any(|figure| asked.wants(figure)) {
        hello::measure(&asked)?;
    }
    Ok(())
}

/// The medians of both, measured in slices that alternate.
fn cpu_micros(pair: &Pair, kind: Kind) -> Outcome<(f64, f64)> {
    let (protocol, cores): (_, &[&str]) = match kind {
        Kind::Grpc => ("grpc", &PINNED),
        Kind::TwoCores => ("http", &[]),
        _ => ("http", &PINNED),
    };
    let collector = match kind {
        Kind::Exported { hangs: true } => Some(Collector::hangs()?),
        Kind::Exported { hangs: false } => Some(Collector::takes(&OTHER)?),
        _ => None,
    };
    let collects = collector.as_ref().map(Collector::address).transpose()?;
    let anchor = pair.anchor.split(' ').next().unwrap_or_default();
    let servers = [
        Server::exporting(pair.value, cores, protocol, collects)?,
        Server::start(anchor, cores, protocol)?,
    ];
    let mut slices = [Vec::new(), Vec::new()];
    for slice in 0..=SLICES {
        // The first of a pair changes, so that neither always comes first.
        for turn in 0..2 {
            let index = (slice + turn) % 2;
            let server = &servers[index];
            let address = server.address(protocol)?;
            let before = server.cpu_nanos()?;
            let count = match kind {
                Kind::Grpc => h2load(address)?,
                Kind::Http { connections } => http_load(address, &OTHER, connections)?,
                Kind::TwoCores => http_load(address, &[], CONNECTIONS)?,
                Kind::Exported { .. } => http_load(address, &OTHER, CONNECTIONS)?,
                Kind::Instructions { .. } => return Err("counted elsewhere".into()),
            };
            let nanos = (server.cpu_nanos()? - before) as f64;
            // The first slice of each is warm-up.
            if slice > 0 {
                slices[index].push(nanos / 1e3 / count.max(1) as f64);
            }
        }
    }
    let [value, anchor] = slices.map(median);
    for server in servers {
        server.end()?;
    }
    Ok((value, anchor))
}

/// One slice of load, from the other core if `before` says so; how many requests were answered.
fn http_load(address: SocketAddr, before: &[&str], connections: usize) -> Outcome<u64> {
    let mut words: Vec<OsString> = before.iter().map(OsString::from).collect();
    words.push(std::env::current_exe()?.into_os_string());
    let output = Command::new(&words[0])
        .args(&words[1..])
        .args(["load", &address.to_string(), &connections.to_string(), &SLICE_MILLIS.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// One slice of `grpc.health.v1.Health/Check` by h2load; how many calls were answered.
fn h2load(address: SocketAddr) -> Outcome<u64> {
    // A message without fields: five bytes of frame, nothing else.
    let body = std::env::temp_dir().join(format!("bench-servers-{}.bin", std::process::id()));
    std::fs::write(&body, [0_u8; 5])?;
    let output = Command::new(OTHER[0])
        .args(&OTHER[1..])
        .arg("h2load")
        .args(["-c", "4", "-m", "16", "-D", "1", "-H", "content-type: application/grpc"])
        .args(["-H", "te: trailers", "-d"])
        .arg(&body)
        .arg(format!("http://{address}/grpc.health.v1.Health/Check"))
        .output()
        .map_err(|error| format!("h2load of nghttp2-client does not run: {error}"))?;
    std::fs::remove_file(&body)?;
    let text = String::from_utf8(output.stdout)?;
    let counts = text.lines().find_map(|line| line.strip_prefix("requests: "));
    counts
        .and_then(|counts| counts.split(", ").find_map(|part| part.strip_suffix(" succeeded")))
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| format!("h2load says: {text}").into())
}

/// User instructions for a request: what 6000 more of them add, so that the start cancels out.
fn instructions(name: &str) -> Outcome<f64> {
    const FEW: u64 = 2_000;
    const MANY: u64 = 8_000;
    const AT_A_TIME: u64 = 8;
    let total = |count: u64| -> Outcome<f64> {
        let out = std::env::temp_dir().join(format!("bench-servers-{}.out", std::process::id()));
        let file = format!("--callgrind-out-file={}", out.display());
        let server = Server::start(name, &["valgrind", "--tool=callgrind", &file], "http")?;
        let address = server.address("http")?;
        requests(address, AT_A_TIME as usize, &Until::Count(count / AT_A_TIME))?;
        server.end()?;
        let total = summary(&out);
        std::fs::remove_file(&out)?;
        total
    };
    Ok((total(MANY)? - total(FEW)?) / (MANY - FEW) as f64)
}

fn summary(out: &Path) -> Outcome<f64> {
    let text = std::fs::read_to_string(out)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    Ok(line.ok_or("callgrind wrote no summary")?.trim().parse()?)
}
