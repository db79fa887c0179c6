//! One vocabulary of failures, shared by every transport.
//!
//! A failure has a [`Code`] (the canonical set of gRPC, which maps onto HTTP), a stable
//! `reason` that programs compare, and two faces: the `message`, which the caller may read,
//! and the source, which only the log holds. Each transport maps this once: problem+json,
//! gRPC status with details, dead-letter headers. So a handler never thinks in status
//! numbers, and an internal detail never reaches a caller by accident.

use std::{borrow::Cow, collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

/// A source of an [`Error`]: any error that may cross threads.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of anything that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is, in the canonical set of gRPC.
///
/// Source: `google/rpc/code.proto`; the HTTP status of each is the one given there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The caller gave up. HTTP 499.
    Cancelled,
    /// A failure of which nothing more is known. HTTP 500.
    Unknown,
    /// The request is wrong, whatever the state of the system. HTTP 400.
    InvalidArgument,
    /// The time given for the call ran out; it may still have happened. HTTP 504.
    DeadlineExceeded,
    /// The thing asked for does not exist. HTTP 404.
    NotFound,
    /// The thing to make exists already. HTTP 409.
    AlreadyExists,
    /// The caller is known and may not do this. HTTP 403.
    PermissionDenied,
    /// A quota or limit is used up. HTTP 429.
    ResourceExhausted,
    /// The system is not in the state that the call needs; trying again does not help. HTTP 400.
    FailedPrecondition,
    /// A conflict with another call; trying the whole operation again may help. HTTP 409.
    Aborted,
    /// Past the valid range, such as reading behind the end. HTTP 400.
    OutOfRange,
    /// Not offered here. HTTP 501.
    Unimplemented,
    /// An invariant of the server broke. HTTP 500.
    Internal,
    /// The service cannot answer now; trying again after a pause may help. HTTP 503.
    Unavailable,
    /// Data is lost or damaged beyond repair. HTTP 500.
    DataLoss,
    /// The caller is not known. HTTP 401.
    Unauthenticated,
}

/// Code, number on the gRPC wire, name, HTTP status: the one table behind all conversions.
const TABLE: [(Code, i32, &str, u16); 16] = [
    (Code::Cancelled, 1, "CANCELLED", 499),
    (Code::Unknown, 2, "UNKNOWN", 500),
    (Code::InvalidArgument, 3, "INVALID_ARGUMENT", 400),
    (Code::DeadlineExceeded, 4, "DEADLINE_EXCEEDED", 504),
    (Code::NotFound, 5, "NOT_FOUND", 404),
    (Code::AlreadyExists, 6, "ALREADY_EXISTS", 409),
    (Code::PermissionDenied, 7, "PERMISSION_DENIED", 403),
    (Code::ResourceExhausted, 8, "RESOURCE_EXHAUSTED", 429),
    (Code::FailedPrecondition, 9, "FAILED_PRECONDITION", 400),
    (Code::Aborted, 10, "ABORTED", 409),
    (Code::OutOfRange, 11, "OUT_OF_RANGE", 400),
    (Code::Unimplemented, 12, "UNIMPLEMENTED", 501),
    (Code::Internal, 13, "INTERNAL", 500),
    (Code::Unavailable, 14, "UNAVAILABLE", 503),
    (Code::DataLoss, 15, "DATA_LOSS", 500),
    (Code::Unauthenticated, 16, "UNAUTHENTICATED", 401),
];

impl Code {
    fn row(self) -> &'static (Code, i32, &'static str, u16) {
        // The table is in the order of the enum; a test holds that.
        &TABLE[self as usize]
    }

    /// The name in upper snake case, such as `NOT_FOUND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().2
    }

    /// The code with this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Code> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// The number on the gRPC wire.
    #[must_use]
    pub fn grpc(self) -> i32 {
        self.row().1
    }

    /// The code with this number on the gRPC wire; `Unknown` where there is none.
    #[must_use]
    pub fn from_grpc(number: i32) -> Code {
        TABLE.iter().find(|row| row.1 == number).map_or(Code::Unknown, |row| row.0)
    }

    /// The HTTP status that says the same.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().3
    }

    /// The code that says the same as an HTTP error status, for answers that carry no code.
    #[must_use]
    pub fn from_http_status(status: u16) -> Code {
        match status {
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 | 410 => Code::NotFound,
            408 | 504 => Code::DeadlineExceeded,
            409 => Code::Aborted,
            412 | 422 => Code::FailedPrecondition,
            416 => Code::OutOfRange,
            429 => Code::ResourceExhausted,
            499 => Code::Cancelled,
            501 => Code::Unimplemented,
            502 | 503 => Code::Unavailable,
            500 => Code::Internal,
            400..=499 => Code::InvalidArgument,
            _ => Code::Unknown,
        }
    }

    /// Whether the same call may succeed later. Whether repeating it is safe is another question.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded
        )
    }

    /// Whether the fault is ours: such a failure is logged at error, with its sources.
    #[must_use]
    pub fn is_server_fault(self) -> bool {
        matches!(
            self,
            Code::Unknown
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
                | Code::DeadlineExceeded
                | Code::Unimplemented
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One wrong field of a request: where it is, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, such as `lines[0].quantity`.
    pub field: String,
    /// What is wrong, for the caller to read.
    pub problem: String,
}

/// A failure with its two faces: what the caller may read, and what the log must hold.
///
/// `Display` gives the public message only. The source is reached by
/// [`std::error::Error::source`], and printed once, at the edge, with [`Error::chain`].
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    reason: Cow<'static, str>,
    message: Cow<'static, str>,
    details: BTreeMap<Cow<'static, str>, String>,
    fields: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    not_sent: bool,
    source: Option<BoxError>,
}

macro_rules! shortcuts {
    ($($(#[$doc:meta])* $name:ident => $code:ident,)*) => {
        impl Error {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(
                reason: impl Into<Cow<'static, str>>,
                message: impl Into<Cow<'static, str>>,
            ) -> Error {
                Error::new(Code::$code, reason, message)
            })*
        }
    };
}

shortcuts! {
    /// [`Code::InvalidArgument`] with a reason and a public message.
    invalid_argument => InvalidArgument,
    /// [`Code::NotFound`] with a reason and a public message.
    not_found => NotFound,
    /// [`Code::AlreadyExists`] with a reason and a public message.
    already_exists => AlreadyExists,
    /// [`Code::FailedPrecondition`] with a reason and a public message.
    failed_precondition => FailedPrecondition,
    /// [`Code::Unavailable`] with a reason and a public message.
    unavailable => Unavailable,
    /// [`Code::ResourceExhausted`] with a reason and a public message.
    resource_exhausted => ResourceExhausted,
    /// [`Code::DeadlineExceeded`] with a reason and a public message.
    deadline_exceeded => DeadlineExceeded,
    /// [`Code::PermissionDenied`] with a reason and a public message.
    permission_denied => PermissionDenied,
    /// [`Code::Unauthenticated`] with a reason and a public message.
    unauthenticated => Unauthenticated,
    /// [`Code::Aborted`] with a reason and a public message.
    aborted => Aborted,
}

impl Error {
    /// A failure with a code, a stable reason in upper snake case, and a public message.
    #[must_use]
    pub fn new(
        code: Code,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error(Box::new(Inner {
            code,
            reason: reason.into(),
            message: message.into(),
            details: BTreeMap::new(),
            fields: Vec::new(),
            retry_after: None,
            not_sent: false,
            source: None,
        }))
    }

    /// [`Code::Internal`] with a private source; the caller reads only "internal error".
    #[must_use]
    pub fn internal(source: impl Into<BoxError>) -> Error {
        Error::new(Code::Internal, "INTERNAL", "internal error").with_source(source)
    }

    /// Adds the private source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Adds a public detail that programs may read, such as `sku`.
    #[must_use]
    pub fn with_detail(
        mut self,
        key: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Error {
        self.0.details.insert(key.into(), value.into());
        self
    }

    /// Adds a wrong field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, problem: impl Into<String>) -> Error {
        self.0.fields.push(FieldViolation { field: field.into(), problem: problem.into() });
        self
    }

    /// Says after how long the caller may try again.
    #[must_use]
    pub fn with_retry_after(mut self, pause: Duration) -> Error {
        self.0.retry_after = Some(pause);
        self
    }

    /// Marks the call as provably never sent, so that repeating it is safe.
    #[must_use]
    pub fn not_sent(mut self) -> Error {
        self.0.not_sent = true;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The stable reason that programs compare, such as `ITEM_NOT_FOUND`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The public message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Public details by name.
    #[must_use]
    pub fn details(&self) -> &BTreeMap<Cow<'static, str>, String> {
        &self.0.details
    }

    /// The wrong fields of the request.
    #[must_use]
    pub fn fields(&self) -> &[FieldViolation] {
        &self.0.fields
    }

    /// After how long the caller may try again, where known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the call provably never left this process.
    #[must_use]
    pub fn was_not_sent(&self) -> bool {
        self.0.not_sent
    }

    /// The message and every source behind it, joined by `: `, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and every source behind it, joined by `: `.
#[must_use]
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What a caught panic said, for the log.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.code, self.0.reason, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_reads_back() {
        for (index, (code, number, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(*code as usize, index);
            assert_eq!(Code::from_grpc(*number), *code);
            assert_eq!(Code::parse(name), Some(*code));
            assert_eq!(code.to_string(), *name);
        }
        assert_eq!(Code::from_grpc(99), Code::Unknown);
    }

    #[test]
    fn an_http_status_keeps_its_kind_of_fault() {
        for (code, _, _, status) in TABLE {
            let back = Code::from_http_status(status);
            assert_eq!(back.http_status(), status, "{code} → {status} → {back}");
        }
        assert_eq!(Code::from_http_status(418), Code::InvalidArgument);
        assert_eq!(Code::from_http_status(599), Code::Unknown);
    }

    #[test]
    fn the_public_face_does_not_show_the_private_one() {
        let error = Error::internal(std::io::Error::other("password wrong for db7"));
        assert_eq!(error.to_string(), "internal error");
        assert_eq!(error.chain(), "internal error: password wrong for db7");
    }
}
