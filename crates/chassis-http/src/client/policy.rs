//! What may be sent twice.
//!
//! A request is safe to repeat if its method is idempotent (RFC 9110, 9.2.2), if it carries
//! an `Idempotency-Key`, or if it provably never left this process. Only the last holds for
//! a body that streams, and only as long as nobody has read from it.

use std::time::Duration;

use chassis_core::{BoxError, Deadline};
use chassis_discovery::{AllOpen, provably_not_sent};
use chassis_resilience::{
    bulkhead::BulkheadFull,
    retry::{Decision, RetryPolicy},
};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;

use super::payload::Payload;
use crate::problem::retry_after;

/// The header that makes a POST safe to repeat.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Retries what is safe to send again.
#[derive(Clone, Copy, Debug)]
pub(super) struct IfSafe;

impl RetryPolicy<Request<Payload>, http::Response<Incoming>, BoxError> for IfSafe {
    fn clone_request(&self, request: &Request<Payload>) -> Option<Request<Payload>> {
        request.body().is_small_enough().then(|| request.clone())
    }

    fn decide(
        &self,
        _: u32,
        request: &Request<Payload>,
        result: Result<&http::Response<Incoming>, &BoxError>,
    ) -> Decision {
        // A clone of a spent body is as spent as the body itself.
        if request.body().is_spent() {
            return Decision::Done;
        }
        let safe = !request.body().is_stream() && is_safe(request.method(), request.headers());
        match result {
            Ok(response) => {
                let left = request.extensions().get::<Deadline>().map(|d| d.remaining());
                answered(safe, response.status(), retry_after(response.headers()), left)
            }
            Err(error) => failed(safe, error),
        }
    }
}

fn is_safe(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
}

fn answered(
    safe: bool,
    status: StatusCode,
    pause: Option<Duration>,
    left: Option<Duration>,
) -> Decision {
    let passes = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    match pause {
        _ if !passes || !safe => Decision::Done,
        // The answer that we have is better than a time-out later.
        Some(pause) if left.is_some_and(|left| pause >= left) => Decision::Done,
        Some(pause) => Decision::RetryAfter(pause),
        None => Decision::Retry,
    }
}

fn failed(safe: bool, error: &BoxError) -> Decision {
    // Our own limits: trying again at once only adds to what they hold back.
    if error.is::<BulkheadFull>() || error.is::<AllOpen>() {
        Decision::Done
    } else if provably_not_sent(&**error) {
        Decision::RetryFree
    } else if safe {
        Decision::Retry
    } else {
        Decision::Done
    }
}

#[cfg(test)]
mod tests {
    use chassis_core::Error;
    use chassis_discovery::Target;
    use chassis_resilience::timeout::Elapsed;

    use super::*;

    #[test]
    fn methods_and_the_key() {
        let none = HeaderMap::new();
        let mut key = HeaderMap::new();
        key.insert(IDEMPOTENCY_KEY, "k-1".parse().unwrap());
        for (method, headers, safe) in [
            (Method::GET, &none, true),
            (Method::HEAD, &none, true),
            (Method::PUT, &none, true),
            (Method::DELETE, &none, true),
            (Method::POST, &none, false),
            (Method::PATCH, &none, false),
            (Method::POST, &key, true),
        ] {
            assert_eq!(is_safe(&method, headers), safe, "{method}");
        }
    }

    #[test]
    fn answers() {
        let second = Duration::from_secs(1);
        for (safe, status, pause, left, expected) in [
            (true, 200, None, None, Decision::Done),
            (true, 500, None, None, Decision::Done),
            (true, 503, None, None, Decision::Retry),
            (false, 503, None, None, Decision::Done),
            (true, 429, Some(second), None, Decision::RetryAfter(second)),
            (true, 503, Some(second), Some(second * 2), Decision::RetryAfter(second)),
            (true, 503, Some(second), Some(second), Decision::Done),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(answered(safe, status, pause, left), expected, "{safe} {status} {pause:?}");
        }
    }

    #[test]
    fn failures() {
        let open = || AllOpen { target: Target::new("a", "http"), retry_in: Duration::ZERO };
        let unsent = || Error::unavailable("CONNECT_FAILED", "").not_sent();
        let elapsed = Elapsed { after: Duration::from_secs(1) };
        let cases: [(bool, BoxError, Decision); 5] = [
            (true, open().into(), Decision::Done),
            (false, unsent().into(), Decision::RetryFree),
            (true, Error::unavailable("CONNECTION_LOST", "").into(), Decision::Retry),
            (false, Error::unavailable("CONNECTION_LOST", "").into(), Decision::Done),
            (true, elapsed.into(), Decision::Retry),
        ];
        for (safe, error, expected) in cases {
            assert_eq!(failed(safe, &error), expected, "{error}");
        }
    }
}
