//! One URL of a registry, taken apart once.

use chassis_core::Result;
use hyper::Uri;

use crate::config::invalid;

/// Where requests go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) secure: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as the `Host` header writes them.
    pub(crate) authority: String,
    /// What stands before every path; empty or without a `/` at the end.
    pub(crate) path: String,
}

impl Place {
    /// Reads a URL; `key` is the configuration section that the message names.
    pub(crate) fn parse(key: &str, url: &str) -> Result<Place> {
        let parse = || {
            let uri: Uri = url.trim().parse().ok()?;
            let secure = match uri.scheme_str()? {
                "http" => false,
                "https" => true,
                _ => return None,
            };
            let authority = uri.authority()?;
            // A password in a URL ends up in logs; there are settings for it.
            if authority.as_str().contains('@') || uri.query().is_some() {
                return None;
            }
            let host = authority.host().trim_matches(['[', ']']).to_owned();
            let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
            let authority = authority.as_str().to_owned();
            let path = uri.path().trim_end_matches('/').to_owned();
            Some(Place { secure, host, port, authority, path })
        };
        parse().ok_or_else(|| {
            // The text may hold a password, so it is not repeated.
            invalid(format!(
                "{key}: a URL is not understood, allowed is `http://host:port` or \
                 `https://host:port`, without user, password and query"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = Place::parse("k", "https://[::1]:6443/base/").unwrap();
        let path = "/base".to_owned();
        let (host, authority) = ("::1".to_owned(), "[::1]:6443".to_owned());
        assert_eq!(place, Place { secure: true, host, port: 6443, authority, path });
        assert_eq!(Place::parse("k", "http://consul").unwrap().port, 80);
        for bad in ["", "consul:8500", "ftp://a", "http://u:p@a:1", "http://a/?x=1"] {
            let message = Place::parse("discovery.etcd", bad).unwrap_err().message().to_owned();
            assert!(message.starts_with("discovery.etcd: "), "{message}");
            assert!(!message.contains("u:p"), "{message}");
        }
    }
}
