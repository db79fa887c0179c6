//! `Json`, `Path` and `Query` that refuse with a [`Problem`] which names the field.
//!
//! axum's own extractors refuse with plain text. A caller of an API wants to know which
//! field is wrong and a program wants a stable reason, so these take the same shapes and
//! answer `invalid_argument` with the path of the field.

use axum::{
    extract::{
        FromRequest, FromRequestParts, RawPathParams, Request, path::ErrorKind,
        rejection::PathRejection,
    },
    response::{IntoResponse, Response},
};
use chassis_core::Error;
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use crate::{limit::limit_of, problem::Problem};

/// As deep as JSON may be nested at most: as far as serde_json goes.
pub(crate) const MAX_JSON_DEPTH: usize = 127;

/// How deep the JSON of a request may be nested, where that is less than [`MAX_JSON_DEPTH`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct JsonDepth(pub(crate) usize);

/// A JSON body: read from a request, or written as an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// The values of a path's captures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

/// The values of a query string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(Error::invalid_argument(
                "UNSUPPORTED_MEDIA_TYPE",
                "the body must be JSON: content-type: application/json",
            ))
            .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let depth = request.extensions().get::<JsonDepth>().map(|depth| depth.0);
        // The limit is on the body already: the edge, or the admin port, has put it there.
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.map_err(unread)?;
        if depth.is_some_and(|most| is_deeper(&body, most)) {
            return Err(too_deep());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(&body);
        let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            if inner.is_data() {
                wrong_field("the body", &path, &inner.to_string())
            } else {
                malformed(&inner)
            }
        })?;
        deserializer.end().map_err(|error| malformed(&error))?;
        Ok(Json(value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let kind = http::HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], body).into_response()
            }
            Err(error) => Problem::new(Error::internal(error)).into_response(),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => {
                Err(wrong_path(parts, state, error.into_kind()).await)
            }
            Err(other) => Err(Problem::new(Error::internal(other))),
        }
    }
}

async fn wrong_path<S: Send + Sync>(parts: &mut Parts, state: &S, kind: ErrorKind) -> Problem {
    let (field, value, expected) = match kind {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            (key, value, expected_type.to_owned())
        }
        // A single capture has no name in the error: the one with that value is meant.
        ErrorKind::ParseError { value, expected_type } => {
            let params = RawPathParams::from_request_parts(parts, state).await.ok();
            let name = params.as_ref().and_then(|params| {
                params.iter().find(|(_, found)| *found == value).map(|(name, _)| name.to_owned())
            });
            (name.unwrap_or_default(), value, expected_type.to_owned())
        }
        ErrorKind::ParseErrorAtIndex { index, value, expected_type } => {
            (index.to_string(), value, expected_type.to_owned())
        }
        ErrorKind::InvalidUtf8InPathParam { key } => {
            return wrong_field("the path", &key, "is not valid UTF-8");
        }
        ErrorKind::DeserializeError { key, message, .. } => {
            return wrong_field("the path", &key, &message);
        }
        // What remains is a handler whose type does not fit its route.
        other => return Problem::new(Error::internal(other.to_string())),
    };
    wrong_field("the path", &field, &format!("`{value}` is not a valid {expected}"))
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
            .map(Query)
            .map_err(|error| {
                wrong_field("the query", &error.path().to_string(), &error.inner().to_string())
            })
    }
}

/// Whether arrays and objects are nested deeper than that. What is no JSON has some depth too.
fn is_deeper(body: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut bytes) = (0_usize, false, body.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn too_deep() -> Problem {
    Error::invalid_argument("JSON_TOO_DEEP", "the body is nested deeper than allowed here").into()
}

fn malformed(error: &serde_json::Error) -> Problem {
    // It has no other name than its text.
    if error.to_string().starts_with("recursion limit exceeded") {
        return too_deep();
    }
    Error::invalid_argument("MALFORMED_JSON", format!("the body is not valid JSON: {error}")).into()
}

fn unread(error: axum::Error) -> Problem {
    if let Some(limit) = limit_of(&error) {
        return crate::edge::body_over(limit);
    }
    Problem::new(
        Error::invalid_argument("BODY_UNREADABLE", "the body could not be read to its end")
            .with_source(error),
    )
}

/// A refusal that names the field, also where serde knows only the parent of a missing one.
fn wrong_field(place: &str, path: &str, message: &str) -> Problem {
    let mut field = if path == "." { String::new() } else { path.to_owned() };
    if let Some(name) =
        message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next())
    {
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(name);
    }
    let message = message.split(" at line ").next().unwrap_or(message);
    let error = Error::invalid_argument(
        "INVALID_REQUEST",
        if field.is_empty() {
            format!("{place} is not valid: {message}")
        } else {
            format!("{place} is not valid: {field}: {message}")
        },
    );
    if field.is_empty() { error } else { error.with_field(field, message) }.into()
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug)]
    #[expect(dead_code, reason = "only the refusals matter")]
    struct Wanted {
        name: String,
        lines: Vec<Line>,
    }

    #[derive(Deserialize, Debug)]
    #[expect(dead_code, reason = "only the refusals matter")]
    struct Line {
        count: u32,
    }

    async fn refused(body: &'static str) -> Problem {
        let request = Request::builder()
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .body(Body::from(body))
            .unwrap();
        Json::<Wanted>::from_request(request, &()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_body_names_its_wrong_field() {
        for (body, field) in [
            (r#"{"lines":[]}"#, "name"),
            (r#"{"name":"a","lines":[{"count":1},{}]}"#, "lines[1].count"),
            (r#"{"name":"a","lines":[{"count":-1}]}"#, "lines[0].count"),
            (r#"{"name":7,"lines":[]}"#, "name"),
        ] {
            let problem = refused(body).await;
            assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
            assert_eq!(problem.error().reason(), "INVALID_REQUEST");
            assert_eq!(problem.error().fields()[0].field, field, "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_no_json_is_said_to_be_none() {
        for body in ["{", "", r#"{"name":"a","lines":[]} x"#] {
            assert_eq!(refused(body).await.error().reason(), "MALFORMED_JSON", "{body}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        for (body, depth) in [
            ("7", 0),
            ("[]", 1),
            (r#"{"a":[{}]}"#, 3),
            (r#"["[[[\"[[[", "\\"]"#, 1),
            ("[][][]", 1),
            ("]]][", 1),
        ] {
            assert!(!is_deeper(body.as_bytes(), depth), "{body}");
            assert!(depth == 0 || is_deeper(body.as_bytes(), depth - 1), "{body}");
        }
    }

    #[tokio::test]
    async fn another_media_type_is_refused() {
        let request = Request::builder().body(Body::from("{}")).unwrap();
        let problem = Json::<Wanted>::from_request(request, &()).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[tokio::test]
    async fn a_query_names_its_wrong_field() {
        for (query, field) in [("/?count=x", "count"), ("/", "count")] {
            let mut parts = Request::builder().uri(query).body(()).unwrap().into_parts().0;
            let problem = Query::<Line>::from_request_parts(&mut parts, &()).await.unwrap_err();
            assert_eq!(problem.error().fields()[0].field, field, "{query}");
        }
    }
}
