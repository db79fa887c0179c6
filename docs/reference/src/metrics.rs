//! Every metric: its name as Prometheus sees it, its kind, its labels, its help text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::source::{Source, literal, literals, until_closed};
use crate::{FOOTER, cell};

const KINDS: &[&str] = &["counter", "gauge", "histogram", "show"];

struct Metric {
    kind: &'static str,
    krate: String,
    help: String,
    labels: BTreeSet<String>,
}

/// The page.
pub(crate) fn page(sources: &[Source]) -> String {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for source in sources {
        for (name, metric) in metrics_in(source, sources) {
            match metrics.get_mut(&name) {
                Some(known) => known.labels.extend(metric.labels),
                None => drop(metrics.insert(name, metric)),
            }
        }
    }
    let mut text = String::from(HEAD);
    for (name, metric) in &metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
        let _ = writeln!(
            text,
            "| `{name}` | {} | {labels} | {} | {} |",
            metric.kind,
            cell(&metric.help),
            metric.krate
        );
    }
    text.push_str(FOOTER);
    text
}

const HEAD: &str = "\
# Metrics

`GET /metrics` on the admin port, as OpenMetrics text. A metric is there once the part that owns
it is: a service without a database has no `db_…`. Durations are in seconds. A histogram has
`_bucket`, `_sum` and `_count`. A family holds at most 1000 label sets; what comes after is counted
under labels that are all `_other`.

A service adds its own by `App::metrics`.

| name | kind | labels | | from |
|---|---|---|---|---|
";

fn metrics_in(source: &Source, sources: &[Source]) -> Vec<(String, Metric)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, name, rest) in literals(code) {
        let before = code[..at].trim_end();
        let snake = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
        if name.is_empty() || !name.chars().all(snake) {
            continue;
        }
        let called = KINDS.iter().find(|kind| before.ends_with(&format!("{kind}(")));
        // A table of names, as the one of the two sides of a gRPC call.
        let listed = before.ends_with("name:");
        let Some(after) = rest.trim_start().strip_prefix(',').map(str::trim_start) else {
            continue;
        };
        let text = after.strip_prefix("help:").map_or(after, str::trim_start);
        let (help, rest) = match literal(text) {
            Some((help, rest)) => (Some(help), rest),
            // Said once for several of them.
            None => (variable(&code[..at], "help"), text.strip_prefix("help").unwrap_or_default()),
        };
        let (Some(help), true) = (help, called.is_some() || listed) else { continue };
        let kind = match called.copied() {
            Some("gauge") => "gauge",
            Some("counter" | "show") => "counter",
            _ => "histogram",
        };
        let given = until_closed(rest).trim_start_matches([',', ' ', '\n']);
        let labels: BTreeSet<String> = if listed {
            // The rest is pushed where the table is used.
            let pushed = sources.iter().filter(|other| other.krate == source.krate);
            let pushed = pushed.flat_map(|other| other.code.split("labels.push(").skip(1));
            let pushed = pushed.flat_map(|rest| labels(until_closed(rest)));
            labels(given).into_iter().chain(pushed).collect()
        } else {
            given_labels(code, at, given).into_iter().collect()
        };
        let name = if kind == "counter" { name + "_total" } else { name };
        found.push((name, Metric { kind, krate: source.krate.clone(), help, labels }));
    }
    found
}

/// The literals that stand first in a pair.
fn labels(text: &str) -> Vec<String> {
    literals(text)
        .into_iter()
        .filter(|(at, _, rest)| text[..*at].ends_with('(') && rest.starts_with(','))
        .map(|(_, label, _)| label)
        .collect()
}

/// The labels of a call whose name stands at `at` and whose arguments after the help are these.
fn given_labels(code: &str, at: usize, given: &str) -> Vec<String> {
    let Some(given) = given.strip_prefix('&') else {
        // A closure that makes several of them: what it calls with.
        let made = code.split_once("counter(name, help, &").map_or("", |(_, rest)| rest);
        return labels(until_closed(made));
    };
    let name =
        given.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
    if given.starts_with('[') || given[name.len()..].starts_with('(') {
        return listed_labels(code, given);
    }
    listed_labels(code, bound(&code[..at], name))
}

/// The labels of a list, or of the function that gives one.
fn listed_labels(code: &str, value: &str) -> Vec<String> {
    if let Some(list) = value.strip_prefix('[') {
        let list = until_closed(list);
        // A pair that was taken out of another list is called as its label is.
        let letter = |c: char| c.is_ascii_lowercase() || c == '_';
        let words = list.split(',').map(str::trim);
        let words = words.filter(|word| !word.is_empty() && word.chars().all(letter));
        return labels(list).into_iter().chain(words.map(str::to_owned)).collect();
    }
    let function = value.split('(').next().unwrap_or_default();
    let body = code.split_once(&format!("fn {function}(")).map_or("", |(_, rest)| rest);
    labels(body.split_once('{').map_or("", |(_, body)| until_closed(body)))
}

/// What this name was set to in the innermost block around the end of the text.
fn bound<'a>(before: &'a str, name: &str) -> &'a str {
    let open = |text: &str| {
        let mut depth = 0_i32;
        text.chars().all(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth >= 0
        })
    };
    let start = format!("let {name} = ");
    let found = before.rmatch_indices(&start).find(|(at, _)| open(&before[*at..]));
    found.map_or("", |(at, start)| &before[at + start.len()..])
}

/// What the variable was last set to.
fn variable(before: &str, name: &str) -> Option<String> {
    let at = before.rfind(&format!("let {name} = "))?;
    literal(before[at..].split_once('=')?.1.trim_start()).map(|(value, _)| value)
}
