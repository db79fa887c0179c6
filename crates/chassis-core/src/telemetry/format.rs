//! One log event as one line: pure functions from fields to bytes.
//!
//! A line is a line: newlines and control characters in values are escaped in both forms, so
//! that no input can forge a line or colour a terminal.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};

use tracing::{Level, field::Field};

/// The fields of an event or a span, as they were recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub message: String,
    pub others: Vec<(&'static str, FieldValue)>,
}

/// A value with the JSON type that it will have.
#[derive(Clone, Debug)]
pub(super) enum FieldValue {
    Text(String),
    /// A number or a boolean, ready to print.
    Plain(String),
}

impl Fields {
    fn put(&mut self, field: &Field, value: FieldValue) {
        match (field.name(), value) {
            ("message", FieldValue::Text(text) | FieldValue::Plain(text)) => self.message = text,
            (name, value) => self.set(name, value),
        }
    }

    /// Sets a field; the later value wins.
    pub(super) fn set(&mut self, name: &'static str, value: FieldValue) {
        match self.others.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.others.push((name, value)),
        }
    }
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, FieldValue::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, FieldValue::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        let plain = value.is_finite();
        let text = value.to_string();
        self.put(field, if plain { FieldValue::Plain(text) } else { FieldValue::Text(text) });
    }
}

/// What a line says beside its own fields.
pub(super) struct Head<'a> {
    pub time: SystemTime,
    pub level: Level,
    pub target: &'a str,
    /// Name and version of the service.
    pub service: (&'a str, &'a str),
    /// Ids of the ambient context, by field name.
    pub ids: &'a [(&'static str, String)],
}

/// What every line says of itself. A field of that name is shown as `field.<name>`, because
/// of two keys of one name a reader of JSON keeps one, and nobody knows which.
const OWN: [&str; 6] =
    ["timestamp", "level", "message", "target", "service.name", "service.version"];

/// Appends a line of JSON.
pub(super) fn json(out: &mut String, head: &Head<'_>, fields: &Fields) {
    let _ = write!(
        out,
        "{{\"timestamp\":\"{}\",\"level\":\"{}\",\"message\":",
        humantime::format_rfc3339_micros(head.time),
        head.level
    );
    json_text(out, &fields.message);
    out.push_str(",\"target\":");
    json_text(out, head.target);
    out.push_str(",\"service.name\":");
    json_text(out, head.service.0);
    out.push_str(",\"service.version\":");
    json_text(out, head.service.1);
    for (name, value) in head.ids {
        json_name(out, name);
        json_text(out, value);
    }
    for (name, value) in &fields.others {
        if OWN.contains(name) || head.ids.iter().any(|(id, _)| id == name) {
            json_name(out, &format!("field.{name}"));
        } else {
            json_name(out, name);
        }
        match value {
            FieldValue::Text(text) => json_text(out, text),
            FieldValue::Plain(text) => out.push_str(text),
        }
    }
    out.push_str("}\n");
}

fn json_name(out: &mut String, name: &str) {
    out.push(',');
    json_text(out, name);
    out.push(':');
}

fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends a line for people: time, level, service, message, fields, short trace id.
pub(super) fn text(out: &mut String, head: &Head<'_>, fields: &Fields, colour: bool) {
    let time = humantime::format_rfc3339_millis(head.time).to_string();
    let clock = time.get(11..23).unwrap_or(&time);
    let (level, paint) = match head.level {
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
    visible(out, &fields.message);
    for (name, value) in &fields.others {
        let _ = write!(out, " {dim}{name}={plain}");
        match value {
            FieldValue::Text(text) => visible(out, text),
            FieldValue::Plain(text) => out.push_str(text),
        }
    }
    if let Some((_, trace)) = head.ids.iter().find(|(name, _)| *name == "trace_id") {
        let _ = write!(out, " {dim}trace={}{plain}", trace.get(..8).unwrap_or(trace));
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
    use super::*;

    fn head<'a>(ids: &'a [(&'static str, String)]) -> Head<'a> {
        Head {
            time: SystemTime::UNIX_EPOCH,
            level: Level::INFO,
            target: "t",
            service: ("items", "1.0"),
            ids,
        }
    }

    #[test]
    fn json_holds_any_text_in_one_line() {
        let nasty = "a\"b\\c\nd\re\tf\u{1b}[31mg\u{0}é\u{85}";
        let fields = Fields {
            message: nasty.to_owned(),
            others: vec![
                ("n", FieldValue::Plain("3".into())),
                ("t", FieldValue::Text(nasty.into())),
            ],
        };
        let ids = [("trace_id", "abc".to_owned())];
        let mut out = String::new();
        json(&mut out, &head(&ids), &fields);
        assert_eq!(out.matches('\n').count(), 1);
        assert!(!out.trim_end().chars().any(char::is_control), "{out:?}");
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(line["message"], nasty);
        assert_eq!(line["t"], nasty);
        assert_eq!(line["n"], 3);
        assert_eq!(line["trace_id"], "abc");
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(line["service.name"], "items");
    }

    #[test]
    fn a_field_named_like_a_standard_one_is_set_apart() {
        let value = |text: &str| FieldValue::Text(text.to_owned());
        let fields = Fields {
            message: "m".to_owned(),
            others: vec![("level", value("9")), ("target", value("x")), ("trace_id", value("b"))],
        };
        let mut out = String::new();
        json(&mut out, &head(&[("trace_id", "a".to_owned())]), &fields);
        for key in ["level", "target", "trace_id"] {
            assert_eq!(out.matches(&format!("\"{key}\":")).count(), 1, "{out}");
        }
        let line: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&line["level"], &line["field.level"]), (&"INFO".into(), &"9".into()));
        assert_eq!((&line["trace_id"], &line["field.trace_id"]), (&"a".into(), &"b".into()));
        // Where the line has no trace of its own, the field has the name for itself.
        let mut out = String::new();
        json(&mut out, &head(&[]), &fields);
        assert!(out.contains("\"trace_id\":\"b\""), "{out}");
    }

    #[test]
    fn text_cannot_forge_a_line_or_colour_a_terminal() {
        let mut out = String::new();
        let fields = Fields { message: "a\n\u{1b}[31mb".to_owned(), others: Vec::new() };
        text(&mut out, &head(&[]), &fields, false);
        assert_eq!(out, "00:00:00.000  INFO items        a\\n\\u{1b}[31mb\n");
    }
}
