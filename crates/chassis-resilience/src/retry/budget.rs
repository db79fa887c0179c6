//! The retry budget that many callers share.
//!
//! One budget belongs to one callee: it is the callee that must be protected, so
//! all clients of it in this process should hold clones of the same budget.

use std::sync::Arc;

use tokio::time::Instant;

use super::tokens::{BudgetSettings, Tokens};
use crate::sync::Mutex;

/// A shared cap on retries, as a share of requests. Clones share the budget.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    tokens: Tokens,
    stats: BudgetStats,
}

/// What a budget has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetStats {
    /// First attempts.
    pub requests: u64,
    /// Retries that were paid for.
    pub retries: u64,
    /// Retries that were refused because the budget was empty.
    pub refused: u64,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(settings: BudgetSettings) -> Self {
        RetryBudget {
            inner: Arc::new(Mutex::new(Inner {
                tokens: Tokens::new(settings),
                stats: BudgetStats::default(),
            })),
        }
    }

    /// Says that a new request (not a retry) was sent.
    pub fn deposit(&self) {
        let mut inner = self.inner.lock();
        inner.stats.requests += 1;
        inner.tokens.deposit(Instant::now().into_std());
    }

    /// Pays for one retry. `false` means that the budget is empty and that the
    /// failure should go to the caller.
    pub fn withdraw(&self) -> bool {
        let mut inner = self.inner.lock();
        let granted = inner.tokens.withdraw(Instant::now().into_std());
        if granted {
            inner.stats.retries += 1;
        } else {
            inner.stats.refused += 1;
        }
        granted
    }

    /// How many retries are possible now.
    pub fn balance(&self) -> u64 {
        self.inner.lock().tokens.balance(Instant::now().into_std())
    }

    /// The counts since the budget was made, for metrics.
    pub fn stats(&self) -> BudgetStats {
        self.inner.lock().stats
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget::new(BudgetSettings::default())
    }
}
