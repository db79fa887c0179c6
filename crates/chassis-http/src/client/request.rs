//! A request in the making.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use chassis_core::{Deadline, Error, Result};
use chassis_discovery::Affinity;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::Serialize;

use super::{Client, Response, payload::Payload, policy::IDEMPOTENCY_KEY};

/// A request in the making; what is wrong with it is said by [`send`](RequestBuilder::send).
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    pub(super) client: Client,
    pub(super) request: Result<Request<Payload>>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, path: &str) -> RequestBuilder {
        let request = Uri::try_from(path)
            .ok()
            .filter(|uri| path.starts_with('/') && uri.authority().is_none())
            .ok_or_else(|| wrong(format!("`{path}` is not a path that begins with /")))
            .map(|uri| {
                let mut request = Request::new(Payload::whole(Bytes::new()));
                *request.method_mut() = method;
                *request.uri_mut() = uri;
                request
            });
        RequestBuilder { client, request }
    }

    fn change(
        mut self,
        change: impl FnOnce(&mut Request<Payload>) -> Result<()>,
    ) -> RequestBuilder {
        self.request = self.request.and_then(|mut request| {
            change(&mut request)?;
            Ok(request)
        });
        self
    }

    /// Adds a query after the one that the path may have, from a struct or a list of pairs.
    pub fn query<T: Serialize + ?Sized>(self, query: &T) -> RequestBuilder {
        self.change(|request| {
            let query = serde_urlencoded::to_string(query).map_err(Error::internal)?;
            let uri = request.uri();
            let joint = if uri.query().is_some() { '&' } else { '?' };
            let target = format!("{uri}{joint}{query}");
            *request.uri_mut() = Uri::try_from(target).map_err(Error::internal)?;
            Ok(())
        })
    }

    /// Sets a header.
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> RequestBuilder {
        self.change(|request| {
            let name = HeaderName::try_from(name.as_ref()).map_err(Error::internal)?;
            let value = HeaderValue::try_from(value.as_ref()).map_err(Error::internal)?;
            request.headers_mut().insert(name, value);
            Ok(())
        })
    }

    /// Sets the `Idempotency-Key`: the callee does the same request once, so it may be retried.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> RequestBuilder {
        self.header(IDEMPOTENCY_KEY, key)
    }

    /// Asks for the endpoint that this key belongs to; see [`Affinity`].
    pub fn affinity(self, key: impl AsRef<[u8]>) -> RequestBuilder {
        self.change(|request| {
            request.extensions_mut().insert(Affinity::of(key));
            Ok(())
        })
    }

    /// Sets a JSON body.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> RequestBuilder {
        self.change(|request| {
            let bytes = serde_json::to_vec(value).map_err(Error::internal)?;
            request.body_mut().set_bytes(bytes.into());
            let kind = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(())
        })
    }

    /// Sets a body of bytes.
    pub fn body(self, body: impl Into<Bytes>) -> RequestBuilder {
        let body = body.into();
        self.change(|request| {
            request.body_mut().set_bytes(body);
            Ok(())
        })
    }

    /// Gives this call less time than the client's settings do. More is not possible.
    pub fn timeout(self, timeout: Duration) -> RequestBuilder {
        self.change(|request| {
            request.body_mut().set_deadline(Some(Deadline::after(timeout)));
            Ok(())
        })
    }

    /// Sends it. An answer is `Ok` whatever its status: see
    /// [`error_for_status`](Response::error_for_status).
    ///
    /// With a [cache](crate::ClientBuilder::cache) a GET may be answered from memory, and is
    /// read whole.
    ///
    /// Dropping the future cancels the call; the callee may have begun.
    ///
    /// # Errors
    /// `INVALID_CALL` for what was wrong with the request, else as [`Client::call`].
    pub async fn send(self) -> Result<Response> {
        let (client, request) = (self.client, self.request?);
        let Some((answers, key)) = client.0.answers.as_ref().and_then(|answers| {
            let key = answers.key(&request)?;
            Some((answers, key))
        }) else {
            return client.fetch(request).await;
        };
        let answer = answers.get(key, &client, request).await?;
        // It is there as a whole: nothing more is waited for.
        let deadline = Deadline::after(client.0.config.timeout);
        Ok(Response::new(answer.map(Body::from), deadline, client.0.max_response_bytes))
    }
}

fn wrong(what: String) -> Error {
    Error::new(chassis_core::Code::Internal, "INVALID_CALL", "internal error").with_source(what)
}
