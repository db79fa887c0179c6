//! What a registry answers: a whole JSON text, or one line after the other.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use chassis_core::{Code, Error, Result};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Response};
use serde::de::DeserializeOwned;

use super::Connection;

/// The largest whole answer: some ten thousand endpoints.
const MAX_WHOLE: usize = 32 * 1024 * 1024;
/// The largest line of a stream: one slice of a hundred endpoints is 50 KiB.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// How much of a refusal is repeated.
const MAX_REASON: usize = 300;

/// The head of an answer, with its body still on the way.
pub(crate) struct Answer {
    response: Response<Incoming>,
    /// What came and was not asked for yet.
    buffer: BytesMut,
    timeout: Duration,
    _connection: Connection,
}

impl Answer {
    pub(super) fn new(
        response: Response<Incoming>,
        connection: Connection,
        timeout: Duration,
    ) -> Answer {
        Answer { response, buffer: BytesMut::new(), timeout, _connection: connection }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn is_server_fault(&self) -> bool {
        self.response.status().is_server_error()
    }

    /// This answer, or the error that it is.
    pub(super) async fn successful(mut self, name: &str, authority: &str) -> Result<Answer> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        // A refusal without a reason is still a refusal.
        let text = self.whole(MAX_WHOLE).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(MAX_REASON)]).into_owned();
        let code = match status.as_u16() {
            400 => Code::InvalidArgument,
            other => Code::from_http_status(other),
        };
        let reason: Cow<'static, str> = format!("HTTP_{}", status.as_u16()).into();
        Err(Error::new(code, reason, format!("{name} at {authority} answered {status}: {text}")))
    }

    /// The whole answer as JSON, which must come in the time of one request.
    pub(crate) async fn json<T: DeserializeOwned>(mut self) -> Result<T> {
        let timeout = self.timeout;
        let whole = tokio::time::timeout(timeout, self.whole(MAX_WHOLE)).await;
        let whole = whole.map_err(|_| broken("the answer did not end in time"))??;
        serde_json::from_slice(&whole)
            .map_err(|error| broken("not the expected JSON").with_source(error))
    }

    /// The next line of a stream; none when it has ended. Dropping the future
    /// loses nothing.
    pub(crate) async fn line(&mut self) -> Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end).freeze();
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(broken("a line of the stream is too long"));
            }
            if !self.more().await? {
                // What ends without a line end was cut off.
                return Ok(None);
            }
        }
    }

    async fn whole(&mut self, limit: usize) -> Result<Bytes> {
        while self.more().await? {
            if self.buffer.len() > limit {
                return Err(broken("the answer is too long"));
            }
        }
        Ok(self.buffer.split().freeze())
    }

    /// Waits for more of the body; whether there is any.
    async fn more(&mut self) -> Result<bool> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(false),
                Some(Err(error)) => return Err(broken("the answer was cut off").with_source(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        return Ok(true);
                    }
                }
            }
        }
    }
}

/// The registry said something, but not what it should.
pub(crate) fn broken(problem: &'static str) -> Error {
    Error::unavailable("REGISTRY_BROKEN", format!("the registry's answer is of no use: {problem}"))
}
