//! What the environment gives the keys: our own names, and those of others.
//!
//! Most variables are none of ours, so a name counts only if it names a section of the
//! settings, a key without a section, or stands in a short list of names that everybody
//! uses. Names of others that are set to nothing are taken as not set, as OpenTelemetry
//! asks for and as compose files write them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use config::{Environment, Source};
use serde_json::Value;

use super::{
    loader::Given,
    tree::{self, Known},
};

/// Names of others that are understood, and the keys that they set. Of two for the same key
/// the one that comes later in the alphabet wins: traces before all signals.
const ALIASES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("NATS_URL", "broker.url"),
    ("RUST_LOG", "telemetry.log_filter"),
    ("OTEL_SERVICE_NAME", "service.name"),
    ("OTEL_TRACES_SAMPLER_ARG", RATIO),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ENDPOINT),
    ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", METRICS_ENDPOINT),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "telemetry.otlp_protocol"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "telemetry.otlp_protocol"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "telemetry.otlp_certificate"),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "telemetry.otlp_certificate"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "telemetry.span_queue"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "telemetry.span_batch"),
];

const RATIO: &str = "telemetry.sample_ratio";
const ENDPOINT: &str = "telemetry.otlp_endpoint";
const METRICS_ENDPOINT: &str = "telemetry.otlp_metrics_endpoint";

/// A key, and whether it was found by a name of others.
type Found = (String, bool);

/// Reads the variables, in the order in which later ones win.
pub(super) fn read(
    vars: &[(OsString, OsString)],
    defaults: &Value,
    problems: &mut Vec<String>,
) -> Vec<Given> {
    let vars: BTreeMap<&str, &OsStr> =
        vars.iter().filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str()))).collect();
    let mut aliased = Vec::new();
    let mut ours = Vec::new();
    for (&name, &value) in &vars {
        let (found, text) = match place(defaults, name) {
            Some(Place::File(_)) if value.is_empty() => continue,
            Some(Place::File(found)) => match std::fs::read_to_string(value) {
                Ok(text) => (found, text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => {
                    problems.push(format!(
                        "environment variable {name} names the file {}, which cannot be read: \
                         {error}",
                        value.display()
                    ));
                    continue;
                }
            },
            Some(Place::Value((_, true))) if value.is_empty() => continue,
            Some(Place::Value(found)) => match value.to_str() {
                Some(text) => (found, text.to_owned()),
                None => {
                    problems.push(format!("environment variable {name} is not valid Unicode"));
                    continue;
                }
            },
            None => continue,
        };
        let ((key, is_alias), origin) = (found, format!("environment variable {name}"));
        let given = Given { key, value: Value::String(text), origin, text: true };
        if is_alias { aliased.push(given) } else { ours.push(given) }
    }
    open_telemetry(&vars, &mut aliased, problems);
    // Our own names win over those of others.
    aliased.extend(ours);
    aliased
}

/// What a variable gives its key.
enum Place {
    Value(Found),
    /// The name of a file that holds the value.
    File(Found),
}

/// The key that a variable sets, if it is one of ours.
fn place(defaults: &Value, name: &str) -> Option<Place> {
    let alias = |name: &str| {
        ALIASES
            .iter()
            .find(|(alias, key)| *alias == name && is_leaf(defaults, key))
            .map(|(_, key)| (*key).to_owned())
    };
    let native = |name: &str| {
        key_of(name)
            .map(|key| tree::spelt(defaults, &key))
            .filter(|key| is_ours(defaults, name, key))
    };
    let direct = alias(name).map(|key| (key, true)).or(native(name).map(|key| (key, false)));
    let is_known =
        direct.as_ref().is_some_and(|(key, _)| !matches!(tree::known(defaults, key), Known::No));
    // `…_FILE` names a file that holds the value, unless such a key exists itself.
    let from_file = name.strip_suffix("_FILE").filter(|_| !is_known).and_then(|base| {
        alias(base)
            .map(|key| (key, true))
            .or(native(base).filter(|key| is_leaf(defaults, key)).map(|key| (key, false)))
    });
    from_file.map(Place::File).or(direct.map(Place::Value))
}

/// The key that a variable's name stands for: `HTTP__PORT` is `http.port`.
fn key_of(name: &str) -> Option<String> {
    let source = Environment::default()
        .separator("__")
        .source(Some(std::iter::once((name.to_owned(), String::new())).collect()));
    source.collect().ok()?.into_keys().next()
}

/// Whether a variable means this program: it names a section, or a key without one, or looks
/// like a section with a slip in it, so that the slip is refused instead of ignored.
fn is_ours(defaults: &Value, name: &str, key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    match defaults.get(section) {
        Some(Value::Object(_)) => name.contains("__"),
        Some(_) => true,
        // Places of services, as .NET hosts name them: discovery reads these itself.
        None if section == "services" => false,
        None => name.contains("__") && tree::is_slip_of_section(defaults, section),
    }
}

fn is_leaf(defaults: &Value, key: &str) -> bool {
    matches!(tree::known(defaults, key), Known::Leaf(_) | Known::Open)
}

/// The names of OpenTelemetry that stand for a key, but not for its value.
///
/// Source: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
fn open_telemetry(
    vars: &BTreeMap<&str, &OsStr>,
    given: &mut Vec<Given>,
    problems: &mut Vec<String>,
) {
    let word = |name: &str| {
        let value = vars.get(name)?.to_str()?.trim().to_ascii_lowercase();
        (!value.is_empty()).then_some(value)
    };
    let mut set = |name: &str, key: &str, value: Value| {
        let (key, origin) = (key.to_owned(), format!("environment variable {name}"));
        given.push(Given { key, value, origin, text: false });
    };
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    let argued = word("OTEL_TRACES_SAMPLER_ARG").is_some();
    match word(SAMPLER).as_deref() {
        None => {}
        Some("always_on" | "parentbased_always_on") => set(SAMPLER, RATIO, 1.0.into()),
        Some("always_off" | "parentbased_always_off") => set(SAMPLER, RATIO, 0.0.into()),
        // Its argument is a key of its own; without one, all are sampled.
        Some("traceidratio" | "parentbased_traceidratio") if argued => {}
        Some("traceidratio" | "parentbased_traceidratio") => set(SAMPLER, RATIO, 1.0.into()),
        Some(other) => problems.push(format!(
            "environment variable {SAMPLER} is `{other}`, which is not known here; take \
             always_on, always_off or traceidratio, each also with parentbased_"
        )),
    }
    const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
    if let Some(delay) = word(DELAY) {
        // OpenTelemetry counts milliseconds; our durations have a unit.
        set(DELAY, "telemetry.span_delay", format!("{delay}ms").into());
    }
    const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
    if let Some(interval) = word(INTERVAL) {
        set(INTERVAL, "telemetry.metrics_interval", format!("{interval}ms").into());
    }
    const DISABLED: &str = "OTEL_SDK_DISABLED";
    if word(DISABLED).as_deref() == Some("true") {
        set(DISABLED, ENDPOINT, Value::Null);
        set(DISABLED, METRICS_ENDPOINT, Value::Null);
    }
    for (exporter, endpoint) in
        [("OTEL_TRACES_EXPORTER", ENDPOINT), ("OTEL_METRICS_EXPORTER", METRICS_ENDPOINT)]
    {
        if word(exporter).as_deref() == Some("none") {
            set(exporter, endpoint, Value::Null);
        }
    }
}
