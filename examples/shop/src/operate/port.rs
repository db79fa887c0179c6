//! The admin port of one service, over plain HTTP.
//!
//! A person waits for the answer, so there are no retries, and a failure is told as it is.

use std::time::Duration;

use bytes::Bytes;
use chassis::{Code, Deadline, Error, Result};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

/// A little longer than the admin port lets an operation run.
const TIMEOUT: Duration = Duration::from_secs(65);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Where operations are asked for.
pub(super) struct Port {
    address: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Port {
    pub(super) fn at(address: &str) -> Port {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Port { address: address.to_owned(), http }
    }

    /// What can be asked for.
    pub(super) async fn operations(&self) -> Result<Value> {
        let offer = self.send(Method::GET, "/ops".to_owned(), Bytes::new()).await;
        match offer {
            Ok(offer) if offer.is_array() => Ok(offer),
            // The service's public port, which answers in the same way.
            Ok(_) => Err(self.not_an_admin_port()),
            Err(error) if error.reason() == "ROUTE_NOT_FOUND" => Err(self.not_an_admin_port()),
            Err(error) => Err(error),
        }
    }

    fn not_an_admin_port(&self) -> Error {
        let message = format!("http://{} is not the admin port of a service", self.address);
        Error::failed_precondition("NOT_AN_ADMIN_PORT", message)
    }

    pub(super) async fn ask(&self, name: &str, args: &[(String, String)]) -> Result<Value> {
        let mut path = format!("/ops/{}", escaped(name, b"/"));
        for (n, (name, value)) in args.iter().enumerate() {
            let mark = if n == 0 { '?' } else { '&' };
            path += &format!("{mark}{}={}", escaped(name, b""), escaped(value, b""));
        }
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn change(&self, name: &str, args: &[(String, String)]) -> Result<Value> {
        let fields = args.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let body = Value::Object(fields.collect()).to_string();
        self.send(Method::POST, format!("/ops/{}", escaped(name, b"/")), body.into()).await
    }

    async fn send(&self, method: Method, path: String, body: Bytes) -> Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| {
                let message = format!("http://{}{path} is no URL", self.address);
                Error::invalid_argument("ADMIN_URL", message).with_source(error)
            })?;
        let call = async {
            let response = self.http.request(request).await.map_err(|error| {
                let hint = if error.is_connect() {
                    "no service listens there: start the shop with `cargo run -p shop`, or give \
                     the port that its table of addresses shows with --admin URL"
                } else {
                    "it does not speak HTTP as an admin port does"
                };
                let message = format!("http://{} does not answer; {hint}", self.address);
                Error::unavailable("ADMIN_AWAY", message).with_source(error)
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| {
                Error::unavailable("ADMIN_AWAY", "the answer broke off").with_source(error)
            })?;
            let answer = serde_json::from_slice::<Value>(&body.to_bytes());
            match answer {
                Ok(answer) if head.status.is_success() => Ok(answer),
                Ok(problem) if problem["reason"].is_string() => Err(refused(&problem)),
                _ => Err(self.not_an_admin_port()),
            }
        };
        Deadline::after(TIMEOUT).run(call).await?
    }
}

/// A problem document as an error that says its reason too: it is what help is found by.
fn refused(problem: &Value) -> Error {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let code = Code::parse(&text("code")).unwrap_or(Code::Unknown);
    let reason = text("reason");
    let mut message = format!("{} ({reason})", text("detail"));
    for wrong in problem["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| wrong[name].as_str().unwrap_or_default();
        message += &format!("; {}: {}", part("field"), part("problem"));
    }
    Error::new(code, reason, message)
}

/// Percent-encoded (RFC 3986), but for the unreserved characters and `keep`.
fn escaped(text: &str, keep: &[u8]) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_query() {
        assert_eq!(escaped("a/b c", b"/"), "a/b%20c");
        assert_eq!(escaped("a&b=ü/%", b""), "a%26b%3D%C3%BC%2F%25");
    }
}
