//! Families of metrics as data points of OTLP.
//!
//! Names stay what `/metrics` shows, so that a dashboard fits both ways; the unit is read off
//! the end of the name, where Prometheus puts it. Every sum is cumulative since the process
//! began.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, Sum, exemplar, metric::Data, number_data_point,
    },
};

use super::openmetrics::{self, Family, Kind, Labels, Sample};
use crate::{SpanId, TraceId};

/// The time that points cover, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u64,
    end: u64,
}

impl Span {
    pub(super) fn until_now(start: SystemTime) -> Span {
        let nanos = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        Span { start: nanos(start), end: nanos(SystemTime::now()) }
    }
}

/// The metrics of a family, at most `most` points in each: a family of many series is told in
/// several parts, which is the same to a collector.
pub(super) fn metrics(family: &Family<'_>, span: Span, most: usize) -> Vec<Metric> {
    let data: Vec<Data> = match family.kind {
        Kind::Counter => chunks(numbers(family, "_total", span), most)
            .map(|data_points| {
                Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                    is_monotonic: true,
                })
            })
            .collect(),
        Kind::Gauge => chunks(numbers(family, "", span), most)
            .map(|data_points| Data::Gauge(Gauge { data_points }))
            .collect(),
        Kind::Histogram => chunks(histograms(family, span), most)
            .map(|data_points| {
                Data::Histogram(Histogram {
                    data_points,
                    aggregation_temporality: AggregationTemporality::Cumulative.into(),
                })
            })
            .collect(),
    };
    data.into_iter()
        .map(|data| Metric {
            name: family.name.to_owned(),
            description: family.help.to_owned(),
            unit: unit(family.name).to_owned(),
            metadata: Vec::new(),
            data: Some(data),
        })
        .collect()
}

fn chunks<T>(points: Vec<T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    let mut points = points.into_iter().peekable();
    std::iter::from_fn(move || {
        points.peek()?;
        Some(points.by_ref().take(most).collect())
    })
}

/// In UCUM, as OTLP has it.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    }
}

fn numbers(family: &Family<'_>, suffix: &str, span: Span) -> Vec<NumberDataPoint> {
    let of_suffix = family.samples.iter().filter(|sample| sample.suffix == suffix);
    of_suffix
        .map(|sample| NumberDataPoint {
            attributes: attributes(&sample.labels),
            start_time_unix_nano: if family.kind == Kind::Counter { span.start } else { 0 },
            time_unix_nano: span.end,
            value: Some(number_data_point::Value::AsDouble(sample.value)),
            ..NumberDataPoint::default()
        })
        .collect()
}

/// The samples of one series stand together.
fn histograms(family: &Family<'_>, span: Span) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    let mut series: Option<Labels<'_>> = None;
    for sample in &family.samples {
        let (bound, labels) = without_bound(sample);
        if series.as_ref() != Some(&labels) {
            points.push(HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: span.start,
                time_unix_nano: span.end,
                ..HistogramDataPoint::default()
            });
            series = Some(labels);
        }
        let Some(point) = points.last_mut() else { continue };
        match sample.suffix {
            "_sum" => point.sum = Some(sample.value),
            "_count" => point.count = sample.value as u64,
            "_bucket" => {
                // Ours are counted from the lowest bound on, those of OTLP each by itself.
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push((sample.value as u64).saturating_sub(below));
                point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
                point.exemplars.extend(sample.exemplar.as_ref().map(exemplar));
            }
            _ => {}
        }
    }
    points
}

fn without_bound<'a>(sample: &Sample<'a>) -> (Option<f64>, Labels<'a>) {
    let mut labels = sample.labels.clone();
    let bound = labels.iter().position(|(name, _)| *name == "le").map(|at| labels.remove(at).1);
    // `+Inf` is read as infinity.
    (bound.and_then(|bound| bound.parse().ok()), labels)
}

fn exemplar(given: &openmetrics::Exemplar<'_>) -> Exemplar {
    let of = |name| given.labels.iter().find(|(label, _)| *label == name).map(|(_, id)| &**id);
    let time = Duration::try_from_secs_f64(given.time).unwrap_or_default();
    Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        span_id: of("span_id").and_then(SpanId::parse).map_or(vec![], |id| id.to_bytes().to_vec()),
        trace_id: of("trace_id")
            .and_then(TraceId::parse)
            .map_or(vec![], |id| id.to_bytes().to_vec()),
        value: Some(exemplar::Value::AsDouble(given.value)),
    }
}

fn attributes(labels: &Labels<'_>) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute(name, value)).collect()
}

pub(super) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metrics, TraceContext};

    #[test]
    fn a_histogram_is_told_bucket_by_bucket() {
        let metrics = Metrics::default();
        let trace = TraceContext::root(true);
        for route in ["/a", "/b"] {
            let labels = [("route", route)];
            let took = metrics.histogram("took_seconds", "Time.", &labels, &[0.1, 1.0]);
            for value in [0.05, 0.06, 0.5, 7.0] {
                took.observe_traced(value, &trace);
            }
        }
        let text = metrics.encode();
        let families = openmetrics::families(&text);
        let [metric] = &super::metrics(&families[0], Span { start: 1, end: 2 }, 10)[..] else {
            panic!("one metric");
        };
        assert_eq!((&*metric.name, &*metric.unit), ("took_seconds", "s"));
        let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
        assert_eq!(histogram.data_points.len(), 2);
        for point in &histogram.data_points {
            assert_eq!(point.count, 4);
            assert_eq!(point.bucket_counts, [2, 1, 1]);
            assert_eq!(point.explicit_bounds, [0.1, 1.0]);
            assert!((point.sum.unwrap() - 7.61).abs() < 1e-9);
            assert_eq!(point.attributes.len(), 1);
            assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
            assert_eq!(point.exemplars.len(), 3);
            assert_eq!(point.exemplars[0].trace_id, trace.trace_id.to_bytes());
            assert!(point.exemplars[0].time_unix_nano > 1_700_000_000_000_000_000);
        }
    }

    #[test]
    fn a_family_of_many_series_is_told_in_parts() {
        let metrics = Metrics::default();
        for n in 0..25 {
            metrics.counter("calls", "Calls.", &[("n", &n.to_string())]).add(n);
        }
        let text = metrics.encode();
        let parts = super::metrics(&openmetrics::families(&text)[0], Span { start: 1, end: 2 }, 10);
        let lengths: Vec<usize> = parts
            .iter()
            .map(|metric| match &metric.data {
                Some(Data::Sum(sum)) if sum.is_monotonic => sum.data_points.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [10, 10, 5]);
    }
}
