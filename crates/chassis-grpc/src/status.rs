//! The one place where our errors become gRPC statuses, and back.
//!
//! The reason and the details travel as `google.rpc.ErrorInfo`, wrong fields as
//! `BadRequest`, the pause before another try as `RetryInfo` (and, for clients
//! that only know gRFC A6, as the `grpc-retry-pushback-ms` trailer). So an error
//! is the same on both sides of a call, but for its private source, which stays
//! where it arose.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chassis_core::{Code, Context, Error};
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// The trailer in which a server says when, or with a negative number that never,
/// to try again. Source: gRFC A6.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Longest message that is sent, in bytes. A status travels in trailers, and
/// those have a limit (16 KiB by default) beyond which the whole answer is lost.
const MAX_MESSAGE: usize = 1024;
/// Most bytes of fields and details that are sent; what does not fit is left out
/// whole, because half of a value is a wrong value.
const MAX_DETAILS: usize = 6 * 1024;
/// What one field or detail costs besides its text.
const OVERHEAD: usize = 16;

/// What can be answered as a gRPC status.
pub trait IntoStatus {
    /// The status with all public details. The error itself becomes the status's
    /// source, so that the server's access log prints its chain.
    fn into_status(self) -> Status;
}

impl IntoStatus for Error {
    fn into_status(self) -> Status {
        let domain =
            Context::try_current().map(|ctx| ctx.env().info().name.to_string()).unwrap_or_default();
        let mut room = MAX_DETAILS;
        let mut fits = |one: &str, other: &str| {
            let cost = one.len() + other.len() + OVERHEAD;
            let fits = cost <= room;
            room -= if fits { cost } else { 0 };
            fits
        };
        let mut details = ErrorDetails::new();
        for violation in self.fields() {
            if fits(&violation.field, &violation.problem) {
                details.add_bad_request_violation(&violation.field, &violation.problem);
            }
        }
        let metadata: HashMap<String, String> = self
            .details()
            .iter()
            .filter(|(key, value)| fits(key, value))
            .map(|(key, value)| (key.to_string(), value.clone()))
            .collect();
        details.set_error_info(cut(self.reason(), MAX_MESSAGE), domain, metadata);
        let mut trailers = MetadataMap::new();
        if let Some(pause) = self.retry_after() {
            details.set_retry_info(Some(pause));
            let millis = pause.as_nanos().div_ceil(1_000_000);
            trailers.insert(PUSHBACK, MetadataValue::from(clamp_millis(millis)));
        }
        let mut status = Status::with_error_details_and_metadata(
            tonic::Code::from_i32(self.code().grpc()),
            cut(self.message(), MAX_MESSAGE),
            details,
            trailers,
        );
        status.set_source(Arc::new(self));
        status
    }
}

/// The error that a status stands for.
///
/// A status of a server that knows nothing of our details has its code's name as
/// its reason. What made the status, such as a broken connection, becomes the
/// error's private source; whether the call was provably never sent is kept.
pub fn from_status(status: Status) -> Error {
    let code = Code::from_grpc(status.code() as i32);
    let details = status.get_error_details();
    let (reason, metadata) = match details.error_info() {
        Some(info) => (Cow::from(info.reason.clone()), info.metadata.clone()),
        None => (Cow::from(code.as_str()), HashMap::new()),
    };
    let mut error = Error::new(code, reason, status.message().to_owned());
    for (key, value) in metadata {
        error = error.with_detail(key, value);
    }
    if let Some(bad_request) = details.bad_request() {
        for violation in &bad_request.field_violations {
            error = error.with_field(&violation.field, &violation.description);
        }
    }
    let pause = details.retry_info().and_then(|info| info.retry_delay);
    if let Some(pause) = pause.or_else(|| pushback(status.metadata())) {
        error = error.with_retry_after(pause);
    }
    match StdError::source(&status) {
        None => error,
        Some(source) => {
            if source.downcast_ref::<Error>().is_some_and(Error::was_not_sent) {
                error = error.not_sent();
            }
            error.with_source(Beneath(status))
        }
    }
}

/// What lies beneath a status. The status's own text is already the message of
/// the error around it, and so is not repeated.
#[derive(Debug)]
struct Beneath(Status);

impl Beneath {
    fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        // An error of ours has the status's own message: its source is the news.
        match StdError::source(&self.0) {
            Some(source) if source.is::<Error>() => source.source(),
            source => source,
        }
    }
}

impl fmt::Display for Beneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause() {
            Some(cause) => fmt::Display::fmt(cause, f),
            None => write!(f, "gRPC status {:?}", self.0.code()),
        }
    }
}

impl StdError for Beneath {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause().and_then(StdError::source)
    }
}

/// The pause that a push-back trailer asks for; `None` if there is none or if it
/// says "never".
fn pushback(metadata: &MetadataMap) -> Option<Duration> {
    let millis = metadata.get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

fn clamp_millis(millis: u128) -> i64 {
    // gRFC A6: a number that does not fit 32 bits is taken as "never".
    i64::try_from(millis).unwrap_or(i64::MAX).min(i32::MAX.into())
}

fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// Through the headers of a real answer, and back.
    fn over_the_wire(error: Error) -> Error {
        let mut headers = http::HeaderMap::new();
        error.into_status().add_header(&mut headers).unwrap();
        from_status(Status::from_header_map(&headers).unwrap())
    }

    fn codes() -> impl Strategy<Value = Code> {
        (1..=16).prop_map(Code::from_grpc)
    }

    proptest! {
        #[test]
        fn an_error_survives_the_wire(
            code in codes(),
            reason in "[A-Z][A-Z_]{0,60}",
            message in "\\PC{0,200}",
            details in btree_map("[a-z]{1,20}", "\\PC{0,30}", 0..8),
            fields in vec(("[a-z.0-9]{1,20}", "\\PC{0,30}"), 0..8),
            retry_after in proptest::option::of(0u64..100_000_000),
        ) {
            let build = || {
                let mut error = Error::new(code, reason.clone(), message.clone());
                for (key, value) in &details {
                    error = error.with_detail(key.clone(), value);
                }
                for (field, problem) in &fields {
                    error = error.with_field(field, problem);
                }
                match retry_after {
                    Some(micros) => error.with_retry_after(Duration::from_micros(micros)),
                    None => error,
                }
            };
            let (sent, received) = (build(), over_the_wire(build()));
            prop_assert_eq!(received.code(), sent.code());
            prop_assert_eq!(received.reason(), sent.reason());
            prop_assert_eq!(received.message(), sent.message());
            prop_assert_eq!(received.details(), sent.details());
            prop_assert_eq!(received.fields(), sent.fields());
            prop_assert_eq!(received.retry_after(), sent.retry_after());
        }
    }

    #[test]
    fn the_source_stays_private_but_is_kept_for_the_log() {
        let error = Error::internal(std::io::Error::other("password wrong for db7"));
        let status = error.into_status();
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        assert!(!format!("{headers:?}").contains("password"));
        let source = StdError::source(&status).unwrap();
        let chain = source.downcast_ref::<Error>().unwrap().chain();
        assert_eq!(chain, "internal error: password wrong for db7");
    }

    #[test]
    fn a_local_failure_keeps_its_cause_and_that_it_was_not_sent() {
        let error = Error::unavailable("CONNECT_FAILED", "cannot connect")
            .with_source(std::io::Error::other("refused"))
            .not_sent();
        let back = from_status(error.into_status());
        assert!(back.was_not_sent());
        assert_eq!(back.chain(), "cannot connect: refused");
    }

    #[test]
    fn a_foreign_status_is_understood() {
        let error = from_status(Status::not_found("no such thing"));
        assert_eq!((error.code(), error.reason()), (Code::NotFound, "NOT_FOUND"));
        assert_eq!(error.message(), "no such thing");

        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert(PUSHBACK, "250".parse().unwrap());
        let pause = from_status(status).retry_after();
        assert_eq!(pause, Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_huge_error_still_fits_the_trailers() {
        let mut error = Error::invalid_argument("TOO_MUCH", "é".repeat(100_000));
        for n in 0..1_000 {
            error = error
                .with_field(format!("field{n}"), "x".repeat(n))
                .with_detail(format!("key{n}"), "y".repeat(n));
        }
        let mut headers = http::HeaderMap::new();
        error.into_status().add_header(&mut headers).unwrap();
        let size: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 14 * 1024, "{size}");
        let error = from_status(Status::from_header_map(&headers).unwrap());
        assert_eq!(error.reason(), "TOO_MUCH");
        assert!(error.fields().len() > 50);
    }
}
