//! What is refused before a handler sees it: a wrong `Host`, and what is too large, too many, too
//! long or too slow.
//!
//! hyper has limits of its own for a head, with answers that have no body. These are below them,
//! so that a caller who is only a little over learns which limit it was.
//!
//! HTTP/1.1 demands exactly one `Host` (RFC 9112, 3.2). hyper lets a request with none or two
//! pass, and two readers that pick a different one disagree about whose request it is.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, Request},
};
use chassis_core::{Error, Result};
use chassis_net::CallHeaders;
use http::{StatusCode, Uri, Version, uri::Authority};
use http_body::Body as _;
use tokio::time::Instant;

use crate::{
    extract,
    limit::{Limit, Limited, Tripped},
    problem::Problem,
};

/// What a request may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// Bytes of its body.
    pub(crate) body: u64,
    /// Time for all of its body.
    pub(crate) body_timeout: Duration,
    /// Lines of its head.
    pub(crate) headers: usize,
    /// Bytes of its target.
    pub(crate) uri: usize,
    /// How deep its JSON may be nested.
    pub(crate) json_depth: usize,
}

/// Lets a request in, its body cut at its limits, or says why not. What it gives tells whether
/// the body went over one. `host` is what [`check_host`] says.
pub(super) fn admit(
    request: &mut Request,
    limits: &RequestLimits,
    host: Result<()>,
) -> Result<Option<Tripped>, Problem> {
    if target_length(request.uri()) > limits.uri {
        let error =
            Error::invalid_argument("URI_TOO_LONG", "the target is longer than allowed here");
        return Err(Problem::new(error).with_status(StatusCode::URI_TOO_LONG));
    }
    if request.headers().len() > limits.headers {
        let error =
            Error::invalid_argument("TOO_MANY_HEADERS", "there are more headers than allowed here");
        return Err(Problem::new(error).with_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    host?;
    if request.body().is_end_stream() {
        return Ok(None);
    }
    if request.body().size_hint().lower() > limits.body {
        return Err(body_over(Limit::Size));
    }
    if limits.json_depth < extract::MAX_JSON_DEPTH {
        request.extensions_mut().insert(extract::JsonDepth(limits.json_depth));
    }
    // It is limited here; axum's own limit of 2 MB would only surprise.
    DefaultBodyLimit::disable().apply(request);
    let tripped = Tripped::default();
    let until = Instant::now() + limits.body_timeout;
    let body = std::mem::take(request.body_mut());
    let limited = Limited::new(body, limits.body, tripped.clone()).until(until);
    *request.body_mut() = Body::new(limited);
    Ok(Some(tripped))
}

/// As it was sent, but for what HTTP/2 says elsewhere.
fn target_length(uri: &Uri) -> usize {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    uri.path_and_query().map_or(0, |path| path.as_str().len()) + authority
}

/// The refusal of a body over a limit.
pub(crate) fn body_over(limit: Limit) -> Problem {
    let (error, status) = match limit {
        Limit::Size => (
            Error::invalid_argument("BODY_TOO_LARGE", "the body is larger than allowed here"),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        Limit::Time => (
            Error::invalid_argument("BODY_TOO_SLOW", "the body did not come in the allowed time"),
            StatusCode::REQUEST_TIMEOUT,
        ),
    };
    Problem::new(error).with_status(status)
}

pub(super) fn check_host(request: &Request, known: &CallHeaders<'_>) -> Result<()> {
    let (host, has_more) = known.host();
    if has_more {
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
    const OF_A_NAME: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0);
        while byte < table.len() {
            let letter = byte as u8;
            table[byte] = letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_');
            byte += 1;
        }
        table
    };
    let of_name = |byte: &u8| OF_A_NAME[usize::from(*byte)];
    let end = host.iter().position(|byte| !of_name(byte)).unwrap_or(host.len());
    let is_end = match &host[end..] {
        [] => true,
        [b':', port @ ..] => (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    end > 0 && is_end
}

fn invalid_host(message: &'static str) -> Error {
    Error::invalid_argument("INVALID_HOST", message)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn admitted(request: &mut Request, limits: &RequestLimits) -> Result<Option<Tripped>, Problem> {
        admit(request, limits, Ok(()))
    }

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
            let known = CallHeaders::read(request.headers(), "");
            let host = check_host(&request, &known);
            assert_eq!(host.is_ok(), *good, "{version:?} {target} {hosts:?}");
        }
    }

    fn limits(body: u64) -> RequestLimits {
        let body_timeout = Duration::from_secs(5);
        RequestLimits { body, body_timeout, headers: 3, uri: 20, json_depth: 127 }
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_refused_unread() {
        let refused = admitted(&mut host(Body::from("12345")), &limits(4)).unwrap_err();
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(admitted(&mut host(Body::from("1234")), &limits(4)).is_ok());
    }

    #[tokio::test]
    async fn an_undeclared_length_is_cut_at_the_limit() {
        let chunks = || {
            let chunks = ["123", "456"].map(|c| Ok::<_, std::io::Error>(bytes::Bytes::from(c)));
            Body::from_stream(futures_util::stream::iter(chunks))
        };
        let mut request = host(chunks());
        let tripped = admitted(&mut request, &limits(5)).unwrap();
        assert!(axum::body::to_bytes(request.into_body(), 100).await.is_err());
        assert_eq!(tripped.unwrap().by(), Some(Limit::Size));
        let mut request = host(chunks());
        let tripped = admitted(&mut request, &limits(6)).unwrap();
        assert_eq!(axum::body::to_bytes(request.into_body(), 100).await.unwrap(), "123456");
        assert_eq!(tripped.unwrap().by(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_until_then_however_often_a_piece_comes() {
        for (pause, pieces, in_time) in [(1, 4, true), (1, 6, false), (60, 1, false)] {
            let body = futures_util::stream::unfold(0, move |piece| async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                (piece < pieces).then_some((Ok::<_, std::io::Error>("x"), piece + 1))
            });
            let begun = Instant::now();
            let mut request = host(Body::from_stream(body));
            let tripped = admitted(&mut request, &limits(100)).unwrap();
            let read = axum::body::to_bytes(request.into_body(), 100).await;
            assert_eq!((read.is_ok(), tripped.unwrap().by().is_none()), (in_time, in_time));
            assert!(begun.elapsed() <= Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }

    fn host(body: Body) -> Request {
        Request::builder().header(header::HOST, "a").body(body).unwrap()
    }
}
