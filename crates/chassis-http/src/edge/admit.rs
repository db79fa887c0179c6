//! What is refused before a handler sees it: a wrong `Host`, a body that is too large.
//!
//! HTTP/1.1 demands exactly one `Host` (RFC 9112, 3.2). hyper lets a request with none or two
//! pass, and two readers that pick a different one disagree about whose request it is.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, Request},
};
use chassis_core::{Error, Result};
use http::{StatusCode, Version, header, uri::Authority};
use http_body::Body as _;

use crate::{
    limit::{Limited, Tripped},
    problem::Problem,
};

/// Lets a request in, its body cut at `limit` bytes, or says why not. Where a body may turn out
/// to be too long, what comes with it tells of that.
pub(super) fn admit(
    mut request: Request,
    limit: u64,
) -> Result<(Request, Option<Tripped>), Problem> {
    check_host(&request)?;
    let size = request.body().size_hint();
    if size.exact() == Some(0) {
        return Ok((request, None));
    }
    if size.lower() > limit {
        return Err(body_too_large());
    }
    // It is limited here; axum's own limit of 2 MB would only surprise.
    DefaultBodyLimit::disable().apply(&mut request);
    // A body of known size is as long as it says: hyper sees to it. Only one without a
    // declared length must be counted.
    if size.upper().is_some_and(|upper| upper <= limit) {
        return Ok((request, None));
    }
    let tripped = Tripped::default();
    let request = request.map(|body| Body::new(Limited::new(body, limit, tripped.clone())));
    Ok((request, Some(tripped)))
}

/// The refusal of a body over the limit.
pub(crate) fn body_too_large() -> Problem {
    Problem::new(Error::invalid_argument("BODY_TOO_LARGE", "the body is larger than allowed here"))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
}

fn check_host(request: &Request) -> Result<()> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(invalid_host("there is more than one Host header"));
    }
    let authority = request.uri().authority();
    match host {
        None if request.version() == Version::HTTP_11 => {
            Err(invalid_host("the Host header is missing"))
        }
        None => Ok(()),
        Some(host) => {
            // An empty Host is allowed for a target without an authority.
            if host.is_empty() || (authority.is_none() && is_plain(host.as_bytes())) {
                return Ok(());
            }
            let parsed = Authority::try_from(host.as_bytes())
                .ok()
                .filter(|parsed| !parsed.as_str().contains('@') && has_numeric_port(parsed))
                .ok_or_else(|| invalid_host("the Host header is not a host"))?;
            match authority {
                Some(other) if !other.as_str().eq_ignore_ascii_case(parsed.as_str()) => {
                    Err(invalid_host("the Host header is not the host of the target"))
                }
                _ => Ok(()),
            }
        }
    }
}

/// Whether what stands behind the host is a number, which the parser does not ask for.
fn has_numeric_port(authority: &Authority) -> bool {
    let behind = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    behind.strip_prefix(':').is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether it is a name or an IPv4 address with or without a port, as nearly all are: then it
/// need not be parsed, which would copy it.
fn is_plain(host: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        !name.is_empty() && name.iter().all(fits)
    };
    match host.iter().position(|byte| *byte == b':') {
        None => is_name(host),
        Some(colon) => {
            let port = &host[colon + 1..];
            let is_port = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
            is_name(&host[..colon]) && is_port
        }
    }
}

fn invalid_host(message: &'static str) -> Error {
    Error::invalid_argument("INVALID_HOST", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let cases: &[(Version, &str, &[&str], bool)] = &[
            (Version::HTTP_11, "/", &["items:8080"], true),
            (Version::HTTP_11, "/", &["[::1]:80"], true),
            (Version::HTTP_11, "/", &["10.0.0.1"], true),
            (Version::HTTP_11, "/", &["items:80:80"], false),
            (Version::HTTP_11, "/", &["items:http"], false),
            (Version::HTTP_11, "/", &[""], true),
            (Version::HTTP_11, "/", &[], false),
            (Version::HTTP_11, "/", &["a", "a"], false),
            (Version::HTTP_11, "/", &["a b"], false),
            (Version::HTTP_11, "/", &["user@a"], false),
            (Version::HTTP_11, "/", &["a/b"], false),
            (Version::HTTP_10, "/", &[], true),
            (Version::HTTP_2, "http://a/", &[], true),
            (Version::HTTP_2, "http://a/", &["A"], true),
            (Version::HTTP_2, "http://a/", &["b"], false),
        ];
        for (version, target, hosts, good) in cases {
            let mut request = Request::builder().version(*version).uri(*target);
            for host in *hosts {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(check_host(&request).is_ok(), *good, "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_unread() {
        let refused = admit(host(Body::from("12345")), 4).unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(admit(host(Body::from("1234")), 4).is_ok());
    }

    #[tokio::test]
    async fn an_undeclared_length_is_cut_at_the_limit() {
        let chunks = || {
            let chunks = ["123", "456"].map(|c| Ok::<_, std::io::Error>(bytes::Bytes::from(c)));
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let (request, tripped) = admit(host(chunks()), 5).unwrap();
        assert!(axum::body::to_bytes(request.into_body(), 100).await.is_err());
        assert!(tripped.unwrap().is_set());
        let (request, tripped) = admit(host(chunks()), 6).unwrap();
        assert_eq!(axum::body::to_bytes(request.into_body(), 100).await.unwrap(), "123456");
        assert!(!tripped.unwrap().is_set());
    }

    fn host(body: Body) -> Request {
        Request::builder().header(header::HOST, "a").body(body).unwrap()
    }
}
