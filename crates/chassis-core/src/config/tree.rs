//! The tree of known keys: paths, unknown keys, and texts read as the type of their key.
//!
//! Pure functions on JSON values; the loader gives them meaning.

use std::collections::VecDeque;

use serde_json::{Map, Value};

/// Puts a value at a path, making the objects on the way.
pub(super) fn set(tree: &mut Value, path: &str, value: Value) {
    let mut here = tree;
    for key in path.split('.') {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(object) = here else { return };
        here = object.entry(key).or_insert(Value::Null);
    }
    *here = value;
}

/// The value at a path.
pub(super) fn get<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |here, key| here.get(key))
}

/// Adds what `other` has to `tree`; where both have a leaf, `other` wins.
pub(super) fn merge(tree: &mut Value, other: Value) {
    match (tree, other) {
        (Value::Object(tree), Value::Object(other)) => {
            for (key, value) in other {
                merge(tree.entry(key).or_insert(Value::Null), value);
            }
        }
        (tree, other) => *tree = other,
    }
}

/// Every leaf with its path. An empty object is a leaf: it says that any key may follow.
pub(super) fn leaves(tree: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    collect("", tree, &mut found);
    found
}

fn collect<'a>(path: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value.as_object() {
        Some(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(&path, value, found);
            }
        }
        _ => found.push((path.to_owned(), value)),
    }
}

/// What the tree of defaults says of a path.
#[derive(Debug, PartialEq)]
pub(super) enum Known<'a> {
    /// A key with this default.
    Leaf(&'a Value),
    /// A section.
    Section,
    /// Below a map with open keys: anything may stand there.
    Open,
    /// No such key.
    No,
}

/// Looks a path up in the tree of defaults.
pub(super) fn known<'a>(defaults: &'a Value, path: &str) -> Known<'a> {
    let mut here = defaults;
    for key in path.split('.') {
        match here {
            Value::Object(object) if object.is_empty() => return Known::Open,
            Value::Object(object) => match object.get(key) {
                Some(value) => here = value,
                None => return Known::No,
            },
            // An optional section, whose keys the default does not show.
            Value::Null => return Known::Open,
            _ => return Known::No,
        }
    }
    match here {
        Value::Object(object) if object.is_empty() => Known::Open,
        Value::Object(_) => Known::Section,
        leaf => Known::Leaf(leaf),
    }
}

/// The path as the defaults spell it: a variable cannot write the hyphens of a key.
pub(super) fn spelt(defaults: &Value, path: &str) -> String {
    let mut here = Some(defaults);
    let mut keys = Vec::new();
    for key in path.split('.') {
        let hyphens = key.replace('_', "-");
        let known = |key: &str| here.and_then(|here| here.get(key));
        let (key, next) = match (known(key), known(&hyphens)) {
            (None, Some(next)) => (hyphens, Some(next)),
            (next, _) => (key.to_owned(), next),
        };
        here = next;
        keys.push(key);
    }
    keys.join(".")
}

/// Whether a name is a slip or two away from a section of four letters or more.
pub(super) fn is_slip_of_section(defaults: &Value, name: &str) -> bool {
    let mut sections = defaults.as_object().into_iter().flatten();
    sections.any(|(section, value)| {
        let slips = strsim::damerau_levenshtein(section, name);
        value.is_object() && section.len() >= 4 && slips <= section.len() / 4
    })
}

/// The known key that looks most like this one, if any does.
pub(super) fn nearest(defaults: &Value, path: &str) -> Option<String> {
    leaves(defaults)
        .into_iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(&known, path), known))
        .filter(|(distance, known)| *distance <= known.len().max(path.len()) / 3 + 1)
        .min()
        .map(|(_, known)| known)
}

/// Reads a text as the type that `default` has.
///
/// A list is written `a,b,c`. A key whose default shows no type stays a text; see [`guesses`].
pub(super) fn coerce(text: &str, default: &Value) -> Result<Value, String> {
    match default {
        Value::Bool(_) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Value::Bool(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Bool(false)),
            _ => Err(format!("`{text}` is neither true nor false")),
        },
        Value::Number(number) => {
            let parsed = if number.is_f64() {
                text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)
            } else {
                text.parse::<i64>()
                    .map(Into::into)
                    .or_else(|_| text.parse::<u64>().map(Into::into))
                    .ok()
            };
            parsed.map(Value::Number).ok_or_else(|| format!("`{text}` is not a number"))
        }
        Value::Array(items) => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| coerce(item, items.first().unwrap_or(&Value::Null)))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Whether a default leaves the type of its key, or of its elements, open.
pub(super) fn shows_no_type(default: &Value) -> bool {
    default.is_null() || default.as_array().is_some_and(Vec::is_empty)
}

/// What else than a text a text may mean, the likeliest first: a number, a boolean, a list
/// of texts, a list of anything.
pub(super) fn guesses(text: &str) -> VecDeque<Value> {
    let list = |of: fn(&str) -> Value| {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(of).collect()
    };
    let element = |item: &str| scalars(item).next().unwrap_or_else(|| item.into());
    scalars(text).chain([list(|item| item.into()), list(element)]).collect()
}

fn scalars(text: &str) -> impl Iterator<Item = Value> {
    let read = |default: Value| coerce(text, &default).ok();
    [read(0.into()).or_else(|| read(0.0.into())), read(false.into())].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_found_and_unknown_ones_get_the_nearest() {
        let defaults = json!({"http": {"port": 1, "tags": {}}, "name": null});
        assert_eq!(known(&defaults, "http.port"), Known::Leaf(&json!(1)));
        assert_eq!(known(&defaults, "http"), Known::Section);
        assert_eq!(known(&defaults, "http.tags.any.thing"), Known::Open);
        assert_eq!(known(&defaults, "http.prot"), Known::No);
        assert_eq!(known(&defaults, "http.port.x"), Known::No);
        assert_eq!(nearest(&defaults, "http.prot").as_deref(), Some("http.port"));
        assert_eq!(nearest(&defaults, "completely.different"), None);
        let hyphens = json!({"a-b": {"c_d": 1, "e-f": {}}});
        for (variable, path) in
            [("a_b.c_d", "a-b.c_d"), ("a_b.e_f.g_h", "a-b.e-f.g_h"), ("x_y.z", "x_y.z")]
        {
            assert_eq!(spelt(&hyphens, variable), path);
        }
    }

    #[test]
    fn texts_are_read_as_the_type_of_their_key() {
        for (text, default, value) in [
            ("8080", json!(1), json!(8080)),
            ("-3", json!(1), json!(-3)),
            ("0.5", json!(1.0), json!(0.5)),
            ("yes", json!(false), json!(true)),
            ("123", json!("text"), json!("123")),
            ("a, b", json!(["x"]), json!(["a", "b"])),
            ("1,2", json!([0]), json!([1, 2])),
            ("", json!(["x"]), json!([])),
        ] {
            assert_eq!(coerce(text, &default), Ok(value), "{text}");
        }
        for (text, default) in [("abc", json!(1)), ("maybe", json!(true)), ("1,x", json!([1]))] {
            assert!(coerce(text, &default).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_may_mean_more_than_one_thing() {
        assert_eq!(guesses("7"), [json!(7), json!(["7"]), json!([7])]);
        assert_eq!(guesses("a, 1"), [json!(["a", "1"]), json!(["a", 1])]);
        assert_eq!(guesses("true"), [json!(true), json!(["true"]), json!([true])]);
    }

    #[test]
    fn merging_keeps_what_the_other_does_not_name() {
        let mut tree = json!({"a": {"b": 1, "c": 2}});
        merge(&mut tree, json!({"a": {"c": 3}, "d": 4}));
        set(&mut tree, "e.f", json!(5));
        assert_eq!(tree, json!({"a": {"b": 1, "c": 3}, "d": 4, "e": {"f": 5}}));
    }
}
