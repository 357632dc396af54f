//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use rossby_bench::drive::Tally;
use rossby_bench::summary::Latency;
use serde::Serialize;

use super::args::LoadArgs;
use super::target::Target;
use super::watch::{Seen, Used};
use crate::exit::Failure;
use crate::output;

/// What a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    clients: u32,
    boxes: u32,
    connections: u32,
    seconds: f64,
    operations: u64,
    per_second: f64,
    latency_ms: LatencyView,
    errors: BTreeMap<String, u64>,
    failed_tries: BTreeMap<String, u64>,
    nodes: Vec<NodeView>,
    client: Option<UsedView>,
}

/// Latencies in milliseconds.
#[derive(Debug, Serialize)]
struct LatencyView {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct NodeView {
    server: String,
    used: Option<UsedView>,
}

/// What a process used.
#[derive(Debug, Serialize)]
struct UsedView {
    cpu_us_per_operation: f64,
    /// Of one processor, in hundredths.
    cpu_percent: f64,
    rss_bytes: u64,
}

impl From<Latency> for LatencyView {
    fn from(latency: Latency) -> Self {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        Self {
            p50: millis(latency.p50),
            p99: millis(latency.p99),
            p999: millis(latency.p999),
            max: millis(latency.max),
        }
    }
}

impl Report {
    pub(super) fn of(
        workload: &'static str,
        load: &LoadArgs,
        target: &Target,
        tally: Tally,
        seen: Seen,
        failed_tries: BTreeMap<String, u64>,
        measured: Duration,
    ) -> Self {
        let latency = Latency::of(&tally.samples);
        let seconds = measured.as_secs_f64();
        let used = |used: Used| UsedView {
            cpu_us_per_operation: used.cpu.as_secs_f64() * 1e6 / latency.count.max(1) as f64,
            cpu_percent: used.cpu.as_secs_f64() * 100.0 / seconds,
            rss_bytes: used.rss_bytes,
        };
        let nodes = target.nodes.iter().zip(seen.nodes);
        let nodes = nodes.map(|(node, seen)| NodeView {
            server: node.server.to_string(),
            used: seen.map(used),
        });
        Self {
            workload,
            clients: load.clients,
            boxes: load.boxes,
            connections: load.connections,
            seconds,
            operations: latency.count,
            per_second: latency.count as f64 / seconds,
            latency_ms: latency.into(),
            errors: tally.faults,
            failed_tries,
            nodes: nodes.collect(),
            client: seen.ourselves.map(used),
        }
    }

    /// Prints it.
    ///
    /// # Errors
    /// If it can't be printed.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return output::json(self);
        }
        output::line(format!(
            "{}: {} clients, {} connections, {} boxes, {} s",
            self.workload, self.clients, self.connections, self.boxes, self.seconds
        ));
        output::line(format!(
            "  {:.0} a second ({} in all)",
            self.per_second, self.operations
        ));
        let LatencyView {
            p50,
            p99,
            p999,
            max,
        } = self.latency_ms;
        output::line(format!(
            "  p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, longest {max:.2} ms"
        ));
        print_counts("errors", &self.errors);
        if !self.failed_tries.is_empty() {
            print_counts("tries that failed, since the start", &self.failed_tries);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let role = if index == 0 { ", asked first" } else { "" };
            print_used(
                &format!("node at {}{role}", node.server),
                node.used.as_ref(),
            );
        }
        print_used("this client", self.client.as_ref());
        Ok(())
    }
}

fn print_counts(what: &str, counts: &BTreeMap<String, u64>) {
    let all: Vec<String> = counts
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    let all = if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    };
    output::line(format!("  {what}: {all}"));
}

fn print_used(who: &str, used: Option<&UsedView>) {
    let Some(used) = used else {
        return output::line(format!("  {who}: not to be seen from here"));
    };
    output::line(format!(
        "  {who}: {:.1} us of processor an operation ({:.0}% of one), {} of memory",
        used.cpu_us_per_operation,
        used.cpu_percent,
        output::size(used.rss_bytes)
    ));
}
