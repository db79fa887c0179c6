//! One log event as one line of JSON, written while its fields are visited: a line is no
//! list of values first, and costs no memory of its own once the thread has some.
//!
//! Newlines and control characters in values are escaped, so that no input can forge a line or
//! colour a terminal. Of two fields of one name the first that comes is kept: the event's own
//! come first, then those of the spans around it, from the inside out.

use std::{
    fmt::{self, Write as _},
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::field::{Field, Visit};

use super::{
    callsite::{Callsite, Callsites, Key, OWN},
    format::{FieldValue, Fields, Head},
    redact::Redact,
};
use crate::context::LogId;

/// What a thread keeps between lines.
#[derive(Default)]
pub(super) struct Kept {
    out: Vec<u8>,
    /// Names of the fields that are on the line, but for those of `seen`.
    names: Vec<&'static str>,
    clock: Clock,
    callsites: Callsites,
}

impl Kept {
    /// Forgets the line, and all memory beyond so many bytes.
    pub(super) fn clear(&mut self, kept: usize) {
        self.out.clear();
        self.out.shrink_to(kept);
        self.names.clear();
    }
}

/// A line in the making.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    names: &'a mut Vec<&'static str>,
    /// The fields of the callsite that are on the line, a bit for each.
    seen: u64,
    callsite: &'a Callsite,
    head: &'a Head<'a>,
    /// Whether all of the head is written: the message stands in the middle of it, where
    /// people look for it.
    is_headed: bool,
    has_message: bool,
}

impl<'a> Line<'a> {
    pub(super) fn begin(
        kept: &'a mut Kept,
        head: &'a Head<'a>,
        redact: Option<&'a Arc<Redact>>,
    ) -> Line<'a> {
        let Kept { out, names, clock, callsites } = kept;
        let callsite = callsites.find(head.metadata, head.service, redact);
        out.extend_from_slice(clock.write(head.time));
        out.extend_from_slice(&callsite.level);
        Line { out, names, seen: 0, callsite, head, is_headed: false, has_message: false }
    }

    /// Adds the fields of a span, without its message.
    pub(super) fn extend(&mut self, fields: &Fields) {
        for (name, value) in fields.iter() {
            match value {
                FieldValue::Text(text) => self.text(name, text),
                FieldValue::Plain(text) => {
                    self.put(name, |out| out.extend_from_slice(text.as_bytes()));
                }
            }
        }
    }

    /// Adds a number.
    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        self.put(name, |out| decimal(out, value));
    }

    /// The whole line, with its line feed.
    pub(super) fn end(mut self) -> &'a [u8] {
        if !self.has_message {
            self.out.extend_from_slice(b",\"message\":\"\"");
        }
        self.rest_of_head();
        self.out.extend_from_slice(b"}\n");
        self.out
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.put(name, |out| quoted(out, text));
    }

    /// Adds a field of the event that is no text.
    fn field(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        match self.plain(field) {
            Some(key) => {
                self.out.extend_from_slice(&key[..key.len() - 1]);
                write(self.out);
            }
            None => self.put(field.name(), write),
        }
    }

    /// Adds a text of the event, by what writes it between its quotes.
    fn text_field(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>)) {
        match self.plain(field) {
            Some(key) => {
                self.out.extend_from_slice(key);
                write(self.out);
                self.out.push(b'"');
            }
            None => self.put(field.name(), |out| {
                out.push(b'"');
                write(out);
                out.push(b'"');
            }),
        }
    }

    /// What stands before the text of a field, if it is one of which that is known.
    fn plain(&mut self, field: &Field) -> Option<&'a [u8]> {
        let callsite = self.callsite;
        let Some(Key::Plain(key)) = callsite.keys.get(field.index()) else { return None };
        self.rest_of_head();
        self.seen |= 1 << field.index();
        Some(key)
    }

    fn has(&self, name: &str) -> bool {
        let is_seen = |field: &Field| self.seen & 1_u64.unbounded_shl(field.index() as u32) != 0;
        let mut seen = self.callsite.metadata.fields().iter().filter(is_seen);
        self.names.contains(&name) || seen.any(|field| field.name() == name)
    }

    /// Adds a field of any name.
    fn put(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        if name == "message" {
            if std::mem::replace(&mut self.has_message, true) {
                return;
            }
            self.out.extend_from_slice(b",\"message\":");
        } else {
            self.rest_of_head();
            if self.has(name) {
                return;
            }
            self.names.push(name);
            let is_taken = OWN.contains(&name) || self.head.ids.have(name);
            self.out.extend_from_slice(if is_taken { b",\"field." } else { b",\"" });
            escaped(self.out, name);
            self.out.extend_from_slice(b"\":");
            if self.callsite.redact.as_ref().is_some_and(|redact| redact.hides(name)) {
                return quoted(self.out, Redact::SHOWN);
            }
        }
        write(self.out);
    }

    #[inline]
    fn rest_of_head(&mut self) {
        if !std::mem::replace(&mut self.is_headed, true) {
            self.write_rest_of_head();
        }
    }

    fn write_rest_of_head(&mut self) {
        let (out, ids) = (&mut *self.out, &self.head.ids);
        out.extend_from_slice(&self.callsite.head);
        match ids.request {
            Some(LogId::Hex(hex)) => {
                let mut text = *b",\"request_id\":\"01234567890123456789012345678901\"";
                text[15..47].copy_from_slice(hex);
                out.extend_from_slice(&text);
            }
            Some(LogId::Text(id)) => {
                out.extend_from_slice(b",\"request_id\":");
                quoted(out, id);
            }
            None => {}
        }
        for (name, id) in
            [(&b",\"enduser.id\":"[..], ids.principal), (b",\"tenant.id\":", ids.tenant)]
        {
            if let Some(id) = id {
                out.extend_from_slice(name);
                quoted(out, id);
            }
        }
        if let Some((trace, span)) = ids.trace {
            // In one piece: each has a price.
            let mut text = *b",\"trace_id\":\"01234567890123456789012345678901\",\"span_id\":\"0123456789012345\"";
            text[13..45].copy_from_slice(&trace.hex());
            text[58..74].copy_from_slice(&span.hex());
            out.extend_from_slice(&text);
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text_field(field, |out| {
            let start = out.len();
            // A Debug that fails leaves what it has said.
            let _ = write!(Unescaped(out), "{value:?}");
            if !is_plain(&out[start..]) {
                let text = String::from_utf8_lossy(&out[start..]).into_owned();
                out.truncate(start);
                escaped(out, &text);
            }
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_plain(value.as_bytes()) {
            return self.text_field(field, |out| escaped(out, value));
        }
        self.text_field(field, |out| {
            out.extend_from_slice(value.as_bytes());
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, |out| {
            if value < 0 {
                out.push(b'-');
            }
            decimal(out, value.unsigned_abs());
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.field(field, |out| decimal(out, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.field(field, |out| out.extend_from_slice(text));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.field(field, |out| match thousandths(value) {
                Some(thousandths) => decimal_thousandths(out, thousandths),
                // A number can be written, and memory does not fail.
                None => drop(serde_json::to_writer(out, &value)),
            });
        } else {
            // JSON has no NaN and no infinity.
            self.field(field, |out| quoted(out, &value.to_string()));
        }
    }
}

/// Writes what is escaped afterwards, all at once: what a formatter says comes in small pieces.
struct Unescaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Unescaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

pub(super) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

fn escaped(out: &mut Vec<u8>, text: &str) {
    if is_plain(text.as_bytes()) {
        return out.extend_from_slice(text.as_bytes());
    }
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if c.is_control() => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Whether it is ASCII with nothing to escape, as nearly all text is. Eight bytes at a time: a line
/// has hundreds, and byte by byte this was a fifth of its cost.
fn is_plain(text: &[u8]) -> bool {
    // The last ones once more, in place of a rest.
    let odd = if let Some(last) = text.last_chunk() {
        let last = odd(u64::from_ne_bytes(*last));
        text.as_chunks().0.iter().fold(last, |any, bytes| any | odd(u64::from_ne_bytes(*bytes)))
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        odd(u64::from(u32::from_ne_bytes(*first)) | u64::from(u32::from_ne_bytes(*last)) << 32)
    } else {
        odd(text.iter().fold(ONES * u64::from(b' '), |bytes, byte| bytes << 8 | u64::from(*byte)))
    };
    odd == 0
}

/// A one in each byte.
const ONES: u64 = u64::MAX / 0xff;

/// Not zero if one of these bytes is no ASCII, a control character, a quote or a backslash: by the
/// tests for a byte that is zero, less or more (Anderson, Bit Twiddling Hacks).
#[inline]
fn odd(bytes: u64) -> u64 {
    let less = |bytes: u64, than: u64| bytes.wrapping_sub(ONES * than) & !bytes;
    let is = |byte: u8| less(bytes ^ (ONES * u64::from(byte)), 1);
    // DEL, the last of ASCII.
    let more = bytes.wrapping_add(ONES) | bytes;
    (less(bytes, 0x20) | is(b'"') | is(b'\\') | more) & (ONES << 7)
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[start..]);
        }
    }
}

/// How many thousandths a value is, if it is so many and not too many to be exact: then its digits
/// are those of an integer, which take a third of the time. Durations in milliseconds are.
fn thousandths(value: f64) -> Option<u64> {
    const MOST: f64 = 1e12;
    if !(0.0..MOST).contains(&value) || value.is_sign_negative() {
        return None;
    }
    // To the nearest, without the call that `round` is.
    let count = (value * 1e3 + 0.5) as u64;
    (count as f64 / 1e3 == value).then_some(count)
}

fn decimal_thousandths(out: &mut Vec<u8>, thousandths: u64) {
    decimal(out, thousandths / 1000);
    let rest = (thousandths % 1000) as u16;
    let [a, b, c] = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
    let shown = if c != b'0' {
        4
    } else if b != b'0' {
        3
    } else {
        2
    };
    out.extend_from_slice(&[b'.', a, b, c][..shown]);
}

/// Writes the beginning of lines, with their times in RFC 3339; keeps the second that it wrote last.
struct Clock {
    second: Option<u64>,
    text: [u8; CLOCK.len()],
}

const CLOCK: &[u8; 41] = b"{\"timestamp\":\"1970-01-01T00:00:00.000000Z";

impl Default for Clock {
    fn default() -> Clock {
        Clock { second: None, text: *CLOCK }
    }
}

impl Clock {
    fn write(&mut self, time: SystemTime) -> &[u8] {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let text = humantime::format_rfc3339_seconds(time);
            // What does not fit is the zone. Before 1970 and after the year 9999 there are no logs.
            let _ = io::Write::write_fmt(&mut &mut self.text[14..33], format_args!("{text}"));
        }
        let mut micros = since.subsec_micros();
        for digit in self.text[34..40].iter_mut().rev() {
            *digit = b'0' + (micros % 10) as u8;
            micros /= 10;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{
        super::{callsite, format::Ids},
        *,
    };
    use crate::{SpanId, TraceId};

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn traced() -> Ids<'static> {
        let trace = (TraceId::parse(TRACE).unwrap(), SpanId::parse("b7ad6b7169203331").unwrap());
        Ids { trace: Some(trace), ..Ids::default() }
    }

    fn head(ids: Ids<'_>) -> Head<'_> {
        Head { time: UNIX_EPOCH, metadata: callsite::bare(), service: ("items", "1.0"), ids }
    }

    fn line(
        ids: Ids<'_>,
        redact: Option<&Arc<Redact>>,
        write: impl FnOnce(&mut Line<'_>),
    ) -> String {
        let (mut kept, head) = (Kept::default(), head(ids));
        let mut line = Line::begin(&mut kept, &head, redact);
        write(&mut line);
        String::from_utf8(line.end().to_vec()).unwrap()
    }

    fn parsed(line: &str) -> serde_json::Value {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn any_text_is_held_in_one_line() {
        let nasty = "a\"b\\c\nd\re\tf\u{1b}[31mg\u{0}é\u{85}";
        let out = line(Ids { request: Some(LogId::Text(nasty)), ..traced() }, None, |line| {
            line.text("message", nasty);
            line.number("n", 3);
            line.text("t", nasty);
        });
        assert_eq!(out.matches('\n').count(), 1);
        assert!(!out.trim_end().chars().any(char::is_control), "{out:?}");
        let line = parsed(&out);
        for key in ["message", "t", "request_id"] {
            assert_eq!(line[key], nasty, "{key}");
        }
        assert_eq!((&line["n"], &line["trace_id"]), (&3.into(), &TRACE.into()));
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!((&line["service.name"], &line["target"]), (&"items".into(), &"t".into()));
    }

    #[test]
    fn a_field_named_like_a_standard_one_is_set_apart() {
        let write = |line: &mut Line<'_>| {
            line.text("level", "9");
            line.text("message", "m");
            line.text("target", "x");
            line.text("trace_id", "b");
        };
        let out = line(traced(), None, write);
        for key in ["level", "target", "trace_id", "message"] {
            assert_eq!(out.matches(&format!("\"{key}\":")).count(), 1, "{out}");
        }
        let with_ids = parsed(&out);
        assert_eq!((&with_ids["level"], &with_ids["field.level"]), (&"INFO".into(), &"9".into()));
        assert_eq!(with_ids["field.trace_id"], "b");
        // Where the line has no trace of its own, the field has the name for itself.
        assert_eq!(parsed(&line(Ids::default(), None, write))["trace_id"], "b");
    }

    #[test]
    fn what_is_hidden_is_nowhere_in_the_line() {
        let redact = Arc::new(Redact::new(&["token".to_owned()]));
        let out = line(Ids::default(), Some(&redact), |line| {
            line.text("a.token", "s1");
            line.number("token", 42);
            line.text("b", "shown");
        });
        let line = parsed(&out);
        let hidden: serde_json::Value = Redact::SHOWN.into();
        assert_eq!(
            (&line["a.token"], &line["token"], &line["b"]),
            (&hidden, &hidden, &"shown".into())
        );
        assert!(!out.contains("s1") && !out.contains("42"), "{out}");
    }

    #[test]
    fn a_line_without_a_message_has_an_empty_one_and_numbers_are_numbers() {
        let out = line(Ids::default(), None, |line| {
            line.number("zero", 0);
            line.number("most", u64::MAX);
        });
        let line = parsed(&out);
        assert_eq!(line["message"], "");
        assert_eq!((&line["zero"], &line["most"]), (&0.into(), &u64::MAX.into()));
    }

    #[test]
    fn times_have_microseconds_also_within_one_second() {
        let mut clock = Clock::default();
        for (micros, expected) in [
            (1_795_266_389_000_001, "2026-11-21T13:06:29.000001Z"),
            (1_795_266_389_987_654, "2026-11-21T13:06:29.987654Z"),
            (1_795_266_390_000_000, "2026-11-21T13:06:30.000000Z"),
        ] {
            let written = clock.write(UNIX_EPOCH + Duration::from_micros(micros)).to_vec();
            let expected = format!("{{\"timestamp\":\"{expected}");
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }

    #[test]
    fn numbers_are_what_serde_writes() {
        let written = |value: f64| {
            let mut out = Vec::new();
            if let Some(thousandths) = thousandths(value) {
                decimal_thousandths(&mut out, thousandths);
            }
            String::from_utf8(out).unwrap()
        };
        let exact = [0.0, 1.0, 0.029, 0.5, 0.25, 0.001, 12.34, 999.999, 1e9, 123_456_789_012.345];
        for value in exact {
            assert_eq!(written(value), serde_json::to_string(&value).unwrap());
        }
        for other in [-0.0, -1.5, 0.0001, 1.0 / 3.0, 1e15, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(written(other), "", "{other}");
        }
    }

    proptest! {
        #[test]
        fn thousandths_are_what_serde_writes(count in 0_u64..1_000_000_000_000_000) {
            let value = count as f64 / 1e3;
            let mut out = Vec::new();
            decimal_thousandths(&mut out, thousandths(value).unwrap());
            let written = String::from_utf8(out).unwrap();
            prop_assert_eq!(written.parse::<f64>().unwrap(), value);
            prop_assert_eq!(written, serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn many_bytes_at_a_time_are_judged_as_one_by_one(text: Vec<u8>, at in 0..40_usize, byte: u8) {
            let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
            prop_assert_eq!(is_plain(&text), text.iter().all(plain));
            let mut nearly = [b'a'; 40];
            nearly[at] = byte;
            prop_assert_eq!(is_plain(&nearly), plain(&byte));
        }
    }
}
