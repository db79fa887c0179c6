//! What a step changed in the data of its saga, for the log.
//!
//! Only the new values are kept, by their JSON pointer, and only so many. The old ones are
//! left out on purpose: what a step takes out of the data, such as a token that nobody
//! needs any more, must not live on in the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Changes kept of one step.
const MAX_CHANGES: usize = 32;
/// The longest pointer, in bytes.
const MAX_PATH: usize = 128;
/// The longest value that is kept as it is, in bytes of JSON.
const MAX_VALUE: usize = 256;
/// The largest data that is compared, in bytes of JSON.
const MAX_COMPARED: usize = 64 * 1024;
/// What stands in the place of a private value.
const PRIVATE: &str = "(private)";

/// What a step changed in the data of its saga. At most 32 changes and 256 bytes of JSON a
/// value: a larger value is replaced by its size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaChanges {
    /// New values by their JSON pointer (RFC 6901), such as `/lines/0/count`.
    pub set: BTreeMap<String, Value>,
    /// Pointers of what is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Whether more changed than is kept here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

impl SagaChanges {
    /// What turned `before` into `after`, both JSON. `None`: nothing.
    pub(super) fn between(before: &str, after: &str, private: &[&str]) -> Option<SagaChanges> {
        if before == after {
            return None;
        }
        let mut changes = SagaChanges::default();
        if before.len().max(after.len()) > MAX_COMPARED {
            changes.more = true;
            return Some(changes);
        }
        let read = |json: &str| serde_json::from_str::<Value>(json).ok();
        let (before, after) = (read(before)?, read(after)?);
        changes.compare("", &before, &after, private);
        (changes != SagaChanges::default()).then_some(changes)
    }

    fn compare(&mut self, path: &str, before: &Value, after: &Value, private: &[&str]) {
        match (before, after) {
            _ if before == after => {}
            (Value::Object(before), Value::Object(after)) => {
                for (name, value) in after {
                    let path = below(path, name);
                    match before.get(name) {
                        Some(before) if before == value => {}
                        // Names are private at the top only.
                        _ if private.contains(&name.as_str()) => self.set(path, &PRIVATE.into()),
                        Some(before) => self.compare(&path, before, value, &[]),
                        None => self.set(path, value),
                    }
                }
                for name in before.keys().filter(|name| !after.contains_key(*name)) {
                    self.remove(below(path, name));
                }
            }
            (Value::Array(before), Value::Array(after)) => {
                for (index, value) in after.iter().enumerate() {
                    let path = below(path, &index.to_string());
                    match before.get(index) {
                        Some(before) => self.compare(&path, before, value, &[]),
                        None => self.set(path, value),
                    }
                }
                for index in after.len()..before.len() {
                    self.remove(below(path, &index.to_string()));
                }
            }
            _ => self.set(path.to_owned(), after),
        }
    }

    fn set(&mut self, path: String, value: &Value) {
        if self.has_room(&path) {
            let size = value.to_string().len();
            let kept = if size > MAX_VALUE {
                Value::from(format!("({size} bytes of JSON)"))
            } else {
                value.clone()
            };
            self.set.insert(path, kept);
        }
    }

    fn remove(&mut self, path: String) {
        if self.has_room(&path) {
            self.removed.push(path);
        }
    }

    fn has_room(&mut self, path: &str) -> bool {
        let room = path.len() <= MAX_PATH && self.set.len() + self.removed.len() < MAX_CHANGES;
        self.more |= !room;
        room
    }
}

/// Puts a mark in the place of what is private in the data of a saga.
pub(super) fn mask(data: &mut Value, private: &[&str]) {
    let Value::Object(fields) = data else { return };
    for (name, value) in fields.iter_mut() {
        if private.contains(&name.as_str()) {
            *value = PRIVATE.into();
        }
    }
}

/// The data of a saga that has ended, JSON: what is private is of no use to it any more.
pub(super) fn without_private(data: &str, private: &[&str]) -> Option<String> {
    if private.is_empty() {
        return None;
    }
    let mut data = serde_json::from_str(data).ok()?;
    mask(&mut data, private);
    Some(data.to_string())
}

/// The pointer of a member, escaped as RFC 6901 says.
fn below(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn between(before: &Value, after: &Value) -> Option<SagaChanges> {
        SagaChanges::between(&before.to_string(), &after.to_string(), &["token"])
    }

    #[test]
    fn the_table() {
        for (before, after, set, removed) in [
            (json!({"a": 1}), json!({"a": 2}), json!({"/a": 2}), vec![]),
            (json!({"a": 1}), json!({"a": 1, "b": null}), json!({"/b": null}), vec![]),
            (json!({"a": 1, "b": 2}), json!({"b": 2}), json!({}), vec!["/a"]),
            (
                json!({"a": {"b": [1, 2]}}),
                json!({"a": {"b": [1, 3, 4]}}),
                json!({"/a/b/1": 3, "/a/b/2": 4}),
                vec![],
            ),
            (json!({"a": [1, 2, 3]}), json!({"a": [1]}), json!({}), vec!["/a/1", "/a/2"]),
            (json!({"a": [1]}), json!({"a": "x"}), json!({"/a": "x"}), vec![]),
            (json!({}), json!({"x/y~z": 1}), json!({"/x~1y~0z": 1}), vec![]),
            (json!(1), json!(2), json!({"": 2}), vec![]),
            // A private value is named, not shown; one that is gone is gone.
            (json!({"token": "t"}), json!({"token": "u"}), json!({"/token": "(private)"}), vec![]),
            (json!({"token": "t"}), json!({}), json!({}), vec!["/token"]),
        ] {
            let changes = between(&before, &after).unwrap();
            assert_eq!(json!(changes.set), set, "{before} {after}");
            assert_eq!(
                (changes.removed, changes.more),
                (removed.into_iter().map(str::to_owned).collect(), false)
            );
        }
        assert_eq!(between(&json!({"a": 1}), &json!({"a": 1})), None);
    }

    #[test]
    fn what_is_large_is_cut() {
        let changes = between(&json!({}), &json!({ "text": "x".repeat(1000) })).unwrap();
        assert_eq!(json!(changes.set), json!({ "/text": "(1002 bytes of JSON)" }));
        let many: Vec<u32> = (0..1000).collect();
        let changes = between(&json!([]), &json!(many)).unwrap();
        assert_eq!((changes.set.len(), changes.more), (MAX_CHANGES, true));
        let changes = between(&json!({}), &json!({ "x".repeat(1000): 1 })).unwrap();
        assert_eq!((changes.set.len(), changes.more), (0, true));
        let changes = between(&json!({}), &json!({ "text": "x".repeat(MAX_COMPARED) })).unwrap();
        assert_eq!((changes.set.len(), changes.more), (0, true));
    }

    #[test]
    fn a_view_hides_what_is_private() {
        let mut data = json!({ "token": { "a": 1 }, "other": { "token": 2 } });
        mask(&mut data, &["token"]);
        assert_eq!(data, json!({ "token": "(private)", "other": { "token": 2 } }));
        assert_eq!(without_private(r#"{"a":1}"#, &[]), None);
        let ended = without_private(r#"{"token":1}"#, &["token"]);
        assert_eq!(ended.as_deref(), Some(r#"{"token":"(private)"}"#));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0..5i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]", inner, 0..3).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        /// Each new value that is listed is in the new data at its pointer, each removed
        /// pointer leads nowhere, and no difference goes unmentioned.
        #[test]
        fn pointers_lead_to_the_values(before in value(), after in value()) {
            match between(&before, &after) {
                None => prop_assert_eq!(before, after),
                Some(changes) => {
                    for (path, value) in &changes.set {
                        prop_assert_eq!(after.pointer(path), Some(value));
                    }
                    for path in &changes.removed {
                        prop_assert_eq!(after.pointer(path), None);
                    }
                }
            }
        }
    }
}
