//! Chaos as an operator holds it.
//!
//! Plain calls and plain data: whoever has a door for it puts them there.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    ChaosRefused, ListedRule, Rule,
    rules::{Rules, Strike},
};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The rules of one process. Clones share them.
#[derive(Clone, Debug)]
pub struct Chaos {
    // `None` if the configuration does not enable it.
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    active: AtomicBool,
    rules: Mutex<Rules>,
}

impl Chaos {
    /// Refuses every rule: what a process has unless its configuration says otherwise.
    pub fn disabled() -> Self {
        Chaos { inner: None }
    }

    /// Takes rules. There are none at the start.
    pub fn enabled() -> Self {
        let inner = Inner { active: AtomicBool::new(false), rules: Mutex::default() };
        Chaos { inner: Some(Arc::new(inner)) }
    }

    /// Whether it takes rules.
    pub fn is_enabled(&self) -> bool {
        self.inner.is_some()
    }

    /// Sets a rule, in place of one of the same name. It holds from the next call on.
    ///
    /// # Errors
    /// [`ChaosRefused`] says why the rule was not taken.
    pub fn set(&self, name: impl Into<String>, rule: Rule) -> Result<(), ChaosRefused> {
        let inner = self.inner.as_ref().ok_or(ChaosRefused::Disabled)?;
        let mut rules = inner.rules.lock();
        rules.set(name.into(), rule, Instant::now().into_std())?;
        inner.active.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes a rule; `false` if there was none of that name. Calls that it has hit go on as
    /// they are.
    pub fn clear(&self, name: &str) -> bool {
        self.inner.as_ref().is_some_and(|inner| {
            let mut rules = inner.rules.lock();
            let there = rules.clear(name);
            inner.active.store(!rules.is_empty(), Ordering::Relaxed);
            there
        })
    }

    /// Removes all rules.
    pub fn clear_all(&self) {
        if let Some(inner) = &self.inner {
            let mut rules = inner.rules.lock();
            rules.clear_all();
            inner.active.store(false, Ordering::Relaxed);
        }
    }

    /// The rules by name, with how often each has hit.
    pub fn list(&self) -> Vec<ListedRule> {
        let now = Instant::now().into_std();
        self.inner.as_ref().map_or_else(Vec::new, |inner| inner.rules.lock().list(now))
    }

    /// Whether there may be rules, at the cost of one read.
    pub(super) fn is_active(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.active.load(Ordering::Relaxed))
    }

    pub(super) fn strike(&self, target: &str) -> Strike {
        let Some(inner) = &self.inner else {
            return Strike::default();
        };
        let mut rules = inner.rules.lock();
        let strike = rules.strike(target, Instant::now().into_std(), fastrand::f64);
        // The last rule may have ended.
        inner.active.store(!rules.is_empty(), Ordering::Relaxed);
        strike
    }
}
