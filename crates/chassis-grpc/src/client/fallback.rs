//! Something less in place of an answer, typed as the answer is.
//!
//! Around the generated client and not in the channel: below it an answer is bytes, and what
//! may stand in for it is only known where it has a type. It stands outside of the whole
//! column, because only what all the rest could not mend is worth less than an answer.

use std::cell::RefCell;
use std::future::Future;
use std::hash::Hash;

use chassis_core::Metrics;
use chassis_resilience::{Answer, Cache, Class, Degraded};
use tonic::{Response, Status};

use super::classify::by_status;

tokio::task_local! {
    /// Over which channel the call went that something may stand in for. A generated client
    /// hides its channel, and a status has no room to name one.
    static OVER: RefCell<Option<Counted>>;
}

/// Where the answers of one channel's fallbacks are counted.
#[derive(Clone)]
pub(super) struct Counted {
    metrics: Metrics,
    service: std::sync::Arc<str>,
}

impl Counted {
    pub(super) fn new(metrics: &Metrics, service: &str) -> Counted {
        Counted { metrics: metrics.clone(), service: service.into() }
    }

    /// Says that the call under way goes over this channel.
    pub(super) fn note(&self) {
        // Nobody asks, unless the call has a fallback.
        let _ = OVER.try_with(|over| over.replace(Some(self.clone())));
    }

    fn degraded(&self, kind: &str) {
        let counter = self.metrics.counter(
            "client_degraded_answers",
            "Answers of a fallback: an earlier one, a default, or a promise to do it later.",
            &[("service", &self.service), ("protocol", "grpc"), ("kind", kind)],
        );
        counter.inc();
    }
}

/// The answer of a call; where the callee fails or is asked too much, what `otherwise` gives,
/// with how it is less. `None` leaves the failure as it is, as does an error that is an answer,
/// such as "not found".
///
/// What stands in is counted as `client_degraded_answers` in the metrics of the
/// [`Channel`](crate::Channel) that the call went over, the last one if there were several.
///
/// ```
/// # use chassis_resilience::Degraded;
/// # async fn show(call: impl Future<Output = Result<tonic::Response<u32>, tonic::Status>>) {
/// let count = chassis_grpc::or_else(call, |_| Some((0, Degraded::Default))).await;
/// # }
/// ```
///
/// Dropping the future cancels the call.
///
/// # Errors
/// That of the call, where nothing stands in.
pub async fn or_else<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    otherwise: impl FnOnce(&Status) -> Option<(T, Degraded)>,
) -> Result<Answer<T>, Status> {
    or(call, |status| std::future::ready(otherwise(status))).await
}

async fn or<T, F>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    otherwise: impl FnOnce(&Status) -> F,
) -> Result<Answer<T>, Status>
where
    F: Future<Output = Option<(T, Degraded)>>,
{
    let call = async { (call.await, OVER.with(RefCell::take)) };
    let (result, over) = OVER.scope(RefCell::default(), call).await;
    match result {
        Ok(answer) => Ok(Answer { value: answer.into_inner(), degraded: None }),
        Err(status) => {
            if !matches!(by_status(&status), Class::Failure | Class::Overloaded) {
                return Err(status);
            }
            match otherwise(&status).await {
                Some((value, degraded)) => {
                    if let Some(over) = over {
                        over.degraded(degraded.as_str());
                    }
                    Ok(Answer { value, degraded: Some(degraded) })
                }
                None => Err(status),
            }
        }
    }
}

/// The answer of a call; where the callee fails or is asked too much, the one that `enqueue`
/// gives when it has written down where it is safe, as in an outbox, what is to be done later.
///
/// Of a call that fails it is not known whether it was done: what is written down must do no
/// harm when it is done twice.
///
/// ```
/// # async fn show(call: impl Future<Output = Result<tonic::Response<u32>, tonic::Status>>) {
/// # async fn append() -> chassis_core::Result<()> { Ok(()) }
/// let promise = chassis_grpc::or_later(call, async || append().await.map(|()| 0)).await;
/// # }
/// ```
///
/// Dropping the future cancels the call, and the writing where that has begun.
///
/// # Errors
/// That of the call, where it cannot be written down either.
pub async fn or_later<T, E>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    enqueue: impl AsyncFnOnce() -> Result<T, E>,
) -> Result<Answer<T>, Status> {
    or(call, |_| async { Some((enqueue().await.ok()?, Degraded::Queued)) }).await
}

/// The answer of a call, which is kept; where the callee fails or is asked too much, the last
/// good one for this key with its age, as long as the cache lets it stand in.
///
/// The callee is asked each time; to be spared that, ask the cache
/// ([`Cache::get_or_fetch`]).
///
/// Dropping the future cancels the call.
///
/// # Errors
/// That of the call, where no earlier answer may stand in.
pub async fn or_last_good<K, T>(
    cache: &Cache<K, T>,
    key: K,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Answer<T>, Status>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    let earlier = |_: &Status| {
        let kept = cache.stand_in(&key)?;
        Some((kept.value, Degraded::Cached { age: kept.age }))
    };
    let answer = or_else(call, earlier).await;
    match &answer {
        Ok(Answer { value, degraded: None }) => cache.insert(key, value.clone()),
        Ok(_) => {}
        // An error that is an answer: the earlier one is wrong now.
        Err(status) if by_status(status) == Class::Success => {
            cache.remove(&key);
        }
        Err(_) => {}
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fails(code: tonic::Code) -> std::future::Ready<Result<Response<u32>, Status>> {
        std::future::ready(Err(Status::new(code, "")))
    }

    #[tokio::test]
    async fn only_a_failure_has_something_in_its_place() {
        let zero = |_: &Status| Some((0, Degraded::Default));
        let well = or_else(std::future::ready(Ok(Response::new(7))), zero).await.unwrap();
        assert_eq!(well, Answer { value: 7, degraded: None });
        let late = or_else(fails(tonic::Code::Unavailable), zero).await.unwrap();
        assert_eq!(late, Answer { value: 0, degraded: Some(Degraded::Default) });
        let nothing = or_else(fails(tonic::Code::NotFound), zero).await.unwrap_err();
        assert_eq!(nothing.code(), tonic::Code::NotFound);
        let none = or_else(fails(tonic::Code::Unavailable), |_| None).await.unwrap_err();
        assert_eq!(none.code(), tonic::Code::Unavailable);
    }

    #[tokio::test]
    async fn what_cannot_be_done_now_is_written_down_for_later() {
        let promise = Answer { value: 3, degraded: Some(Degraded::Queued) };
        for (code, written, expected) in [
            (tonic::Code::Unavailable, Ok(3), Some(promise)),
            (tonic::Code::Unavailable, Err("the disk is full"), None),
            // An error that is an answer.
            (tonic::Code::InvalidArgument, Ok(3), None),
        ] {
            let answer = or_later(fails(code), async || written).await;
            assert_eq!(answer.map_err(|status| status.code()), expected.ok_or(code));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_stands_in_with_its_age_and_not_for_ever() {
        let cache = Cache::new(chassis_resilience::CacheSettings::default());
        let well = || std::future::ready(Ok(Response::new(7)));
        or_last_good(&cache, "a", well()).await.unwrap();
        let minute = Duration::from_secs(60);
        tokio::time::advance(minute).await;
        let old = or_last_good(&cache, "a", fails(tonic::Code::Unavailable)).await.unwrap();
        assert_eq!(old, Answer { value: 7, degraded: Some(Degraded::Cached { age: minute }) });
        or_last_good(&cache, "b", fails(tonic::Code::Unavailable)).await.unwrap_err();
        tokio::time::advance(10 * minute).await;
        or_last_good(&cache, "a", fails(tonic::Code::Unavailable)).await.unwrap_err();

        or_last_good(&cache, "a", well()).await.unwrap();
        or_last_good(&cache, "a", fails(tonic::Code::NotFound)).await.unwrap_err();
        let gone = or_last_good(&cache, "a", fails(tonic::Code::Unavailable)).await;
        assert!(gone.is_err(), "what is not found any more does not come back");
    }
}
