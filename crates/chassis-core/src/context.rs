//! What a call carries on its way down: trace, request id, deadline, caller, tenant.
//!
//! It is ambient, a tokio task-local, because the code that needs it (a log line, an
//! outgoing call of a generated client, an outbox append) has no parameter to take it by.
//! It is explicit where it matters: a server makes one and runs the handler in
//! [`Context::scope`]; what is spawned does not inherit it unless it is scoped again
//! ([`Env::spawn`](crate::Env::spawn) keeps the service's name for background work).

use std::{future::Future, sync::Arc};

use crate::{Deadline, Env, TraceContext};

tokio::task_local! {
    static CURRENT: Context;
}

/// The context of one call. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    env: Env,
    trace: TraceContext,
    request_id: Option<Arc<str>>,
    deadline: Option<Deadline>,
    principal: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
}

impl Context {
    /// A context for work that no call caused: a new root trace, no deadline.
    #[must_use]
    pub fn background(env: &Env) -> Context {
        Context::new(env, TraceContext::root(env.sample_head()), None)
    }

    pub(crate) fn new(env: &Env, trace: TraceContext, request_id: Option<Arc<str>>) -> Context {
        Context(Arc::new(Inner {
            env: env.clone(),
            trace,
            request_id,
            deadline: None,
            principal: None,
            tenant: None,
        }))
    }

    /// The ambient context, or a detached one where there is none.
    #[must_use]
    pub fn current() -> Context {
        Context::try_current().unwrap_or_else(|| Context::background(&Env::detached()))
    }

    /// The ambient context, if there is one.
    #[must_use]
    pub fn try_current() -> Option<Context> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Lends the ambient context without cloning it.
    pub(crate) fn with_current<T>(f: impl FnOnce(&Context) -> T) -> Option<T> {
        CURRENT.try_with(f).ok()
    }

    /// Runs a future in which [`Context::current`] gives this context.
    ///
    /// Dropping it drops the inner future; nothing else is held.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) -> Context {
        let mut inner = Inner::clone(&self.0);
        change(&mut inner);
        Context(Arc::new(inner))
    }

    /// The same call one span deeper: for an outgoing call, a publish, a step.
    #[must_use]
    pub fn child(&self) -> Context {
        self.change(|inner| inner.trace = inner.trace.child())
    }

    /// The same call one span deeper with at most this deadline: [`Context::child`] and
    /// [`Context::with_deadline`] in one step, which every outgoing call takes.
    #[must_use]
    pub fn child_until(&self, deadline: Deadline) -> Context {
        self.change(|inner| {
            inner.trace = inner.trace.child();
            inner.deadline = Some(inner.deadline.map_or(deadline, |old| old.min(deadline)));
        })
    }

    /// The same call in another place of a trace.
    #[must_use]
    pub fn with_trace(&self, trace: TraceContext) -> Context {
        self.change(|inner| inner.trace = trace)
    }

    /// The same call with at most this deadline: an earlier one stays.
    #[must_use]
    pub fn with_deadline(&self, deadline: Deadline) -> Context {
        self.change(|inner| {
            inner.deadline = Some(inner.deadline.map_or(deadline, |old| old.min(deadline)));
        })
    }

    /// The same call without a deadline, for work that must go on after the caller left.
    #[must_use]
    pub fn without_deadline(&self) -> Context {
        self.change(|inner| inner.deadline = None)
    }

    /// The same call under this request id.
    #[must_use]
    pub fn with_request_id(&self, id: impl Into<Arc<str>>) -> Context {
        self.change(|inner| inner.request_id = Some(id.into()))
    }

    /// The same call by this caller.
    #[must_use]
    pub fn with_principal(&self, principal: Arc<str>) -> Context {
        self.change(|inner| inner.principal = Some(principal))
    }

    /// The same call for this tenant.
    #[must_use]
    pub fn with_tenant(&self, tenant: Arc<str>) -> Context {
        self.change(|inner| inner.tenant = Some(tenant))
    }

    /// Where in which trace the call stands.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.0.trace
    }

    /// When nobody waits for the answer any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.0.deadline
    }

    /// The request id; empty for background work.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.0.request_id.as_deref().unwrap_or_default()
    }

    /// Who is calling, where that is known.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        self.0.principal.as_deref()
    }

    /// For which tenant, where that is known.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        self.0.tenant.as_deref()
    }

    /// The process that the call runs in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("service", &self.env().info().name)
            .field("trace", self.trace())
            .field("request_id", &self.request_id())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_only_shrinks() {
        let ctx = Context::background(&Env::test("t"));
        let near = ctx.with_deadline(Deadline::after(Duration::from_secs(1)));
        let far = near.with_deadline(Deadline::after(Duration::from_secs(60)));
        assert_eq!(far.deadline(), near.deadline());
    }

    #[tokio::test]
    async fn the_scope_is_ambient_and_ends() {
        let ctx = Context::background(&Env::test("t")).with_request_id("r-1");
        assert!(Context::try_current().is_none());
        let seen = ctx.scope(async { Context::current().request_id().to_owned() }).await;
        assert_eq!(seen, "r-1");
        assert!(Context::try_current().is_none());
    }
}
