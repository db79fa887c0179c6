//! Plain HTTP to one address: no retries, no discovery, nothing of the chassis in between.

use std::time::Duration;

use bytes::Bytes;
use chassis::{Deadline, Error, Result, core::unix_ms};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::Value;

use super::broken;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// A client of the gateway.
pub(crate) struct Client {
    base: String,
    /// Sets the customers of this run apart from those of others.
    run: String,
    http: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Client {
    pub(crate) fn new(address: &str) -> Client {
        let run = format!("{}-{}", std::process::id(), unix_ms());
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Client { base: format!("http://{address}"), run, http }
    }

    /// A name that no other run has: of a customer, or a key.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer> {
        self.send(Method::POST, path, headers, body.to_string().into()).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(Error::internal)?;
        let call = async {
            let response = self.http.request(request).await.map_err(|error| {
                Error::unavailable("SMOKE_CALL", format!("{path} did not answer"))
                    .with_source(error)
            })?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(Error::internal)?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body: serde_json::from_slice(&body).unwrap_or_else(|_| text()),
            })
        };
        Deadline::after(TIMEOUT).run(call).await?
    }

    /// Asks again until `holds` says yes.
    pub(crate) async fn until(
        &self,
        what: &str,
        path: &str,
        holds: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let answer = self.get(path).await?;
            if holds(&answer) {
                return Ok(answer);
            }
            if deadline.is_expired() {
                return Err(broken(format!(
                    "waited {PATIENCE:?} for {what}; last: {} {}",
                    answer.status, answer.body
                )));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Answer {
    /// The answer, if it has this status.
    pub(crate) fn expect(self, status: u16) -> Result<Answer> {
        if self.status.as_u16() == status {
            Ok(self)
        } else {
            Err(broken(format!("expected {status}, got {}: {}", self.status, self.body)))
        }
    }

    /// The answer, if it is problem+json with this status and reason.
    pub(crate) fn expect_problem(self, status: u16, reason: &str) -> Result<Answer> {
        let answer = self.expect(status)?;
        let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        if kind != Some("application/problem+json") {
            return Err(broken(format!("{status} is {kind:?}, not problem+json")));
        }
        if answer.body["reason"] != reason {
            return Err(broken(format!("expected reason {reason}: {}", answer.body)));
        }
        Ok(answer)
    }
}
