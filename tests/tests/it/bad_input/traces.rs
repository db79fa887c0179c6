//! Trace headers that are wrong in each way of the specification (W3C Trace Context, level 2; the
//! cases are those of its own test suite): the trace begins anew, and the request is served.

use axum::{Router, body::Body, routing::get};
use chassis::{Context, Env};
use http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::service::http;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn good() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// What a handler sees: its trace, its parent, its state.
async fn seen(headers: &[(&str, &[u8])]) -> (String, Option<String>, Option<String>) {
    let show = || async {
        let context = Context::current();
        let trace = context.trace();
        let parent = trace.parent.map(|parent| parent.to_string()).unwrap_or_default();
        let state = trace.state.as_deref().unwrap_or_default().to_owned();
        format!("{}|{parent}|{state}", trace.trace_id)
    };
    let router = Router::new().route("/", get(show));
    let router = chassis::http::Server::new(&http(), router);
    let router = router.into_router(&Env::test("greeter")).unwrap();
    let mut request = Request::get("/").header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
    }
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200, "{headers:?}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let mut parts = text.split('|').map(str::to_owned);
    let mut next = || parts.next().filter(|part| !part.is_empty());
    (next().unwrap(), next(), next())
}

#[tokio::test]
async fn a_parent_that_is_wrong_in_any_way_begins_a_new_trace_without_its_state() {
    let cases: Vec<Vec<u8>> = [
        // Each field: missing, too short, too long, empty.
        String::new(),
        "-".to_owned(),
        format!("00-{TRACE}"),
        format!("00-{TRACE}-{PARENT}"),
        format!("00-{TRACE}-{PARENT}-"),
        format!("00-{TRACE}-{PARENT}-0"),
        format!("00-{TRACE}-{PARENT}-001"),
        format!("0-{TRACE}-{PARENT}-01"),
        format!("000-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", &TRACE[1..]),
        format!("00-{TRACE}0-{PARENT}-01"),
        format!("00--{PARENT}-01"),
        format!("00-{TRACE}-{}-01", &PARENT[1..]),
        format!("00-{TRACE}-{PARENT}0-01"),
        format!("00-{TRACE}--01"),
        // Not hexadecimal, or not in lower case.
        format!(".0-{TRACE}-{PARENT}-01"),
        format!("0.-{TRACE}-{PARENT}-01"),
        format!("00-{}-{PARENT}-01", TRACE.replace('c', "g")),
        format!("00-{}-{PARENT}-01", TRACE.replace('c', ".")),
        format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
        format!("00-{TRACE}-{}-01", PARENT.replace('b', "g")),
        format!("00-{TRACE}-{PARENT}-.0"),
        format!("00-{TRACE}-{PARENT}-0."),
        format!("00-{TRACE}-{PARENT}-0A"),
        // Nothing but zeros.
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        // The forbidden version, and more behind the known one.
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-01-what"),
        format!("00-{TRACE}-{PARENT}-01."),
        format!("00-{TRACE}-{PARENT}-01-"),
        // A later version whose flags go on.
        format!("cc-{TRACE}-{PARENT}-01.what"),
        format!("cc-{TRACE}-{PARENT}-011"),
        // Other separators, blanks inside, two in one.
        good().replace('-', "_"),
        good().replace('-', " "),
        format!("00-{TRACE} -{PARENT}-01"),
        format!("{0},{0}", good()),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([[good().as_bytes(), b"\xff"].concat(), vec![0xff; 55]])
    .collect();
    for case in &cases {
        let (trace, parent, state) = seen(&[("traceparent", case), ("tracestate", b"a=1")]).await;
        let shown = String::from_utf8_lossy(case);
        assert_ne!(trace, TRACE, "{shown}");
        assert_eq!((parent, state), (None, None), "{shown}");
    }
    // Twice, also if both are the same; a state without a parent.
    let good = good();
    let twice = [("traceparent", good.as_bytes()), ("traceparent", good.as_bytes())];
    assert_ne!(seen(&twice).await.0, TRACE);
    assert_eq!(seen(&[("tracestate", b"a=1")]).await.2, None);
}

#[tokio::test]
async fn what_is_right_or_of_a_later_version_goes_on() {
    for parent in [
        good(),
        // Unknown flags, and a version that may have more to say.
        format!("00-{TRACE}-{PARENT}-ff"),
        format!("cc-{TRACE}-{PARENT}-01"),
        format!("cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like"),
        format!("cc-{TRACE}-{PARENT}-01-"),
    ] {
        let (trace, of, _) = seen(&[("traceparent", parent.as_bytes())]).await;
        assert_eq!((trace.as_str(), of.as_deref()), (TRACE, Some(PARENT)), "{parent}");
    }
}

#[tokio::test]
async fn a_state_that_is_wrong_is_left_out_and_the_trace_goes_on() {
    let good = good();
    let with = async |states: &[&str]| {
        let mut headers: Vec<(&str, &[u8])> = vec![("traceparent", good.as_bytes())];
        headers.extend(states.iter().map(|state| ("tracestate", state.as_bytes())));
        let (trace, _, state) = seen(&headers).await;
        assert_eq!(trace, TRACE, "{states:?}");
        state
    };
    let long = |length: usize| "k".repeat(length);
    for wrong in [
        "foo=",
        "=1",
        "foo",
        "foo=1=2",
        "foo bar=1",
        "FOO=1",
        "foo.bar=1",
        "foo@=1,bar =2",
        "foo=1,bar",
        "foo=bar\u{e9}",
        &format!("{}=1", long(257)),
        &format!("a={}", "v".repeat(257)),
        &(0..33).map(|n| format!("m{n}=1")).collect::<Vec<_>>().join(","),
    ] {
        assert_eq!(with(&[wrong]).await, None, "{wrong}");
    }
    assert_eq!(with(&["foo=1", "bar=2"]).await.unwrap(), "foo=1,bar=2");
    assert_eq!(with(&["foo=1 , bar=2,\tbaz=3"]).await.unwrap(), "foo=1,bar=2,baz=3");
    assert_eq!(with(&["", "foo=1", ",", "bar=2"]).await.unwrap(), "foo=1,bar=2");
    let most = (0..32).map(|n| format!("m{n}=1")).collect::<Vec<_>>().join(",");
    assert_eq!(with(&[&most]).await.unwrap(), most);
}
