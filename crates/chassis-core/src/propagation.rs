//! Which headers carry a context, the same for HTTP headers, gRPC metadata and messages.
//!
//! Each transport knows how to get and set a header; what the headers mean stands here once.
//! The deadline is not among them: HTTP, gRPC and messages each have their own way to write
//! the time that is left.

use std::sync::Arc;

use crate::{Context, Env, TraceContext};

/// W3C trace parent.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state of other vendors.
pub const TRACESTATE: &str = "tracestate";
/// The id under which a caller finds its request in our logs.
pub const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is accepted from outside, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Longest `tracestate` that is passed on, in bytes: W3C asks for at least 512.
const MAX_TRACESTATE: usize = 512;

/// Reads the context of an incoming call.
///
/// The span id is new and its parent the remote span. A parent decides sampling; without
/// one, the head sampler of `env` does. A `tracestate` that no header could carry on is left
/// out. A request id is accepted if it is 1 to 128 visible
/// ASCII characters, else one is made from the trace id.
pub fn extract<'a>(env: &Env, get: impl Fn(&str) -> Option<&'a str>) -> Context {
    let trace = match get(TRACEPARENT).and_then(TraceContext::parse) {
        Some(mut remote) => {
            remote.state = get(TRACESTATE)
                .filter(|state| (1..=MAX_TRACESTATE).contains(&state.len()) && is_text(state))
                .map(Arc::from);
            remote.child()
        }
        None => TraceContext::root(env.sample_head()),
    };
    let request_id: Arc<str> = match get(REQUEST_ID).filter(|id| is_sane(id)) {
        Some(id) => id.into(),
        None => trace.trace_id.to_string().into(),
    };
    Context::new(env, trace, Some(request_id))
}

/// Writes the context of an outgoing call; `ctx` is the call's own, made by
/// [`Context::child`].
pub fn inject(ctx: &Context, mut set: impl FnMut(&'static str, String)) {
    let trace = ctx.trace();
    set(TRACEPARENT, trace.traceparent());
    if let Some(state) = &trace.state {
        set(TRACESTATE, state.to_string());
    }
    if !ctx.request_id().is_empty() {
        set(REQUEST_ID, ctx.request_id().to_owned());
    }
}

/// Whether a text can stand in any header: a message may bring one that cannot.
fn is_text(state: &str) -> bool {
    state.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn from(headers: &[(&str, &str)]) -> Context {
        let headers: BTreeMap<String, String> =
            headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        extract(&Env::test("t"), |name| headers.get(name).map(String::as_str))
    }

    #[test]
    fn what_is_injected_is_extracted() {
        let ctx = from(&[(REQUEST_ID, "abc-1")]);
        let mut headers = BTreeMap::new();
        inject(&ctx.child(), |name, value| {
            headers.insert(name, value);
        });
        let next = extract(&Env::test("u"), |name| headers.get(name).map(String::as_str));
        assert_eq!(next.trace().trace_id, ctx.trace().trace_id);
        assert_eq!(next.request_id(), "abc-1");
        assert!(next.trace().parent.is_some());
    }

    #[test]
    fn an_insane_request_id_is_replaced() {
        for bad in ["", "a b", "a\r\nb", "é", &"x".repeat(129)] {
            let ctx = from(&[(REQUEST_ID, bad)]);
            assert_eq!(ctx.request_id(), ctx.trace().trace_id.to_string());
        }
    }

    #[test]
    fn a_trace_state_that_no_header_can_carry_is_left_out() {
        let parent = (TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let state = |text: &str| from(&[parent, (TRACESTATE, text)]).trace().state.clone();
        assert_eq!(state("a=1, b=2").as_deref(), Some("a=1, b=2"));
        for bad in ["", "a=1\r\nx: y", "a=é", &"x".repeat(513)] {
            assert!(state(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_unsampled_parent_stays_unsampled() {
        let ctx = from(&[(TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]);
        assert!(!ctx.trace().sampled);
        assert_eq!(ctx.trace().trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    }
}
