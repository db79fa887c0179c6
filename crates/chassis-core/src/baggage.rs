//! W3C Baggage: a few words that travel with a call through every service.
//!
//! For what a service far down must know and those between need not: which experiment the
//! caller is in, which shop the order came from. It is plain text that every service on the
//! way can read and change, and it costs its bytes on each call: no secrets, no documents.
//!
//! Source: <https://www.w3.org/TR/baggage/>. Limits are those that the standard asks for at
//! least; members beyond them and malformed ones are left out, the others go on.

use std::{borrow::Cow, fmt, sync::Arc};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::{Error, Result};

/// Members that are carried.
const MAX_MEMBERS: usize = 64;
/// Bytes of all members together.
const MAX_BYTES: usize = 8192;

/// What a value holds only percent-encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

/// The words that travel with a call. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Baggage(
    /// As it goes out: members without spaces around them, joined by commas.
    Option<Arc<str>>,
);

impl Baggage {
    /// Reads a `baggage` header.
    #[must_use]
    pub fn parse(header: &str) -> Baggage {
        let mut kept = String::new();
        let members = header.split(',').map(str::trim).filter(|member| is_member(member));
        for member in members.take(MAX_MEMBERS) {
            if kept.len() + member.len() < MAX_BYTES {
                if !kept.is_empty() {
                    kept.push(',');
                }
                kept.push_str(member);
            }
        }
        Baggage(Some(kept).filter(|kept| !kept.is_empty()).map(Arc::from))
    }

    /// The header that carries it on; none if it is empty.
    #[must_use]
    pub fn header(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All keys and values, without the properties that a member may have.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.members().map(|member| {
            let (key, rest) = split(member);
            let value = rest.split(';').next().unwrap_or_default().trim();
            (key, percent_decode_str(value).decode_utf8_lossy())
        })
    }

    /// The same with this key set to this value.
    ///
    /// # Errors
    /// `INVALID_BAGGAGE` if the key is not a token of HTTP, or if there is no room: at most
    /// 64 members and 8192 bytes.
    pub fn with(&self, key: &str, value: &str) -> Result<Baggage> {
        if !is_token(key) {
            return Err(invalid("a key of baggage is made of letters, digits and !#$%&'*+-.^_`|~"));
        }
        let new = format!("{key}={}", utf8_percent_encode(value, ENCODED));
        let others = self.members().filter(|member| split(member).0 != key);
        let members: Vec<&str> = others.chain([new.as_str()]).collect();
        let joined = members.join(",");
        if members.len() > MAX_MEMBERS || joined.len() > MAX_BYTES {
            return Err(invalid("baggage holds at most 64 members and 8192 bytes"));
        }
        Ok(Baggage(Some(joined.into())))
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        self.0.as_deref().into_iter().flat_map(|all| all.split(','))
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.header().unwrap_or_default())
    }
}

fn invalid(message: &'static str) -> Error {
    Error::invalid_argument("INVALID_BAGGAGE", message)
}

/// Key and the rest behind the equals sign.
fn split(member: &str) -> (&str, &str) {
    let (key, rest) = member.split_once('=').unwrap_or((member, ""));
    (key.trim(), rest)
}

/// `key=value`, perhaps with properties behind semicolons.
fn is_member(member: &str) -> bool {
    let Some((key, rest)) = member.split_once('=') else { return false };
    let is_octet = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\');
    is_token(key.trim()) && rest.bytes().all(|byte| is_octet(byte) || matches!(byte, b' ' | b'\t'))
}

/// A token of HTTP (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_malformed_ones_left_out() {
        let baggage = Baggage::parse("a=1 , b = x%20y;meta=7 ,=2,c,d=\"q\",e e=3, f=");
        let all: Vec<_> = baggage.iter().map(|(key, value)| (key, value.into_owned())).collect();
        let expected = [("a", "1"), ("b", "x y"), ("f", "")];
        assert_eq!(all, expected.map(|(key, value)| (key, value.to_owned())));
        assert_eq!(baggage.header(), Some("a=1,b = x%20y;meta=7,f="));
        assert_eq!(Baggage::parse(" , ").header(), None);
    }

    #[test]
    fn what_is_set_reads_back_whatever_it_holds() {
        let value = "a,b;c=d \"é\" 100%\r\n\\";
        let baggage = Baggage::parse("k=old,other=1").with("k", value).unwrap();
        let read = Baggage::parse(baggage.header().unwrap());
        assert_eq!(read.get("k").as_deref(), Some(value));
        assert_eq!(read.get("other").as_deref(), Some("1"));
        assert_eq!(read.iter().count(), 2);
        for key in ["", "a b", "a=b", "é"] {
            assert_eq!(baggage.with(key, "1").unwrap_err().reason(), "INVALID_BAGGAGE");
        }
    }

    #[test]
    fn there_is_a_most_of_it() {
        let many: String = (0..100).map(|n| format!("k{n}=v,")).collect();
        let many = Baggage::parse(&many);
        assert_eq!(many.iter().count(), MAX_MEMBERS);
        assert!(many.with("one-more", "v").is_err());
        assert!(many.with("k1", "w").is_ok());
        let large = format!("a=1,b={},c=3", "x".repeat(MAX_BYTES));
        assert_eq!(Baggage::parse(&large).header(), Some("a=1,c=3"));
        assert!(Baggage::default().with("a", &"x".repeat(MAX_BYTES)).is_err());
    }
}
