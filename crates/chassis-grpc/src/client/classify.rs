//! What an answer says about the endpoint that gave it.
//!
//! "Not found" is a healthy answer; "unavailable" is not. A server that sheds load
//! (`RESOURCE_EXHAUSTED`) works and is asked too much; a caller that left says nothing.

use std::time::Duration;

use chassis_core::{BoxError, Code};
use chassis_resilience::{Class, Classify};
use http::Response;

use super::error::{is_not_sent, is_refused, is_unreachable};
use super::retry::{Pushback, pushback};
use crate::call::outcome::Outcome;

/// Judges an answer by its head, which holds the trailers if they came with it. A failure that
/// shows later, as of a stream that breaks, is not seen: the endpoint did answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByStatus;

impl<B> Classify<Response<B>, BoxError> for ByStatus {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Class {
        match result {
            Ok(response) => by_code(Outcome::of_head(response).and_then(|outcome| outcome.code())),
            Err(error) if is_unreachable(&**error) => Class::Unreachable,
            // Also one that had closed the connection before it saw the call, as it may.
            Err(error) if is_refused(&**error) || is_not_sent(&**error) => Class::Refused,
            Err(_) => Class::Failure,
        }
    }

    fn retry_after(&self, result: Result<&Response<B>, &BoxError>) -> Option<Duration> {
        match pushback(result.ok()?.headers()) {
            Pushback::After(pause) => Some(pause),
            Pushback::None | Pushback::Never => None,
        }
    }
}

pub(super) fn by_code(code: Option<Code>) -> Class {
    match code {
        Some(Code::ResourceExhausted) => Class::Overloaded,
        Some(Code::Cancelled) => Class::Ignore,
        Some(Code::Unimplemented) => Class::Success,
        Some(code) if code.is_server_fault() => Class::Failure,
        _ => Class::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_to_blame() {
        let cases = [
            (tonic::Code::Ok, Class::Success),
            (tonic::Code::NotFound, Class::Success),
            (tonic::Code::InvalidArgument, Class::Success),
            (tonic::Code::Unimplemented, Class::Success),
            (tonic::Code::ResourceExhausted, Class::Overloaded),
            (tonic::Code::Cancelled, Class::Ignore),
            (tonic::Code::Unavailable, Class::Failure),
            (tonic::Code::Internal, Class::Failure),
            (tonic::Code::DeadlineExceeded, Class::Failure),
        ];
        for (code, class) in cases {
            let response: Response<()> = tonic::Status::new(code, "").into_http();
            assert_eq!(ByStatus.classify(Ok(&response)), class, "{code:?}");
        }
        assert_eq!(ByStatus.classify(Ok(&Response::new(()))), Class::Success);
    }
}
