//! Merges the sources, finds mistakes, and remembers where each value came from.
//!
//! The `config` crate parses the file and splits the environment's names; the types, the
//! unknown keys and the origins are ours, because its errors do not say which variable was
//! wrong and it lets unknown keys pass.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    CoreConfig, environment, file, preset, secret,
    tree::{self, Known},
};

/// What can be loaded: plain serde with defaults. Implemented for all such types.
pub trait Settings: Default + Serialize + DeserializeOwned {}

impl<T: Default + Serialize + DeserializeOwned> Settings for T {}

/// One setting as it was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path, such as `http.port`.
    pub key: String,
    /// Its value, secrets masked.
    pub value: String,
    /// Where it came from: `default`, a file, `environment variable HTTP__PORT`, or the key of
    /// the [preset](super::preset) that it belongs to.
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
#[derive(Clone, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    set: Vec<(String, String, String)>,
}

/// Names only: the values hold secrets.
impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("file", &self.file)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("set", &self.set.iter().map(|(key, _, _)| key).collect::<Vec<_>>())
            .finish()
    }
}

/// A value that a source gives a key.
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: String,
    /// Whether the value is a text that has to be read as the type of its key.
    pub(super) text: bool,
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

    /// Reads these environment variables; `std::env::vars_os()` as a rule, because
    /// `std::env::vars()` panics at the first one that is not Unicode, whoever set it.
    #[must_use]
    pub fn env<K, V>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Loader
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        self.env.extend(vars.into_iter().map(|(name, value)| (name.into(), value.into())));
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
    /// Lists every unknown key, every text that is not of its key's type, and files that
    /// cannot be read; if there is nothing of that kind, the first value that its settings
    /// type refuses. Each names the key and its origin.
    pub fn load<T: Settings>(&self) -> Result<Loaded<T>, ConfigError> {
        let defaults = defaults::<T>()?;
        let mut problems = Vec::new();
        let mut given = Vec::new();
        if let Some(path) = &self.file {
            match file::read(path, &defaults) {
                Ok(from_file) => given = from_file,
                Err(problem) => problems.push(problem),
            }
        }
        given.extend(environment::read(&self.env, &defaults, &mut problems));
        given.extend(self.set.iter().map(|(key, value, origin)| Given {
            key: key.clone(),
            value: Value::String(value.clone()),
            origin: origin.clone(),
            text: true,
        }));

        let mut tree = defaults.clone();
        let mut origins = BTreeMap::new();
        let mut guesses = Guesses::new();
        for Given { key, value, origin, text } in given {
            guesses.remove(&key); // those of a value that this one replaces
            let value = match (tree::known(&defaults, &key), value) {
                (Known::No, _) => {
                    problems.push(unknown(&defaults, &key, &origin));
                    continue;
                }
                (Known::Section, _) => {
                    problems.push(invalid(&key, &origin, "it is a section, not a value"));
                    continue;
                }
                (Known::Leaf(Value::Null), Value::String(given)) if text && given.is_empty() => {
                    Value::Null
                }
                (Known::Leaf(default), Value::String(value)) if text => {
                    match tree::coerce(&value, default) {
                        Ok(read) => {
                            if tree::shows_no_type(default) {
                                guesses.insert(key.clone(), tree::guesses(&value));
                            }
                            read
                        }
                        Err(problem) => {
                            problems.push(invalid(&key, &origin, &problem));
                            continue;
                        }
                    }
                }
                (Known::Open, Value::String(value)) if text => {
                    guesses.insert(key.clone(), tree::guesses(&value));
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
        let mut settings: T = deserialize(&mut tree, &mut guesses, &origins)?;
        let shown = secret::revealed(|| preset::shown(&settings)).map_err(unserialisable)?;
        if preset::apply(&shown, &defaults, &mut tree, &mut origins) {
            settings = deserialize(&mut tree, &mut guesses, &origins)?;
        }
        let core: CoreConfig = deserialize(&mut tree, &mut guesses, &origins)?;
        let entries = entries(&settings, &core, &origins)?;
        Ok(Loaded { settings, core, entries })
    }
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

/// For each key whose default shows no type, what else its text may mean.
type Guesses = BTreeMap<String, VecDeque<Value>>;

/// Reads one struct from the tree; where a text does not fit, its other meanings are tried.
fn deserialize<T: DeserializeOwned>(
    tree: &mut Value,
    guesses: &mut Guesses,
    origins: &BTreeMap<String, String>,
) -> Result<T, ConfigError> {
    // The path and text of the refusal that says most, by key.
    let mut refusals: BTreeMap<String, (String, String)> = BTreeMap::new();
    loop {
        let error = match serde_path_to_error::deserialize(&*tree) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        let guess = of_path(guesses, &path).map(|(key, _)| key.clone());
        let Some(key) = guess else {
            let origin = of_path(origins, &path).map_or("default", |(_, origin)| origin);
            return Err(ConfigError(vec![invalid(&path, origin, &text)]));
        };
        // The last one, but not that of a list where none is wanted.
        let no_list = path == key && tree::get(tree, &key).is_some_and(Value::is_array);
        if !no_list || !refusals.contains_key(&key) {
            refusals.insert(key.clone(), (path, text));
        }
        match guesses.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(value) => tree::set(tree, &key, value),
            None => {
                let (path, text) = refusals.remove(&key).unwrap_or_default();
                let origin = origins.get(&key).map_or("default", String::as_str);
                return Err(ConfigError(vec![invalid(&path, origin, &text)]));
            }
        }
    }
}

/// The entry of the longest key that this path is, or lies below.
fn of_path<'a, V>(by_key: &'a BTreeMap<String, V>, path: &str) -> Option<(&'a String, &'a V)> {
    by_key
        .iter()
        .filter(|(key, _)| {
            let rest = path.strip_prefix(key.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|(key, _)| key.len())
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
    let tree = masked().map_err(unserialisable)?;
    let entry = |(key, value): (String, &Value)| Entry {
        value: match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        },
        origin: of_path(origins, &key).map_or("default", |(_, origin)| origin).to_owned(),
        key,
    };
    Ok(tree::leaves(&tree).into_iter().map(entry).collect())
}

fn unserialisable(error: serde_json::Error) -> ConfigError {
    ConfigError(vec![format!("the settings cannot be serialised: {error}")])
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
