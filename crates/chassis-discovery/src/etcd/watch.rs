//! Listing a prefix and then watching it from there.

use chassis_core::{Error, Result};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::api::{EtcdApi, Header, KeyValue, encode, number, range_end};
use super::entries::Entries;
use crate::Target;
use crate::http::answer::broken;
use crate::source::{Sink, Source, check_name};

impl Source for EtcdApi {
    async fn follow(&self, target: &Target, sink: &Sink) -> Result<()> {
        check_name(target)?;
        let prefix = self.prefix(target);
        let until = Instant::now() + self.resync;
        let range = json!({ "key": encode(&prefix), "range_end": encode(range_end(&prefix)) });
        let list: List = self.post("/v3/kv/range", range.clone()).await?;
        let mut view = View::of(list);
        sink.publish(view.entries.set());

        let mut create = range;
        create["start_revision"] = (view.revision + 1).to_string().into();
        let create = json!({ "create_request": create });
        let mut stream = self.stream("/v3/watch", &create).await?;
        loop {
            let line = match tokio::time::timeout_at(until, stream.line()).await {
                // The set is asked for anew.
                Err(_) => return Ok(()),
                Ok(line) => line?,
            };
            let Some(line) = line else { return Err(broken("the watch ended")) };
            let line: Line = serde_json::from_slice(&line)
                .map_err(|error| broken("not a watch event").with_source(error))?;
            match view.take(line)? {
                Step::Same => {}
                Step::Changed => sink.publish(view.entries.set()),
                Step::Anew => return Ok(()),
            }
        }
    }
}

/// What is known of one prefix: the brain of the watch.
#[derive(Debug, Default)]
struct View {
    revision: i64,
    entries: Entries,
}

/// What a line of the watch means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Same,
    Changed,
    /// Events are missing, so the set must be asked for anew.
    Anew,
}

impl View {
    fn of(list: List) -> View {
        let mut entries = Entries::default();
        for pair in &list.kvs {
            entries.put(&String::from_utf8_lossy(&pair.key), &pair.value);
        }
        View { revision: list.header.revision, entries }
    }

    fn take(&mut self, line: Line) -> Result<Step> {
        if let Some(error) = line.error {
            let refused = Error::unavailable("ETCD_WATCH", "etcd ended the watch");
            return Err(refused.with_source(error.to_string()));
        }
        let Some(response) = line.result else { return Ok(Step::Same) };
        if response.compact_revision > 0 {
            // What happened since our revision has been thrown away.
            return Ok(Step::Anew);
        }
        if response.canceled {
            let refused = Error::unavailable("ETCD_WATCH", "etcd ended the watch");
            return Err(refused.with_source(response.cancel_reason));
        }
        self.revision = self.revision.max(response.header.revision);
        for event in &response.events {
            let key = String::from_utf8_lossy(&event.kv.key);
            match event.kind.as_str() {
                "DELETE" => self.entries.remove(&key),
                _ => self.entries.put(&key, &event.kv.value),
            }
        }
        Ok(if response.events.is_empty() { Step::Same } else { Step::Changed })
    }
}

#[derive(Debug, Deserialize)]
struct List {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Debug, Deserialize)]
struct Line {
    result: Option<Response>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    header: Header,
    events: Vec<Event>,
    canceled: bool,
    cancel_reason: String,
    #[serde(deserialize_with = "number")]
    compact_revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    /// Left out for a put.
    #[serde(rename = "type")]
    kind: String,
    kv: KeyValue,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn view() -> View {
        // As etcd 3.4 writes it: "a/1" = {"address":"10.0.0.1:80"}.
        let list = format!(
            r#"{{"header":{{"revision":"7"}},"kvs":[{{"key":"{}","value":"{}","lease":"3"}}]}}"#,
            encode("a/1"),
            encode(r#"{"address":"10.0.0.1:80"}"#)
        );
        View::of(serde_json::from_str(&list).unwrap())
    }

    fn line(view: &mut View, text: &str) -> Result<Step> {
        view.take(serde_json::from_str(text).unwrap())
    }

    fn set(view: &View) -> Vec<Endpoint> {
        view.entries.set().collect()
    }

    #[test]
    fn events_change_the_set() {
        let mut view = view();
        assert_eq!(set(&view), [Endpoint::new(([10, 0, 0, 1], 80).into())]);
        let created = r#"{"result":{"header":{"revision":"7"},"created":true}}"#;
        assert_eq!(line(&mut view, created).unwrap(), Step::Same);
        let put = format!(
            r#"{{"result":{{"header":{{"revision":"9"}},"events":[{{"kv":{{"key":"{}","value":"{}"}}}},
               {{"type":"DELETE","kv":{{"key":"{}"}}}}]}}}}"#,
            encode("a/2"),
            encode(r#"{"address":"10.0.0.2:80","version":"2"}"#),
            encode("a/1"),
        );
        assert_eq!(line(&mut view, &put).unwrap(), Step::Changed);
        let two = Endpoint::new(([10, 0, 0, 2], 80).into()).with_version("2");
        assert_eq!(set(&view), [two]);
        assert_eq!(view.revision, 9);
    }

    #[test]
    fn what_is_no_endpoint_is_left_out() {
        let mut view = view();
        let put = format!(
            r#"{{"result":{{"events":[{{"kv":{{"key":"{}","value":"{}"}}}}]}}}}"#,
            encode("a/1"),
            encode("hello"),
        );
        assert_eq!(line(&mut view, &put).unwrap(), Step::Changed);
        assert!(set(&view).is_empty());
    }

    #[test]
    fn a_compacted_revision_asks_anew_and_a_cancelled_watch_is_an_error() {
        let mut view = view();
        let compacted = r#"{"result":{"canceled":true,"compact_revision":"12"}}"#;
        assert_eq!(line(&mut view, compacted).unwrap(), Step::Anew);
        let cancelled = r#"{"result":{"canceled":true,"cancel_reason":"no leader"}}"#;
        assert!(line(&mut view, cancelled).unwrap_err().chain().contains("no leader"));
        let error = r#"{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}"#;
        assert!(line(&mut view, error).unwrap_err().chain().contains("no leader"));
    }
}
