//! Spans that users write with `tracing` leave the process as part of the trace.
//!
//! Only inside a sampled call, and only spans that the log filter lets through: elsewhere a
//! span of `tracing` costs what its fields in log lines cost. A span that is left in the
//! middle of an outgoing call is that call's parent, so a trace shows what the code says.
//!
//! A span fails when an error is logged inside it.

use std::{cell::RefCell, fmt, sync::Arc};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, layer,
    registry::{LookupSpan, SpanRef},
};

use super::redact::Redact;
use crate::{Context, Span, SpanId, SpanKind};

thread_local! {
    /// The exported spans that this thread is inside of, outermost first.
    static ENTERED: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// Where an exported span stands: the span of the call that it was made in, and its own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    call: SpanId,
    own: SpanId,
}

/// The innermost exported span that the thread is inside of and that was made in the call
/// with this span. One that was made further out is no parent: the call itself is deeper.
pub(crate) fn entered(call: SpanId) -> Option<SpanId> {
    ENTERED.with_borrow(|places| {
        places.iter().rev().find(|place| place.call == call).map(|place| place.own)
    })
}

/// A `tracing` layer that exports spans by way of the ambient context.
pub(super) struct SpanLayer {
    redact: Arc<Redact>,
}

/// What a span of `tracing` has beside its fields while it is exported.
pub(super) struct Exported {
    span: Span,
    place: Place,
}

impl Exported {
    /// Its id, if it was made in the call with this span.
    pub(super) fn within(&self, call: SpanId) -> Option<SpanId> {
        (self.place.call == call).then_some(self.place.own)
    }
}

impl SpanLayer {
    pub(super) fn new(redact: Arc<Redact>) -> SpanLayer {
        SpanLayer { redact }
    }

    /// Its parent is the nearest exported span of the same call that `tracing` has around it,
    /// or the call itself.
    fn begin<S: for<'a> LookupSpan<'a>>(ctx: &Context, span: &SpanRef<'_, S>) -> Option<Exported> {
        let call = ctx.trace();
        let parent = span
            .scope()
            .skip(1)
            .find_map(|outer| outer.extensions().get::<Exported>()?.within(call.span_id));
        let mut trace = call.child();
        trace.parent = parent.or(Some(call.span_id));
        let place = Place { call: call.span_id, own: trace.span_id };
        let span = Span::start(&ctx.clone().with_trace(trace), SpanKind::Internal, span.name());
        span.is_recording().then_some(Exported { span, place })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: layer::Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let begun = Context::with_current(|call| {
            if call.trace().sampled { SpanLayer::begin(call, &span) } else { None }
        });
        if let Some(mut exported) = begun.flatten() {
            attributes.record(&mut Attributing { span: &mut exported.span, redact: &self.redact });
            span.extensions_mut().insert(exported);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: layer::Context<'_, S>) {
        // Taken out meanwhile: a value whose Debug logs would find the span locked.
        let Some(span) = ctx.span(id) else { return };
        let exported = span.extensions_mut().remove::<Exported>();
        if let Some(mut exported) = exported {
            values.record(&mut Attributing { span: &mut exported.span, redact: &self.redact });
            span.extensions_mut().insert(exported);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: layer::Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        for span in ctx.event_scope(event).into_iter().flatten() {
            if let Some(exported) = span.extensions_mut().get_mut::<Exported>() {
                exported.span.fail(message.0);
                return;
            }
        }
    }

    fn on_enter(&self, id: &Id, ctx: layer::Context<'_, S>) {
        if let Some(place) = place(id, &ctx) {
            ENTERED.with_borrow_mut(|places| places.push(place));
        }
    }

    fn on_exit(&self, id: &Id, ctx: layer::Context<'_, S>) {
        if let Some(place) = place(id, &ctx) {
            ENTERED.with_borrow_mut(|places| {
                // Guards may be dropped in any order.
                if let Some(index) = places.iter().rposition(|known| *known == place) {
                    places.remove(index);
                }
            });
        }
    }

    // A span that closes loses its extensions, and with them the record is sent.
}

fn place<S: Subscriber + for<'a> LookupSpan<'a>>(
    id: &Id,
    ctx: &layer::Context<'_, S>,
) -> Option<Place> {
    Some(ctx.span(id)?.extensions().get::<Exported>()?.place)
}

/// Sets fields as attributes.
struct Attributing<'a> {
    span: &'a mut Span,
    redact: &'a Redact,
}

impl Visit for Attributing<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.redact.hides(field.name()) {
            self.span.set(field.name(), Redact::SHOWN);
        } else {
            self.span.set(field.name(), format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let shown = if self.redact.hides(field.name()) { Redact::SHOWN } else { value };
        self.span.set(field.name(), shown);
    }
}

/// Takes the message of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tracing::Instrument as _;
    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;
    use crate::{
        Env, SpanRecord, TraceContext,
        telemetry::{LineSink, LogLayer},
    };

    fn subscriber() -> impl Subscriber {
        Registry::default().with(SpanLayer::new(Arc::new(Redact::new(&["password".to_owned()]))))
    }

    fn named<'a>(spans: &'a [SpanRecord], name: &str) -> &'a SpanRecord {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    #[tokio::test]
    async fn spans_of_users_stand_between_the_call_and_what_it_calls() {
        let _guard = tracing::subscriber::set_default(subscriber());
        let env = Env::test("items");
        let call = Context::background(&env);
        let work = async {
            let inner = async {
                tokio::task::yield_now().await;
                // An outgoing call, as a client makes it.
                let get = Context::current().child();
                drop(Span::start(&get, SpanKind::Client, "GET"));
                // What that call does in turn is below it, not below the user's span.
                get.clone()
                    .scope(async {
                        drop(Span::start(&Context::current().child(), SpanKind::Client, "try"));
                        tracing::info_span!("deep").in_scope(|| {});
                    })
                    .await;
            };
            let span = tracing::info_span!("pack", items = 3, password = "hush");
            span.in_scope(|| tracing::error!("the tape is {}", "out"));
            inner.instrument(span).await;
        };
        call.clone().scope(work.instrument(tracing::info_span!("prepare"))).await;
        let spans = env.captured_spans();
        assert_eq!(spans.len(), 4, "`prepare` was made outside of the call: {spans:?}");
        let (pack, get) = (named(&spans, "pack"), named(&spans, "GET"));
        assert_eq!(pack.trace.parent, Some(call.trace().span_id));
        assert_eq!(get.trace.parent, Some(pack.trace.span_id));
        assert_eq!(pack.trace.trace_id, call.trace().trace_id);
        for below in ["try", "deep"] {
            assert_eq!(named(&spans, below).trace.parent, Some(get.trace.span_id), "{below}");
        }
        assert_eq!(pack.attributes, [("items", "3".into()), ("password", Redact::SHOWN.into())]);
        assert_eq!(pack.error.as_deref(), Some("the tape is out"));
        assert_eq!(entered(call.trace().span_id), None);
    }

    #[tokio::test]
    async fn a_line_of_the_log_names_the_span_that_it_was_written_in() {
        #[derive(Default)]
        struct Lines(Mutex<Vec<serde_json::Value>>);
        impl LineSink for Lines {
            fn write_line(&self, line: &[u8]) {
                self.0.lock().push(serde_json::from_slice(line).unwrap());
            }
        }
        let lines = Arc::new(Lines::default());
        let redact = Arc::new(Redact::new(&["token".to_owned()]));
        let log = LogLayer::json(lines.clone()).with_redact(redact.clone());
        let subscriber = Registry::default().with(SpanLayer::new(redact)).with(log);
        let _guard = tracing::subscriber::set_default(subscriber);
        let env = Env::test("items");
        // As of a call that came from elsewhere: only then has a line a trace to name.
        let call = Context::background(&env).child();
        call.clone()
            .scope(async {
                tracing::info!("before");
                let _work = tracing::info_span!("work", token = "t-1").entered();
                tracing::info!(auth.token = "t-2", "inside");
            })
            .await;
        let lines = lines.0.lock();
        let work = named(&env.captured_spans(), "work").trace.span_id.to_string();
        assert_eq!(lines[0]["span_id"], call.trace().span_id.to_string());
        assert_eq!(lines[1]["span_id"], work);
        for hidden in ["token", "auth.token"] {
            assert_eq!(lines[1][hidden], Redact::SHOWN, "{hidden}");
        }
    }

    #[tokio::test]
    async fn guards_dropped_the_other_way_round_leave_nothing_behind() {
        let _guard = tracing::subscriber::set_default(subscriber());
        let env = Env::test("items");
        let call = Context::background(&env);
        let span = call.trace().span_id;
        call.scope(async {
            let outer = tracing::info_span!("outer").entered();
            let inner = tracing::info_span!("inner").entered();
            drop(outer);
            assert!(entered(span).is_some());
            drop(inner);
        })
        .await;
        assert_eq!(entered(span), None);
        let spans = env.captured_spans();
        let (outer, inner) = (named(&spans, "outer"), named(&spans, "inner"));
        assert_eq!(inner.trace.parent, Some(outer.trace.span_id));
    }

    #[tokio::test]
    async fn an_unsampled_call_exports_none() {
        let _guard = tracing::subscriber::set_default(subscriber());
        let env = Env::test("items");
        let call = Context::background(&env).with_trace(TraceContext::root(false));
        call.scope(async { tracing::info_span!("work").in_scope(|| {}) }).await;
        assert!(env.captured_spans().is_empty());
    }
}
