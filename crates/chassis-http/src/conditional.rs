//! Conditional requests (RFC 9110, 13): an answer that the caller has already is not sent again,
//! and a change of what has changed meanwhile is refused.

use std::{
    fmt::Display,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use axum::response::{IntoResponse, Response};
use chassis_core::Error;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::Problem;

/// Names one state of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of a version that the resource carries, such as a number that grows with each
    /// change. Of its text, letters, digits and `.`, `-`, `_` are kept.
    #[must_use]
    pub fn version(version: impl Display) -> ETag {
        let mut text = version.to_string();
        text.retain(|letter| letter.is_ascii_alphanumeric() || ".-_".contains(letter));
        ETag(format!("\"{text}\""))
    }

    /// The tag of these bytes. Two programs of different compilers may give them different tags,
    /// which costs an answer and no more.
    #[must_use]
    pub fn of(bytes: &[u8]) -> ETag {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        ETag(format!("\"{:x}-{:016x}\"", bytes.len(), hasher.finish()))
    }

    /// To a GET or HEAD: the answer with its tag, or 304 without a body if the caller has it.
    /// Where making the answer costs, ask [`is_known`](ETag::is_known) first.
    pub fn answer(&self, request: &HeaderMap, answer: impl IntoResponse) -> Response {
        let mut response = match self.is_known(request) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => answer.into_response(),
        };
        if let Ok(tag) = HeaderValue::from_str(&self.0) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }

    /// Whether the caller has this state: `If-None-Match` names it.
    #[must_use]
    pub fn is_known(&self, request: &HeaderMap) -> bool {
        self.is_named(request, &header::IF_NONE_MATCH, |given| {
            given.strip_prefix("W/").unwrap_or(given) == self.0
        })
        .unwrap_or(false)
    }

    /// Before a change: `Ok` if the caller has named no state in `If-Match`, or this one.
    ///
    /// # Errors
    /// 412 `STATE_CHANGED`: the caller has seen another state.
    pub fn check(&self, request: &HeaderMap) -> Result<(), Problem> {
        match self.is_named(request, &header::IF_MATCH, |given| given == self.0) {
            None | Some(true) => Ok(()),
            Some(false) => Err(Problem::new(Error::failed_precondition(
                "STATE_CHANGED",
                "what is to be changed has changed meanwhile; read it again",
            ))
            .with_status(StatusCode::PRECONDITION_FAILED)),
        }
    }

    /// `None` without such a header.
    fn is_named(
        &self,
        request: &HeaderMap,
        name: &HeaderName,
        is_this: impl Fn(&str) -> bool,
    ) -> Option<bool> {
        let mut lines = request.get_all(name).iter().peekable();
        lines.peek()?;
        let lines = lines.filter_map(|line| line.to_str().ok());
        let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
        Some(tags.any(|tag| tag == "*" || is_this(tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), HeaderValue::from_static(line))).collect()
    }

    #[test]
    fn what_the_caller_has_is_known() {
        let tag = ETag::version(7);
        for (lines, known) in [
            (&[][..], false),
            (&["\"7\""], true),
            (&["W/\"7\""], true),
            (&["\"6\", \"7\""], true),
            (&["\"6\"", "\"7\""], true),
            (&["*"], true),
            (&["7"], false),
            (&["\"77\""], false),
        ] {
            assert_eq!(tag.is_known(&headers(header::IF_NONE_MATCH, lines)), known, "{lines:?}");
        }
    }

    #[test]
    fn a_change_needs_the_state_that_was_seen() {
        let tag = ETag::version(7);
        for (lines, good) in [
            (&[][..], true),
            (&["\"7\""], true),
            (&["*"], true),
            (&["\"6\", \"7\""], true),
            // A weak tag may stand for other bytes.
            (&["W/\"7\""], false),
            (&["\"6\""], false),
        ] {
            assert_eq!(tag.check(&headers(header::IF_MATCH, lines)).is_ok(), good, "{lines:?}");
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_tag() {
        assert_eq!(ETag::of(b"one"), ETag::of(b"one"));
        assert_ne!(ETag::of(b"one"), ETag::of(b"two"));
        assert_eq!(ETag::version("a\"\r\nb"), ETag::version("ab"));
    }
}
