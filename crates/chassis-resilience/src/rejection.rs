//! Which errors are this process's own "no".
//!
//! A call that a local limit held back must not be tried again at once: the limit would hold
//! back the copy too, and the queue before it would only grow. The rule is linkerd's: errors of
//! load shedding are never retried.

use std::{error::Error, time::Duration};

use crate::{
    adaptive::ConcurrencyLimited, breaker::CircuitOpen, bulkhead::BulkheadFull,
    rate_limit::RateLimited, shed::Shed, throttle::Throttled,
};

/// Whether a layer of this crate refused the call, so that it never left.
///
/// It looks through [`Error::source`]: an error of another crate marks itself as such a refusal
/// by having one of these as its source.
pub fn is_local_rejection(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| {
        error.is::<CircuitOpen>()
            || error.is::<Throttled>()
            || error.is::<BulkheadFull>()
            || error.is::<RateLimited>()
            || error.is::<ConcurrencyLimited>()
            || error.is::<Shed>()
    })
}

/// When the layer that refused the call would let one through, if it knows. For an edge that
/// answers with `Retry-After`.
pub fn retry_in(error: &(dyn Error + 'static)) -> Option<Duration> {
    chain(error).find_map(|error| {
        let open = error.downcast_ref::<CircuitOpen>().map(|open| open.retry_in);
        open.or_else(|| error.downcast_ref::<RateLimited>().map(|limited| limited.retry_in))
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BoxError, shed::Priority};

    #[derive(Debug)]
    struct AllOpen(CircuitOpen);

    impl std::fmt::Display for AllOpen {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("all circuits are open")
        }
    }

    impl Error for AllOpen {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn our_own_no_is_known_also_inside_another_error() {
        let second = Duration::from_secs(1);
        let full = BulkheadFull { limit: 1, waited: second };
        let shed = Shed { priority: Priority::Normal, limit: 1 };
        let table: [(BoxError, bool, Option<Duration>); 8] = [
            (Throttled { share: 0.5 }.into(), true, None),
            (ConcurrencyLimited { limit: 1 }.into(), true, None),
            (shed.into(), true, None),
            (CircuitOpen { retry_in: second }.into(), true, Some(second)),
            (AllOpen(CircuitOpen { retry_in: second }).into(), true, Some(second)),
            (RateLimited { retry_in: second }.into(), true, Some(second)),
            (full.into(), true, None),
            ("connection reset".into(), false, None),
        ];
        for (error, ours, wait) in table {
            assert_eq!(is_local_rejection(&*error), ours, "{error}");
            assert_eq!(retry_in(&*error), wait, "{error}");
        }
    }
}
