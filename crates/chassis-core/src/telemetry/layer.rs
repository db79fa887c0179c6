//! Turns `tracing` events into lines that carry the ambient context.

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer, registry::LookupSpan};

use super::format::{self, Fields, Head};
use crate::Context;

/// Takes finished log lines. It must not block.
pub trait LineSink: Send + Sync + 'static {
    /// Takes one line, with its line feed.
    fn write_line(&self, line: &[u8]);
}

/// A `tracing` layer that writes one line per event.
pub struct LogLayer {
    sink: Arc<dyn LineSink>,
    form: Form,
}

enum Form {
    Json,
    Text { colour: bool },
}

thread_local! {
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl LogLayer {
    /// One JSON object per line.
    #[must_use]
    pub fn json(sink: Arc<dyn LineSink>) -> LogLayer {
        LogLayer { sink, form: Form::Json }
    }

    /// Lines for people, in colour or without.
    #[must_use]
    pub fn text(sink: Arc<dyn LineSink>, colour: bool) -> LogLayer {
        LogLayer { sink, form: Form::Text { colour } }
    }

    fn write(&self, line: &mut String, event: &Event<'_>, inherited: &[Fields]) {
        let mut own = Fields::default();
        event.record(&mut own);
        let metadata = event.metadata();
        let (service, ids) = Context::with_current(|ctx| {
            let info = ctx.env().info();
            let mut ids = Vec::with_capacity(5);
            // Background work has a trace of its own, which says nothing until it is passed on.
            if !ctx.request_id().is_empty() || ctx.trace().parent.is_some() {
                ids.push(("trace_id", ctx.trace().trace_id.to_string()));
                ids.push(("span_id", ctx.trace().span_id.to_string()));
            }
            if !ctx.request_id().is_empty() {
                ids.push(("request_id", ctx.request_id().to_owned()));
            }
            if let Some(principal) = ctx.principal() {
                ids.push(("enduser.id", principal.to_owned()));
            }
            if let Some(tenant) = ctx.tenant() {
                ids.push(("tenant.id", tenant.to_owned()));
            }
            ((info.name.clone(), info.version.clone()), ids)
        })
        .unwrap_or_default();
        let head = Head {
            time: SystemTime::now(),
            level: *metadata.level(),
            target: metadata.target(),
            service: (&service.0, &service.1),
            ids: &ids,
        };
        let fields = inherited.iter().flat_map(|span| &span.others).chain(&own.others);
        match self.form {
            Form::Json => format::json(line, &head, &own.message, fields),
            Form::Text { colour } => format::text(line, &head, &own.message, fields, colour),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: layer::Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: layer::Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: layer::Context<'_, S>) {
        let mut inherited = Vec::new();
        if let Some(scope) = ctx.event_scope(event) {
            for span in scope.from_root() {
                inherited.extend(span.extensions().get::<Fields>().cloned());
            }
        }
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => {
                line.clear();
                self.write(&mut line, event, &inherited);
                self.sink.write_line(line.as_bytes());
            }
            // A field whose Debug logs: it gets a buffer of its own.
            Err(_) => {
                let mut line = String::new();
                self.write(&mut line, event, &inherited);
                self.sink.write_line(line.as_bytes());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;
    use crate::{Env, propagation};

    #[derive(Default)]
    struct Lines(Mutex<Vec<serde_json::Value>>);

    impl LineSink for Lines {
        fn write_line(&self, line: &[u8]) {
            self.0.lock().push(serde_json::from_slice(line).unwrap());
        }
    }

    #[tokio::test]
    async fn a_line_carries_the_call_and_the_spans_around_it() {
        let lines = Arc::new(Lines::default());
        let subscriber = Registry::default().with(LogLayer::json(lines.clone()));
        let _guard = tracing::subscriber::set_default(subscriber);
        let ctx = propagation::extract(&Env::test("items"), |name| {
            (name == propagation::REQUEST_ID).then_some("r-7")
        });
        let trace_id = ctx.trace().trace_id.to_string();
        ctx.scope(async {
            let span = tracing::info_span!("work", item = 3, late = tracing::field::Empty);
            span.record("late", "yes");
            span.in_scope(|| tracing::warn!(count = 2, "hello {}", "world"));
        })
        .await;
        tracing::info!("outside");
        let lines = lines.0.lock();
        assert_eq!(lines[0]["message"], "hello world");
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["service.name"], "items");
        assert_eq!(lines[0]["request_id"], "r-7");
        assert_eq!(lines[0]["trace_id"], trace_id);
        assert_eq!(
            (&lines[0]["item"], &lines[0]["late"], &lines[0]["count"]),
            (&3.into(), &"yes".into(), &2.into())
        );
        assert!(lines[1].get("trace_id").is_none());
    }
}
