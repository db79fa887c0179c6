//! Every setting: its key, its variable, its default, and what its doc comment says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use chassis::core::config::Loader;
use serde::{Deserialize, Serialize};

use crate::source::Source;
use crate::{FOOTER, cell, missing};

/// A service that has everything, for the sake of its defaults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Everything {
    http: chassis::http::ServerConfig,
    grpc: chassis::grpc::ServerConfig,
    database: chassis::data::DatabaseConfig,
    broker: chassis::messaging::BrokerConfig,
    outbox: chassis::messaging::outbox::OutboxConfig,
    consumer: chassis::messaging::ConsumerConfig,
    requester: chassis::messaging::request::RequesterConfig,
    responder: chassis::messaging::request::ResponderConfig,
    saga: chassis::messaging::saga::SagaConfig,
    discovery: chassis::discovery::DiscoveryConfig,
    client: chassis::discovery::ClientConfig,
    chaos: chassis::discovery::ChaosConfig,
}

/// Section, crate, type, and what the section is for.
const SECTIONS: &[(&str, &str, &str, &str)] = &[
    ("service", "chassis-core", "ServiceConfig", "Every service has it."),
    ("admin", "chassis-core", "AdminConfig", "Every service has it."),
    ("telemetry", "chassis-core", "TelemetryConfig", "Every service has it."),
    ("shutdown", "chassis-core", "ShutdownConfig", "Every service has it."),
    ("http", "chassis-http", "ServerConfig", "The HTTP server."),
    ("grpc", "chassis-grpc", "ServerConfig", "The gRPC server."),
    ("database", "chassis-data", "DatabaseConfig", "A database."),
    ("broker", "chassis-messaging", "BrokerConfig", "The broker."),
    ("outbox", "chassis-messaging", "OutboxConfig", "The outbox and its relay."),
    ("consumer", "chassis-messaging", "ConsumerConfig", "A consumer."),
    ("requester", "chassis-messaging", "RequesterConfig", "Requests with replies over the broker."),
    ("responder", "chassis-messaging", "ResponderConfig", "Replies to such requests."),
    ("saga", "chassis-messaging", "SagaConfig", "The runner of sagas."),
    ("discovery", "chassis-discovery", "DiscoveryConfig", "Where other services are."),
    (
        "client",
        "chassis-discovery",
        "ClientConfig",
        "A client of one service. A service names such a section after whom it calls, \
         such as `payment`.",
    ),
    ("chaos", "chassis-discovery", "ChaosConfig", "Faults in the calls that a service makes."),
];

/// Settings types that are made of sections and have none of their own.
const CONTAINERS: &[&str] = &["CoreConfig", "DefaultConfig"];

struct Field {
    name: String,
    kind: String,
    doc: String,
}

/// Fields by crate and type.
type Types = BTreeMap<(String, String), Vec<Field>>;

/// The page.
pub(crate) fn page(sources: &[Source]) -> io::Result<String> {
    let loaded = Loader::new().load::<Everything>().map_err(|error| missing(error.to_string()))?;
    let defaults: BTreeMap<_, _> =
        loaded.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let types = types(sources);
    let mut text = String::from(HEAD);
    let mut shown = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for (section, krate, kind, what) in SECTIONS {
        let _ = write!(text, "\n## {section}\n\n{what} `{krate}`, `{kind}`.\n\n");
        text.push_str("| key, variable | default | |\n|---|---|---|\n");
        let mut rows = Vec::new();
        collect(&types, krate, kind, section, &mut rows, &mut shown)?;
        for (key, doc) in rows {
            let variable = key.to_uppercase().replace('.', "__").replace('-', "_");
            let default = match defaults.get(&key).map(String::as_str) {
                None | Some("") => "-".to_owned(),
                Some(value) => format!("`{}`", cell(value)),
            };
            let _ = writeln!(text, "| `{key}`<br>`{variable}` | {default} | {} |", cell(&doc));
            keys.insert(key);
        }
    }
    let covered = |key: &String| {
        keys.iter().any(|known| key == known || key.starts_with(&format!("{known}.")))
    };
    if let Some(key) = defaults.keys().find(|key| !covered(key)) {
        return Err(missing(format!("the setting `{key}` is not described")));
    }
    let forgotten = types.keys().find(|(krate, kind)| {
        let settings = kind.ends_with("Config") && !CONTAINERS.contains(&kind.as_str());
        settings && !shown.contains(&(krate.clone(), kind.clone()))
    });
    if let Some((krate, kind)) = forgotten {
        return Err(missing(format!("{krate}: no section of docs/reference shows `{kind}`")));
    }
    text.push_str(FOOTER);
    Ok(text)
}

const HEAD: &str = "\
# Configuration

A service reads its settings from three places. Later ones win: defaults in the code, a TOML file
(`--config FILE`), the environment. `--print-config` shows each value and where it came from; a
key that does not exist or a value that cannot work ends the process with 64, before it listens.

- In a file: `[http]` and below it `port = 8080`.
- In the environment: `HTTP__PORT=8080`; a list is written `a,b,c`.
- From a mounted secret: `DATABASE__URL_FILE=/run/secrets/url` reads the value from that file.
- A duration has a unit: `250ms`, `30s`, `5m`.

Short names from elsewhere work too: `DATABASE_URL` is `database.url`, `NATS_URL` is `broker.url`,
`RUST_LOG` is `telemetry.log_filter`, and the `OTEL_…` names set `service.name` and `telemetry`.

A section exists in a service that has a field of that type in its settings. Your service may
call it otherwise; the shop does so for its clients. `DefaultConfig`, which `service!` takes where
nothing else is said, has `http` and `grpc`.
";

/// The keys of a settings type, with those of the types in it.
fn collect(
    types: &Types,
    krate: &str,
    kind: &str,
    path: &str,
    rows: &mut Vec<(String, String)>,
    shown: &mut BTreeSet<(String, String)>,
) -> io::Result<()> {
    let id = (krate.to_owned(), kind.to_owned());
    let fields = types.get(&id).ok_or_else(|| missing(format!("{krate} has no `{kind}`")))?;
    shown.insert(id);
    for field in fields {
        let key = format!("{path}.{}", field.name);
        if let Some(owner) = owner(types, krate, &field.kind) {
            collect(types, owner, &field.kind, &key, rows, shown)?;
        } else if field.doc.is_empty() {
            return Err(missing(format!("{krate}: `{kind}::{}` has no doc comment", field.name)));
        } else {
            rows.push((key, field.doc.clone()));
        }
    }
    Ok(())
}

/// The crate whose settings type a field has: its own, else the only one with that name.
fn owner<'a>(types: &'a Types, krate: &'a str, kind: &str) -> Option<&'a str> {
    if types.contains_key(&(krate.to_owned(), kind.to_owned())) {
        return Some(krate);
    }
    let mut others = types.keys().filter(|(_, name)| name == kind);
    let (other, _) = others.next()?;
    others.next().is_none().then_some(other.as_str())
}

/// Every settings struct: public, and read by serde.
fn types(sources: &[Source]) -> Types {
    let mut types = Types::new();
    for source in sources {
        let mut blocks = source.text.split("\npub struct ");
        let mut before = blocks.next().unwrap_or_default();
        for block in blocks {
            let attributes = before.rsplit("\n\n").next().unwrap_or_default();
            before = block;
            let Some((kind, rest)) = block.split_once(" {\n") else { continue };
            let body = rest.split("\n}").next().unwrap_or_default();
            if attributes.contains("Deserialize") && attributes.contains("serde(default)") {
                types.insert((source.krate.clone(), kind.to_owned()), fields(body));
            }
        }
    }
    types
}

fn fields(body: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut doc = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(comment.trim());
        } else if let Some(field) = line.strip_prefix("pub ")
            && let Some((name, kind)) = field.split_once(": ")
        {
            let (name, kind) = (name.to_owned(), kind.trim_end_matches(',').to_owned());
            fields.push(Field { name, kind, doc: std::mem::take(&mut doc) });
        }
    }
    fields
}
