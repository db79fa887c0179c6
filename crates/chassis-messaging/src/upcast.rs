//! Upcasters: an old version of an event becomes the new one before anybody sees it.
//!
//! The steps are at the type and not at each consumer, so that nobody forgets one.

use chassis_core::{Error, Result};

use crate::event::{Event, split_version};

/// How older versions of `E` become `E`.
///
/// What was published stays as it was: in the broker for days, in the outbox, among the
/// dead letters. A handler that had to know each version would never get rid of them.
/// So a type says how it comes out of the version before it, and that one how it comes
/// out of its own; the steps are chained. This stands at the type and not at each
/// consumer, so that nobody forgets it, and whoever reads a [`Message`](crate::Message) gets it too.
///
/// ```
/// # use chassis_messaging::event::{Event, Upcasts};
/// # use chassis_messaging::Message;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct GreetingSaidV1 { name: String }
///
/// #[derive(Serialize, Deserialize)]
/// struct GreetingSaid { names: Vec<String> }
///
/// # impl Event for GreetingSaidV1 {
/// #     const TOPIC: &'static str = "greetings.said";
/// #     const TYPE: &'static str = "greeting-said.v1";
/// #     fn key(&self) -> Option<String> { None }
/// # }
/// impl Event for GreetingSaid {
///     const TOPIC: &'static str = "greetings.said";
///     const TYPE: &'static str = "greeting-said.v2";
///     fn key(&self) -> Option<String> { None }
///
///     fn upcasts() -> Upcasts<Self> {
///         Upcasts::none().from(|old: GreetingSaidV1| GreetingSaid { names: vec![old.name] })
///     }
/// }
///
/// let old = Message::event("greeter", &GreetingSaidV1 { name: "Ada".into() })?;
/// assert_eq!(old.to_event::<GreetingSaid>()?.names, ["Ada"]);
/// # Ok::<(), chassis_core::Error>(())
/// ```
pub struct Upcasts<E>(Vec<Upcast<E>>);

struct Upcast<E> {
    /// The type that it takes, and all that this one is made of.
    kinds: Vec<&'static str>,
    read: Read<E>,
}

/// Reads a payload of one of these types.
type Read<E> = Box<dyn Fn(&str, &[u8]) -> Result<E>>;

impl<E: Event> Upcasts<E> {
    /// There are no older versions, or nobody has them any more.
    #[must_use]
    pub fn none() -> Upcasts<E> {
        Upcasts(Vec::new())
    }

    /// Also out of `Old`, and out of whatever `Old` itself comes from.
    ///
    /// `Old` must have a lower version than `E`; another one is left out, so that no
    /// two types come out of each other.
    #[must_use]
    pub fn from<Old: Event>(self, turn: fn(Old) -> E) -> Upcasts<E> {
        self.add::<Old>(Box::new(move |kind, payload| Ok(turn(read::<Old>(kind, payload)?))))
    }

    /// As [`from`](Upcasts::from), for a step that not each old event can take. One that
    /// cannot goes to the dead letters with the error's reason if that is hopeless (see
    /// [`consumer`](crate::consumer)).
    #[must_use]
    pub fn try_from<Old: Event>(self, turn: fn(Old) -> Result<E>) -> Upcasts<E> {
        self.add::<Old>(Box::new(move |kind, payload| turn(read::<Old>(kind, payload)?)))
    }

    fn add<Old: Event>(mut self, read: Read<E>) -> Upcasts<E> {
        let version = |kind| split_version(kind).1.unwrap_or(0);
        if version(Old::TYPE) < version(E::TYPE) {
            let mut kinds = Old::upcasts().kinds();
            kinds.push(Old::TYPE);
            self.0.push(Upcast { kinds, read });
        }
        self
    }

    /// All types that can be turned into `E`.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.0.iter().flat_map(|upcast| upcast.kinds.iter().copied()).collect()
    }
}

impl<E> std::fmt::Debug for Upcasts<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().flat_map(|upcast| &upcast.kinds)).finish()
    }
}

/// Reads a payload of this type as `E`.
pub(crate) fn read<E: Event>(kind: &str, payload: &[u8]) -> Result<E> {
    if kind == E::TYPE {
        return serde_json::from_slice(payload).map_err(|source| {
            let message = format!("the payload is not a valid {}", E::TYPE);
            Error::invalid_argument("UNDECODABLE_EVENT", message).with_source(source)
        });
    }
    match E::upcasts().0.iter().find(|upcast| upcast.kinds.contains(&kind)) {
        Some(upcast) => (upcast.read)(kind, payload),
        None => {
            let message = format!("expected an event of type {}", E::TYPE);
            Err(Error::invalid_argument("UNKNOWN_EVENT_TYPE", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    macro_rules! version {
        ($name:ident { $field:ident: $type:ty }, $kind:literal, $upcasts:expr) => {
            #[derive(Debug, PartialEq, Serialize, Deserialize)]
            struct $name {
                $field: $type,
            }
            impl Event for $name {
                const TOPIC: &'static str = "greetings.said";
                const TYPE: &'static str = $kind;
                fn key(&self) -> Option<String> {
                    None
                }
                fn upcasts() -> Upcasts<Self> {
                    $upcasts
                }
            }
        };
    }
    // It names a newer one, which is left out.
    version!(
        One { name: String },
        "greeting-said.v1",
        Upcasts::none().from(|_: Two| One { name: String::new() })
    );
    version!(Two { names: Vec<String> }, "greeting-said.v2", Upcasts::none().from(|old: One| Two {
        names: vec![old.name]
    }));
    version!(
        Three { count: usize },
        "greeting-said.v3",
        Upcasts::none().try_from(|old: Two| {
            if old.names.contains(&String::new()) {
                return Err(Error::invalid_argument("NAMELESS", "who was greeted?"));
            }
            Ok(Three { count: old.names.len() })
        })
    );

    #[test]
    fn versions_are_chained() {
        for (kind, payload, count) in [
            ("greeting-said.v1", r#"{"name":"Ada","mood":"good"}"#, 1),
            ("greeting-said.v2", r#"{"names":["Ada","Bob"]}"#, 2),
            ("greeting-said.v3", r#"{"count":3}"#, 3),
        ] {
            assert_eq!(read::<Three>(kind, payload.as_bytes()).unwrap(), Three { count });
        }
        assert_eq!(Three::upcasts().kinds(), ["greeting-said.v1", "greeting-said.v2"]);
        assert!(One::upcasts().kinds().is_empty());
    }

    #[test]
    fn what_cannot_be_turned_says_why() {
        for (kind, payload, reason) in [
            ("greeting-said.v4", "{}", "UNKNOWN_EVENT_TYPE"),
            ("greeting-said.v1", "{}", "UNDECODABLE_EVENT"),
            ("greeting-said.v1", r#"{"name":""}"#, "NAMELESS"),
        ] {
            let error = read::<Three>(kind, payload.as_bytes()).unwrap_err();
            assert_eq!(error.reason(), reason, "{kind} {payload}");
        }
        assert_eq!(
            read::<One>("greeting-said.v2", b"{}").unwrap_err().reason(),
            "UNKNOWN_EVENT_TYPE"
        );
    }
}
