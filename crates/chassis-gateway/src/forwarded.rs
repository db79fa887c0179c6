//! Who the request came from, as the services behind are told.
//!
//! `X-Forwarded-*` and `Forwarded` (RFC 7239) are claims. From outside they are the client's
//! own, and a service that believes them can be told any address. So by default they are
//! replaced by what this process saw itself; only behind a proxy that one trusts are they
//! continued.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Other spellings of the same claims.
const OTHERS: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

/// What happens to claims about the origin of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// This process is the edge: what came in is dropped, what it saw is said.
    #[default]
    Replace,
    /// A trusted proxy is in front: its claims stay, and the proxy is added to them.
    Append,
}

/// Says where a request came from. `headers` still has the `Host` that came in.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    forwarding: Forwarding,
    peer: Option<IpAddr>,
    scheme: &'static str,
    authority: Option<&str>,
) {
    if forwarding == Forwarding::Replace {
        for name in [FOR, HOST, PROTO, header::FORWARDED].iter().chain(&OTHERS) {
            headers.remove(name);
        }
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(authority);
    let host = host.unwrap_or_default().to_owned();
    let peer_text = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
    append(headers, FOR, &peer_text);
    append(headers, header::FORWARDED, &element(peer, scheme, &host));
    for (name, value) in [(PROTO, scheme), (HOST, &host)] {
        if !headers.contains_key(&name)
            && !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
}

/// Adds to a list, in one field: some readers look at the first one only.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let before: Vec<&str> =
        headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    let list = if before.is_empty() {
        value.to_owned()
    } else {
        format!("{}, {value}", before.join(", "))
    };
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(name, list);
    }
}

/// One element of `Forwarded`; what is no token is quoted.
fn element(peer: Option<IpAddr>, scheme: &str, host: &str) -> String {
    let by = match peer {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    // A host with a quote in it is no host; the server has refused it before.
    let host = host.replace(['"', '\\'], "");
    if host.is_empty() {
        format!("for={by};proto={scheme}")
    } else {
        format!("for={by};host=\"{host}\";proto={scheme}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "edge.example:8080"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn the_edge_believes_nobody() {
        let mut headers = claimed();
        let peer = Some(IpAddr::from([10, 0, 0, 1]));
        apply(&mut headers, Forwarding::Replace, peer, "http", None);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("10.0.0.1"));
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("edge.example:8080"));
        assert_eq!(value(&headers, "x-real-ip"), None);
        let forwarded = "for=10.0.0.1;host=\"edge.example:8080\";proto=http";
        assert_eq!(value(&headers, "forwarded"), Some(forwarded));
    }

    #[test]
    fn behind_a_trusted_proxy_its_claims_stay() {
        let mut headers = claimed();
        let peer = Some("2001:db8::1".parse().unwrap());
        apply(&mut headers, Forwarding::Append, peer, "http", None);
        assert_eq!(value(&headers, "x-forwarded-for"), Some("6.6.6.6, 7.7.7.7, 2001:db8::1"));
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(value(&headers, "x-forwarded-proto"), Some("https"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("evil.example"));
        let forwarded = value(&headers, "forwarded").unwrap();
        assert!(forwarded.starts_with("for=6.6.6.6, for=\"[2001:db8::1]\";"), "{forwarded}");
    }

    #[test]
    fn http2_names_its_host_in_the_target() {
        let mut headers = HeaderMap::new();
        apply(&mut headers, Forwarding::Replace, None, "https", Some("edge.example"));
        assert_eq!(value(&headers, "x-forwarded-host"), Some("edge.example"));
        assert_eq!(value(&headers, "x-forwarded-for"), Some("unknown"));
    }
}
