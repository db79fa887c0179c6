//! What an answer says about the endpoint that gave it.
//!
//! "Not found" is a healthy answer; "unavailable" is not. A server that sheds load
//! (`RESOURCE_EXHAUSTED`) works and is asked too much; a caller that left says nothing.

use std::time::Duration;

use chassis_core::{BoxError, Code};
use chassis_resilience::{Class, Classify};
use http::Response;
use tonic::Status;
use tonic_types::StatusExt;

use super::error::{is_not_sent, is_refused, is_unreachable};
use super::retry::{Pushback, pushback};
use crate::call::framing::MESSAGE_TOO_LARGE;
use crate::call::outcome::Outcome;

/// Judges an answer by its head, which holds the trailers if they came with it. A failure that
/// shows later, as of a stream that breaks, is not seen: the endpoint did answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByStatus;

impl<B> Classify<Response<B>, BoxError> for ByStatus {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Class {
        match result {
            Ok(response) => match Outcome::of_head(response).and_then(|outcome| outcome.code()) {
                // Only then its details are worth a look.
                Some(Code::ResourceExhausted) => Status::from_header_map(response.headers())
                    .map_or(Class::Overloaded, |status| by_status(&status)),
                code => by_code(code),
            },
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

/// A message that is too large is refused by a server that has time enough.
pub(super) fn by_status(status: &Status) -> Class {
    match by_code(Some(Code::from_grpc(status.code() as i32))) {
        Class::Overloaded if is_too_large(status) => Class::Ignore,
        class => class,
    }
}

fn is_too_large(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == MESSAGE_TOO_LARGE)
}

fn by_code(code: Option<Code>) -> Class {
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
    use crate::IntoStatus;
    use crate::call::framing::Limit;

    #[test]
    fn a_message_that_is_too_large_is_no_sign_of_load() {
        let refused: Response<()> = Limit::Receive(1).refuse(Some(2)).into_status().into_http();
        assert_eq!(ByStatus.classify(Ok(&refused)), Class::Ignore);
    }

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
