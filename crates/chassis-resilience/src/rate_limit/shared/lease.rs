//! The brain: tokens of one key that are in hand, and how many to ask for.
//!
//! A lease that was spent before its end was too small, and the next one is twice as large; of
//! one that ended with tokens left the next is as large as what was spent. So an instance with
//! little traffic does not take what others need.

use std::time::{Duration, Instant};

use super::Grant;

/// What a call of one key should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A token was spent.
    Pass,
    /// The store has refused lately.
    Refuse(Duration),
    /// Ask the store for so many tokens.
    Ask(u32),
}

/// The tokens of one key.
#[derive(Debug, Default)]
pub(super) struct Lease {
    tokens: u32,
    spent: u32,
    want: u32,
    ends: Option<Instant>,
    refused_until: Option<Instant>,
}

impl Lease {
    /// Spends a token, or says what to do without one.
    pub(super) fn step(&mut self, now: Instant, most: u32) -> Step {
        if self.ends.is_some_and(|ends| now >= ends) {
            if self.tokens > 0 {
                self.want = self.spent;
            }
            self.tokens = 0;
            self.ends = None;
        }
        if self.tokens > 0 {
            self.tokens -= 1;
            self.spent += 1;
            return Step::Pass;
        }
        match self.refused_until {
            Some(until) if now < until => Step::Refuse(until.saturating_duration_since(now)),
            _ => Step::Ask(self.want.clamp(1, most.max(1))),
        }
    }

    /// Takes in what the store gave. The caller that asked may spend one of it by
    /// [`Lease::step`]. After a refusal the store is left alone for `pause` at least, so that
    /// the next lease is worth its request.
    pub(super) fn granted(
        &mut self,
        now: Instant,
        grant: Grant,
        lease_for: Duration,
        pause: Duration,
    ) {
        match grant {
            Grant::Tokens(tokens) => {
                // The one before it was spent, or it would not have been asked for.
                self.want = self.want.max(tokens).max(1).saturating_mul(2);
                self.tokens = tokens;
                self.spent = 0;
                self.ends = now.checked_add(lease_for);
                self.refused_until = None;
            }
            Grant::Wait(wait) => self.refused_until = now.checked_add(wait.max(pause)),
        }
    }

    /// Whether it holds nothing, so that a new one would be the same.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now >= ends)
            && self.refused_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn tokens_are_spent_until_they_are_gone_or_the_lease_ends() {
        let now = tokio::time::Instant::now().into_std();
        let mut lease = Lease::default();
        assert_eq!(lease.step(now, 100), Step::Ask(1));
        lease.granted(now, Grant::Tokens(2), SECOND, MS);
        assert_eq!(lease.step(now, 100), Step::Pass);
        assert_eq!(lease.step(now + 999 * MS, 100), Step::Pass);
        assert_eq!(lease.step(now + 999 * MS, 100), Step::Ask(4), "it was too small");
        lease.granted(now, Grant::Tokens(4), SECOND, MS);
        assert_eq!(lease.step(now, 100), Step::Pass);
        assert_eq!(lease.step(now + SECOND, 100), Step::Ask(1), "it was too large");
        assert!(lease.is_idle(now + SECOND));
    }

    #[test]
    fn a_refusal_holds_for_as_long_as_the_store_said() {
        let now = tokio::time::Instant::now().into_std();
        let mut lease = Lease::default();
        lease.granted(now, Grant::Wait(100 * MS), SECOND, MS);
        assert_eq!(lease.step(now + 40 * MS, 10), Step::Refuse(60 * MS));
        assert!(!lease.is_idle(now + 40 * MS));
        assert_eq!(lease.step(now + 100 * MS, 10), Step::Ask(1));
    }

    #[test]
    fn nobody_asks_for_more_than_allowed() {
        let now = tokio::time::Instant::now().into_std();
        let mut lease = Lease::default();
        for _ in 0..40 {
            lease.granted(now, Grant::Tokens(1), SECOND, MS);
            assert_eq!(lease.step(now, 8), Step::Pass);
        }
        assert_eq!(lease.step(now, 8), Step::Ask(8));
    }
}
