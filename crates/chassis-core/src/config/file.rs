//! What a TOML file gives the keys.
//!
//! The text is read here and only parsed by the `config` crate, because its errors repeat
//! the line that is wrong, and that line may hold a password.

use std::path::Path;

use config::{ConfigError, File, FileFormat, Source, ValueKind};
use serde_json::Value;

use super::{
    loader::Given,
    tree::{self, Known},
};

/// Reads a file; the error is one line without anything of the file's content.
pub(super) fn read(path: &Path, defaults: &Value) -> Result<Vec<Given>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the configuration file {shown} cannot be read: {error}"))?;
    let tables = File::from_str(&text, FileFormat::Toml)
        .collect()
        .map_err(|error| format!("the configuration file {shown} {}", problem(error, &text)))?;
    let mut given = Vec::new();
    let origin = shown.to_string();
    for (key, value) in tables {
        flatten(defaults, key, &value, &origin, &mut given);
    }
    Ok(given)
}

fn problem(error: ConfigError, text: &str) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return "is not valid TOML".to_owned();
    };
    match cause.downcast_ref::<toml::de::Error>() {
        Some(error) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = error.message().replace('\n', " ");
            format!("is not valid TOML in line {line}: {message}")
        }
        // A number out of range: the cause names no value.
        None => format!("is not valid TOML: {cause}"),
    }
}

fn flatten(
    defaults: &Value,
    path: String,
    value: &config::Value,
    origin: &str,
    given: &mut Vec<Given>,
) {
    if let ValueKind::Table(table) = &value.kind {
        let below = match tree::known(defaults, &path) {
            Known::Section => true,
            // A key with a dot in it is no path: its table is taken as a whole.
            Known::Open | Known::Leaf(Value::Null) => {
                !table.is_empty() && !table.keys().any(|key| key.contains('.'))
            }
            Known::Leaf(_) => false,
            Known::No => !table.is_empty(),
        };
        if below {
            for (key, value) in table {
                flatten(defaults, format!("{path}.{key}"), value, origin, given);
            }
            return;
        }
    }
    let value = to_json(&value.kind);
    given.push(Given { key: path, value, origin: origin.to_owned(), text: false });
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
