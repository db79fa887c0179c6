//! Headers that tell a browser to be careful.

use axum::{Router, middleware::map_response, response::Response};
use http::{HeaderName, HeaderValue, header};

/// For answers that are data and not pages; a page sets its own.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// The router with headers on each answer of its routes: no guessing of media types, no frames, no
/// referrer, no scripts. What a handler has set stays. `Strict-Transport-Security` is not among
/// them: it is for whoever owns the name.
pub fn security_headers<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router.layer(map_response(secured))
}

async fn secured(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}
