//! Which headers carry a context, the same for HTTP headers, gRPC metadata and messages.
//!
//! Each transport knows how to get and set a header; what the headers mean stands here once.
//! The deadline is not among them: HTTP, gRPC and messages each have their own way to write
//! the time that is left.

use std::borrow::Cow;

use crate::{
    Baggage, Context, Env, Priority, TraceContext,
    context::{Hex, RequestId},
    trace,
};

/// W3C trace parent.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state of other vendors.
pub const TRACESTATE: &str = "tracestate";
/// W3C baggage.
pub const BAGGAGE: &str = "baggage";
/// The id under which a caller finds its request in our logs.
pub const REQUEST_ID: &str = "x-request-id";
/// How important a call is; see [`Priority`]. It goes out with each
/// call and message that is not a usual one. It is not read by [`extract`]: whoever it comes
/// from may say that a call can be left out, but only some may say that it is critical, and a
/// server knows them. [`extract_from_within`] believes it.
pub const PRIORITY: &str = "x-request-priority";
/// `1` or `true` asks a server to sample the trace of this call, to look into one that goes wrong.
/// It is obeyed where its caller is trusted, is not passed on, and is not needed further down:
/// what follows is sampled because its parent is. After Envoy's `x-envoy-force-trace`.
pub const FORCE_TRACE: &str = "x-force-trace";

/// Longest request id that is accepted from outside, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Reads the context of an incoming call.
///
/// The span id is new and its parent the remote span. A parent decides sampling; without
/// one, the head sampler of `env` does. A malformed `tracestate` is left out, and so are
/// malformed members of `baggage`. A request id is accepted if it is 1 to 128 visible ASCII
/// characters, else one is made from the trace id.
///
/// `get` gives a header by name; where one may come more than once, by way of [`joined`].
pub fn extract<'a, T: Into<Cow<'a, str>>>(env: &Env, get: impl Fn(&str) -> Option<T>) -> Context {
    let get = |name| get(name).map(Into::<Cow<'a, str>>::into);
    let trace = match get(TRACEPARENT).as_deref().and_then(TraceContext::parse) {
        Some(mut remote) => {
            remote.state = get(TRACESTATE).as_deref().and_then(trace::parse_state);
            remote.child()
        }
        None => TraceContext::root(env.sample_head()),
    };
    let request_id = match get(REQUEST_ID).filter(|id| is_sane(id)) {
        Some(id) => RequestId::Given(id.into()),
        None => RequestId::OfTrace(Hex(trace.trace_id.hex())),
    };
    let context = Context::new(env, trace, request_id);
    match get(BAGGAGE) {
        Some(baggage) => context.with_baggage(Baggage::parse(&baggage)),
        None => context,
    }
}

/// What the lines of a header say that carries context, for [`extract`]. Lists may come in several
/// lines, which are one; a `traceparent` that comes twice is none; of all others the first counts.
pub fn joined<'a>(name: &str, mut lines: impl Iterator<Item = &'a str>) -> Option<Cow<'a, str>> {
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(first.into()) };
    match name {
        TRACEPARENT => None,
        TRACESTATE | BAGGAGE => {
            let all = [first, second].into_iter().chain(lines);
            Some(all.collect::<Vec<_>>().join(",").into())
        }
        _ => Some(first.into()),
    }
}

/// As [`extract`], with the [`PRIORITY`] that is said: for what came through a broker or out of
/// a database of our own, where only our own services write.
pub fn extract_from_within<'a, T: Into<Cow<'a, str>>>(
    env: &Env,
    get: impl Fn(&str) -> Option<T>,
) -> Context {
    let said = get(PRIORITY).and_then(|name| Priority::parse(&name.into()));
    let context = extract(env, get);
    match said {
        Some(priority) if priority != Priority::Normal => context.with_priority(priority),
        _ => context,
    }
}

/// Writes the context of an outgoing call; `ctx` is the call's own, made by
/// [`Context::child`].
pub fn inject(ctx: &Context, mut set: impl FnMut(&'static str, &str)) {
    let trace = ctx.trace();
    set(TRACEPARENT, &trace.traceparent());
    if let Some(state) = &trace.state {
        set(TRACESTATE, state);
    }
    if let Some(baggage) = ctx.baggage().header() {
        set(BAGGAGE, baggage);
    }
    if !ctx.request_id().is_empty() {
        set(REQUEST_ID, ctx.request_id());
    }
    if ctx.priority() != Priority::Normal {
        set(PRIORITY, ctx.priority().as_str());
    }
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
        let ctx = from(&[(REQUEST_ID, "abc-1"), (BAGGAGE, "shop=berlin, test")]);
        let mut headers = BTreeMap::new();
        inject(&ctx.child(), |name, value| {
            headers.insert(name, value.to_owned());
        });
        let next = extract(&Env::test("u"), |name| headers.get(name).map(String::as_str));
        assert_eq!(next.trace().trace_id, ctx.trace().trace_id);
        assert_eq!(next.request_id(), "abc-1");
        assert_eq!(next.baggage().get("shop").as_deref(), Some("berlin"));
        assert_eq!(headers[BAGGAGE], "shop=berlin");
        assert!(next.trace().parent.is_some());
    }

    #[test]
    fn lines_of_one_name_are_a_list_or_a_mistake() {
        let read = |name: &str, lines: &[&'static str]| {
            joined(name, lines.iter().copied()).map(Cow::into_owned)
        };
        for name in [TRACEPARENT, TRACESTATE, BAGGAGE, REQUEST_ID] {
            assert_eq!(read(name, &[]), None);
            assert_eq!(read(name, &["a"]).unwrap(), "a");
        }
        assert_eq!(read(TRACEPARENT, &["a", "a"]), None);
        assert_eq!(read(TRACESTATE, &["a", "b", "c"]).unwrap(), "a,b,c");
        assert_eq!(read(BAGGAGE, &["a", "b"]).unwrap(), "a,b");
        assert_eq!(read(REQUEST_ID, &["a", "b"]).unwrap(), "a");
    }

    #[test]
    fn a_priority_goes_out_and_does_not_come_in_by_itself() {
        let written = |priority| {
            let mut headers = BTreeMap::new();
            inject(&from(&[]).with_priority(priority).child(), |name, value| {
                headers.insert(name, value.to_owned());
            });
            headers.get(PRIORITY).cloned()
        };
        assert_eq!(written(Priority::Normal), None);
        for priority in [Priority::Sheddable, Priority::Critical] {
            let name = written(priority).unwrap();
            assert_eq!(Priority::parse(&name), Some(priority));
            assert_eq!(from(&[(PRIORITY, &name)]).priority(), Priority::Normal);
            let said = |header: &str| (header == PRIORITY).then(|| name.clone());
            let within = extract_from_within(&Env::test("t"), said);
            assert_eq!(within.priority(), priority);
        }
    }

    #[test]
    fn an_insane_request_id_is_replaced() {
        for bad in ["", "a b", "a\r\nb", "é", &"x".repeat(129)] {
            let ctx = from(&[(REQUEST_ID, bad)]);
            assert_eq!(ctx.request_id(), ctx.trace().trace_id.to_string());
        }
    }

    #[test]
    fn a_malformed_trace_state_is_left_out() {
        let parent = (TRACEPARENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let state = |text: &str| from(&[parent, (TRACESTATE, text)]).trace().state.clone();
        assert_eq!(state("a=1, b=2").as_deref(), Some("a=1,b=2"));
        for bad in ["", "a=1\r\nx: y", "a=é", "a", "A=1"] {
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
