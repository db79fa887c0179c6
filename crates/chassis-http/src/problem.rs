//! An error as the caller of an HTTP API sees it: problem+json (RFC 9457), written and read.
//!
//! The server writes and the client reads the same document, so a failure keeps its code,
//! reason, details and fields across a hop. Only the public face of an [`Error`] is written;
//! the private source stays in the response's extensions, where the access log finds it.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use chassis_core::{Code, Context, Error};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An [`Error`] on its way out as `application/problem+json`.
///
/// Handlers return `Result<_, Problem>` and use `?` on anything that fails with an [`Error`].
/// The status is the one of the error's [`Code`] unless [`Problem::with_status`] says another.
#[derive(Debug)]
pub struct Problem {
    error: Error,
    status: StatusCode,
}

impl Problem {
    /// The problem of an error, under the HTTP status of its code.
    #[must_use]
    pub fn new(error: Error) -> Problem {
        let status = StatusCode::from_u16(error.code().http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem { error, status }
    }

    /// The same problem under a status that no [`Code`] has, such as 413 or 415.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Problem {
        self.status = status;
        self
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The error behind the answer.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::new(error)
    }
}

/// The error behind a response, kept in its extensions for the access log.
#[derive(Clone)]
pub(crate) struct Cause(pub(crate) Arc<Error>);

/// The document, with the members of RFC 9457 first and our own after them.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    title: Cow<'a, str>,
    status: u16,
    detail: Cow<'a, str>,
    code: Cow<'a, str>,
    reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Field<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct Field<'a> {
    field: Cow<'a, str>,
    problem: Cow<'a, str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { error, status } = self;
        let context = Context::try_current();
        let document = Document {
            kind: "about:blank".into(),
            title: title(status).into(),
            status: status.as_u16(),
            detail: error.message().into(),
            code: error.code().as_str().into(),
            reason: error.reason().into(),
            request_id: context.as_ref().map_or("", |context| context.request_id()).into(),
            errors: error
                .fields()
                .iter()
                .map(|f| Field { field: (&*f.field).into(), problem: (&*f.problem).into() })
                .collect(),
            details: error
                .details()
                .iter()
                .map(|(key, value)| (Cow::Borrowed(&**key), Cow::Borrowed(&**value)))
                .collect(),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(pause) = error.retry_after() {
            // Whole seconds, rounded up: earlier than asked for would be refused again.
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(pause.as_millis().div_ceil(1000) as u64),
            );
        }
        response.extensions_mut().insert(Cause(Arc::new(error)));
        response
    }
}

fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        499 => "Client Closed Request",
        _ => status.canonical_reason().unwrap_or("Error"),
    }
}

/// Reads an error answer back into an [`Error`], whoever wrote it.
///
/// A problem document of ours comes back as it was; any other answer becomes an error of the
/// code that says the same as its status, with the reason `HTTP_<status>`.
pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let error = if is_problem(headers) {
        serde_json::from_slice::<Document<'_>>(body).ok().map(|found| from_document(status, found))
    } else {
        None
    };
    let error = error.unwrap_or_else(|| {
        Error::new(
            Code::from_http_status(status.as_u16()),
            format!("HTTP_{}", status.as_u16()),
            format!("the called service answered {} {}", status.as_u16(), title(status)),
        )
    });
    match retry_after(headers) {
        Some(pause) => error.with_retry_after(pause),
        None => error,
    }
}

fn from_document(status: StatusCode, found: Document<'_>) -> Error {
    let code = Code::parse(&found.code).unwrap_or_else(|| Code::from_http_status(status.as_u16()));
    let reason = if found.reason.is_empty() {
        format!("HTTP_{}", status.as_u16())
    } else {
        found.reason.into_owned()
    };
    let message =
        if found.detail.is_empty() { found.title.into_owned() } else { found.detail.into_owned() };
    let mut error = Error::new(code, reason, message);
    for field in found.errors {
        error = error.with_field(field.field, field.problem);
    }
    for (key, value) in found.details {
        error = error.with_detail(key.into_owned(), value);
    }
    error
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PROBLEM_JSON))
}

/// How long the server asks to wait: seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    // A date in the past means "now".
    Some(until.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn round_trip(problem: Problem) -> (StatusCode, Error) {
        let (parts, body) = problem.into_response().into_parts();
        let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap();
        (parts.status, read(parts.status, &parts.headers, &body))
    }

    #[tokio::test]
    async fn every_code_survives_the_wire() {
        for number in 1..=16 {
            let code = Code::from_grpc(number);
            let (status, back) =
                round_trip(Error::new(code, "SOME_REASON", "so it is").into()).await;
            assert_eq!(status.as_u16(), code.http_status());
            assert_eq!(
                (back.code(), back.reason(), back.message()),
                (code, "SOME_REASON", "so it is")
            );
        }
    }

    #[tokio::test]
    async fn details_fields_and_the_pause_survive_the_wire() {
        let error = Error::resource_exhausted("QUOTA", "too many \"items\"")
            .with_detail("limit", "7")
            .with_field("lines[0].count", "must be positive")
            .with_retry_after(Duration::from_millis(1200))
            .with_source(std::io::Error::other("a private matter"));
        let (_, back) = round_trip(error.into()).await;
        assert_eq!(back.details().get("limit").map(String::as_str), Some("7"));
        assert_eq!(back.fields()[0].field, "lines[0].count");
        assert_eq!(back.retry_after(), Some(Duration::from_secs(2)));
        assert!(!back.chain().contains("private"));
    }

    #[test]
    fn a_foreign_answer_becomes_the_nearest_code() {
        let error = read(StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"<html>");
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, "HTTP_502"));
    }

    #[test]
    fn a_damaged_problem_document_is_still_an_error() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        for body in [&b"{"[..], b"[]", b"{\"status\":\"x\"}", b"\xff"] {
            assert_eq!(read(StatusCode::NOT_FOUND, &headers, body).code(), Code::NotFound);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (text, expected) in [
            ("3", Some(Duration::from_secs(3))),
            ("Thu, 01 Jan 1998 00:00:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&headers), expected, "{text}");
        }
    }
}
