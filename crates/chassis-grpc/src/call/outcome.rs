//! How a call ended.
//!
//! gRPC hides it: the HTTP status is 200 in any case, and the true one is in the
//! trailers, or in the headers of an answer that has no body ("trailers-only").

use std::error::Error as StdError;

use chassis_core::{Code, Error};
use http::HeaderMap;
use tonic::Status;

/// The name that metrics and logs give to success.
pub(crate) const OK: &str = "OK";

/// How a call ended: well, or with a code and what the log must hold of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Failed {
        code: Code,
        reason: String,
        /// The message with all its sources.
        chain: String,
    },
}

impl Outcome {
    pub(crate) fn failed(code: Code, chain: impl Into<String>) -> Outcome {
        Outcome::Failed { code, reason: code.as_str().to_owned(), chain: chain.into() }
    }

    pub(crate) fn of_error(error: &Error) -> Outcome {
        Outcome::Failed {
            code: error.code(),
            reason: error.reason().to_owned(),
            chain: error.chain(),
        }
    }

    pub(crate) fn of_status(status: &Status) -> Outcome {
        if status.code() == tonic::Code::Ok {
            return Outcome::Ok;
        }
        // What fails while a body is read comes through layers that each put an error around it.
        let mut sources = std::iter::successors(StdError::source(status), |it| (*it).source());
        let error = sources.find_map(|source| source.downcast_ref::<Error>());
        match error.filter(|error| error.code() == code_of(status)) {
            Some(error) => Outcome::of_error(error),
            None if StdError::source(status).is_some() => {
                Outcome::failed(code_of(status), chassis_core::error::chain(status))
            }
            None => Outcome::failed(code_of(status), status.message()),
        }
    }

    /// What headers or trailers say; `None` if they hold no status.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Outcome> {
        // Success is the common case, and has nothing more to be read.
        if headers.get(Status::GRPC_STATUS)?.as_bytes() == b"0" {
            return Some(Outcome::Ok);
        }
        Status::from_header_map(headers).as_ref().map(Outcome::of_status)
    }

    /// What the head of an answer says; `None` if its trailers will.
    pub(crate) fn of_head<B>(response: &http::Response<B>) -> Option<Outcome> {
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let code = Code::from_http_status(status);
            return Some(Outcome::failed(code, format!("HTTP status {status}")));
        }
        // tonic leaves the status itself, with its source, in the extensions.
        match response.extensions().get::<Status>() {
            Some(status) => Some(Outcome::of_status(status)),
            None => Outcome::of_headers(response.headers()),
        }
    }

    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Outcome::Ok => None,
            Outcome::Failed { code, .. } => Some(*code),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.code().map_or(OK, Code::as_str)
    }
}

fn code_of(status: &Status) -> Code {
    Code::from_grpc(status.code() as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IntoStatus;

    #[test]
    fn the_chain_is_found_in_the_answer() {
        let error = Error::internal(std::io::Error::other("disk full"));
        let response: http::Response<()> = error.into_status().into_http();
        let outcome = Outcome::of_head(&response).unwrap();
        assert_eq!(outcome.code(), Some(Code::Internal));
        let Outcome::Failed { chain, .. } = outcome else {
            panic!("not failed");
        };
        assert_eq!(chain, "internal error: disk full");
    }

    #[test]
    fn a_head_without_status_says_nothing_yet() {
        assert_eq!(Outcome::of_head(&http::Response::new(())), None);
        let proxy = http::Response::builder().status(503).body(()).unwrap();
        let outcome = Outcome::of_head(&proxy).unwrap();
        assert_eq!(outcome.code(), Some(Code::Unavailable));
    }
}
