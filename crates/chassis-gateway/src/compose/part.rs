//! A part of a composed answer, and what it may see.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use axum::extract::RawPathParams;
use chassis_core::{BoxFuture, Context, Error, Result};
use chassis_http::Client;
use http::HeaderMap;
use serde_json::Value;

use crate::path::{encode, fill};

/// How long a part may take unless [`Part::within`] says another time.
const WITHIN: Duration = Duration::from_secs(2);

type Fetch = Arc<dyn Fn(PartRequest) -> BoxFuture<'static, Result<Value>> + Send + Sync>;

/// How one part is fetched, how long it may take, and whether the answer can do without it.
#[derive(Clone)]
pub struct Part {
    pub(super) fetch: Fetch,
    pub(super) required: bool,
    pub(super) within: Duration,
    pub(super) after: Vec<&'static str>,
}

impl Part {
    /// A part without which there is no answer: its error is the answer.
    #[must_use]
    pub fn required<F, Fut>(fetch: F) -> Part
    where
        F: Fn(PartRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        Part {
            fetch: Arc::new(move |request| Box::pin(fetch(request))),
            required: true,
            within: WITHIN,
            after: Vec::new(),
        }
    }

    /// A part that may be missing: then it is `null`, and named under `missing`.
    #[must_use]
    pub fn optional<F, Fut>(fetch: F) -> Part
    where
        F: Fn(PartRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        Part { required: false, ..Part::required(fetch) }
    }

    /// Gives it this much time from its own beginning; 2 s unless told otherwise. It gets less
    /// where the deadline of the request is nearer.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Part {
        self.within = time;
        self
    }

    /// Begins it when these parts are there, so that it may use their values. If one of them
    /// is missing, so is this one.
    #[must_use]
    pub fn after(mut self, parts: impl IntoIterator<Item = &'static str>) -> Part {
        self.after.extend(parts);
        self
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("required", &self.required)
            .field("within", &self.within)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

/// What a part may see of the request, and of the parts before it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PartRequest {
    request: Arc<Request>,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug)]
struct Request {
    params: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
}

impl PartRequest {
    pub(super) fn new(params: &RawPathParams, query: &str, headers: HeaderMap) -> PartRequest {
        let params = params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        PartRequest {
            request: Arc::new(Request { params, query, headers }),
            values: BTreeMap::new(),
        }
    }

    pub(super) fn with_values(&self, values: BTreeMap<&'static str, Value>) -> PartRequest {
        PartRequest { request: self.request.clone(), values }
    }

    /// A capture of the path, decoded; empty if the path has none of this name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        find(&self.request.params, name).unwrap_or_default()
    }

    /// The first value of this name in the query, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        find(&self.request.query, name)
    }

    /// The headers of the request.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.request.headers
    }

    /// The value of a part that this one comes [`after`](Part::after); `null` for any other.
    #[must_use]
    pub fn value(&self, part: &str) -> &Value {
        self.values.get(part).unwrap_or(&Value::Null)
    }

    /// The context of the request, with the deadline of this part.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::current()
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Fetches a part as the JSON answer of a service to a GET.
///
/// `path` is a template such as `/items/{id}?lang={lang}`: its names are captures of the
/// gateway's own path, and if there is none, values of the query.
///
/// The returned function fails with the service's own error, or `MISSING_PARAMETER` if a name
/// has no value. Dropping its future cancels the call.
pub fn get_json(
    client: Client,
    path: impl Into<Arc<str>>,
) -> impl Fn(PartRequest) -> BoxFuture<'static, Result<Value>> + Send + Sync + 'static {
    let template: Arc<str> = path.into();
    move |request| {
        let (client, template) = (client.clone(), template.clone());
        Box::pin(async move {
            let path = fill(&template, |name| {
                find(&request.request.params, name).or_else(|| request.query(name)).map(encode)
            })
            .ok_or_else(|| {
                Error::invalid_argument("MISSING_PARAMETER", "a parameter of the query is missing")
                    .with_detail("path", template.to_string())
            })?;
            client.get(path).send().await?.error_for_status().await?.json().await
        })
    }
}
