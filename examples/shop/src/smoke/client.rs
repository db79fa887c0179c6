//! Plain HTTP to one address: no retries, no discovery, nothing of the chassis in between.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use chassis::{Deadline, Error, Result, core::unix_ms};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde_json::Value;

use super::broken;
use crate::terminal::complain;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// Failures that are printed; the others are counted.
const MAX_SHOWN: u64 = 10;

/// A client of the gateway.
pub(crate) struct Client {
    base: String,
    /// Sets the customers of this run apart from those of others.
    run: String,
    http: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
    pub(crate) counts: Counts,
    /// Whether who waits for something asks again where a call got no answer.
    comes_back: bool,
    /// Whether failures are printed.
    loud: bool,
}

/// Calls that did not go well.
#[derive(Default)]
pub(crate) struct Counts {
    /// The answer said that it is the shop's fault.
    pub(crate) failed: AtomicU64,
    /// There was no answer: the connection was refused or broke, or time ran out.
    pub(crate) unanswered: AtomicU64,
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
        let base = format!("http://{address}");
        Client { base, run, http, counts: Counts::default(), comes_back: false, loud: false }
    }

    /// The same of a customer who comes back: who waits for something waits on where a call
    /// got no answer. `loud`: the first calls that do not go well are printed.
    pub(crate) fn coming_back(self, loud: bool) -> Client {
        Client { comes_back: true, loud, ..self }
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
            .method(method.clone())
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
        let answer = Deadline::after(TIMEOUT).run(call).await.and_then(|answer| answer);
        match &answer {
            Ok(answer) if answer.status.is_server_error() => self.note(
                &self.counts.failed,
                format_args!("{method} {path}: {} {}", answer.status, answer.body),
            ),
            Ok(_) => {}
            Err(error) => self
                .note(&self.counts.unanswered, format_args!("{method} {path}: {}", error.chain())),
        }
        answer
    }

    fn note(&self, count: &AtomicU64, problem: impl Display) {
        if count.fetch_add(1, Relaxed) < MAX_SHOWN && self.loud {
            complain(format_args!("{} {problem}", unix_ms()));
        }
    }

    /// Asks again until `holds` says yes. A call without an answer ends it, unless this
    /// customer comes back.
    pub(crate) async fn until(
        &self,
        what: &str,
        path: &str,
        holds: impl Fn(&Answer) -> bool,
    ) -> Result<Answer> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let last = match self.get(path).await {
                Ok(answer) if holds(&answer) => return Ok(answer),
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) if self.comes_back => error.chain().to_string(),
                Err(error) => return Err(error),
            };
            if deadline.is_expired() {
                return Err(broken(format!("waited {PATIENCE:?} for {what}; last: {last}")));
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Hangs up on the first caller and answers the second.
    async fn hangs_up_once() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            for answers in [false, true] {
                let (mut caller, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(caller.read(&mut request).await.unwrap() > 0);
                if answers {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                    caller.write_all(answer).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_customer_who_comes_back_waits_on_where_the_edge_is_killed() {
        let once = Client::new(&hangs_up_once().await);
        let error = once.until("an answer", "/", |_| true).await.unwrap_err();
        assert_eq!(error.reason(), "SMOKE_CALL");

        let client = Client::new(&hangs_up_once().await).coming_back(false);
        let answer = client.until("an answer", "/", |_| true).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(client.counts.unanswered.load(Relaxed), 1);
    }
}
