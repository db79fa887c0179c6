//! Turns `tracing` events into lines that carry the ambient context.

use std::{borrow::Cow, cell::RefCell, sync::Arc, time::SystemTime};

use parking_lot::RwLock;

use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, layer,
    registry::{LookupSpan, SpanRef},
};

use super::{
    format::{self, FieldValue, Fields, Head, Ids},
    json,
    redact::Redact,
    repeats::{Repeat, Repeats},
    spans::Exported,
};
use crate::{Context, ServiceInfo, SpanId};

/// Takes finished log lines. It must not block.
pub trait LineSink: Send + Sync + 'static {
    /// Takes one line, with its line feed.
    fn write_line(&self, line: &[u8]);
}

/// A `tracing` layer that writes one line per event.
pub struct LogLayer {
    sink: Arc<dyn LineSink>,
    form: Form,
    residents: Arc<Residents>,
    repeats: Option<Arc<Repeats>>,
    redact: Option<Arc<Redact>>,
}

/// Who lives in the process.
///
/// A library's own task has no context. Where the process is one service, its lines are that
/// service's all the same; where it is several, nobody can say whose they are.
#[derive(Default)]
pub(super) struct Residents(RwLock<Vec<ServiceInfo>>);

impl Residents {
    pub(super) fn add(&self, info: &ServiceInfo) {
        let mut residents = self.0.write();
        // Two are enough to know that it is not one.
        if residents.len() < 2 && residents.iter().all(|known| known.name != info.name) {
            residents.push(info.clone());
        }
    }

    fn only(&self) -> (Cow<'static, str>, Cow<'static, str>) {
        match &self.0.read()[..] {
            [only] => (only.name.clone(), only.version.clone()),
            _ => Default::default(),
        }
    }
}

enum Form {
    Json,
    Text { colour: bool },
}

/// The field that says how many lines of the same place were left out before this one.
const LEFT_OUT: &str = "log.left_out";

/// Bytes of the buffer that a thread keeps between lines.
const KEPT: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a thread keeps between lines, so that a line costs no memory of its own.
#[derive(Default)]
struct Scratch {
    json: json::Kept,
    text: String,
    fields: Fields,
}

impl Scratch {
    fn clear(&mut self) {
        // One long line must not hold its memory for as long as the thread lives.
        self.json.clear(KEPT);
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.fields.clear(KEPT);
    }
}

impl LogLayer {
    /// One JSON object per line.
    #[must_use]
    pub fn json(sink: Arc<dyn LineSink>) -> LogLayer {
        LogLayer { sink, form: Form::Json, residents: Arc::default(), repeats: None, redact: None }
    }

    /// Lines for people, in colour or without.
    #[must_use]
    pub fn text(sink: Arc<dyn LineSink>, colour: bool) -> LogLayer {
        LogLayer {
            sink,
            form: Form::Text { colour },
            residents: Arc::default(),
            repeats: None,
            redact: None,
        }
    }

    pub(super) fn with_residents(self, residents: Arc<Residents>) -> LogLayer {
        LogLayer { residents, ..self }
    }

    pub(super) fn with_repeats(self, repeats: Arc<Repeats>) -> LogLayer {
        LogLayer { repeats: Some(repeats), ..self }
    }

    pub(super) fn with_redact(self, redact: Arc<Redact>) -> LogLayer {
        LogLayer { redact: Some(redact), ..self }
    }

    /// Writes the line of an event, of which `left_out` before it were not written.
    fn write<S: Subscriber + for<'a> LookupSpan<'a>>(
        &self,
        scratch: &mut Scratch,
        event: &Event<'_>,
        left_out: u64,
        spans: &layer::Context<'_, S>,
    ) {
        let inmost = spans.event_span(event);
        let around = || inmost.iter().flat_map(SpanRef::scope);
        let span_of =
            |call| around().find_map(|span| span.extensions().get::<Exported>()?.within(call));
        let with_context = Context::with_current(|ctx| {
            let info = ctx.env().info();
            let head = head(event, (&info.name, &info.version), ids(ctx, span_of));
            self.format(scratch, event, left_out, inmost.as_ref(), &head);
        });
        if with_context.is_none() {
            let (name, version) = self.residents.only();
            let head = head(event, (&name, &version), Ids::default());
            self.format(scratch, event, left_out, inmost.as_ref(), &head);
        }
    }

    /// `inmost` is the span that the event happened in.
    fn format<S: for<'a> LookupSpan<'a>>(
        &self,
        scratch: &mut Scratch,
        event: &Event<'_>,
        left_out: u64,
        inmost: Option<&SpanRef<'_, S>>,
        head: &Head<'_>,
    ) {
        let Scratch { json, text, fields } = scratch;
        let redact = self.redact.as_ref();
        match self.form {
            Form::Json => {
                let mut line = json::Line::begin(json, head, redact);
                event.record(&mut line);
                for span in inmost.into_iter().flat_map(SpanRef::scope) {
                    if let Some(known) = span.extensions().get::<Fields>() {
                        line.extend(known);
                    }
                }
                if left_out > 0 {
                    line.number(LEFT_OUT, left_out);
                }
                self.sink.write_line(line.end());
            }
            Form::Text { colour } => {
                if left_out > 0 {
                    fields.set(LEFT_OUT, FieldValue::Plain(&left_out.to_string()));
                }
                // From the outermost in, then the event's own: the nearest wins.
                for span in inmost.into_iter().flat_map(|span| span.scope().from_root()) {
                    if let Some(known) = span.extensions().get::<Fields>() {
                        fields.extend(known);
                    }
                }
                event.record(fields);
                if let Some(redact) = redact {
                    fields.hide(Redact::SHOWN, |name| redact.hides(name));
                }
                format::text(text, head, fields, colour);
                self.sink.write_line(text.as_bytes());
            }
        }
    }
}

fn head<'a>(event: &Event<'_>, service: (&'a str, &'a str), ids: Ids<'a>) -> Head<'a> {
    Head { time: SystemTime::now(), metadata: event.metadata(), service, ids }
}

/// `span_of` says which exported span of a call the event happened in.
fn ids(ctx: &Context, span_of: impl Fn(SpanId) -> Option<SpanId>) -> Ids<'_> {
    let request = ctx.log_request_id();
    let trace = ctx.trace();
    // Background work has a trace of its own, which says nothing until it is passed on.
    let is_call = request.is_some() || trace.parent.is_some();
    let span = |call| span_of(call).unwrap_or(call);
    Ids {
        trace: is_call.then(|| (trace.trace_id, span(trace.span_id))),
        request,
        principal: ctx.principal(),
        tenant: ctx.tenant(),
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
        // Recorded before the span is locked: a value whose Debug logs would wait for itself.
        let mut new = Fields::default();
        values.record(&mut new);
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.extend(&new);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: layer::Context<'_, S>) {
        let repeat = self.repeats.as_ref().map(|repeats| repeats.decide(event.metadata()));
        let left_out = match repeat {
            Some(Repeat::LeaveOut) => return,
            Some(Repeat::Write { left_out }) => left_out,
            None => 0,
        };
        let write = |scratch: &mut Scratch| {
            self.write(scratch, event, left_out, &ctx);
            scratch.clear();
        };
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => write(&mut scratch),
            // A field whose Debug logs: it gets memory of its own.
            Err(_) => write(&mut Scratch::default()),
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
            span.in_scope(|| {
                tracing::warn!(
                    count = 2,
                    least = i64::MIN,
                    yes = true,
                    share = 0.25,
                    "hello {}",
                    "world"
                );
            });
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
        let numbers: [(_, serde_json::Value); 3] =
            [("least", i64::MIN.into()), ("yes", true.into()), ("share", 0.25.into())];
        for (name, value) in numbers {
            assert_eq!(lines[0][name], value);
        }
        assert!(lines[1].get("trace_id").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_warning_that_repeats_is_written_so_often_and_counted() {
        let (lines, repeats) = (Arc::new(Lines::default()), Arc::new(Repeats::new(3)));
        let layer = LogLayer::json(lines.clone()).with_repeats(repeats.clone());
        let _guard = tracing::subscriber::set_default(Registry::default().with(layer));
        let write = |n: u32| {
            tracing::warn!(n, "the shelf is empty");
            tracing::info!(n, "counted");
            tracing::error!(target: "access", n, "GET / 500");
        };
        (0..10).for_each(write);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        write(10);
        let lines = lines.0.lock();
        let of = |message: &str| lines.iter().filter(|line| line["message"] == message).count();
        assert_eq!((of("the shelf is empty"), of("counted"), of("GET / 500")), (4, 11, 11));
        let last = lines.iter().rfind(|line| line["level"] == "WARN").unwrap();
        assert_eq!((&last["n"], &last["log.left_out"]), (&10.into(), &7.into()));
        assert_eq!(repeats.left_out().get(), 7);
    }

    #[test]
    fn the_nearest_of_fields_of_one_name_wins() {
        /// Keeps the text, where a second key of the same name can be seen.
        #[derive(Default)]
        struct Raw(Mutex<String>);
        impl LineSink for Raw {
            fn write_line(&self, line: &[u8]) {
                self.0.lock().push_str(std::str::from_utf8(line).unwrap());
            }
        }
        let raw = Arc::new(Raw::default());
        let subscriber = Registry::default().with(LogLayer::json(raw.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::info_span!("outer", item = 1, other = 1).entered();
            let inner = tracing::info_span!("inner", other = 2).entered();
            tracing::info!(item = 3, "x");
            drop((inner, outer));
        });
        let line = raw.0.lock();
        assert_eq!(line.matches("\"item\":").count(), 1, "{line}");
        assert!(line.contains("\"item\":3") && line.contains("\"other\":2"), "{line}");
    }

    #[test]
    fn what_a_line_hides_and_whose_it_is_is_its_own_though_the_place_is_one() {
        let log = || tracing::info!(token = "s1", level = 9, n = 1, "x");
        let hides = |name: &str| Arc::new(Redact::new(&[name.to_owned()]));
        let with = |redact: Option<Arc<Redact>>, name: &'static str| {
            let (lines, residents) = (Arc::new(Lines::default()), Arc::<Residents>::default());
            residents.add(&ServiceInfo::new(name, "1"));
            let layer = LogLayer::json(lines.clone()).with_residents(residents);
            let layer = LogLayer { redact, ..layer };
            let subscriber = Registry::default().with(layer);
            tracing::subscriber::with_default(subscriber, || {
                log();
                log();
            });
            let lines = lines.0.lock();
            assert_eq!(lines[0]["field.level"], 9);
            assert_eq!((&lines[0]["token"], &lines[0]["n"]), (&lines[1]["token"], &lines[1]["n"]));
            assert_eq!(lines[1]["service.name"], name);
            [lines[0]["token"].to_string(), lines[0]["n"].to_string()]
        };
        let shown = format!("{:?}", Redact::SHOWN);
        assert_eq!(with(None, "a"), ["\"s1\"", "1"]);
        assert_eq!(with(Some(hides("token")), "a"), [&shown, "1"]);
        assert_eq!(with(Some(hides("n")), "b"), ["\"s1\"", &shown]);
        assert_eq!(with(None, "b"), ["\"s1\"", "1"]);
    }

    #[test]
    fn a_value_whose_debug_logs_does_not_lock_up() {
        struct Chatty;
        impl std::fmt::Debug for Chatty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                tracing::info!("inside");
                f.write_str("chatty")
            }
        }
        let lines = Arc::new(Lines::default());
        let subscriber = Registry::default().with(LogLayer::json(lines.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("work", late = tracing::field::Empty);
            span.in_scope(|| {
                span.record("late", tracing::field::debug(Chatty));
                tracing::info!("outside");
            });
        });
        let lines = lines.0.lock();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["inside", "outside"]);
        assert_eq!(lines[1]["late"], "chatty");
    }

    #[test]
    fn a_line_without_context_is_the_only_services_own() {
        let (lines, residents) = (Arc::new(Lines::default()), Arc::<Residents>::default());
        let layer = LogLayer::json(lines.clone()).with_residents(residents.clone());
        let _guard = tracing::subscriber::set_default(Registry::default().with(layer));
        tracing::info!("before there is one");
        residents.add(&ServiceInfo::new("items", "1.2.3"));
        tracing::info!("a library speaks");
        residents.add(&ServiceInfo::new("greetings", "1.2.3"));
        tracing::info!("whose is it?");
        let lines = lines.0.lock();
        let names: Vec<_> = lines.iter().map(|line| &line["service.name"]).collect();
        assert_eq!(names, ["", "items", ""]);
        assert_eq!(lines[1]["service.version"], "1.2.3");
    }
}
