//! Something less in place of an answer, where a caller has it.
//!
//! It stands outside of everything, the cache included: only what all the rest could not mend
//! is worth less than an answer. And it is said for one call, not for a client, because what is
//! good enough depends on what was asked.

use axum::body::Body;
use bytes::Bytes;
use chassis_core::{BoxError, Deadline, Error, Result};
use chassis_resilience::{
    Class, FallbackLayer,
    fallback::{Answer, Substitute},
};
use http::{Request, Response as Whole};
use tower::{Layer, ServiceExt, service_fn};

use super::{RequestBuilder, Response, payload::Payload, stack::by_status};

impl RequestBuilder {
    /// Sends it; where no answer comes, or one that says that the callee fails (500, 502, 503,
    /// 504) or is asked too much (429), `substitute` stands in, and
    /// [`degraded`](Response::degraded) says how the answer is less than one: an
    /// [`Otherwise`](chassis_resilience::fallback::Otherwise) for what is right enough, a
    /// [`Later`](chassis_resilience::fallback::Later) that writes the request down, a
    /// [`LastGood`](chassis_resilience::fallback::LastGood) answer, or one after the other.
    /// The answer is read whole, up to the client's limit.
    ///
    /// ```no_run
    /// # use bytes::Bytes;
    /// use chassis_resilience::fallback::Otherwise;
    ///
    /// # async fn call(client: chassis_http::Client) -> chassis_core::Result<()> {
    /// let nothing = Otherwise::new(|| http::Response::new(Bytes::from_static(b"[]")));
    /// let answer = client.get("/recommendations").send_or(nothing).await?;
    /// if let Some(degraded) = answer.degraded() {
    ///     println!("something less: {}", degraded.as_str());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropping the future cancels the call, or gives the substitute up.
    ///
    /// # Errors
    /// As [`send`](RequestBuilder::send), where nothing stands in.
    pub async fn send_or<F>(self, substitute: F) -> Result<Response>
    where
        F: Substitute<Request<Bytes>, Whole<Bytes>>,
    {
        let RequestBuilder { client, request } = self;
        let request = request?.map(Payload::into_bytes);
        let limit = client.0.max_response_bytes;
        let shown = client.0.metrics.as_ref();
        let caller = client.clone();
        let send = service_fn(move |request: Request<Bytes>| {
            let request = Ok(request.map(Payload::whole));
            let request = RequestBuilder { client: caller.clone(), request };
            async move { request.send().await?.whole().await }
        });
        let classify = |result: std::result::Result<&Whole<Bytes>, &Error>| match result {
            Ok(answer) => by_status(answer.status()),
            Err(_) => Class::Failure,
        };
        let answer = FallbackLayer::new(substitute, classify).layer(send).oneshot(request).await;
        let Answer { mut value, degraded } = answer.map_err(own)?;
        if let Some(degraded) = degraded {
            value.extensions_mut().insert(degraded);
            if let Some(metrics) = shown {
                metrics.degraded(degraded.as_str());
            }
        }
        // It is there as a whole: nothing more is waited for.
        let deadline = Deadline::after(client.0.config.timeout);
        Ok(Response::new(value.map(Body::from), deadline, limit))
    }
}

fn own(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => Error::internal(other),
    }
}
