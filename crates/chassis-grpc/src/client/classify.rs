//! What an answer says about the endpoint that gave it.
//!
//! "Not found" is a healthy answer; "unavailable" is not. A server that sheds
//! load (`RESOURCE_EXHAUSTED`) or a caller that left says nothing about health.

use chassis_core::Code;
use chassis_resilience::Class;
use http::Response;

use crate::call::outcome::Outcome;

/// Judges an answer by its head, which holds the trailers if they came with it. A failure that
/// shows later, as of a stream that breaks, is not seen: the endpoint did answer.
pub(super) fn classify<B>(result: Result<&Response<B>, &tonic::transport::Error>) -> Class {
    let Ok(response) = result else {
        return Class::Failure;
    };
    match Outcome::of_head(response).and_then(|outcome| outcome.code()) {
        Some(Code::ResourceExhausted | Code::Cancelled) => Class::Ignore,
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
            (tonic::Code::ResourceExhausted, Class::Ignore),
            (tonic::Code::Cancelled, Class::Ignore),
            (tonic::Code::Unavailable, Class::Failure),
            (tonic::Code::Internal, Class::Failure),
            (tonic::Code::DeadlineExceeded, Class::Failure),
        ];
        for (code, class) in cases {
            let response: Response<()> = tonic::Status::new(code, "").into_http();
            assert_eq!(classify(Ok(&response)), class, "{code:?}");
        }
        assert_eq!(classify(Ok(&Response::new(()))), Class::Success);
    }
}
