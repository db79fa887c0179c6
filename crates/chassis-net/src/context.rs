//! The context of an outgoing call in its headers, the same for HTTP and gRPC.

use chassis_core::{Context, propagation};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Made once: to check a name takes longer than to insert it.
static NAMES: [HeaderName; 5] = [
    HeaderName::from_static(propagation::TRACEPARENT),
    HeaderName::from_static(propagation::TRACESTATE),
    HeaderName::from_static(propagation::BAGGAGE),
    HeaderName::from_static(propagation::REQUEST_ID),
    HeaderName::from_static(propagation::PRIORITY),
];

/// Writes the context of an outgoing call into its headers, over what is there; `context` is
/// the call's own, made by [`Context::child`]. What does not fit a header is left out: it is
/// not worth failing a call.
pub fn propagate(context: &Context, headers: &mut HeaderMap) {
    propagation::inject(context, |name, value| {
        let Some(name) = NAMES.iter().find(|known| *known == name) else { return };
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, once(value));
        }
    });
}

/// A value that no other call will have. HTTP/2 then leaves it out of the table of a
/// connection, where it would be of no use, push out others, and be compared with all that
/// came before it. The standard calls such a value "never indexed", the crate `http` "sensitive".
pub fn once(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use chassis_core::{Baggage, Env, Priority, TraceContext};

    use super::*;

    #[test]
    fn all_that_is_propagated_has_a_name() {
        let trace = TraceContext { state: Some("a=b".into()), ..TraceContext::root(true) };
        let context = Context::background(&Env::test("t"))
            .with_trace(trace)
            .with_request_id("r-1")
            .with_priority(Priority::Critical)
            .with_baggage(Baggage::parse("a=b"));
        let (mut expected, mut headers) = (0, HeaderMap::new());
        propagation::inject(&context, |_, _| expected += 1);
        propagate(&context, &mut headers);
        assert_eq!((headers.len(), expected), (NAMES.len(), NAMES.len()));
        assert!(headers.values().all(HeaderValue::is_sensitive));
    }
}
