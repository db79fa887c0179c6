//! When a call is made again.
//!
//! Only when it is safe: it provably never left, or its caller says that doing
//! it twice is harmless. Then `UNAVAILABLE`, silence and a broken connection are
//! worth another attempt, and `RESOURCE_EXHAUSTED` if the server says when. The
//! server has the last word: gRFC A6 push-back is obeyed, "never" included.

use std::time::Duration;

use chassis_core::{BoxError, Code};
use chassis_discovery::AllOpen;
use chassis_resilience::{BulkheadFull, Decision, HedgePolicy, RetryPolicy};
use http::{HeaderMap, Request, Response};

use super::{Idempotent, LongLived};
use super::answer::Answer;
use super::error::{is_not_sent, is_refused};
use super::replay::Replay;
use crate::call::outcome::Outcome;
use crate::status::PUSHBACK;

/// Metadata that makes a call safe to repeat.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The rules of one channel.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    idempotent: bool,
}

impl Policy {
    pub(super) fn new(idempotent: bool) -> Policy {
        Policy { idempotent }
    }

    fn may_repeat(self, request: &Request<Replay>) -> bool {
        self.idempotent
            || request.extensions().get::<Idempotent>().is_some()
            || request.headers().contains_key(IDEMPOTENCY_KEY)
    }

    fn copy(request: &Request<Replay>) -> Option<Request<Replay>> {
        let mut copy = Request::new(request.body().again()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

impl HedgePolicy<Request<Replay>, Response<Answer>, BoxError> for Policy {
    fn clone_request(&self, request: &Request<Replay>) -> Option<Request<Replay>> {
        // A stream that is meant to last is not late.
        let lasts = request.extensions().get::<LongLived>().is_some();
        if self.may_repeat(request) && !lasts { Policy::copy(request) } else { None }
    }

    fn settles(&self, result: Result<&Response<Answer>, &BoxError>) -> bool {
        let code = result.ok().map(|response| Outcome::of_head(response).and_then(|o| o.code()));
        code.is_some_and(|code| code != Some(Code::Unavailable))
    }
}

impl RetryPolicy<Request<Replay>, Response<Answer>, BoxError> for Policy {
    fn clone_request(&self, request: &Request<Replay>) -> Option<Request<Replay>> {
        Policy::copy(request)
    }

    fn decide(
        &self,
        attempt: u32,
        request: &Request<Replay>,
        result: Result<&Response<Answer>, &BoxError>,
    ) -> Decision {
        let may_repeat = self.may_repeat(request);
        match result {
            // Both say "not now", and asking again at once is part of the problem.
            Err(error) if error.is::<AllOpen>() || error.is::<BulkheadFull>() => Decision::Done,
            // The server has not looked at it: safe, and for free, but only once (gRFC A6,
            // "transparent retries"): a server that refuses twice wants less.
            Err(error) if is_refused(&**error) && attempt > 1 => Decision::Retry,
            Err(error) if is_not_sent(&**error) => Decision::RetryFree,
            Err(_) if may_repeat => Decision::Retry,
            Err(_) => Decision::Done,
            Ok(response) if may_repeat => {
                let code = Outcome::of_head(response).and_then(|outcome| outcome.code());
                match (code, pushback(response.headers())) {
                    (Some(Code::Unavailable), Pushback::None) => Decision::Retry,
                    (Some(Code::Unavailable | Code::ResourceExhausted), Pushback::After(pause)) => {
                        Decision::RetryAfter(pause)
                    }
                    _ => Decision::Done,
                }
            }
            Ok(_) => Decision::Done,
        }
    }
}

enum Pushback {
    None,
    After(Duration),
    Never,
}

fn pushback(headers: &HeaderMap) -> Pushback {
    let Some(value) = headers.get(PUSHBACK) else {
        return Pushback::None;
    };
    // What cannot be read counts as "never", as gRFC A6 wants it.
    match value.to_str().ok().and_then(|text| text.parse().ok()) {
        Some(millis) => Pushback::After(Duration::from_millis(millis)),
        None => Pushback::Never,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chassis_resilience::Elapsed;
    use tonic::{ConnectError, Status};

    use super::*;

    fn request() -> Request<Replay> {
        Request::new(Replay::of("x".into()))
    }

    fn answer(code: tonic::Code, pushback: Option<&str>) -> Response<Answer> {
        let mut status = Status::new(code, "");
        if let Some(text) = pushback {
            status.metadata_mut().insert(PUSHBACK, text.parse().unwrap());
        }
        Answer::peek(status.into_http(), &mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    fn decide(idempotent: bool, result: Result<Response<Answer>, BoxError>) -> Decision {
        Policy::new(idempotent).decide(1, &request(), result.as_ref())
    }

    #[test]
    fn what_provably_never_left_is_repeated_for_free() {
        for idempotent in [false, true] {
            let error = ConnectError("refused".into());
            assert_eq!(decide(idempotent, Err(error.into())), Decision::RetryFree);
        }
    }

    #[test]
    fn a_refused_stream_is_repeated_once_for_free() {
        let refused = || -> BoxError { h2::Error::from(h2::Reason::REFUSED_STREAM).into() };
        let policy = Policy::new(false);
        for (attempt, expected) in [(1, Decision::RetryFree), (2, Decision::Retry)] {
            assert_eq!(policy.decide(attempt, &request(), Err(&refused())), expected);
        }
        let reset = h2::Error::from(h2::Reason::CANCEL).into();
        assert_eq!(policy.decide(1, &request(), Err(&reset)), Decision::Done);
    }

    #[test]
    fn what_may_have_happened_is_repeated_only_if_that_is_harmless() {
        let late = || Elapsed { after: Duration::from_secs(1) };
        let unavailable = || answer(tonic::Code::Unavailable, None);
        assert_eq!(decide(false, Err(late().into())), Decision::Done);
        assert_eq!(decide(true, Err(late().into())), Decision::Retry);
        assert_eq!(decide(false, Ok(unavailable())), Decision::Done);
        assert_eq!(decide(true, Ok(unavailable())), Decision::Retry);
    }

    #[test]
    fn a_request_can_say_for_itself_that_it_may_be_repeated() {
        let policy = Policy::new(false);
        let unavailable = answer(tonic::Code::Unavailable, None);
        let mut marked = request();
        marked.extensions_mut().insert(Idempotent);
        let mut keyed = request();
        let key = "abc".parse().unwrap();
        keyed.headers_mut().insert(IDEMPOTENCY_KEY, key);
        for request in [marked, keyed] {
            assert_eq!(policy.decide(1, &request, Ok(&unavailable)), Decision::Retry);
        }
    }

    #[test]
    fn the_server_has_the_last_word() {
        use tonic::Code::{NotFound, ResourceExhausted, Unavailable};
        let after = Decision::RetryAfter(Duration::from_millis(70));
        let cases = [
            (Unavailable, Some("70"), after),
            (ResourceExhausted, Some("70"), after),
            (ResourceExhausted, None, Decision::Done),
            (Unavailable, Some("-1"), Decision::Done),
            (Unavailable, Some("soon"), Decision::Done),
            (NotFound, Some("70"), Decision::Done),
        ];
        for (code, pushback, expected) in cases {
            let decision = decide(true, Ok(answer(code, pushback)));
            assert_eq!(decision, expected, "{code:?} {pushback:?}");
        }
    }

    #[test]
    fn nobody_knocks_on_doors_that_are_known_to_be_closed() {
        let open = AllOpen {
            target: chassis_discovery::Target::new("greeter", "grpc"),
            retry_in: Duration::from_secs(5),
        };
        let full = BulkheadFull { limit: 1, waited: Duration::ZERO };
        assert_eq!(decide(true, Err(open.into())), Decision::Done);
        assert_eq!(decide(true, Err(full.into())), Decision::Done);
    }
}
