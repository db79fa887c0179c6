//! What is the same in all lines of one place in the code, prepared once: the level, the target,
//! and the name of each field as it stands in JSON. A line has a dozen of them, and to escape
//! them, look them up and ask whether they are to be hidden each time was half of its cost.

use std::sync::Arc;

use tracing::Metadata;

use super::{format::Ids, json::quoted, redact::Redact};

/// What every line says of itself. A field of that name is shown as `field.<name>`, because
/// of two keys of one name a reader of JSON keeps one, and nobody knows which.
pub(super) const OWN: [&str; 5] =
    ["timestamp", "level", "target", "service.name", "service.version"];

/// Of how many fields of a line it is noted by a bit that they are on it.
pub(super) const MOST_PLAIN: usize = u64::BITS as usize;

/// How many a thread keeps. Two that fall on one slot cost what is saved, and nothing else.
const SLOTS: usize = 128;

/// The callsites that a thread has prepared.
#[derive(Default)]
pub(super) struct Callsites(Vec<Option<Box<Callsite>>>);

impl Callsites {
    /// The callsite of this event, for a service of this name and version.
    pub(super) fn find(
        &mut self,
        metadata: &'static Metadata<'static>,
        service: (&str, &str),
        redact: Option<&Arc<Redact>>,
    ) -> &Callsite {
        if self.0.is_empty() {
            self.0.resize_with(SLOTS, || None);
        }
        // Metadata lives as long as the program: its address is its name. Aligned as it is, the
        // last bits tell nothing.
        let address = std::ptr::from_ref(metadata) as usize;
        let slot = &mut self.0[(address >> 4) % SLOTS];
        let known = slot.take().filter(|known| known.is_of(metadata, service, redact));
        slot.insert(known.unwrap_or_else(|| Callsite::new(metadata, service, redact).into()))
    }
}

pub(super) struct Callsite {
    pub(super) metadata: &'static Metadata<'static>,
    service: (String, String),
    pub(super) redact: Option<Arc<Redact>>,
    /// From behind the time to the message.
    pub(super) level: Vec<u8>,
    /// The target and the service.
    pub(super) head: Vec<u8>,
    /// One for each field, in their order.
    pub(super) keys: Vec<Key>,
}

/// A field's name.
pub(super) enum Key {
    /// The message, which has a place of its own.
    Message,
    /// As it stands before a text, with the quote that opens it.
    Plain(Vec<u8>),
    /// One that must be looked at for each line: hidden, named like a standard one, or not the
    /// only one of its name.
    Special,
}

impl Callsite {
    fn new(
        metadata: &'static Metadata<'static>,
        service: (&str, &str),
        redact: Option<&Arc<Redact>>,
    ) -> Callsite {
        let mut level = b"\",\"level\":".to_vec();
        quoted(&mut level, metadata.level().as_str());
        let mut head = Vec::new();
        for (key, value) in [
            ("target", metadata.target()),
            ("service.name", service.0),
            ("service.version", service.1),
        ] {
            head.push(b',');
            quoted(&mut head, key);
            head.push(b':');
            quoted(&mut head, value);
        }
        let names = || metadata.fields().iter().map(|field| field.name());
        let key = |(index, name): (usize, &str)| {
            let is_special = index >= MOST_PLAIN
                || OWN.contains(&name)
                || Ids::NAMES.contains(&name)
                || redact.is_some_and(|redact| redact.hides(name))
                || names().filter(|other| *other == name).count() > 1;
            if name == "message" {
                Key::Message
            } else if is_special {
                Key::Special
            } else {
                let mut key = b",".to_vec();
                quoted(&mut key, name);
                key.extend_from_slice(b":\"");
                Key::Plain(key)
            }
        };
        Callsite {
            metadata,
            service: (service.0.to_owned(), service.1.to_owned()),
            redact: redact.cloned(),
            level,
            head,
            keys: names().enumerate().map(key).collect(),
        }
    }

    fn is_of(
        &self,
        metadata: &'static Metadata<'static>,
        service: (&str, &str),
        redact: Option<&Arc<Redact>>,
    ) -> bool {
        std::ptr::eq(self.metadata, metadata)
            && (&*self.service.0, &*self.service.1) == service
            && self.redact.as_ref().map(Arc::as_ptr) == redact.map(Arc::as_ptr)
    }
}

/// A callsite without fields, of target `t`.
#[cfg(test)]
pub(super) fn bare() -> &'static Metadata<'static> {
    use tracing::{
        Level,
        callsite::{DefaultCallsite, Identifier},
        field::FieldSet,
        metadata::Kind,
    };

    static CALLSITE: DefaultCallsite = DefaultCallsite::new(&METADATA);
    static METADATA: Metadata<'static> = Metadata::new(
        "bare",
        "t",
        Level::INFO,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&CALLSITE)),
        Kind::EVENT,
    );
    &METADATA
}
