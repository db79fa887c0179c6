//! Reads the text of `/metrics` back, for where metrics have to leave in another form.
//!
//! Only what our own encoder writes is understood: families one after the other, each with
//! its `TYPE` before its samples. A line that is something else is passed over.
//!
//! Source: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::borrow::Cow;

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The samples of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    pub(super) name: &'a str,
    pub(super) help: &'a str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample<'a>>,
}

pub(super) type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// One line.
#[derive(Debug)]
pub(super) struct Sample<'a> {
    /// What stands behind the family's name: `_total`, `_bucket`, nothing.
    pub(super) suffix: &'a str,
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    pub(super) exemplar: Option<Exemplar<'a>>,
}

/// A call that was counted, as an example.
#[derive(Debug)]
pub(super) struct Exemplar<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: f64,
    /// When, in seconds since 1970.
    pub(super) time: f64,
}

/// The families of a text.
pub(super) fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut described = ("", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("HELP"), Some(name), help) => described = (name, help.unwrap_or_default()),
                (Some("TYPE"), Some(name), Some(kind)) => {
                    let kind = match kind {
                        "counter" => Kind::Counter,
                        "gauge" => Kind::Gauge,
                        "histogram" => Kind::Histogram,
                        _ => continue,
                    };
                    let help = if described.0 == name { described.1 } else { "" };
                    families.push(Family { name, help, kind, samples: Vec::new() });
                }
                _ => {}
            }
        } else if let Some(family) = families.last_mut() {
            family.samples.extend(sample(line, family.name));
        }
    }
    families
}

fn sample<'a>(line: &'a str, family: &str) -> Option<Sample<'a>> {
    let rest = line.strip_prefix(family)?;
    let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
    let (labels, rest) = labels(rest)?;
    let (value, exemplar) = match rest.split_once(" # ") {
        Some((value, rest)) => (value, exemplar(rest)),
        None => (rest, None),
    };
    Some(Sample { suffix, labels, value: value.trim().parse().ok()?, exemplar })
}

fn exemplar(text: &str) -> Option<Exemplar<'_>> {
    let (labels, rest) = labels(text)?;
    let (value, time) = rest.trim().split_once(' ')?;
    Some(Exemplar { labels, value: value.parse().ok()?, time: time.parse().ok()? })
}

/// Labels in braces, if there are any, and what stands behind them.
fn labels(text: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, value) = rest.split_once("=\"")?;
        let (value, behind) = quoted(value)?;
        labels.push((name, value));
        rest = behind;
    }
}

/// A value up to its closing quote, without escapes, and what stands behind the quote.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text.as_bytes()[end] == b'"' {
        return Some((text[..end].into(), &text[end + 1..]));
    }
    let (mut value, mut escaped) = (String::new(), false);
    for (index, character) in text.char_indices() {
        match character {
            'n' if escaped => value.push('\n'),
            other if escaped => value.push(other),
            '"' => return Some((value.into(), &text[index + 1..])),
            '\\' => {
                escaped = true;
                continue;
            }
            other => value.push(other),
        }
        escaped = false;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metrics, TraceContext, metrics::LATENCY_BUCKETS};

    #[test]
    fn what_the_encoder_writes_is_read_back() {
        let metrics = Metrics::default();
        let odd = "a \"quoted\" \\ value\nof two lines, {with} = signs # and a hash";
        metrics.counter("calls", "Calls that were made.", &[("route", odd)]).add(3);
        metrics.gauge("depth", "Depth.", &[]).set(-7);
        let took = metrics.histogram("took_seconds", "Time.", &[("a", "1")], LATENCY_BUCKETS);
        let trace = TraceContext::root(true);
        took.observe_traced(0.2, &trace);
        took.observe(1e9);
        let text = metrics.encode();
        let families = families(&text);
        let kinds: Vec<_> = families.iter().map(|f| (f.name, f.help, f.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("calls", "Calls that were made.", Kind::Counter),
                ("depth", "Depth.", Kind::Gauge),
                ("took_seconds", "Time.", Kind::Histogram),
            ]
        );
        let calls = &families[0].samples[0];
        assert_eq!((calls.suffix, calls.value), ("_total", 3.0));
        assert_eq!(calls.labels, [("route", odd.into())]);
        assert_eq!((families[1].samples[0].suffix, families[1].samples[0].value), ("", -7.0));

        let samples = &families[2].samples;
        let of = |suffix: &str| samples.iter().find(|s| s.suffix == suffix).unwrap();
        assert_eq!(of("_count").value, 2.0);
        assert_eq!(of("_sum").value, 1e9 + 0.2);
        let buckets: Vec<_> = samples.iter().filter(|s| s.suffix == "_bucket").collect();
        assert_eq!(buckets.len(), LATENCY_BUCKETS.len() + 1);
        assert!(buckets.iter().all(|bucket| bucket.labels.contains(&("a", "1".into()))));
        let exemplars: Vec<_> = buckets.iter().filter_map(|b| b.exemplar.as_ref()).collect();
        let [exemplar] = exemplars[..] else { panic!("{exemplars:?}") };
        assert_eq!(exemplar.value, 0.2);
        assert!(exemplar.time > 1.7e9);
        assert!(exemplar.labels.contains(&("trace_id", trace.trace_id.to_string().into())));
    }

    #[test]
    fn what_is_no_metric_is_passed_over() {
        let text = "# TYPE a counter\na_total{b=\"no end 1\nb 2\na_total x\na_total 1\n# EOF\n";
        let families = families(text);
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].samples.len(), 1);
        assert!(super::families("a 1\n# nothing\n").is_empty());
    }
}
