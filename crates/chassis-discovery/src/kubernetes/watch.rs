//! Listing and watching slices.

use std::time::Duration;

use chassis_core::{Error, Result};
use tokio::time::Instant;

use super::api::KubernetesApi;
use super::event::{Event, List, Slice, Status};
use super::slices::Slices;
use crate::Target;
use crate::http::answer::broken;
use crate::source::{Sink, Source, check_name};

/// How many slices one answer to a list may hold.
const PAGE: usize = 500;
/// How many pages are read at most; with a hundred endpoints per slice that is
/// more than any set holds.
const MAX_PAGES: usize = 20;

/// Between the end of one watch and the next: a server may end each at once.
const PAUSE: Duration = Duration::from_millis(200);

impl Source for KubernetesApi {
    async fn follow(&self, target: &Target, sink: &Sink) -> Result<()> {
        check_name(target)?;
        match self.session(target, sink).await {
            // Gone: the place in a list or a watch is too old. It begins anew.
            Err(error) if error.reason() == "HTTP_410" => Ok(()),
            other => other,
        }
    }
}

impl KubernetesApi {
    async fn session(&self, target: &Target, sink: &Sink) -> Result<()> {
        let until = Instant::now() + self.resync;
        let (mut slices, mut version) = self.list(target).await?;
        sink.publish(slices.set());
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_secs().max(1);
            let path = format!(
                "{}&watch=true&allowWatchBookmarks=true&resourceVersion={version}\
                 &timeoutSeconds={left}",
                self.path(target)
            );
            let mut stream = self.get(path).await?;
            loop {
                let line = match tokio::time::timeout_at(until, stream.line()).await {
                    // The set is asked for anew.
                    Err(_) => return Ok(()),
                    Ok(line) => line?,
                };
                // The server ends a watch when it likes; it goes on from there.
                let Some(line) = line else { break };
                match step(&mut slices, &mut version, &line)? {
                    Step::Same => {}
                    Step::Changed => sink.publish(slices.set()),
                    Step::Anew => return Ok(()),
                }
            }
            if Instant::now() >= until {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// All slices, and the version to watch from.
    async fn list(&self, target: &Target) -> Result<(Slices, String)> {
        let mut slices = Slices::new(self.port(target));
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let mut path = format!("{}&limit={PAGE}", self.path(target));
            if !next.is_empty() {
                let mark: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
                path.extend(["&continue=", &mark]);
            }
            let list: List = self.get(path).await?.json().await?;
            for slice in list.items {
                slices.put(slice);
            }
            match list.metadata.next.filter(|next| !next.is_empty()) {
                Some(more) => next = more,
                None => return Ok((slices, list.metadata.resource_version)),
            }
        }
        Err(broken("the list of slices does not end"))
    }
}

/// What a line of the watch means.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Same,
    Changed,
    /// Events are missing, so the set must be asked for anew.
    Anew,
}

/// Takes one line into the slices and the version.
fn step(slices: &mut Slices, version: &mut String, line: &[u8]) -> Result<Step> {
    let event: Event = serde_json::from_slice(line)
        .map_err(|error| broken("not a watch event").with_source(error))?;
    if event.kind == "ERROR" {
        let status: Status = serde_json::from_value(event.object).unwrap_or_default();
        // Gone: our version is older than what the server remembers.
        if status.code == 410 {
            return Ok(Step::Anew);
        }
        return Err(Error::unavailable("KUBERNETES_WATCH", "kubernetes ended the watch")
            .with_source(format!("{}: {}", status.code, status.message)));
    }
    let slice: Slice = serde_json::from_value(event.object)
        .map_err(|error| broken("not a slice").with_source(error))?;
    if !slice.metadata.resource_version.is_empty() {
        version.clone_from(&slice.metadata.resource_version);
    }
    match event.kind.as_str() {
        "ADDED" | "MODIFIED" => slices.put(slice),
        "DELETED" => slices.remove(&slice.metadata.name),
        // A bookmark, or what a later server may invent.
        _ => return Ok(Step::Same),
    }
    Ok(Step::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_moves_the_place_and_gone_asks_anew() {
        let (mut slices, mut version) = (Slices::new("http".into()), "1".to_owned());
        let mut take = |line: &str| step(&mut slices, &mut version, line.as_bytes());
        let added = r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"},
            "addressType":"IPv4","ports":[{"name":"http","port":80}],
            "endpoints":[{"addresses":["10.0.0.1"]}]}}"#;
        assert_eq!(take(added).unwrap(), Step::Changed);
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"EndpointSlice",
            "metadata":{"resourceVersion":"9"}}}"#;
        assert_eq!(take(bookmark).unwrap(), Step::Same);
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert_eq!(take(gone).unwrap(), Step::Anew);
        let error = r#"{"type":"ERROR","object":{"code":500,"message":"etcd is slow"}}"#;
        assert!(take(error).unwrap_err().chain().contains("etcd is slow"));
        assert!(take("{").is_err());
        assert_eq!((version.as_str(), slices.set().len()), ("9", 1));
    }
}
