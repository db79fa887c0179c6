//! A setting that chooses the defaults of the others in its section, such as a profile.
//!
//! Neither a settings type nor the loader can see in a value whether somebody has set it. So a
//! field that chooses tells the loader what its section is for each choice, and the loader,
//! which knows what was set, moves the rest.
//!
//! ```
//! # use chassis_core::config::{Loader, preset};
//! # use serde::{Deserialize, Serialize, Serializer};
//! #[derive(Serialize, Deserialize)]
//! #[serde(default)]
//! struct Pool {
//!     #[serde(serialize_with = "sizes")]
//!     size: String,
//!     threads: u32,
//!     queue: u32,
//! }
//!
//! impl Pool {
//!     fn of(size: &str) -> Pool {
//!         let (threads, queue) = if size == "large" { (64, 1_000) } else { (4, 10) };
//!         Pool { size: size.to_owned(), threads, queue }
//!     }
//! }
//!
//! impl Default for Pool {
//!     fn default() -> Pool {
//!         Pool::of("small")
//!     }
//! }
//!
//! fn sizes<S: Serializer>(size: &str, serializer: S) -> Result<S::Ok, S::Error> {
//!     preset::serialize(size, ["small", "large"].into_iter().map(|it| (it, Pool::of(it))), serializer)
//! }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! #[serde(default)]
//! struct Config {
//!     pool: Pool,
//! }
//!
//! let set = [("POOL__SIZE", "large"), ("POOL__QUEUE", "5")];
//! let pool = Loader::new().env(set).load::<Config>().unwrap().settings.pool;
//! assert_eq!((pool.threads, pool.queue), (64, 5));
//! ```

use std::{cell::Cell, collections::BTreeMap};

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};
use serde_json::{Map, Value};

use super::tree;

thread_local! {
    /// Set while the loader asks for the presets.
    static SHOWN: Cell<bool> = const { Cell::new(false) };
}

/// No key of a setting: it has a space.
const CHOSEN: &str = "chosen preset";
const PRESETS: &str = "presets of its section";

/// Writes the choice, as its name; for the loader also what the section of the field is by
/// default with each choice. `presets` is only asked for then.
///
/// # Errors
/// The serializer's own, and that of a preset.
pub fn serialize<S: Serializer, C: Serialize>(
    chosen: &str,
    presets: impl IntoIterator<Item = (&'static str, C)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Off for the presets, which have such a field themselves.
    if !SHOWN.replace(false) {
        return serializer.serialize_str(chosen);
    }
    let presets: Result<BTreeMap<_, _>, _> = presets
        .into_iter()
        .map(|(name, section)| Ok((name, serde_json::to_value(section)?)))
        .collect();
    SHOWN.set(true);
    let presets = presets.map_err(|error: serde_json::Error| S::Error::custom(error))?;
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry(CHOSEN, chosen)?;
    map.serialize_entry(PRESETS, &presets)?;
    map.end()
}

/// Settings with the presets in them.
pub(super) fn shown(settings: &impl Serialize) -> serde_json::Result<Value> {
    SHOWN.set(true);
    let shown = serde_json::to_value(settings);
    SHOWN.set(false);
    shown
}

/// Moves the settings that nobody has set to the preset that somebody has chosen. What is the
/// same in that preset and in the one of the defaults stays as the defaults have it.
///
/// `origins` has the keys that were set; what is moved is added, with the key that chose. Gives
/// whether anything was.
pub(super) fn apply(
    shown: &Value,
    defaults: &Value,
    tree: &mut Value,
    origins: &mut BTreeMap<String, String>,
) -> bool {
    let given = origins.len();
    for (choice, object) in choices(shown) {
        let Some((section, _)) = choice.rsplit_once('.') else { continue };
        if !origins.contains_key(&choice) {
            continue;
        }
        let preset = |name: Option<&Value>| object.get(PRESETS)?.get(name?.as_str()?);
        let Some(chosen) = preset(object.get(CHOSEN)) else { continue };
        let usual = preset(tree::get(defaults, &choice));
        for (path, value) in tree::leaves(chosen) {
            let key = format!("{section}.{path}");
            let is_same = usual.is_some_and(|usual| tree::get(usual, &path) == Some(value));
            if !is_same && !origins.contains_key(&key) {
                tree::set(tree, &key, value.clone());
                origins.insert(key, choice.clone());
            }
        }
    }
    origins.len() > given
}

/// The fields that choose, by path.
fn choices(shown: &Value) -> Vec<(String, &Map<String, Value>)> {
    let mut found = Vec::new();
    collect(shown, "", &mut found);
    found
}

fn collect<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a Map<String, Value>)>) {
    let Value::Object(object) = value else { return };
    if object.contains_key(CHOSEN) {
        return found.push((path.to_owned(), object));
    }
    for (key, value) in object {
        let dot = if path.is_empty() { "" } else { "." };
        collect(value, &format!("{path}{dot}{key}"), found);
    }
}
