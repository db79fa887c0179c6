//! Answers that a client need not read twice: RFC 9110, section 13.1.2.
//!
//! The tag is a hash of the body: it changes exactly when the answer does, and
//! every instance finds the same one without asking the others.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::Result;
use chassis::core::Error;
use serde::Serialize;

/// `value` as JSON with a tag, or 304 where the request shows that the client
/// has just this answer.
///
/// # Errors
/// `INTERNAL` where the value cannot be written as JSON.
pub fn tagged<T: Serialize>(request: &HeaderMap, value: &T) -> Result<Response> {
    let body = serde_json::to_vec(value).map_err(Error::internal)?;
    let tag = format!("\"{:016x}\"", fnv1a(&body));
    let known = request.get_all(IF_NONE_MATCH).iter().any(|header| matches(header, &tag));
    let tag = HeaderValue::try_from(tag).map_err(Error::internal)?;
    // May be kept, but must be asked about: a price must not be stale unseen.
    let headers = [(ETAG, tag), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok((headers, json, Body::from(body)).into_response())
}

/// The weak comparison: a list of tags, each perhaps marked `W/`, or `*`. Our
/// tags hold no comma, so that splitting at commas finds them.
fn matches(header: &HeaderValue, tag: &str) -> bool {
    let Ok(header) = header.to_str() else {
        return false;
    };
    header.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv). Not against
/// forgery: whoever chooses the bodies is us.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        let cases: [(&str, u64); 3] = [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ];
        for (text, expected) in cases {
            assert_eq!(fnv1a(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_tag_is_found_in_every_form_of_the_header() {
        let cases = [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\" ", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ];
        for (header, expected) in cases {
            let got = matches(&HeaderValue::from_static(header), "\"a\"");
            assert_eq!(got, expected, "{header}");
        }
    }

    #[test]
    fn the_second_answer_is_empty_if_nothing_changed() {
        let first = tagged(&HeaderMap::new(), &[1, 2]).unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        let mut again = HeaderMap::new();
        again.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());

        let same = tagged(&again, &[1, 2]).unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(same.headers()[ETAG], first.headers()[ETAG]);
        let other = tagged(&again, &[1, 3]).unwrap();
        assert_eq!(other.status(), StatusCode::OK);
    }
}
