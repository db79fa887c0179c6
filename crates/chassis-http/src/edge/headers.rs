//! The headers that the edge reads, found in one pass: a look-up by name costs a hash, and most
//! of these are not there.

use std::borrow::Cow;

use chassis_core::propagation::{
    BAGGAGE, FORCE_TRACE, PRIORITY, REQUEST_ID, TRACEPARENT, TRACESTATE,
};
use http::{HeaderMap, HeaderValue};

use super::REQUEST_TIMEOUT_MS;

const NAMES: [&str; 7] =
    [TRACEPARENT, TRACESTATE, BAGGAGE, REQUEST_ID, PRIORITY, FORCE_TRACE, REQUEST_TIMEOUT_MS];
/// The lengths that they have, a bit for each: the quick no for nearly all headers.
const LENGTHS: u64 = {
    let (mut lengths, mut index) = (0, 0);
    while index < NAMES.len() {
        lengths |= 1 << NAMES[index].len();
        index += 1;
    }
    lengths
};

/// What a request says of itself, beside what it asks for.
pub(super) struct Known<'a> {
    headers: &'a HeaderMap,
    values: [Option<&'a HeaderValue>; NAMES.len()],
}

impl<'a> Known<'a> {
    pub(super) fn read(headers: &'a HeaderMap) -> Known<'a> {
        let mut values = [None; NAMES.len()];
        for (name, value) in headers {
            let name = name.as_str();
            if name.len() < 64
                && LENGTHS & (1 << name.len()) != 0
                && let Some(index) = NAMES.iter().position(|known| *known == name)
                && values[index].is_none()
            {
                values[index] = Some(value);
            }
        }
        Known { headers, values }
    }

    /// The text of a header that is one of these; of several lines the first.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let index = NAMES.iter().position(|known| *known == name)?;
        self.values[index]?.to_str().ok()
    }

    /// As [`text`](Known::text), with all lines where a header is a list.
    pub(super) fn carried(&self, name: &str) -> Option<Cow<'a, str>> {
        let first = self.text(name)?;
        if name != TRACESTATE && name != BAGGAGE {
            return Some(first.into());
        }
        let lines = self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<&str> = lines.collect();
        Some(if all.len() > 1 { all.join(",").into() } else { first.into() })
    }
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
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let known = Known::read(&headers);
        assert_eq!(known.carried(REQUEST_ID).as_deref(), Some("one"));
        assert_eq!(known.carried(BAGGAGE).as_deref(), Some("a=1,b=2"));
        assert_eq!(known.carried(TRACESTATE).as_deref(), Some("x=1"));
        assert_eq!(known.text(PRIORITY), None);
    }
}
