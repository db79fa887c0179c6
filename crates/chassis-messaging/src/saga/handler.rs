//! How a step is written: a named async function.
//!
//! A step outside a transaction borrows nothing, so any function will do. A step
//! inside one borrows the transaction for as long as it runs; a plain `Fn` bound
//! cannot say that its future lives that long and is `Send`, so a trait with a
//! lifetime says it, implemented for every function of the right shape.

use std::future::Future;

use chassis_core::{BoxFuture, Result};
use chassis_data::{Backend, Tx};

use super::definition::{Failure, StepInfo};

/// `async fn(state: S, tx: &mut Tx<B>, data: D) -> Result<D>`: a step in the
/// transaction that also writes the saga's progress.
pub trait TxStep<'a, D, S, B: Backend>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<D>> + Send + 'a;

    /// Calls the function.
    fn call(&self, state: S, tx: &'a mut Tx<B>, data: D) -> Self::Future;
}

impl<'a, D, S, B, F, Fut> TxStep<'a, D, S, B> for F
where
    B: Backend,
    F: Fn(S, &'a mut Tx<B>, D) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<D>> + Send + 'a,
{
    type Future = Fut;

    fn call(&self, state: S, tx: &'a mut Tx<B>, data: D) -> Fut {
        self(state, tx, data)
    }
}

/// `async fn(state: S, tx: &mut Tx<B>, data: D, why: Failure) -> Result<()>`:
/// the end of a saga that was undone, in the transaction that says so.
pub trait CancelStep<'a, D, S, B: Backend>: Send + Sync + 'static {
    /// What the function returns.
    type Future: Future<Output = Result<()>> + Send + 'a;

    /// Calls the function.
    fn call(&self, state: S, tx: &'a mut Tx<B>, data: D, why: Failure) -> Self::Future;
}

impl<'a, D, S, B, F, Fut> CancelStep<'a, D, S, B> for F
where
    B: Backend,
    F: Fn(S, &'a mut Tx<B>, D, Failure) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'a,
{
    type Future = Fut;

    fn call(&self, state: S, tx: &'a mut Tx<B>, data: D, why: Failure) -> Fut {
        self(state, tx, data, why)
    }
}

/// A function without a transaction, boxed.
pub(crate) trait DynStep<D, S>: Send + Sync {
    fn call(&self, state: S, data: D, step: StepInfo) -> BoxFuture<'static, Result<D>>;
}

/// A [`TxStep`], boxed.
pub(crate) trait DynTxStep<D, S, B: Backend>: Send + Sync {
    fn call<'a>(&self, state: S, tx: &'a mut Tx<B>, data: D) -> BoxFuture<'a, Result<D>>;
}

/// A [`CancelStep`], boxed.
pub(crate) trait DynCancelStep<D, S, B: Backend>: Send + Sync {
    fn call<'a>(
        &self,
        state: S,
        tx: &'a mut Tx<B>,
        data: D,
        why: Failure,
    ) -> BoxFuture<'a, Result<()>>;
}

/// A function that is kept as one of the traits above.
pub(crate) struct Function<F>(pub(crate) F);

impl<D, S, F, Fut> DynStep<D, S> for Function<F>
where
    F: Fn(S, D, StepInfo) -> Fut + Send + Sync,
    Fut: Future<Output = Result<D>> + Send + 'static,
{
    fn call(&self, state: S, data: D, step: StepInfo) -> BoxFuture<'static, Result<D>> {
        Box::pin(self.0(state, data, step))
    }
}

impl<D, S, B, F> DynTxStep<D, S, B> for Function<F>
where
    B: Backend,
    F: for<'a> TxStep<'a, D, S, B>,
{
    fn call<'a>(&self, state: S, tx: &'a mut Tx<B>, data: D) -> BoxFuture<'a, Result<D>> {
        Box::pin(self.0.call(state, tx, data))
    }
}

impl<D, S, B, F> DynCancelStep<D, S, B> for Function<F>
where
    B: Backend,
    F: for<'a> CancelStep<'a, D, S, B>,
{
    fn call<'a>(
        &self,
        state: S,
        tx: &'a mut Tx<B>,
        data: D,
        why: Failure,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.call(state, tx, data, why))
    }
}
