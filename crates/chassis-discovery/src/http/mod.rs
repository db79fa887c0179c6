//! A client for the HTTP APIs of registries: JSON, long polls, streams of lines.
//!
//! Small on purpose. A registry is asked a few times a minute, so a connection
//! per request costs nothing that matters, and there is no pool that could hand
//! out a dead one. Every wait has an end and every answer a greatest size.

pub(crate) mod answer;
mod place;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chassis_core::{BoxError, Code, Error, Result};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub(crate) use self::answer::Answer;
use self::place::Place;
use self::tls::Tls;
use crate::TlsConfig;

/// A registry behind one or more URLs.
pub(crate) struct Api {
    name: &'static str,
    places: Vec<Place>,
    /// The one that answered last.
    current: AtomicUsize,
    tls: Option<Tls>,
    timeout: Duration,
}

/// One request.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query, as they go on the wire.
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// How long the registry may hold the answer back beyond the usual.
    pub(crate) wait: Duration,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            wait: Duration::ZERO,
        }
    }

    pub(crate) fn json(mut self, body: &serde_json::Value) -> Call {
        self.body = body.to_string().into_bytes();
        self.header("content-type", "application/json")
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }
}

impl Api {
    /// A client; `key` is the configuration section that messages name.
    pub(crate) fn new(
        name: &'static str,
        key: &str,
        urls: &[String],
        tls: &TlsConfig,
        timeout: Duration,
    ) -> Result<Api> {
        let places: Vec<Place> =
            urls.iter().map(|url| Place::parse(key, url)).collect::<Result<_>>()?;
        if places.is_empty() {
            return Err(crate::config::invalid(format!("{key}: no URL is given")));
        }
        let tls = match places.iter().any(|place| place.secure) {
            true => Some(Tls::load(key, tls)?),
            false => None,
        };
        Ok(Api { name, places, current: AtomicUsize::new(0), tls, timeout })
    }

    /// Sends a request and waits for the head of the answer. One that says
    /// anything but success is an error with the code of its status. After a
    /// failure the next request goes to the next place.
    pub(crate) async fn call(&self, call: Call) -> Result<Answer> {
        let index = self.current.load(Ordering::Relaxed);
        let place = &self.places[index % self.places.len()];
        let limit = self.timeout + call.wait;
        let answer = match tokio::time::timeout(limit, self.send(place, call)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(self.unreachable(place, source)),
            Err(_) => Err(self.unreachable(place, "no answer in time".into())),
        };
        let failed = match &answer {
            Ok(answer) => answer.is_server_fault(),
            Err(_) => true,
        };
        if failed {
            // Somebody else may have moved on already; then that one is tried.
            let next = index.wrapping_add(1);
            let _ =
                self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer?.successful(self.name, &place.authority).await
    }

    fn unreachable(&self, place: &Place, source: BoxError) -> Error {
        let message = format!("{} at {} cannot be reached", self.name, place.authority);
        Error::new(Code::Unavailable, "REGISTRY_UNREACHABLE", message).with_source(source)
    }

    async fn send(&self, place: &Place, call: Call) -> Result<Answer, BoxError> {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
        // A heartbeat is one small write; waiting for more would only delay it.
        stream.set_nodelay(true)?;
        match (&self.tls, place.secure) {
            (Some(tls), true) => {
                self.over(tls.connect(&place.host, stream).await?, place, call).await
            }
            _ => self.over(stream, place, call).await,
        }
    }

    async fn over<S>(&self, stream: S, place: &Place, call: Call) -> Result<Answer, BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", place.path, call.path))
            .header(header::HOST, &place.authority)
            .header(header::ACCEPT, "application/json");
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(call.body)))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = Connection(tokio::spawn(async move {
            // Its error reaches who waits for the answer.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await?;
        Ok(Answer::new(response, connection, self.timeout))
    }
}

/// The task that drives a connection; it ends with the answer.
pub(crate) struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
