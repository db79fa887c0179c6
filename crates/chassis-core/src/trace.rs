//! Trace identity after W3C Trace Context, and the span records that leave the process.
//!
//! Ids are made or read once per call and travel in the [`Context`]. Whether a call is
//! sampled is decided before anything is recorded, so an unsampled call carries its ids and
//! costs nothing more. A [`Span`] is not a guard that changes what is "current"; it is one
//! record, made at the edge of a call, that is handed to the exporter when it is dropped.
//!
//! Source: <https://www.w3.org/TR/trace-context-2/>.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::Context;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// A new random id; never all zeros, which W3C forbids.
            #[must_use]
            pub fn random() -> Self {
                loop {
                    let mut bytes = [0u8; $bytes];
                    fastrand::fill(&mut bytes);
                    if bytes != [0; $bytes] {
                        return Self(bytes);
                    }
                }
            }

            /// Reads lower-case hex of the full length; all zeros is refused.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let text = text.as_bytes();
                if text.len() != $bytes * 2 {
                    return None;
                }
                let mut bytes = [0u8; $bytes];
                for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
                    *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
                }
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            /// As lower-case hex.
            pub(crate) fn hex(self) -> [u8; $bytes * 2] {
                let mut text = [0u8; $bytes * 2];
                hex(&self.0, &mut text);
                text
            }

            /// The id as bytes, most significant first.
            #[must_use]
            pub fn to_bytes(self) -> [u8; $bytes] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// Names a trace: 16 bytes, shown as 32 lower-case hex digits.
    TraceId, 16
);
id!(
    /// Names a span in its trace: 8 bytes, shown as 16 lower-case hex digits.
    SpanId, 8
);

/// Writes two lower-case digits for each byte.
fn hex(bytes: &[u8], text: &mut [u8]) {
    /// Both digits of each byte: a log line has forty of them.
    const PAIRS: [[u8; 2]; 256] = {
        let (digits, mut pairs, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
        while byte < pairs.len() {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = PAIRS[usize::from(*byte)];
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The flags of a `traceparent`; all others are set to zero, as the standard asks for.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Where in which trace a call stands, and whether it is sampled.
#[derive(Clone, Debug)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of this call.
    pub span_id: SpanId,
    /// The span that caused this one, here or in another process.
    pub parent: Option<SpanId>,
    /// Whether spans of this trace are recorded; decided at its head.
    pub sampled: bool,
    /// Whether the trace id is known to be random, so that samplers may decide by it.
    pub random: bool,
    /// `tracestate` of other vendors, passed on untouched.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// The root of a new trace.
    #[must_use]
    pub fn root(sampled: bool) -> TraceContext {
        TraceContext {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent: None,
            sampled,
            random: true,
            state: None,
        }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> TraceContext {
        TraceContext {
            trace_id: self.trace_id,
            span_id: SpanId::random(),
            parent: Some(self.span_id),
            sampled: self.sampled,
            random: self.random,
            state: self.state.clone(),
        }
    }

    /// Reads a `traceparent` header strictly: a malformed one is no parent at all.
    ///
    /// A version above 00 is read by its first four fields, as the standard asks for.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<TraceContext> {
        if !traceparent.is_ascii() || traceparent.len() < 55 {
            return None;
        }
        let (head, rest) = traceparent.split_at(55);
        let mut fields = head.split('-');
        let version = byte(fields.next()?)?;
        let trace_id = TraceId::parse(fields.next()?)?;
        let span_id = SpanId::parse(fields.next()?)?;
        let flags = byte(fields.next()?)?;
        let extended = version > 0 && rest.starts_with('-');
        if version == 0xff || fields.next().is_some() || !(rest.is_empty() || extended) {
            return None;
        }
        Some(TraceContext {
            trace_id,
            span_id,
            parent: None,
            sampled: flags & SAMPLED != 0,
            random: flags & RANDOM != 0,
            state: None,
        })
    }

    /// The `traceparent` header that makes this span the parent of the next.
    #[must_use]
    pub fn traceparent(&self) -> String {
        // By hand, since each outgoing call writes one: the formatter takes ten times as long.
        let mut text = *b"00-................................-................-00";
        let flags = if self.sampled { SAMPLED } else { 0 } | if self.random { RANDOM } else { 0 };
        hex(&self.trace_id.0, &mut text[3..35]);
        hex(&self.span_id.0, &mut text[36..52]);
        hex(&[flags], &mut text[53..]);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Most members of a `tracestate`.
const MAX_STATE_MEMBERS: usize = 32;
/// Longest `tracestate` that is passed on, in bytes: the standard asks for at least 512.
const MAX_STATE: usize = 512;
/// Members longer than this are the first to be left out of one that is too long.
const LONG_MEMBER: usize = 128;

/// Reads a `tracestate` header as it is passed on; none if a member of it is malformed or if
/// there are too many (the standard then drops all of it), or if it is empty.
pub(crate) fn parse_state(header: &str) -> Option<Arc<str>> {
    let all = header.split(',').map(|member| member.trim_matches([' ', '\t']));
    let mut members: Vec<&str> = all.filter(|member| !member.is_empty()).collect();
    if members.len() > MAX_STATE_MEMBERS || !members.iter().all(|member| is_state_member(member)) {
        return None;
    }
    let length = |members: &[&str]| members.iter().map(|m| m.len() + 1).sum::<usize>();
    if length(&members) > MAX_STATE + 1 {
        members.retain(|member| member.len() <= LONG_MEMBER);
    }
    while length(&members) > MAX_STATE + 1 {
        members.pop();
    }
    (!members.is_empty()).then(|| members.join(",").into())
}

/// `key=value`: the key begins with a lower-case letter or digit.
fn is_state_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = |byte: u8| is_first(&byte) || b"_-*/@".contains(&byte);
    let is_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    key.len() <= 256
        && key.as_bytes().first().is_some_and(is_first)
        && key.bytes().all(is_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(is_value)
}

fn byte(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [high, low] => Some((nibble(*high)? << 4) | nibble(*low)?),
        _ => None,
    }
}

/// Which side of a call a span stands for, as OpenTelemetry names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work inside the process.
    Internal,
    /// A call received.
    Server,
    /// A call made.
    Client,
    /// A message sent.
    Producer,
    /// A message handled.
    Consumer,
}

/// A finished span, as the exporter gets it.
#[derive(Clone, Debug)]
pub struct SpanRecord {
    /// Name of the service that made it.
    pub service: Cow<'static, str>,
    /// Version of its code.
    pub version: Cow<'static, str>,
    /// Its place in the trace.
    pub trace: TraceContext,
    /// Which side of the call.
    pub kind: SpanKind,
    /// What was done, with low cardinality, such as `GET /items/{id}`.
    pub name: Cow<'static, str>,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Attributes after the OpenTelemetry semantic conventions.
    pub attributes: Vec<(&'static str, String)>,
    /// Spans of other traces that this one continues, such as the appender of a message.
    pub links: Vec<TraceContext>,
    /// Set if the work failed: why.
    pub error: Option<String>,
}

/// Takes finished spans. It must not block: it is called where the span ends.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one span, or drops it if there is no room.
    fn export(&self, span: SpanRecord);

    /// Sends what waits; more may follow. May block for a few seconds.
    fn flush(&self) {}
}

/// A span in the making; dropping it finishes it.
///
/// It does nothing, and costs one branch, where the context is not sampled or nobody
/// exports spans.
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Recording>>);

struct Recording {
    record: SpanRecord,
    started: Instant,
    sink: Arc<dyn SpanSink>,
}

impl Span {
    /// Begins the span that the context's ids name.
    pub fn start(ctx: &Context, kind: SpanKind, name: impl Into<Cow<'static, str>>) -> Span {
        let trace = ctx.trace();
        if !trace.sampled {
            return Span(None);
        }
        let Some(sink) = ctx.env().span_sink() else { return Span(None) };
        Span(Some(Box::new(Recording {
            record: SpanRecord {
                service: ctx.env().info().name.clone(),
                version: ctx.env().info().version.clone(),
                trace: trace.clone(),
                kind,
                name: name.into(),
                start: SystemTime::now(),
                duration: Duration::ZERO,
                attributes: Vec::new(),
                links: Vec::new(),
                error: None,
            },
            started: Instant::now(),
            sink,
        })))
    }

    /// Whether anything is recorded: ask before computing an expensive attribute.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// Sets an attribute; keys follow the OpenTelemetry semantic conventions.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        if let Some(recording) = &mut self.0 {
            recording.record.attributes.push((key, value.into()));
        }
    }

    /// Gives the span a better name than the one known at its start, such as the route.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(recording) = &mut self.0 {
            recording.record.name = name.into();
        }
    }

    /// Links another span, such as the one that appended the message being handled.
    pub fn link(&mut self, other: TraceContext) {
        if let Some(recording) = &mut self.0 {
            recording.record.links.push(other);
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, message: impl Into<String>) {
        if let Some(recording) = &mut self.0 {
            recording.record.error = Some(message.into());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            let Recording { mut record, started, sink } = *recording;
            record.duration = started.elapsed();
            sink.export(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_traceparent_reads_back() {
        let trace = TraceContext::parse(VALID).unwrap();
        assert!(trace.sampled);
        assert_eq!(trace.traceparent(), VALID);
        let child = trace.child();
        assert_eq!(child.trace_id, trace.trace_id);
        assert_eq!(child.parent, Some(trace.span_id));
    }

    #[test]
    fn malformed_traceparents_are_refused() {
        for bad in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203é1-01",
        ] {
            assert!(TraceContext::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn known_flags_go_on_and_unknown_ones_do_not() {
        for (given, sent) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03")]
        {
            let trace = TraceContext::parse(&VALID.replace("-01", &format!("-{given}"))).unwrap();
            assert!(trace.child().traceparent().ends_with(&format!("-{sent}")), "{given}");
        }
        assert!(TraceContext::root(false).traceparent().ends_with("-02"));
    }

    #[test]
    fn a_trace_state_is_passed_on_whole_or_by_whole_members() {
        let read = |text: &str| parse_state(text).as_deref().map(str::to_owned);
        assert_eq!(read("a=1,\tb@c/d*-_=x y , ,2z=;").unwrap(), "a=1,b@c/d*-_=x y,2z=;");
        let long_key = "k".repeat(257);
        for bad in ["", " ,", "a", "=1", "a=", "a=b=c", "-a=1", "a b=1", &format!("{long_key}=1")] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let many =
            |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&many(32)), Some(many(32)));
        assert_eq!(read(&many(33)), None);
        // Too long: first the long members go, then those at the end.
        let [long, short] = [200, 100].map(|length| "v".repeat(length));
        let given = format!("a={short},b={long},c={short},d={short},e={short},f={short}");
        let kept = format!("a={short},c={short},d={short},e={short}");
        assert_eq!(read(&given), Some(kept));
    }

    #[test]
    fn a_later_version_is_read_by_its_first_fields() {
        let later = VALID.replacen("00-", "01-", 1) + "-extra";
        assert_eq!(TraceContext::parse(&later).unwrap().traceparent(), VALID);
    }
}
