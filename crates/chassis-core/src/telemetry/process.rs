//! What the process and its runtime use up, read when somebody scrapes.
//!
//! Names are those that every Prometheus client library uses for a process, so that existing
//! dashboards fit. The figures of the process come from `/proc`, which is memory and no disk;
//! where there is none (not Linux) they are left out. Those of the runtime are of the one
//! that the scrape runs on, and only what tokio calls stable.
//!
//! The allocator has no figure of its own: asking glibc takes `unsafe`. The resident size is
//! what an orchestrator kills by.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use tokio::runtime::Handle;

/// Clock ticks per second in `/proc/PID/stat`: Linux shows all programs this number,
/// whatever the kernel's own tick is.
const TICKS: f64 = 100.0;

/// Shows the process and the runtime among the metrics of a service.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(&mut encoder);
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().and_then(|s| Stat::parse(&s))
        {
            out.counter(
                "process_cpu_seconds",
                "CPU time of the process, user and system.",
                stat.cpu_seconds,
            )?;
            if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|s| boot_time(&s)) {
                out.gauge(
                    "process_start_time_seconds",
                    "When the process began, in seconds since 1970.",
                    boot + stat.started_after_boot,
                )?;
            }
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kib) = field(&status, "VmRSS") {
                let help = "Memory of the process that is in RAM.";
                out.gauge("process_resident_memory_bytes", help, kib * 1024.0)?;
            }
            if let Some(kib) = field(&status, "VmSize") {
                let help = "Address space of the process.";
                out.gauge("process_virtual_memory_bytes", help, kib * 1024.0)?;
            }
            if let Some(threads) = field(&status, "Threads") {
                out.gauge("process_threads", "Threads of the process.", threads)?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // The directory that is being read is one of them.
            let count = open.count().saturating_sub(1);
            out.gauge("process_open_fds", "Open file descriptors.", count as f64)?;
        }
        let limits = fs::read_to_string("/proc/self/limits").ok();
        if let Some(most) = limits.as_deref().and_then(max_fds) {
            let help = "File descriptors that the process may have open.";
            out.gauge("process_max_fds", help, most)?;
        }
        match Handle::try_current() {
            Ok(runtime) => runtime_figures(&mut out, &runtime),
            Err(_) => Ok(()),
        }
    }
}

fn runtime_figures(out: &mut Out<'_, '_>, runtime: &Handle) -> fmt::Result {
    let metrics = runtime.metrics();
    let workers = metrics.num_workers();
    out.gauge("tokio_workers", "Worker threads of the runtime.", workers as f64)?;
    out.gauge("tokio_alive_tasks", "Tasks that have not ended.", metrics.num_alive_tasks() as f64)?;
    out.gauge(
        "tokio_global_queue_depth",
        "Tasks that wait for a worker in the queue that all share.",
        metrics.global_queue_depth() as f64,
    )?;
    let busy = (0..workers).map(|n| metrics.worker_total_busy_duration(n).as_secs_f64()).sum();
    out.counter("tokio_worker_busy_seconds", "Time that the workers were busy, all together.", busy)
}

/// Writes families of one series without labels.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.put(name, help, MetricType::Counter, &ConstCounter::new(value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.put(name, help, MetricType::Gauge, &ConstGauge::new(value))
    }

    fn put(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        let help = help.trim_end_matches('.');
        metric.encode(self.0.encode_descriptor(name, help, None, kind)?)
    }
}

struct Stat {
    cpu_seconds: f64,
    started_after_boot: f64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (proc(5)). The second field is the program's name, which may
    /// hold spaces and parentheses: counting begins behind the last one.
    fn parse(stat: &str) -> Option<Stat> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and `rest` begins with field 3.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
            started_after_boot: ticks(22)? / TICKS,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The number of a line `Name:  123 kB`.
fn field(status: &str, name: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// The soft limit; none where it is unlimited.
fn max_fds(limits: &str) -> Option<f64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 4 0 12300 1 2 3";
        let stat = Stat::parse(stat).unwrap();
        assert!((stat.cpu_seconds - 3.0).abs() < 1e-9, "{}", stat.cpu_seconds);
        assert!((stat.started_after_boot - 123.0).abs() < 1e-9, "{}", stat.started_after_boot);
        assert!(Stat::parse("7 (a) S 1").is_none());
    }

    #[test]
    fn an_unlimited_number_of_files_has_no_figure() {
        assert_eq!(max_fds("Max open files            1024   4096   files"), Some(1024.0));
        assert_eq!(max_fds("Max open files            unlimited unlimited files"), None);
    }

    #[tokio::test]
    async fn a_scrape_shows_the_process_and_its_runtime() {
        let metrics = Metrics::default();
        metrics.show_process();
        let text = metrics.encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect(line)
        };
        assert!(value("process_resident_memory_bytes ") > 1e6, "{text}");
        assert!(value("process_open_fds ") >= 3.0, "{text}");
        assert!(value("process_start_time_seconds ") > 1.7e9, "{text}");
        assert!(value("tokio_workers ") >= 1.0, "{text}");
        for name in
            ["process_cpu_seconds_total ", "process_threads ", "tokio_worker_busy_seconds_total "]
        {
            assert!(value(name) >= 0.0, "{text}");
        }
    }
}
