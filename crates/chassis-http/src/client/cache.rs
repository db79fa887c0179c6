//! Answers that are kept: which, for how long, and what is shown of that.
//!
//! The cache stands above the whole stack: an answer from memory costs no attempt, no place in
//! the bulkhead and no endpoint; and what many ask for at a time is fetched once, by a task that
//! outlives the one who asked first. It is a cache between services and no browser's: it keeps
//! what the settings say, and no longer; of the callee's `Cache-Control` it heeds what forbids
//! keeping. What depends on who asks is never kept.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chassis_core::{Context, Error, Metrics, Result, metrics::Counter, metrics::Gauge};
use chassis_discovery::CacheConfig;
use chassis_resilience::{
    Degraded,
    cache::{Cache, CacheSettings, Cached, FetchFailed, Freshness},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{Client, payload::Payload, stack::by_status};

/// What is asked: path with query, and the form that is wanted.
type Key = (Arc<str>, Option<HeaderValue>);

/// The answers of one client.
pub(super) struct Answers {
    cache: Cache<Key, Response<Bytes>>,
    max_entry_bytes: usize,
    shown: Option<Shown>,
}

struct Shown {
    entries: Gauge,
    fresh: Counter,
    stale: Counter,
    stale_on_error: Counter,
    uncached: Counter,
}

impl Answers {
    pub(super) fn new(
        config: &CacheConfig,
        fetch_timeout: Duration,
        max_fetches: usize,
        metrics: Option<(&Metrics, &str)>,
    ) -> Answers {
        let cache = Cache::new(CacheSettings {
            fresh_for: config.fresh_for,
            stale_while_revalidate: config.stale_while_revalidate,
            stale_if_error: config.stale_if_error,
            max_entries: config.max_entries,
            fetch_timeout,
            max_fetches,
            ..CacheSettings::default()
        });
        let shown = metrics.map(|(metrics, service)| {
            let answers = |freshness| {
                metrics.counter(
                    "client_cache_answers",
                    "Answers of calls that may be kept: fresh or fetched now, stale while one \
                     is fetched, stale because the callee failed, or not worth keeping.",
                    &[("service", service), ("freshness", freshness)],
                )
            };
            Shown {
                entries: metrics.gauge(
                    "client_cache_entries",
                    "Answers of a service that are kept.",
                    &[("service", service)],
                ),
                fresh: answers("fresh"),
                stale: answers("stale"),
                stale_on_error: answers("stale_on_error"),
                uncached: answers("uncached"),
            }
        });
        Answers { cache, max_entry_bytes: config.max_entry_bytes, shown }
    }

    /// Under what an answer is kept; none for a request whose answer must not be.
    pub(super) fn key(&self, request: &Request<Payload>) -> Option<Key> {
        let of_one_caller = [
            header::AUTHORIZATION,
            header::COOKIE,
            header::RANGE,
            header::CACHE_CONTROL,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
        ];
        let headers = request.headers();
        let kept = request.method() == Method::GET
            && request.body().is_empty()
            && !of_one_caller.iter().any(|name| headers.contains_key(name));
        kept.then(|| (request.uri().to_string().into(), headers.get(header::ACCEPT).cloned()))
    }

    /// The answer from memory, or one that is fetched. Dropping the future leaves a fetch to
    /// the others that wait for it.
    pub(super) async fn get(
        &self,
        key: Key,
        client: &Client,
        request: Request<Payload>,
    ) -> Result<Response<Bytes>> {
        let context = Context::current();
        // The fetch is for all who wait: it has the client's time, not the first caller's.
        let fetching = context.clone().without_deadline();
        let client = client.clone();
        let deadline = request.body().deadline();
        let fetch = move || {
            fetching.scope(async move {
                let mut request = request;
                request.body_mut().set_deadline(None);
                client.fetch(request).await?.whole().await
            })
        };
        let (cache, asked, most) = (self.cache.clone(), key.clone(), self.max_entry_bytes);
        let keep = move |answer: &Response<Bytes>| {
            let keeps = may_keep(answer) && answer.body().len() <= most;
            // "Not found" is the newest that is known; an older answer must not stand in for it.
            if !keeps && !stack_failed(answer.status()) {
                cache.remove(&asked);
            }
            keeps
        };
        let answer = self.cache.get_or_fetch_if(key, fetch, keep);
        let until = match (deadline, context.deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let cached = match until {
            Some(until) => until.run(answer).await?,
            None => answer.await,
        };
        cached.map(|cached| self.marked(cached)).map_err(not_fetched)
    }

    /// The answer with what is to know about it: its age, and whether it stands in.
    fn marked(&self, cached: Cached<Response<Bytes>>) -> Response<Bytes> {
        if let Some(shown) = &self.shown {
            match cached.freshness {
                Freshness::Fresh => shown.fresh.inc(),
                Freshness::Stale => shown.stale.inc(),
                Freshness::StaleOnError => shown.stale_on_error.inc(),
                Freshness::Uncached => shown.uncached.inc(),
            }
            let entries = self.cache.stats().entries;
            shown.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        }
        let mut answer = cached.value;
        if !cached.age.is_zero() {
            answer.headers_mut().insert(header::AGE, HeaderValue::from(cached.age.as_secs()));
        }
        if cached.freshness == Freshness::StaleOnError {
            answer.extensions_mut().insert(Degraded::Cached { age: cached.age });
        }
        answer
    }
}

fn stack_failed(status: StatusCode) -> bool {
    by_status(status) != chassis_resilience::Class::Success
}

fn may_keep(answer: &Response<Bytes>) -> bool {
    let headers = answer.headers();
    let says = |name: HeaderName, words: &[&str]| {
        values(headers, name).any(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
    };
    answer.status() == StatusCode::OK
        && !headers.contains_key(header::SET_COOKIE)
        && !says(header::CACHE_CONTROL, &["no-store", "no-cache", "private"])
        && values(headers, header::VARY).all(|name| name.eq_ignore_ascii_case("accept"))
}

/// The words of a header that is a list.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).map(str::trim)
}

/// The error that all who waited share, once for each.
fn not_fetched(failed: FetchFailed) -> Error {
    let source = match &failed {
        FetchFailed::Failed(source) => source.downcast_ref::<Error>(),
        FetchFailed::TimedOut => return super::error::deadline_exceeded().with_source(failed),
        FetchFailed::TooMany => {
            let message = "too many calls to a service that is needed";
            return Error::unavailable("TOO_MANY_CALLS", message).with_source(failed).not_sent();
        }
        FetchFailed::Lost => None,
    };
    match source {
        Some(error) => super::error::like(error).with_source(failed),
        None => Error::internal(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> Answers {
        Answers::new(&CacheConfig::default(), Duration::from_secs(1), 1, None)
    }

    #[test]
    fn only_what_all_may_see_is_kept() {
        let get = || Request::get("/a?b=1");
        for (request, kept) in [
            (get(), true),
            (get().header("accept", "text/html"), true),
            (get().header("authorization", "Bearer x"), false),
            (get().header("cookie", "a=b"), false),
            (get().header("range", "bytes=0-1"), false),
            (get().header("cache-control", "no-cache"), false),
            (Request::post("/a"), false),
            (Request::head("/a"), false),
        ] {
            let request = request.body(Payload::whole(Bytes::new())).unwrap();
            assert_eq!(answers().key(&request).is_some(), kept, "{:?}", request.headers());
        }
    }

    #[test]
    fn the_callee_may_forbid_it() {
        let ok = Response::builder;
        for (answer, kept) in [
            (ok(), true),
            (ok().header("cache-control", "max-age=60, public"), true),
            (ok().header("cache-control", "max-age=60, No-Store"), false),
            (ok().header("cache-control", "private"), false),
            (ok().header("vary", "accept"), true),
            (ok().header("vary", "accept, accept-language"), false),
            (ok().header("set-cookie", "a=b"), false),
            (ok().status(404), false),
            (ok().status(503), false),
        ] {
            let answer = answer.body(Bytes::new()).unwrap();
            assert_eq!(may_keep(&answer), kept, "{answer:?}");
        }
    }
}
