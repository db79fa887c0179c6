//! What a handler looks like, and how different ones fit into one table.
//!
//! A handler borrows the transaction. The future of an `async fn` that borrows
//! its argument has a type for each lifetime, so the bound says it for each one:
//! `for<'a> Handler<'a, …>`, which a named `async fn` fulfils.

use std::future::Future;
use std::marker::PhantomData;

use chassis_core::{BoxFuture, Result};
use chassis_data::{Backend, Tx};

use crate::event::Event;
use crate::message::Message;

/// A named `async fn(state: S, tx: &mut Tx<B>, event: E) -> Result<()>`.
///
/// What it writes with `tx` is committed together with the inbox note when it
/// returns `Ok`, and rolled back otherwise.
pub trait Handler<'a, S, B: Backend, E>: Send + Sync + 'static {
    /// What it returns.
    type Future: Future<Output = Result<()>> + Send + 'a;

    /// Begins to handle one event.
    fn handle(&self, state: S, tx: &'a mut Tx<B>, event: E) -> Self::Future;
}

impl<'a, F, Fut, S, B, E> Handler<'a, S, B, E> for F
where
    F: Fn(S, &'a mut Tx<B>, E) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'a,
    B: Backend,
{
    type Future = Fut;

    fn handle(&self, state: S, tx: &'a mut Tx<B>, event: E) -> Fut {
        self(state, tx, event)
    }
}

/// A handler whose event type is no longer visible.
pub(super) trait AnyHandler<S, B: Backend>: Send + Sync {
    fn handle<'a>(
        &'a self,
        state: S,
        tx: &'a mut Tx<B>,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<()>>;
}

pub(super) struct Typed<E, H> {
    handler: H,
    event: PhantomData<fn() -> E>,
}

impl<E, H> Typed<E, H> {
    pub(super) fn new(handler: H) -> Typed<E, H> {
        Typed { handler, event: PhantomData }
    }
}

impl<S, B, E, H> AnyHandler<S, B> for Typed<E, H>
where
    S: Send + 'static,
    B: Backend,
    E: Event,
    H: for<'a> Handler<'a, S, B, E>,
{
    fn handle<'a>(
        &'a self,
        state: S,
        tx: &'a mut Tx<B>,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<()>> {
        match message.to_event::<E>() {
            Ok(event) => Box::pin(self.handler.handle(state, tx, event)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
