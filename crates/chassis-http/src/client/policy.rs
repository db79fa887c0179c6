//! What may be sent twice.
//!
//! A request is safe to repeat if its method is idempotent (RFC 9110, 9.2.2), if it carries
//! an `Idempotency-Key`, or if it provably never left this process. Only the last holds for
//! a body that streams, and only as long as nobody has read from it.

use std::time::Duration;

use chassis_core::{BoxError, Deadline};
use chassis_discovery::provably_not_sent;
use chassis_resilience::{
    hedge::HedgePolicy,
    retry::{Decision, RetryPolicy},
};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::payload::Payload;
use crate::{RETRY_PUSHBACK_MS, problem::retry_after};

/// The header that makes a POST safe to repeat.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Retries and hedges what is safe to send again.
#[derive(Clone, Copy, Debug)]
pub(super) struct IfSafe {
    /// Most bytes of a body that are kept for another attempt.
    pub(super) max_replay: usize,
}

impl IfSafe {
    pub(super) fn copy(self, request: &Request<Payload>) -> Option<Request<Payload>> {
        let mut copy = Request::new(request.body().again(self.max_replay)?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

impl RetryPolicy<Request<Payload>, http::Response<Incoming>, BoxError> for IfSafe {
    fn clone_request(&self, request: &Request<Payload>) -> Option<Request<Payload>> {
        self.copy(request)
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
        match result {
            // As nearly all of them; whether it were safe is not asked then.
            Ok(response) if !passes(response.status()) => Decision::Done,
            Ok(response) => match refused_unread(response) {
                // Nothing was done, so whatever it was may come again.
                Some(pause) => Decision::RetryAfter(pause),
                None => answered(is_safe(request), retry_after(response.headers())),
            },
            Err(error) => failed(is_safe(request), error),
        }
    }

    fn deadline(&self, request: &Request<Payload>) -> Option<Instant> {
        request.body().deadline().map(Deadline::instant)
    }

    fn mark_attempt(&self, request: &mut Request<Payload>, attempt: u32) {
        request.body_mut().set_previous_attempts(attempt.saturating_sub(1));
    }
}

impl HedgePolicy<Request<Payload>, http::Response<Incoming>, BoxError> for IfSafe {
    fn clone_request(&self, request: &Request<Payload>) -> Option<Request<Payload>> {
        let mut copy = if is_safe(request) { self.copy(request)? } else { return None };
        let previous = request.body().previous_attempts() + 1;
        copy.body_mut().set_previous_attempts(previous);
        Some(copy)
    }

    fn settles(&self, result: Result<&http::Response<Incoming>, &BoxError>) -> bool {
        result.is_ok_and(|response| !passes(response.status()))
    }
}

fn is_safe(request: &Request<Payload>) -> bool {
    !request.body().is_stream() && may_repeat(request.method(), request.headers())
}

fn may_repeat(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
}

/// Whether it may be better the next time.
fn passes(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// The pause that a server of ours asks for which has no room and has done nothing.
pub(super) fn refused_unread<B>(response: &http::Response<B>) -> Option<Duration> {
    if response.status() != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let text = response.headers().get(RETRY_PUSHBACK_MS)?.to_str().ok()?;
    Some(Duration::from_millis(text.parse().ok()?))
}

/// An answer that may be better the next time.
fn answered(safe: bool, pause: Option<Duration>) -> Decision {
    match pause {
        _ if !safe => Decision::Done,
        Some(pause) => Decision::RetryAfter(pause),
        None => Decision::Retry,
    }
}

fn failed(safe: bool, error: &BoxError) -> Decision {
    if provably_not_sent(&**error) {
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
            assert_eq!(may_repeat(&method, headers), safe, "{method}");
        }
    }

    #[test]
    fn answers() {
        let second = Duration::from_secs(1);
        for (safe, pause, expected) in [
            (true, None, Decision::Retry),
            (false, None, Decision::Done),
            (true, Some(second), Decision::RetryAfter(second)),
            (false, Some(second), Decision::Done),
        ] {
            assert_eq!(answered(safe, pause), expected, "{safe} {pause:?}");
        }
        for (status, better) in [(200, false), (500, false), (503, true), (429, true)] {
            assert_eq!(passes(StatusCode::from_u16(status).unwrap()), better, "{status}");
        }
    }

    #[test]
    fn only_who_has_no_room_has_done_nothing() {
        let answer = |status: u16, pushback: Option<&str>| {
            let mut response = http::Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if let Some(pushback) = pushback {
                response.headers_mut().insert(RETRY_PUSHBACK_MS, pushback.parse().unwrap());
            }
            refused_unread(&response)
        };
        assert_eq!(answer(503, Some("120")), Some(Duration::from_millis(120)));
        for (status, pushback) in [(503, None), (500, Some("120")), (503, Some("soon"))] {
            assert_eq!(answer(status, pushback), None, "{status} {pushback:?}");
        }
    }

    #[test]
    fn failures() {
        let unsent = || Error::unavailable("CONNECT_FAILED", "").not_sent();
        let elapsed = Elapsed { after: Duration::from_secs(1) };
        let cases: [(bool, BoxError, Decision); 4] = [
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
