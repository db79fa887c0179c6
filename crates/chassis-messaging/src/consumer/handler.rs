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

/// A named `async fn(state: S, tx: &mut Tx<B>, events: Vec<E>) -> Result<()>`.
///
/// The events come in the order of their messages, without those that were handled
/// before. What it writes with `tx` is committed together with the inbox notes of all of
/// them when it returns `Ok`, and rolled back otherwise.
pub trait BatchHandler<'a, S, B: Backend, E>: Send + Sync + 'static {
    /// What it returns.
    type Future: Future<Output = Result<()>> + Send + 'a;

    /// Begins to handle some events.
    fn handle(&self, state: S, tx: &'a mut Tx<B>, events: Vec<E>) -> Self::Future;
}

impl<'a, F, Fut, S, B, E> BatchHandler<'a, S, B, E> for F
where
    F: Fn(S, &'a mut Tx<B>, Vec<E>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'a,
    B: Backend,
{
    type Future = Fut;

    fn handle(&self, state: S, tx: &'a mut Tx<B>, events: Vec<E>) -> Fut {
        self(state, tx, events)
    }
}

/// A handler whose event type is no longer visible.
pub(super) trait AnyHandler<S, B: Backend>: Send + Sync {
    /// Whether it takes several messages at once.
    fn takes_batches(&self) -> bool;

    /// Handles messages of its type, or of one that can be turned into it: just one
    /// where it takes no batches.
    fn handle<'a>(
        &'a self,
        state: S,
        tx: &'a mut Tx<B>,
        messages: &[&Message],
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
    fn takes_batches(&self) -> bool {
        false
    }

    fn handle<'a>(
        &'a self,
        state: S,
        tx: &'a mut Tx<B>,
        messages: &[&Message],
    ) -> BoxFuture<'a, Result<()>> {
        let read = messages.first().map(|message| message.to_event::<E>());
        match read {
            Some(Ok(event)) => Box::pin(self.handler.handle(state, tx, event)),
            Some(Err(error)) => Box::pin(std::future::ready(Err(error))),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

pub(super) struct Batched<E, H> {
    handler: H,
    event: PhantomData<fn() -> E>,
}

impl<E, H> Batched<E, H> {
    pub(super) fn new(handler: H) -> Batched<E, H> {
        Batched { handler, event: PhantomData }
    }
}

impl<S, B, E, H> AnyHandler<S, B> for Batched<E, H>
where
    S: Send + 'static,
    B: Backend,
    E: Event,
    H: for<'a> BatchHandler<'a, S, B, E>,
{
    fn takes_batches(&self) -> bool {
        true
    }

    fn handle<'a>(
        &'a self,
        state: S,
        tx: &'a mut Tx<B>,
        messages: &[&Message],
    ) -> BoxFuture<'a, Result<()>> {
        match messages.iter().map(|message| message.to_event::<E>()).collect::<Result<Vec<E>>>() {
            Ok(events) => Box::pin(self.handler.handle(state, tx, events)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
