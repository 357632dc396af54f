//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use rossby_bench::drive::Tally;
use rossby_bench::rounds::{Spell, spells, split};
use rossby_bench::summary::Latency;
use serde::Serialize;

use super::floor::{FLOOR_IN_MEMORY, Floor, IN_MEMORY};
use super::spread::SpreadView;
use super::target::Target;
use super::tries::Tries;
use super::watch::{Seen, SeenNode, Used};
use crate::exit::{Exit, Failure};
use crate::output;

/// What was asked for.
#[derive(Debug, Default, Serialize)]
pub(super) struct Setting {
    pub(super) workload: &'static str,
    pub(super) clients: u32,
    pub(super) connections: u32,
    pub(super) threads: u16,
    pub(super) every_node: bool,
    pub(super) boxes: Option<u32>,
    /// The node that they were registered at, if it is another one.
    pub(super) born_at: Option<String>,
    pub(super) body_bytes: Option<u32>,
    pub(super) sealed: bool,
    /// Whether the boxes are read meanwhile.
    pub(super) read: bool,
    /// Envelopes that wait in each box.
    pub(super) waiting: Option<u32>,
    pub(super) subscribers: Option<u32>,
    /// Groups of boxes, beside the placement group.
    pub(super) groups: Option<u16>,
    /// How boxes and clients are spread over them.
    pub(super) spread: Option<Vec<SpreadView>>,
    /// Replicas of all groups that rested when the measuring began.
    pub(super) resting_replicas: Option<u64>,
    #[serde(skip)]
    pub(super) rss_without_subscribers: Vec<Option<u64>>,
}

impl Setting {
    pub(super) fn of(workload: &'static str) -> Self {
        Self {
            workload,
            ..Self::default()
        }
    }

    /// Whether each operation has to reach the nodes' disks.
    fn writes(&self) -> bool {
        matches!(self.workload, "send" | "deliver" | "register")
    }
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// How many operations, where that is not the number of samples.
    pub(super) operations: Option<u64>,
    pub(super) seen: Seen,
    pub(super) tries: Tries,
    pub(super) readers_stopped: usize,
    pub(super) time: Duration,
    /// What else is to be known.
    pub(super) notes: Vec<String>,
}

/// What a run found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    setting: Setting,
    seconds: f64,
    operations: u64,
    per_second: f64,
    /// `max` takes in how long what was under way at the end had been so.
    latency_ms: Option<LatencyView>,
    under_way_at_end: u64,
    oldest_under_way_ms: f64,
    /// Operations that failed, by code.
    errors: BTreeMap<String, u64>,
    /// Tries that failed in the measured time, which the client may have made good by another.
    failed_tries: BTreeMap<String, u64>,
    /// The same before, while boxes were made and while it warmed up.
    failed_tries_before: BTreeMap<String, u64>,
    nodes: Vec<NodeView>,
    /// What all nodes used of one processor, in hundredths, if all can be seen.
    nodes_cpu_percent: Option<f64>,
    /// What this program used itself.
    client: Option<UsedView>,
    /// `None` if no node tells.
    checkpoints: Option<CheckpointsView>,
    floor: Option<Floor>,
    /// The throughput by the floor's.
    ratio: Option<RatioView>,
    notes: Vec<String>,
    /// Whether there is nothing that was measured.
    #[serde(skip)]
    in_vain: bool,
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
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
    /// Memory before there were subscribers.
    rss_without_subscribers_bytes: Option<u64>,
    checkpoints: Option<u64>,
}

/// What a process used.
#[derive(Debug, Serialize)]
struct UsedView {
    cpu_us_per_operation: Option<f64>,
    /// Of one processor, in hundredths.
    cpu_percent: f64,
    rss_bytes: u64,
}

/// Checkpoints of all nodes, and the latencies of what was under way while one was written and of the
/// rest.
#[derive(Debug, Serialize)]
struct CheckpointsView {
    rounds: u64,
    /// From and to, in seconds since the measuring began; those of different nodes may overlap.
    spells: Vec<(f64, f64)>,
    latency_ms_inside: Option<LatencyView>,
    latency_ms_outside: Option<LatencyView>,
}

#[derive(Debug, Serialize)]
struct RatioView {
    to_echo: f64,
    /// Only of what is written.
    to_sync_4k_1_file: Option<f64>,
    to_sync_4k_3_files: Option<f64>,
}

impl LatencyView {
    /// `None` if there was nothing.
    fn of(latency: Latency) -> Option<Self> {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        (latency.count > 0).then(|| Self {
            p50: millis(latency.p50),
            p99: millis(latency.p99),
            p999: millis(latency.p999),
            max: millis(latency.max),
        })
    }
}

impl UsedView {
    fn of(used: Used, operations: u64, time: Duration) -> Self {
        // The looks are not exactly as far apart as the measured time is long.
        let share = if used.over.is_zero() {
            0.0
        } else {
            used.cpu.as_secs_f64() / used.over.as_secs_f64()
        };
        let cpu = share * time.as_secs_f64();
        Self {
            cpu_us_per_operation: (operations > 0).then(|| cpu * 1e6 / operations as f64),
            cpu_percent: share * 100.0,
            rss_bytes: used.rss_bytes,
        }
    }
}

impl CheckpointsView {
    fn of(nodes: &[SeenNode], tally: &Tally) -> Option<Self> {
        if nodes.iter().all(|node| node.looks.is_empty()) {
            return None;
        }
        let found: Vec<(Vec<Spell>, u64)> = nodes.iter().map(|node| spells(&node.looks)).collect();
        let mut all: Vec<Spell> = found
            .iter()
            .flat_map(|(spells, _)| spells)
            .copied()
            .collect();
        all.sort_by_key(|spell| spell.from_ms);
        let (inside, outside) = split(&tally.samples, &all);
        let seconds = |millis: u32| f64::from(millis) / 1000.0;
        Some(Self {
            rounds: found.iter().map(|(_, rounds)| rounds).sum(),
            spells: all
                .iter()
                .map(|spell| (seconds(spell.from_ms), seconds(spell.to_ms)))
                .collect(),
            latency_ms_inside: LatencyView::of(Latency::of(&inside)),
            latency_ms_outside: LatencyView::of(Latency::of(&outside)),
        })
    }
}

impl Report {
    pub(super) fn of(
        setting: Setting,
        target: &Target,
        measured: Measured,
        floor: Option<Floor>,
    ) -> Self {
        let Measured {
            tally, seen, time, ..
        } = measured;
        let mut latency = Latency::of(&tally.samples);
        latency.max = latency.max.max(tally.under_way.oldest);
        let operations = measured.operations.unwrap_or(latency.count);
        let per_second = operations as f64 / time.as_secs_f64();
        let used = |used: Used| UsedView::of(used, latency.count, time);
        let checkpoints = CheckpointsView::of(&seen.nodes, &tally);
        let writes = setting.writes();
        let mut rss_before = setting.rss_without_subscribers.iter().copied();
        let nodes = target.nodes.iter().zip(&seen.nodes);
        let nodes: Vec<NodeView> = nodes
            .map(|(node, seen)| NodeView {
                server: node.server.to_string(),
                used: seen.used.map(used),
                rss_without_subscribers_bytes: rss_before.next().flatten(),
                checkpoints: (!seen.looks.is_empty()).then(|| spells(&seen.looks).1),
            })
            .collect();
        let percents = nodes
            .iter()
            .map(|node| Some(node.used.as_ref()?.cpu_percent));
        let nodes_cpu_percent = percents.sum();
        let mut report = Self {
            setting,
            seconds: time.as_secs_f64(),
            operations,
            per_second,
            latency_ms: LatencyView::of(latency),
            under_way_at_end: tally.under_way.count,
            oldest_under_way_ms: tally.under_way.oldest.as_secs_f64() * 1000.0,
            errors: tally.faults,
            failed_tries: measured.tries.measured,
            failed_tries_before: measured.tries.before,
            nodes,
            nodes_cpu_percent,
            client: seen.ourselves.map(used),
            checkpoints,
            floor,
            ratio: floor.map(|floor| RatioView {
                to_echo: per_second / floor.echo_per_second,
                to_sync_4k_1_file: writes.then(|| per_second / floor.sync_4k_1_file_per_second),
                to_sync_4k_3_files: writes.then(|| per_second / floor.sync_4k_3_files_per_second),
            }),
            notes: Vec::new(),
            in_vain: false,
        };
        report.notes = report.notes_for(target, measured.readers_stopped);
        report.notes.extend(measured.notes);
        report.in_vain = match report.setting.subscribers {
            // Signs of life may be rarer than the measured time is long.
            Some(0) => false,
            Some(subscribers) => measured.readers_stopped >= subscribers as usize,
            None => operations == 0,
        };
        report
    }

    /// What makes the figures worth less than they seem.
    fn notes_for(&self, target: &Target, readers_stopped: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let writes = self.setting.writes();
        match &self.checkpoints {
            Some(checkpoints) if writes && checkpoints.rounds == 0 => notes.push(
                "no checkpoint was written in the measured time: measure longer (--seconds)".to_owned(),
            ),
            None if writes => notes.push(
                "whether a checkpoint was written is not known: say where the nodes' metrics are (--http)"
                    .to_owned(),
            ),
            _ => {}
        }
        let full = ["QUEUE_FULL", "SENDER_SHARE_FULL"];
        if full.iter().any(|code| self.errors.contains_key(*code)) {
            notes.push(
                "boxes ran full: give more --boxes, or have them read meanwhile (--read)"
                    .to_owned(),
            );
        }
        if self.failed_tries.contains_key("OVERLOADED") {
            notes.push(
                "the nodes took on no more: clients.max_calls, doors.hawk_nonces and \
                 storage.overlay_budget_bytes say how much they do"
                    .to_owned(),
            );
        }
        if readers_stopped > 0 {
            notes.push(format!(
                "{readers_stopped} readers were turned away by the service"
            ));
        }
        if target.in_memory {
            notes.push(IN_MEMORY.to_owned());
        } else if self.floor.is_some_and(|floor| floor.in_memory) {
            notes.push(FLOOR_IN_MEMORY.to_owned());
        }
        notes
    }

    /// Prints it.
    ///
    /// # Errors
    /// If it can't be printed, or nothing succeeded at all.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            output::json(self)?;
        } else {
            self.print_for_people();
        }
        if !self.in_vain {
            return Ok(());
        }
        let what = match self.setting.subscribers {
            Some(_) => "not one subscriber was left",
            None => "not one operation succeeded in the measured time",
        };
        Err(Failure::new(Exit::Failure, what))
    }

    fn print_for_people(&self) {
        output::line(self.headline());
        for spread in self.setting.spread.iter().flatten() {
            output::line(format!("  {}", spread.text()));
        }
        output::line(format!(
            "  {:.0} a second ({} in {} s)",
            self.per_second, self.operations, self.seconds
        ));
        if let Some(latency) = self.latency_ms {
            output::line(format!("  {}", latency_text(latency)));
        }
        if self.under_way_at_end > 0 {
            output::line(format!(
                "  {} under way at the end, the oldest for {:.2} ms",
                self.under_way_at_end, self.oldest_under_way_ms
            ));
        }
        print_counts("errors", &self.errors);
        if !self.failed_tries.is_empty() {
            print_counts("tries that failed", &self.failed_tries);
        }
        if !self.failed_tries_before.is_empty() {
            print_counts("tries that failed before", &self.failed_tries_before);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let role = if index == 0 { ", asked first" } else { "" };
            print_used(
                &format!("node at {}{role}", node.server),
                node.used.as_ref(),
            );
            if let Some(before) = node.rss_without_subscribers_bytes {
                output::line(format!(
                    "    {} before they subscribed",
                    output::size(before)
                ));
            }
        }
        if let Some(percent) = self.nodes_cpu_percent.filter(|_| self.nodes.len() > 1) {
            output::line(format!("  all nodes: {percent:.1}% of a processor"));
        }
        print_used("this client", self.client.as_ref());
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.print();
        }
        if let (Some(floor), Some(ratio)) = (&self.floor, &self.ratio) {
            output::line("this machine at best, just before:");
            floor.print();
            let syncs = match (ratio.to_sync_4k_1_file, ratio.to_sync_4k_3_files) {
                (Some(one), Some(three)) => {
                    format!(", {one:.2} of 4 KiB fdatasync (1 file), {three:.2} (3 files)")
                }
                _ => String::new(),
            };
            output::line(format!(
                "  the service does {:.2} of the echo{syncs}",
                ratio.to_echo
            ));
        }
        for note in &self.notes {
            output::line(format!("note: {note}"));
        }
    }

    fn headline(&self) -> String {
        let setting = &self.setting;
        let mut parts = Vec::new();
        match setting.subscribers {
            Some(0) => {}
            Some(subscribers) => {
                parts.push(format!("{subscribers} subscribers, signs of life heard"))
            }
            None => parts.push(format!("{} clients", setting.clients)),
        }
        if setting.subscribers.is_none() {
            let where_to = if setting.every_node {
                " to each node"
            } else {
                ""
            };
            parts.push(format!("{} connections{where_to}", setting.connections));
        }
        let born = setting.born_at.as_ref();
        let born = born.map_or_else(String::new, |at| format!(" born at {at}"));
        parts.extend(setting.boxes.map(|boxes| format!("{boxes} boxes{born}")));
        if let Some((groups, resting)) = setting.groups.zip(setting.resting_replicas) {
            parts.push(format!(
                "{groups} groups of boxes and the placement group, {resting} replicas at rest"
            ));
        } else {
            parts.extend(setting.groups.map(|groups| format!("{groups} groups")));
        }
        parts.extend(
            setting
                .waiting
                .map(|waiting| format!("{waiting} envelopes in each")),
        );
        let kind = if setting.sealed { ", sealed" } else { "" };
        parts.extend(
            setting
                .body_bytes
                .map(|bytes| format!("{bytes} bytes{kind}")),
        );
        if setting.read {
            parts.push("read meanwhile".to_owned());
        }
        format!("{}: {}", setting.workload, parts.join(", "))
    }
}

impl CheckpointsView {
    fn print(&self) {
        if self.rounds == 0 {
            return output::line("  checkpoints: none");
        }
        let spells: Vec<String> = self
            .spells
            .iter()
            .map(|(from, to)| format!("{from:.1}-{to:.1}"))
            .collect();
        output::line(format!(
            "  checkpoints: {}, of all nodes; written at {} s",
            self.rounds,
            spells.join(", ")
        ));
        for (what, latency) in [
            ("meanwhile", self.latency_ms_inside),
            ("otherwise", self.latency_ms_outside),
        ] {
            let text = latency.map_or_else(|| "nothing".to_owned(), latency_text);
            output::line(format!("    {what}: {text}"));
        }
    }
}

fn latency_text(latency: LatencyView) -> String {
    let LatencyView {
        p50,
        p99,
        p999,
        max,
    } = latency;
    format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, longest {max:.2} ms")
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
    let each = used.cpu_us_per_operation.map_or_else(String::new, |each| {
        format!("{each:.1} us of processor an operation, ")
    });
    output::line(format!(
        "  {who}: {each}{:.1}% of a processor, {} of memory",
        used.cpu_percent,
        output::size(used.rss_bytes)
    ));
}
