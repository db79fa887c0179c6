//! Merges the sources, finds mistakes, and remembers where each value came from.
//!
//! The `config` crate reads the file and splits the environment's names; the types, the
//! unknown keys and the origins are ours, because its errors do not say which variable was
//! wrong and it lets unknown keys pass.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use config::{Config, Environment, File, FileFormat, Source, ValueKind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    CoreConfig, secret,
    tree::{self, Known},
};

/// What can be loaded: plain serde with defaults. Implemented for all such types.
pub trait Settings: Default + Serialize + DeserializeOwned {}

impl<T: Default + Serialize + DeserializeOwned> Settings for T {}

/// Names of others that are understood, and the keys that they set.
const ALIASES: &[(&str, &str)] = &[
    ("DATABASE_URL", "database.url"),
    ("NATS_URL", "broker.url"),
    ("RUST_LOG", "telemetry.log_filter"),
    ("OTEL_SERVICE_NAME", "service.name"),
    ("OTEL_TRACES_SAMPLER_ARG", "telemetry.sample_ratio"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "telemetry.otlp_endpoint"),
];

/// One setting as it was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, such as `http.port`.
    pub key: String,
    /// Its value, secrets masked.
    pub value: String,
    /// Where it came from: `default`, a file, or `environment variable HTTP__PORT`.
    pub origin: String,
}

/// Settings with their origins.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The service's own settings.
    pub settings: T,
    /// What every process has.
    pub core: CoreConfig,
    /// Every setting by key, for `--print-config`.
    pub entries: Vec<Entry>,
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// The mistakes, each in one line that says what to do.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Collects sources, then loads settings from them.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    env: Vec<(String, String)>,
    set: Vec<(String, String, String)>,
}

/// A value that a source gives a key.
struct Given {
    key: String,
    value: Value,
    origin: String,
    /// Whether the value is a text that has to be read as the type of its key.
    text: bool,
}

impl Loader {
    /// A loader with no source but the defaults.
    #[must_use]
    pub fn new() -> Loader {
        Loader::default()
    }

    /// Reads this TOML file.
    #[must_use]
    pub fn file(mut self, path: impl AsRef<Path>) -> Loader {
        self.file = Some(path.as_ref().to_owned());
        self
    }

    /// Reads these environment variables; `std::env::vars()` as a rule.
    #[must_use]
    pub fn env(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Loader {
        self.env.extend(vars);
        self
    }

    /// Sets one key, above file and environment; `origin` is shown as its origin.
    #[must_use]
    pub fn set(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        origin: impl Into<String>,
    ) -> Loader {
        self.set.push((key.into(), value.into(), origin.into()));
        self
    }

    /// Resolves all sources.
    ///
    /// # Errors
    /// Lists every unknown key, every value of the wrong type with its origin, and files
    /// that cannot be read.
    pub fn load<T: Settings>(&self) -> Result<Loaded<T>, ConfigError> {
        let defaults = defaults::<T>()?;
        let mut problems = Vec::new();
        let mut given = self.read_file(&mut problems);
        given.extend(self.read_env(&defaults, &mut problems));
        given.extend(self.set.iter().map(|(key, value, origin)| Given {
            key: key.clone(),
            value: Value::String(value.clone()),
            origin: origin.clone(),
            text: true,
        }));

        let mut tree = defaults.clone();
        let mut origins = BTreeMap::new();
        let mut untyped = BTreeMap::new();
        for Given { key, value, origin, text } in given {
            let value = match (tree::known(&defaults, &key), value) {
                (Known::No | Known::Section, _) => {
                    problems.push(unknown(&defaults, &key, &origin));
                    continue;
                }
                (Known::Leaf(default), Value::String(value)) if text => {
                    if default.is_null() {
                        untyped.insert(key.clone(), value.clone());
                    }
                    match tree::coerce(&value, default) {
                        Ok(value) => value,
                        Err(problem) => {
                            problems.push(invalid(&key, &origin, &problem));
                            continue;
                        }
                    }
                }
                (Known::Open, Value::String(value)) if text => {
                    untyped.insert(key.clone(), value.clone());
                    Value::String(value)
                }
                (_, value) => value,
            };
            tree::set(&mut tree, &key, value);
            origins.insert(key, origin);
        }
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let settings: T = deserialize(&mut tree, &mut untyped, &origins)?;
        let core: CoreConfig = deserialize(&mut tree, &mut untyped, &origins)?;
        let entries = entries(&settings, &core, &origins)?;
        Ok(Loaded { settings, core, entries })
    }

    fn read_file(&self, problems: &mut Vec<String>) -> Vec<Given> {
        let Some(path) = &self.file else {
            return Vec::new();
        };
        let read = Config::builder()
            .add_source(File::from(path.as_path()).format(FileFormat::Toml))
            .build();
        match read {
            Ok(config) => {
                let mut given = Vec::new();
                flatten("", &config.cache, &path.display().to_string(), &mut given);
                given
            }
            Err(error) => {
                problems.push(format!("the configuration file cannot be read: {error}"));
                Vec::new()
            }
        }
    }

    fn read_env(&self, defaults: &Value, problems: &mut Vec<String>) -> Vec<Given> {
        let vars: BTreeMap<&str, &str> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut aliased = Vec::new();
        let mut ours = Vec::new();
        for (&name, &value) in &vars {
            let alias = |name: &str| {
                ALIASES
                    .iter()
                    .find(|(alias, key)| *alias == name && is_leaf(defaults, key))
                    .map(|(_, key)| (*key).to_owned())
            };
            let native = |name: &str| key_of(name).filter(|key| is_ours(defaults, name, key));
            let direct = alias(name).map(|key| (key, true)).or(native(name).map(|k| (k, false)));
            let is_known = direct
                .as_ref()
                .is_some_and(|(key, _)| !matches!(tree::known(defaults, key), Known::No));
            // `…_FILE` names a file that holds the value, unless such a key exists itself.
            let from_file = name.strip_suffix("_FILE").filter(|_| !is_known).and_then(|base| {
                alias(base)
                    .map(|key| (key, true))
                    .or(native(base).filter(|key| is_leaf(defaults, key)).map(|k| (k, false)))
            });
            let (found, value) = match (from_file, direct) {
                (Some(found), _) => match std::fs::read_to_string(value) {
                    Ok(text) => (found, text.trim_end_matches(['\r', '\n']).to_owned()),
                    Err(error) => {
                        problems.push(format!(
                            "environment variable {name} names the file {value}, which cannot be \
                             read: {error}"
                        ));
                        continue;
                    }
                },
                (None, Some(found)) => (found, value.to_owned()),
                (None, None) => continue,
            };
            let ((key, is_alias), origin) = (found, format!("environment variable {name}"));
            let given = Given { key, value: Value::String(value), origin, text: true };
            if is_alias { aliased.push(given) } else { ours.push(given) }
        }
        // Our own names win over those of others.
        aliased.extend(ours);
        aliased
    }
}

/// The key that a variable's name stands for: `HTTP__PORT` is `http.port`.
fn key_of(name: &str) -> Option<String> {
    let source = Environment::default()
        .separator("__")
        .source(Some(std::iter::once((name.to_owned(), String::new())).collect()));
    source.collect().ok()?.into_keys().next()
}

/// Whether a variable means this program: it names a section, or a key without one.
fn is_ours(defaults: &Value, name: &str, key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    match defaults.get(section) {
        Some(Value::Object(_)) => name.contains("__"),
        Some(_) => true,
        None => false,
    }
}

fn is_leaf(defaults: &Value, key: &str) -> bool {
    matches!(tree::known(defaults, key), Known::Leaf(_) | Known::Open)
}

fn defaults<T: Settings>() -> Result<Value, ConfigError> {
    secret::revealed(|| {
        let mut tree = serde_json::to_value(CoreConfig::default())?;
        tree::merge(&mut tree, serde_json::to_value(T::default())?);
        Ok(tree)
    })
    .map_err(|error: serde_json::Error| {
        ConfigError(vec![format!("the default settings cannot be serialised: {error}")])
    })
}

fn flatten(path: &str, value: &config::Value, origin: &str, given: &mut Vec<Given>) {
    let json = match &value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, origin, given);
            }
            return;
        }
        kind => to_json(kind),
    };
    given.push(Given { key: path.to_owned(), value: json, origin: origin.to_owned(), text: false });
}

fn to_json(kind: &ValueKind) -> Value {
    match kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => (*value).into(),
        ValueKind::I64(value) => (*value).into(),
        ValueKind::U64(value) => (*value).into(),
        ValueKind::Float(value) => (*value).into(),
        ValueKind::String(value) => value.clone().into(),
        ValueKind::Array(items) => items.iter().map(|item| to_json(&item.kind)).collect(),
        ValueKind::Table(table) => Value::Object(
            table.iter().map(|(key, value)| (key.clone(), to_json(&value.kind))).collect(),
        ),
        // 128-bit numbers: no setting is that large.
        other => other.to_string().into(),
    }
}

/// Reads one struct from the tree; an untyped text that does not fit is tried as a number,
/// a boolean or a list.
fn deserialize<T: DeserializeOwned>(
    tree: &mut Value,
    untyped: &mut BTreeMap<String, String>,
    origins: &BTreeMap<String, String>,
) -> Result<T, ConfigError> {
    loop {
        let error = match serde_path_to_error::deserialize(&*tree) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let key = error.path().to_string();
        match untyped.remove(&key).map(|text| tree::guess(&text)) {
            Some(value) => tree::set(tree, &key, value),
            None => {
                let origin = origins
                    .iter()
                    .find(|(known, _)| key == **known || key.starts_with(&format!("{known}[")))
                    .map_or("default", |(_, origin)| origin);
                return Err(ConfigError(vec![invalid(
                    &key,
                    origin,
                    &error.into_inner().to_string(),
                )]));
            }
        }
    }
}

fn entries<T: Settings>(
    settings: &T,
    core: &CoreConfig,
    origins: &BTreeMap<String, String>,
) -> Result<Vec<Entry>, ConfigError> {
    let masked = || -> serde_json::Result<Value> {
        let mut tree = serde_json::to_value(core)?;
        tree::merge(&mut tree, serde_json::to_value(settings)?);
        Ok(tree)
    };
    let tree = masked().map_err(|error| {
        ConfigError(vec![format!("the settings cannot be serialised: {error}")])
    })?;
    let entry = |(key, value): (String, &Value)| Entry {
        value: match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        },
        origin: origins.get(&key).map_or("default", String::as_str).to_owned(),
        key,
    };
    Ok(tree::leaves(&tree).into_iter().map(entry).collect())
}

fn unknown(defaults: &Value, key: &str, origin: &str) -> String {
    let hint = match tree::nearest(defaults, key) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "--print-config lists the known keys".to_owned(),
    };
    format!("unknown setting `{key}` ({origin}); {hint}")
}

fn invalid(key: &str, origin: &str, problem: &str) -> String {
    format!("setting `{key}` is wrong ({origin}): {problem}")
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use serde::Deserialize;

    use super::*;
    use crate::Secret;

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    struct Http {
        host: String,
        port: u16,
        tags: Vec<String>,
        #[serde(with = "super::super::duration")]
        timeout: Duration,
        limit: Option<u32>,
    }

    impl Default for Http {
        fn default() -> Self {
            Http {
                host: "localhost".into(),
                port: 1,
                tags: vec![],
                timeout: Duration::from_secs(1),
                limit: None,
            }
        }
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    struct Database {
        url: Secret,
    }

    impl Default for Database {
        fn default() -> Self {
            Database { url: "sqlite://data/x.db".into() }
        }
    }

    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    struct Own {
        http: Http,
        database: Database,
        services: BTreeMap<String, String>,
        lists: BTreeMap<String, Vec<String>>,
    }

    impl Default for Own {
        fn default() -> Self {
            // Not the default of `Http`: a partly set section must keep this one.
            Own {
                http: Http { port: 8084, ..Http::default() },
                database: Database::default(),
                services: BTreeMap::new(),
                lists: BTreeMap::new(),
            }
        }
    }

    fn env(vars: &[(&str, &str)]) -> Loader {
        Loader::new().env(vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    fn load(vars: &[(&str, &str)]) -> Loaded<Own> {
        env(vars).load().unwrap()
    }

    fn problems(vars: &[(&str, &str)]) -> Vec<String> {
        env(vars).load::<Own>().unwrap_err().problems().to_vec()
    }

    #[test]
    fn nothing_set_gives_the_defaults_in_clear() {
        let loaded = load(&[("PATH", "/bin"), ("HTTP", "x"), ("OTHER__KEY", "x")]);
        assert_eq!(loaded.settings.http.port, 8084);
        assert_eq!(loaded.settings.database.url.expose(), "sqlite://data/x.db");
        assert_eq!(loaded.core.admin.port, 9090);
        assert!(loaded.entries.iter().all(|entry| entry.origin == "default"));
    }

    #[test]
    fn the_environment_is_read_as_the_type_of_the_key() {
        let loaded = load(&[
            ("HTTP__HOST", "1234"),
            ("HTTP__TAGS", "a,b"),
            ("HTTP__TIMEOUT", "250ms"),
            ("HTTP__LIMIT", "7"),
            ("SERVICES__other", "x:1"),
            ("LISTS__a", "x:1, y:2"),
            ("LISTS__b", "x:1"),
            ("ADMIN__PORT", "0"),
        ]);
        let http = loaded.settings.http;
        assert_eq!((http.host.as_str(), http.port, http.limit), ("1234", 8084, Some(7)));
        assert_eq!(http.tags, ["a", "b"]);
        assert_eq!(http.timeout, Duration::from_millis(250));
        assert_eq!(loaded.settings.services["other"], "x:1");
        assert_eq!(loaded.settings.lists["a"], ["x:1", "y:2"]);
        assert_eq!(loaded.settings.lists["b"], ["x:1"]);
        assert_eq!(loaded.core.admin.port, 0);
    }

    #[test]
    fn names_of_others_are_understood_and_ours_win() {
        let loaded = load(&[
            ("DATABASE_URL", "postgres://u:p@h/d"),
            ("OTEL_SERVICE_NAME", "items"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("NATS_URL", "nats://not-a-key-here"),
            ("RUST_LOG", "debug"),
        ]);
        assert_eq!(loaded.settings.database.url.expose(), "postgres://u:p@h/d");
        assert_eq!(loaded.core.service.name.as_deref(), Some("items"));
        assert_eq!(loaded.core.telemetry.sample_ratio, 0.1);
        assert_eq!(loaded.core.telemetry.otlp_endpoint.as_deref(), Some("http://c:4317"));
        assert_eq!(loaded.core.telemetry.log_filter, "debug");
        let url = loaded.entries.iter().find(|entry| entry.key == "database.url").unwrap();
        assert_eq!(url.value, "postgres://***@h/d");
        assert_eq!(url.origin, "environment variable DATABASE_URL");

        let both = load(&[("DATABASE_URL", "a://b"), ("DATABASE__URL", "c://d")]);
        assert_eq!(both.settings.database.url.expose(), "c://d");
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "postgres://u:p@h/d").unwrap();
        let path = file.path().to_str().unwrap();
        for name in ["DATABASE_URL_FILE", "DATABASE__URL_FILE"] {
            assert_eq!(load(&[(name, path)]).settings.database.url.expose(), "postgres://u:p@h/d");
        }
        let problems = problems(&[("DATABASE__URL_FILE", "/nowhere")]);
        assert!(problems[0].contains("DATABASE__URL_FILE names the file /nowhere"), "{problems:?}");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        assert_eq!(
            problems(&[("HTTP__PROT", "1"), ("HTTP__COMPLETELY_OTHER", "1")]),
            [
                "unknown setting `http.completely_other` (environment variable \
                 HTTP__COMPLETELY_OTHER); --print-config lists the known keys",
                "unknown setting `http.prot` (environment variable HTTP__PROT); did you mean \
                 `http.port`?",
            ]
        );
    }

    #[test]
    fn wrong_values_name_key_and_origin() {
        assert_eq!(
            problems(&[("HTTP__PORT", "abc")]),
            ["setting `http.port` is wrong (environment variable HTTP__PORT): `abc` is not a \
              number"]
        );
        for (name, value) in [("HTTP__PORT", "70000"), ("HTTP__TIMEOUT", "7"), ("HTTP__LIMIT", "x")]
        {
            let problem = &problems(&[(name, value)])[0];
            assert!(problem.contains(&format!("(environment variable {name})")), "{problem}");
        }
    }

    #[test]
    fn a_file_is_below_the_environment_and_above_the_defaults() {
        let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        writeln!(file, "[http]\nport = 5\nlimit = 9\ntags = ['x']\n[services]\na = 'b'").unwrap();
        let loader = env(&[("HTTP__PORT", "6")]).file(file.path());
        let loaded = loader.load::<Own>().unwrap();
        assert_eq!((loaded.settings.http.port, loaded.settings.http.limit), (6, Some(9)));
        let limit = loaded.entries.iter().find(|entry| entry.key == "http.limit").unwrap();
        assert_eq!(limit.origin, file.path().display().to_string());
        let set = loader.clone().set("http.port", "7", "--port").load::<Own>().unwrap();
        assert_eq!(set.settings.http.port, 7);

        writeln!(file, "[htpp]\nport = 1").unwrap();
        let problems = loader.load::<Own>().unwrap_err().to_string();
        assert!(problems.contains("did you mean `http.port`"), "{problems}");
        let missing = Loader::new().file("/nowhere.toml").load::<Own>().unwrap_err().to_string();
        assert!(missing.contains("/nowhere.toml"), "{missing}");
    }
}
