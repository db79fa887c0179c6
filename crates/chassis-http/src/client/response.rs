//! The answer to a call, read into memory only as far as is allowed.

use std::error::Error as StdError;

use axum::body::Body;
use bytes::Bytes;
use chassis_core::{Code, Deadline, Error, Result};
use chassis_resilience::Degraded;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use crate::problem;

/// Most of an error's body that is read, in bytes; a problem document is far smaller.
const MAX_PROBLEM: usize = 64 * 1024;

/// An answer whose head has arrived.
#[derive(Debug)]
pub struct Response {
    head: http::response::Parts,
    body: Body,
    deadline: Deadline,
    limit: usize,
}

impl Response {
    pub(super) fn new(
        response: http::Response<Body>,
        deadline: Deadline,
        limit: usize,
    ) -> Response {
        let (head, body) = response.into_parts();
        Response { head, body, deadline, limit }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// How the answer is less than one of the callee's own now, if it is: an earlier one with
    /// its age, or what a [fallback](crate::RequestBuilder::send_or) gave. Whoever shows it can
    /// show that too.
    #[must_use]
    pub fn degraded(&self) -> Option<Degraded> {
        self.head.extensions.get().copied()
    }

    /// The answer as it is if its status is below 400, else the error that it carries.
    ///
    /// Dropping the future gives the answer up.
    ///
    /// # Errors
    /// The callee's error with its code, reason, details and fields; for an answer that is no
    /// problem document, the code nearest to its status with the reason `HTTP_<status>`.
    pub async fn error_for_status(self) -> Result<Response> {
        let status = self.status();
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(self);
        }
        let headers = self.head.headers.clone();
        // Whatever becomes of the body, the status has said that it is an error.
        let limit = self.limit.min(MAX_PROBLEM);
        let body = Response { limit, ..self }.bytes().await.unwrap_or_default();
        Err(problem::read(status, &headers, &body))
    }

    /// The whole body as JSON.
    ///
    /// Dropping the future gives the answer up.
    ///
    /// # Errors
    /// `INVALID_RESPONSE` if it is not the JSON that was expected, else as
    /// [`bytes`](Response::bytes).
    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        let body = self.bytes().await?;
        let mut deserializer = serde_json::Deserializer::from_slice(&body);
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            Error::new(
                Code::Internal,
                "INVALID_RESPONSE",
                "a service that is needed gave an answer that is not understood",
            )
            .with_source(error)
        })
    }

    /// The whole body.
    ///
    /// Dropping the future gives the answer up.
    ///
    /// # Errors
    /// `RESPONSE_TOO_LARGE` over the client's limit, `CONNECTION_LOST` if it broke off,
    /// `DEADLINE_EXCEEDED` if it did not arrive in the time that the call had.
    pub async fn bytes(self) -> Result<Bytes> {
        if self.body.size_hint().lower() > self.limit as u64 {
            return Err(too_large());
        }
        let read = axum::body::to_bytes(self.body, self.limit);
        self.deadline.run(read).await?.map_err(|error| {
            // axum's own, around what the body said, or around this.
            if StdError::source(&error).is_some_and(|error| error.is::<LengthLimitError>()) {
                return too_large();
            }
            Error::unavailable("CONNECTION_LOST", "a service that is needed broke off its answer")
                .with_source(error)
        })
    }

    /// The answer with its whole body.
    pub(super) async fn whole(self) -> Result<http::Response<Bytes>> {
        let head = self.head.clone();
        Ok(http::Response::from_parts(head, self.bytes().await?))
    }

    /// The answer with its body as it comes; neither limit nor deadline holds for it any more.
    #[must_use]
    pub fn into_http(self) -> http::Response<Body> {
        http::Response::from_parts(self.head, self.body)
    }
}

fn too_large() -> Error {
    Error::new(
        Code::Internal,
        "RESPONSE_TOO_LARGE",
        "a service that is needed gave an answer that is too large",
    )
}
