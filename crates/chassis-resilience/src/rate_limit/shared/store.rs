//! What instances share: a store that hands out tokens.
//!
//! One method, because everything else is done on this side of it.

use std::{future::Future, pin::Pin, time::Duration};

use crate::{BoxError, rate_limit::RateLimit};

/// A boxed future, so that a store can be chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Hands out tokens by key, to all instances together no more than the limit allows.
///
/// The store's own clock decides, so that the clocks of instances need not agree. Keys are
/// the caller's choice: a store bounds how many it keeps, or forgets those that are idle.
pub trait TokenStore: Send + Sync + 'static {
    /// Takes up to `want` tokens (at least 1) of `key`, as one step that no other can divide.
    /// Dropping the future may lose tokens that were taken already; it never makes more.
    ///
    /// # Errors
    /// Whatever keeps the store from deciding.
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>>;
}

impl TokenStore for Box<dyn TokenStore> {
    fn take<'a>(
        &'a self,
        key: &'a str,
        limit: RateLimit,
        want: u32,
    ) -> BoxFuture<'a, Result<Grant, BoxError>> {
        (**self).take(key, limit, want)
    }
}

/// What a store gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// So many tokens, from 1 to what was wanted.
    Tokens(u32),
    /// None now; one may be there after this time.
    Wait(Duration),
}
