//! The headers that say who calls, from where and how, found in one pass: a look-up by name
//! costs a hash, and most of these are not there.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderValue};
use chassis_core::propagation::{
    self, BAGGAGE, FORCE_TRACE, PRIORITY, REQUEST_ID, TRACEPARENT, TRACESTATE,
};

const NAMES: [&str; 6] = [TRACEPARENT, TRACESTATE, BAGGAGE, REQUEST_ID, PRIORITY, FORCE_TRACE];
/// The lengths that they have, a bit for each: the quick no for nearly all headers.
const LENGTHS: u64 = {
    let (mut lengths, mut index) = (0, 0);
    while index < NAMES.len() {
        lengths |= 1 << NAMES[index].len();
        index += 1;
    }
    lengths
};

/// What a call says of itself, beside what it asks for.
pub struct CallHeaders<'a> {
    headers: &'a HeaderMap,
    values: [Option<&'a HeaderValue>; NAMES.len()],
    /// Whether there is one of these.
    any: bool,
    /// Whether one of these comes in several lines.
    repeats: bool,
    timeout: Option<&'a HeaderValue>,
    host: Option<&'a HeaderValue>,
    has_hosts: bool,
}

impl<'a> CallHeaders<'a> {
    /// Reads the headers of [`propagation`], and the one that says how
    /// long the caller waits, which each protocol calls otherwise; of several lines the first.
    /// And `Host`.
    #[must_use]
    pub fn read(headers: &'a HeaderMap, timeout: &str) -> CallHeaders<'a> {
        let values = [None; NAMES.len()];
        let mut read = CallHeaders {
            headers,
            values,
            any: false,
            repeats: false,
            timeout: None,
            host: None,
            has_hosts: false,
        };
        for (name, value) in headers {
            let name = name.as_str();
            if name == timeout {
                read.timeout.get_or_insert(value);
            } else if name == "host" {
                read.has_hosts = read.host.is_some();
                read.host.get_or_insert(value);
            } else if name.len() < 64
                && LENGTHS & (1 << name.len()) != 0
                && let Some(index) = position(name)
            {
                read.any = true;
                read.repeats |= read.values[index].is_some();
                read.values[index].get_or_insert(value);
            }
        }
        read
    }

    /// How long the caller waits, as it says.
    #[must_use]
    pub fn timeout(&self) -> Option<&'a str> {
        self.timeout?.to_str().ok()
    }

    /// The first `Host`, and whether there are more.
    #[must_use]
    pub fn host(&self) -> (Option<&'a HeaderValue>, bool) {
        (self.host, self.has_hosts)
    }

    /// The text of a header that is one of these; of several lines the first.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        if !self.any {
            return None;
        }
        self.values[position(name)?]?.to_str().ok()
    }

    /// What [`extract`](propagation::extract) asks for: the lines of one header
    /// [joined](propagation::joined).
    #[must_use]
    pub fn carried(&self, name: &str) -> Option<Cow<'a, str>> {
        if !self.repeats {
            return self.text(name).map(Cow::from);
        }
        let lines = self.headers.get_all(name).iter();
        propagation::joined(name, lines.filter_map(|value| value.to_str().ok()))
    }
}

fn position(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts_and_lists_are_joined() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-request-id", "one"),
            ("x-request-id", "two"),
            ("baggage", "a=1"),
            ("baggage", "b=2"),
            ("x-request-jd", "as long as another"),
            ("tracestate", "x=1"),
            ("grpc-timeout", "1S"),
            ("grpc-timeout", "2S"),
            ("host", "a"),
            ("host", "b"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let known = CallHeaders::read(&headers, "grpc-timeout");
        assert_eq!(known.carried(REQUEST_ID).as_deref(), Some("one"));
        assert_eq!(known.carried(BAGGAGE).as_deref(), Some("a=1,b=2"));
        assert_eq!(known.carried(TRACESTATE).as_deref(), Some("x=1"));
        assert_eq!(known.text(PRIORITY), None);
        assert_eq!(known.timeout(), Some("1S"));
        assert_eq!(known.host(), (Some(&HeaderValue::from_static("a")), true));
    }
}
