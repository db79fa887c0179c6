//! The arithmetic of the retry budget.
//!
//! The method is Finagle's `RetryBudget`: each request deposits a part of a
//! token, each retry takes a whole one, and both expire after a time to live. A
//! reserve lets a client with little traffic retry at all. In any time to live,
//! retries are at most `ratio × requests + min_per_second × ttl`.

use std::time::{Duration, Instant};

use crate::ring::Ring;

/// Tokens are counted in thousandths, so that the sums are exact.
const TOKEN: i64 = 1_000;
const SLOTS: usize = 10;

/// How many retries a [`RetryBudget`](super::RetryBudget) allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetSettings {
    /// Retries per request, from 0 to 1 000. 0.2 means: one retry for five requests.
    pub ratio: f64,
    /// Retries per second that are allowed whatever the traffic is.
    pub min_per_second: u32,
    /// For how long a request speaks for a retry.
    pub ttl: Duration,
}

impl Default for BudgetSettings {
    /// 20 % of requests and 10 a second over 10 seconds: Finagle's numbers, and
    /// Envoy's share. A callee that fails sees at most a fifth more load.
    fn default() -> Self {
        BudgetSettings { ratio: 0.2, min_per_second: 10, ttl: Duration::from_secs(10) }
    }
}

/// The brain of the budget.
#[derive(Debug)]
pub(super) struct Tokens {
    ring: Ring<i64>,
    per_deposit: i64,
    reserve: i64,
}

impl Tokens {
    pub(super) fn new(settings: BudgetSettings) -> Self {
        let ratio = settings.ratio.clamp(0.0, 1_000.0);
        let ttl_ms = i64::try_from(settings.ttl.as_millis()).unwrap_or(i64::MAX);
        Tokens {
            ring: Ring::new(settings.ttl, SLOTS),
            // A float cast saturates, and not-a-number becomes zero.
            per_deposit: (ratio * TOKEN as f64).round() as i64,
            // Tokens per second times milliseconds is thousandths of tokens.
            reserve: i64::from(settings.min_per_second).saturating_mul(ttl_ms),
        }
    }

    /// A new request was sent.
    pub(super) fn deposit(&mut self, now: Instant) {
        let per_deposit = self.per_deposit;
        let slot = self.ring.current(now);
        *slot = slot.saturating_add(per_deposit);
    }

    /// Takes the price of one retry, if it is there.
    pub(super) fn withdraw(&mut self, now: Instant) -> bool {
        if self.milli_balance(now) < TOKEN {
            return false;
        }
        *self.ring.current(now) -= TOKEN;
        true
    }

    /// How many retries are possible now.
    pub(super) fn balance(&mut self, now: Instant) -> u64 {
        u64::try_from(self.milli_balance(now) / TOKEN).unwrap_or(0)
    }

    fn milli_balance(&mut self, now: Instant) -> i64 {
        self.ring.advance(now);
        self.ring.iter().fold(self.reserve, |sum, slot| sum.saturating_add(*slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(ratio: f64, min_per_second: u32) -> BudgetSettings {
        BudgetSettings { ratio, min_per_second, ttl: Duration::from_secs(10) }
    }

    #[test]
    fn five_requests_pay_one_retry() {
        let now = tokio::time::Instant::now().into_std();
        let mut tokens = Tokens::new(settings(0.2, 0));
        for _ in 0..4 {
            tokens.deposit(now);
            assert!(!tokens.withdraw(now));
        }
        tokens.deposit(now);
        assert!(tokens.withdraw(now));
        assert!(!tokens.withdraw(now));
    }

    #[test]
    fn deposits_expire() {
        let now = tokio::time::Instant::now().into_std();
        let mut tokens = Tokens::new(settings(1.0, 0));
        tokens.deposit(now);
        assert_eq!(tokens.balance(now + Duration::from_secs(9)), 1);
        assert_eq!(tokens.balance(now + Duration::from_secs(10)), 0);
    }

    #[test]
    fn a_quiet_client_lives_on_the_reserve() {
        let now = tokio::time::Instant::now().into_std();
        let mut tokens = Tokens::new(settings(0.0, 1));
        let granted = (0..100).filter(|_| tokens.withdraw(now)).count();
        assert_eq!(granted, 10);
        assert!(tokens.withdraw(now + Duration::from_secs(10)));
    }

    #[test]
    fn absurd_settings_do_not_overflow() {
        let now = tokio::time::Instant::now().into_std();
        let mut tokens = Tokens::new(BudgetSettings {
            ratio: f64::NAN,
            min_per_second: u32::MAX,
            ttl: Duration::from_secs(60),
        });
        tokens.deposit(now);
        assert!(tokens.withdraw(now));
    }

    proptest! {
        /// Total failure: everyone asks for as many retries as it can get.
        #[test]
        fn retries_are_bounded_in_every_period(
            steps in prop::collection::vec((0u64..400, 0u32..5, 0u32..20), 1..300),
        ) {
            let start = tokio::time::Instant::now().into_std();
            let mut tokens = Tokens::new(settings(0.2, 2));
            let mut at = Duration::ZERO;
            let mut requests = Vec::new();
            let mut retries = Vec::new();
            for (pause_ms, deposits, attempts) in steps {
                at += Duration::from_millis(pause_ms);
                for _ in 0..deposits {
                    tokens.deposit(start + at);
                    requests.push(at);
                }
                for _ in 0..attempts {
                    if tokens.withdraw(start + at) {
                        retries.push(at);
                    }
                }
            }
            // The ring spans at least nine tenths of the time to live.
            let span = Duration::from_secs(9);
            for end in &retries {
                let within = |t: &&Duration| **t <= *end && **t + span > *end;
                let taken = retries.iter().filter(within).count() as f64;
                let sent = requests
                    .iter()
                    .filter(|t| **t <= *end && **t + Duration::from_secs(10) >= *end)
                    .count() as f64;
                prop_assert!(taken <= 0.2 * sent + 20.0 + 1e-9, "{taken} retries, {sent} requests");
            }
        }
    }
}
