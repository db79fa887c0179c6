//! When a call is made again.
//!
//! Only when it is safe: it provably never left, or its caller says that doing
//! it twice is harmless. Then `UNAVAILABLE`, silence and a broken connection are
//! worth another attempt, and `RESOURCE_EXHAUSTED` if the server says when. The
//! server has the last word: gRFC A6 push-back is obeyed, "never" included.

use std::time::Duration;

use chassis_core::{BoxError, Code, Deadline};
use chassis_resilience::{Decision, HedgePolicy, RetryPolicy};
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use super::answer::Answer;
use super::error::{is_not_sent, is_refused};
use super::replay::Replay;
use super::{Idempotent, LongLived};
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

    pub(super) fn copy(request: &Request<Replay>) -> Option<Request<Replay>> {
        let mut copy = Request::new(request.body().again()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

impl<B> HedgePolicy<Request<Replay>, Response<Answer<B>>, BoxError> for Policy {
    fn clone_request(&self, request: &Request<Replay>) -> Option<Request<Replay>> {
        // A stream that is meant to last is not late.
        let lasts = request.extensions().get::<LongLived>().is_some();
        let again = self.may_repeat(request) && !lasts;
        let mut copy = if again { Policy::copy(request)? } else { return None };
        copy.body_mut().set_previous_attempts(request.body().previous_attempts() + 1);
        Some(copy)
    }

    fn settles(&self, result: Result<&Response<Answer<B>>, &BoxError>) -> bool {
        let code = result.ok().map(|response| Outcome::of_head(response).and_then(|o| o.code()));
        code.is_some_and(|code| code != Some(Code::Unavailable))
    }
}

impl<B> RetryPolicy<Request<Replay>, Response<Answer<B>>, BoxError> for Policy {
    fn clone_request(&self, request: &Request<Replay>) -> Option<Request<Replay>> {
        Policy::copy(request)
    }

    fn decide(
        &self,
        _: u32,
        request: &Request<Replay>,
        result: Result<&Response<Answer<B>>, &BoxError>,
    ) -> Decision {
        match result {
            Err(error) if is_refused(&**error) => Decision::Refused,
            Err(error) if is_not_sent(&**error) => Decision::RetryFree,
            Err(_) if self.may_repeat(request) => Decision::Retry,
            Err(_) => Decision::Done,
            Ok(response) => {
                let code = Outcome::of_head(response).and_then(|outcome| outcome.code());
                match code {
                    Some(Code::Unavailable | Code::ResourceExhausted)
                        if self.may_repeat(request) => {}
                    // As nearly all of them; whether it may be repeated is not asked then.
                    _ => return Decision::Done,
                }
                match pushback(response.headers()) {
                    Pushback::After(pause) => Decision::RetryAfter(pause),
                    Pushback::None if code == Some(Code::Unavailable) => Decision::Retry,
                    Pushback::None | Pushback::Never => Decision::Done,
                }
            }
        }
    }

    fn deadline(&self, request: &Request<Replay>) -> Option<Instant> {
        request.body().deadline().map(Deadline::instant)
    }

    fn mark_attempt(&self, request: &mut Request<Replay>, attempt: u32) {
        request.body_mut().set_previous_attempts(attempt.saturating_sub(1));
    }
}

/// What a server says about coming again.
pub(super) enum Pushback {
    None,
    After(Duration),
    Never,
}

pub(super) fn pushback(headers: &HeaderMap) -> Pushback {
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
    use tonic::Status;
    use tonic::body::Body;

    use super::super::connection::ConnectFailed;

    use super::*;

    fn request() -> Request<Replay> {
        Request::new(Replay::of("x".into()))
    }

    fn answer(code: tonic::Code, pushback: Option<&str>) -> Response<Answer<Body>> {
        let mut status = Status::new(code, "");
        if let Some(text) = pushback {
            status.metadata_mut().insert(PUSHBACK, text.parse().unwrap());
        }
        Answer::peek(
            status.into_http(),
            &mut std::task::Context::from_waker(std::task::Waker::noop()),
        )
    }

    fn decide(idempotent: bool, result: Result<Response<Answer<Body>>, BoxError>) -> Decision {
        Policy::new(idempotent).decide(1, &request(), result.as_ref())
    }

    #[test]
    fn what_provably_never_left_is_repeated_for_free() {
        for idempotent in [false, true] {
            let address = ([127, 0, 0, 1], 1).into();
            let error = ConnectFailed { address, source: BoxError::from("refused").into() };
            assert_eq!(decide(idempotent, Err(error.into())), Decision::RetryFree);
        }
    }

    #[test]
    fn a_refused_stream_is_told_from_a_broken_one() {
        let policy = Policy::new(false);
        for (reason, expected) in
            [(h2::Reason::REFUSED_STREAM, Decision::Refused), (h2::Reason::CANCEL, Decision::Done)]
        {
            let error: BoxError = h2::Error::from(reason).into();
            let refused: Result<&Response<Answer<Body>>, _> = Err(&error);
            assert_eq!(policy.decide(1, &request(), refused), expected);
        }
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
}
