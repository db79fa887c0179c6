//! What a log line is made of, and a line for people.
//!
//! A line is a line: newlines and control characters in values are escaped, so that no input
//! can forge a line or colour a terminal.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    time::SystemTime,
};

use tracing::{Level, Metadata, field::Field};

use crate::{SpanId, TraceId, context::LogId};

/// The fields of an event or a span, as they were recorded. Their values stand one behind the
/// other in one text, so that a line costs no memory of its own once the text has grown.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
    message: Range<usize>,
    others: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: &'static str,
    /// Where its value stands.
    at: Range<usize>,
    /// A number or a boolean, ready to print.
    is_plain: bool,
}

/// A value with the JSON type that it will have.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldValue<'a> {
    Text(&'a str),
    /// A number or a boolean, ready to print.
    Plain(&'a str),
}

impl Fields {
    /// Writes a value; the later one of a name wins.
    fn write(&mut self, name: &'static str, is_plain: bool, value: fmt::Arguments<'_>) {
        let start = self.text.len();
        let _ = self.text.write_fmt(value);
        let at = start..self.text.len();
        if name == "message" {
            self.message = at;
            return;
        }
        let entry = Entry { name, at, is_plain };
        match self.others.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = entry,
            None => self.others.push(entry),
        }
    }

    /// Sets a field; the later value wins.
    pub(super) fn set(&mut self, name: &'static str, value: FieldValue<'_>) {
        match value {
            FieldValue::Text(text) => self.write(name, false, format_args!("{text}")),
            FieldValue::Plain(text) => self.write(name, true, format_args!("{text}")),
        }
    }

    /// Takes over the fields of a span, without its message.
    pub(super) fn extend(&mut self, other: &Fields) {
        other.iter().for_each(|(name, value)| self.set(name, value));
    }

    /// Shows something else in place of the values of some fields.
    pub(super) fn hide(&mut self, shown: &'static str, hides: impl Fn(&str) -> bool) {
        let mut at = None;
        for entry in self.others.iter_mut().filter(|entry| hides(entry.name)) {
            entry.is_plain = false;
            entry.at = at
                .get_or_insert_with(|| {
                    let start = self.text.len();
                    self.text.push_str(shown);
                    start..self.text.len()
                })
                .clone();
        }
    }

    /// Forgets everything but at most this much of its memory.
    pub(super) fn clear(&mut self, kept: usize) {
        self.text.clear();
        self.text.shrink_to(kept);
        self.message = 0..0;
        self.others.clear();
    }

    fn message(&self) -> &str {
        &self.text[self.message.clone()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, FieldValue<'_>)> {
        self.others.iter().map(|Entry { name, at, is_plain }| {
            let text = &self.text[at.clone()];
            (*name, if *is_plain { FieldValue::Plain(text) } else { FieldValue::Text(text) })
        })
    }
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field.name(), false, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field.name(), false, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field.name(), true, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field.name(), true, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field.name(), true, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.write(field.name(), value.is_finite(), format_args!("{value}"));
    }
}

/// What a line says beside its own fields.
pub(super) struct Head<'a> {
    pub time: SystemTime,
    pub metadata: &'static Metadata<'static>,
    /// Name and version of the service.
    pub service: (&'a str, &'a str),
    pub ids: Ids<'a>,
}

/// The ids of the ambient context, as far as there are any.
#[derive(Clone, Copy, Default)]
pub(super) struct Ids<'a> {
    pub trace: Option<(TraceId, SpanId)>,
    pub request: Option<LogId<'a>>,
    pub principal: Option<&'a str>,
    pub tenant: Option<&'a str>,
}

impl Ids<'_> {
    /// The names under which they stand in a line.
    pub(super) const NAMES: [&'static str; 5] =
        ["trace_id", "span_id", "request_id", "enduser.id", "tenant.id"];

    pub(super) fn have(&self, name: &str) -> bool {
        match name {
            "trace_id" | "span_id" => self.trace.is_some(),
            "request_id" => self.request.is_some(),
            "enduser.id" => self.principal.is_some(),
            "tenant.id" => self.tenant.is_some(),
            _ => false,
        }
    }
}

/// Appends a line for people: time, level, service, message, fields, short trace id.
pub(super) fn text(out: &mut String, head: &Head<'_>, fields: &Fields, colour: bool) {
    let time = humantime::format_rfc3339_millis(head.time).to_string();
    let clock = time.get(11..23).unwrap_or(&time);
    let (level, paint) = match *head.metadata.level() {
        Level::ERROR => ("ERROR", "\x1b[31m"),
        Level::WARN => (" WARN", "\x1b[33m"),
        Level::INFO => (" INFO", "\x1b[32m"),
        Level::DEBUG => ("DEBUG", "\x1b[34m"),
        Level::TRACE => ("TRACE", "\x1b[35m"),
    };
    let (paint, dim, plain) = if colour { (paint, "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    let _ = write!(
        out,
        "{dim}{clock}{plain} {paint}{level}{plain} {dim}{:<12}{plain} ",
        head.service.0
    );
    visible(out, fields.message());
    for (name, value) in fields.iter() {
        let _ = write!(out, " {dim}{name}={plain}");
        match value {
            FieldValue::Text(text) => visible(out, text),
            FieldValue::Plain(text) => out.push_str(text),
        }
    }
    if let Some((trace, _)) = head.ids.trace {
        let [a, b, c, d, ..] = trace.to_bytes();
        let _ = write!(out, " {dim}trace={a:02x}{b:02x}{c:02x}{d:02x}{plain}");
    }
    out.push('\n');
}

fn visible(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::callsite, *};

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn traced() -> Ids<'static> {
        let trace = (TraceId::parse(TRACE).unwrap(), SpanId::parse("b7ad6b7169203331").unwrap());
        Ids { trace: Some(trace), ..Ids::default() }
    }

    fn fields(message: &str, others: &[(&'static str, FieldValue<'_>)]) -> Fields {
        let mut fields = Fields::default();
        fields.set("message", FieldValue::Text(message));
        others.iter().for_each(|(name, value)| fields.set(name, *value));
        fields
    }

    fn head(ids: Ids<'_>) -> Head<'_> {
        let time = SystemTime::UNIX_EPOCH;
        Head { time, metadata: callsite::bare(), service: ("items", "1.0"), ids }
    }

    #[test]
    fn what_is_hidden_is_nowhere_and_nothing_of_one_line_stands_in_the_next() {
        let mut fields =
            fields("m", &[("a", FieldValue::Text("s1")), ("n", FieldValue::Plain("42"))]);
        fields.hide("***", |name| name != "a");
        let mut out = String::new();
        text(&mut out, &head(Ids::default()), &fields, false);
        assert!(out.ends_with(" m a=s1 n=***\n"), "{out}");
        fields.clear(1024);
        fields.set("b", FieldValue::Plain("2"));
        out.clear();
        text(&mut out, &head(Ids::default()), &fields, false);
        assert!(out.ends_with("items         b=2\n"), "{out}");
    }

    #[test]
    fn text_cannot_forge_a_line_or_colour_a_terminal() {
        let mut out = String::new();
        let fields = fields("a\n\u{1b}[31mb", &[]);
        text(&mut out, &head(traced()), &fields, false);
        assert_eq!(out, "00:00:00.000  INFO items        a\\n\\u{1b}[31mb trace=0af76519\n");
    }
}
