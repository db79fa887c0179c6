//! What a call carries on its way down: trace, request id, deadline, caller, tenant.
//!
//! It is ambient, a tokio task-local, because the code that needs it (a log line, an
//! outgoing call of a generated client, an outbox append) has no parameter to take it by.
//! It is explicit where it matters: a server makes one and runs the handler in
//! [`Context::scope`]; what is spawned does not inherit it unless it is scoped again
//! ([`Env::spawn`](crate::Env::spawn) keeps the service's name for background work).

use std::{future::Future, sync::Arc};

use crate::{Baggage, Deadline, Env, TraceContext, telemetry};

tokio::task_local! {
    static CURRENT: Context;
}

/// How important a call is, for whoever must refuse some.
///
/// Few classes, because whoever must choose from ten chooses the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Can be left out: a prefetch, a batch, a decoration.
    Sheddable,
    /// The usual call.
    #[default]
    Normal,
    /// Refused last: what a person waits and pays for, what undoes another step.
    Critical,
}

impl Priority {
    /// Its name on the wire and in logs: `sheddable`, `normal` or `critical`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Sheddable => "sheddable",
            Priority::Normal => "normal",
            Priority::Critical => "critical",
        }
    }

    /// The priority of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Priority> {
        [Priority::Sheddable, Priority::Normal, Priority::Critical]
            .into_iter()
            .find(|priority| priority.as_str() == name)
    }
}

/// The context of one call. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    env: Env,
    trace: TraceContext,
    request_id: RequestId,
    deadline: Option<Deadline>,
    principal: Option<Arc<str>>,
    tenant: Option<Arc<str>>,
    priority: Priority,
    baggage: Baggage,
}

/// The id of a request. One that is made here is that of the trace, and costs no memory.
#[derive(Clone)]
pub(crate) enum RequestId {
    /// Background work has none.
    None,
    Given(Arc<str>),
    OfTrace(Hex),
}

/// An id on its way into a log line: what is hexadecimal digits need not be looked at.
#[derive(Clone, Copy)]
pub(crate) enum LogId<'a> {
    Text(&'a str),
    Hex(&'a [u8; 32]),
}

/// Aligned, so that it is read as text eight bytes at a time.
#[derive(Clone)]
#[repr(align(8))]
pub(crate) struct Hex(pub(crate) [u8; 32]);

impl Context {
    /// A context for work that no call caused: a new root trace, no deadline.
    #[must_use]
    pub fn background(env: &Env) -> Context {
        Context::new(env, TraceContext::root(env.sample_head()), RequestId::None)
    }

    pub(crate) fn new(env: &Env, trace: TraceContext, request_id: RequestId) -> Context {
        Context(Arc::new(Inner {
            env: env.clone(),
            trace,
            request_id,
            deadline: None,
            principal: None,
            tenant: None,
            priority: Priority::default(),
            baggage: Baggage::default(),
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

    /// Calls a function in which [`Context::current`] gives this context.
    pub fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        let is_current = Context::with_current(|current| Arc::ptr_eq(&current.0, &self.0));
        if is_current == Some(true) { f() } else { CURRENT.sync_scope(self.clone(), f) }
    }

    /// Changes it where it is if nobody else has it.
    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Context {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The same call one span deeper: for an outgoing call, a publish, a step. Its parent is
    /// the span of `tracing` that the code is inside of, if that is exported, or the call.
    #[must_use]
    pub fn child(&self) -> Context {
        self.clone().change(|inner| inner.trace = deeper(&inner.trace))
    }

    /// The same call one span deeper with at most this deadline: [`Context::child`] and
    /// [`Context::with_deadline`] in one step, which every outgoing call takes.
    #[must_use]
    pub fn child_until(&self, deadline: Deadline) -> Context {
        self.clone().change(|inner| {
            inner.trace = deeper(&inner.trace);
            inner.deadline = Some(inner.deadline.map_or(deadline, |old| old.min(deadline)));
        })
    }

    /// The same call in another place of a trace.
    #[must_use]
    pub fn with_trace(self, trace: TraceContext) -> Context {
        self.change(|inner| inner.trace = trace)
    }

    /// The same call, sampled or not whatever its trace said until now.
    #[must_use]
    pub fn with_sampled(self, sampled: bool) -> Context {
        if self.trace().sampled == sampled {
            return self;
        }
        self.change(|inner| inner.trace.sampled = sampled)
    }

    /// The same call with at most this deadline: an earlier one stays.
    #[must_use]
    pub fn with_deadline(self, deadline: Deadline) -> Context {
        self.change(|inner| {
            inner.deadline = Some(inner.deadline.map_or(deadline, |old| old.min(deadline)));
        })
    }

    /// The same call without a deadline, for work that must go on after the caller left.
    #[must_use]
    pub fn without_deadline(self) -> Context {
        self.change(|inner| inner.deadline = None)
    }

    /// The same call under this request id.
    #[must_use]
    pub fn with_request_id(self, id: impl Into<Arc<str>>) -> Context {
        self.change(|inner| inner.request_id = RequestId::Given(id.into()))
    }

    /// The same call by this caller.
    #[must_use]
    pub fn with_principal(self, principal: Arc<str>) -> Context {
        self.change(|inner| inner.principal = Some(principal))
    }

    /// The same call for this tenant.
    #[must_use]
    pub fn with_tenant(self, tenant: Arc<str>) -> Context {
        self.change(|inner| inner.tenant = Some(tenant))
    }

    /// The same call with this priority, which the calls that it makes have too.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Context {
        self.change(|inner| inner.priority = priority)
    }

    /// The same call with this baggage, which goes on to whatever it calls.
    #[must_use]
    pub fn with_baggage(self, baggage: Baggage) -> Context {
        self.change(|inner| inner.baggage = baggage)
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
        match &self.0.request_id {
            RequestId::None => "",
            RequestId::Given(id) => id,
            RequestId::OfTrace(Hex(hex)) => std::str::from_utf8(hex).unwrap_or_default(),
        }
    }

    /// The request id as bytes, for a header: all are visible ASCII.
    #[must_use]
    pub fn request_id_bytes(&self) -> &[u8] {
        match &self.0.request_id {
            RequestId::None => &[],
            RequestId::Given(id) => id.as_bytes(),
            RequestId::OfTrace(Hex(hex)) => hex,
        }
    }

    /// The request id, for a log line.
    pub(crate) fn log_request_id(&self) -> Option<LogId<'_>> {
        match &self.0.request_id {
            RequestId::None => None,
            RequestId::Given(id) => Some(LogId::Text(id)),
            RequestId::OfTrace(Hex(hex)) => Some(LogId::Hex(hex)),
        }
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

    /// How important the call is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// The words that travel with the call.
    #[must_use]
    pub fn baggage(&self) -> &Baggage {
        &self.0.baggage
    }

    /// The process that the call runs in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }
}

fn deeper(trace: &TraceContext) -> TraceContext {
    let mut child = trace.child();
    if trace.sampled
        && let Some(span) = telemetry::entered(trace.span_id)
    {
        child.parent = Some(span);
    }
    child
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
        let far = near.clone().with_deadline(Deadline::after(Duration::from_secs(60)));
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
