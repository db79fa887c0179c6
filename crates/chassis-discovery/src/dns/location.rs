//! The ways to write down where something is.
//!
//! `10.0.0.7:8080` is an address, `greeter.internal:8080` a host whose addresses
//! are looked up, `_grpc._tcp.greeter.internal` an SRV name that brings its own
//! ports and weights. The leading underscore tells them apart, as in RFC 2782.

use std::net::{Ipv4Addr, SocketAddr};

use chassis_core::{Error, Result};

/// One place, as a person writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Address(SocketAddr),
    Host { name: String, port: u16 },
    Srv(String),
}

impl Location {
    /// Reads one entry; `key` is the configuration key that the message names.
    pub(crate) fn parse(key: &str, text: &str) -> Result<Location> {
        let text = text.trim();
        if let Ok(address) = text.parse() {
            return Ok(Location::Address(address));
        }
        if text.starts_with('_') && !text.contains(':') {
            return Ok(Location::Srv(text.to_owned()));
        }
        match text.rsplit_once(':') {
            Some((name, port)) if is_host(name) => match port.parse() {
                Ok(port) if name.eq_ignore_ascii_case("localhost") => {
                    Ok(Location::Address((Ipv4Addr::LOCALHOST, port).into()))
                }
                Ok(port) => Ok(Location::Host { name: name.to_owned(), port }),
                Err(_) => Err(malformed(key, text)),
            },
            _ => Err(malformed(key, text)),
        }
    }
}

fn is_host(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

fn malformed(key: &str, text: &str) -> Error {
    Error::invalid_argument(
        "INVALID_CONFIG",
        format!(
            "{key}: `{text}` is not a place; write `address:port`, `host:port`, \
             or an SRV name such as `_http._tcp.name`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let host = |name: &str, port| Location::Host { name: name.into(), port };
        let cases = [
            ("10.0.0.7:80", Location::Address(([10, 0, 0, 7], 80).into())),
            ("[::1]:80", Location::Address("[::1]:80".parse().unwrap())),
            ("localhost:81", Location::Address(([127, 0, 0, 1], 81).into())),
            ("greeter:8080", host("greeter", 8080)),
            ("greeter.ns.svc:8080", host("greeter.ns.svc", 8080)),
            ("_grpc._tcp.greeter.ns.svc", Location::Srv("_grpc._tcp.greeter.ns.svc".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(Location::parse("k", text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for text in
            ["", "greeter", "greeter:", "greeter:99999", ":80", "http://greeter:80", "a b:1"]
        {
            let error = Location::parse("discovery.services.greeter.http", text).unwrap_err();
            let message = error.message();
            assert!(message.starts_with("discovery.services.greeter.http: "), "{message}");
            assert!(message.contains(&format!("`{text}`")), "{message}");
        }
    }
}
