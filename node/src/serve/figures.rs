//! Figures of the groups and their storage, read when somebody asks for them.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rossby_api::http::Readiness as _;
use rossby_raft::{CheckpointRounds, GroupStatus, ReadCounts};

use super::node::{Membership, Node};

/// The figures of a node.
#[derive(Debug)]
pub struct Figures(Weak<Node>);

impl Figures {
    /// Registers the figures of a node, which need not outlive the registry.
    pub fn register(registry: &mut Registry, node: &Arc<Node>) {
        registry.register_collector(Box::new(Self(Arc::downgrade(node))));
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.id()).finish()
    }
}

type Encoded = Result<(), std::fmt::Error>;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let Some(node) = self.0.upgrade() else {
            return Ok(());
        };
        let ready = u64::from(node.ready().is_ok());
        gauge(
            &mut encoder,
            "rossby_ready",
            "Whether the node can serve",
            ready,
        )?;
        let space = &node.parts.space;
        let disk = [
            (
                "rossby_disk_free_bytes",
                "Bytes that are free on the disk of the data directory",
                space.free_bytes(),
            ),
            (
                "rossby_disk_reserve_held",
                "Whether the space set aside for a full disk is untouched",
                space.is_reserve_held().into(),
            ),
            (
                "rossby_disk_refusing",
                "Whether writes are refused since the disk is full",
                space.is_refusing().into(),
            ),
        ];
        for (name, help, value) in disk {
            gauge(&mut encoder, name, help, value)?;
        }
        match node.membership() {
            Some(membership) => encode_membership(&mut encoder, membership),
            None => Ok(()),
        }
    }
}

/// What a group is labelled with.
type Label = [(&'static str, String); 1];

/// A figure of a group, taken from its status.
type Figure = (&'static str, &'static str, fn(&Seen) -> u64);

/// A replica at one moment.
struct Seen {
    label: Label,
    status: GroupStatus,
    rounds: CheckpointRounds,
    reads: ReadCounts,
    pinned_bytes: u64,
}

const FIGURES: [Figure; 12] = [
    ("rossby_raft_term", "The group's term", |seen| {
        seen.status.term
    }),
    (
        "rossby_raft_leader",
        "Whether this node leads the group",
        |seen| u64::from(seen.status.role == "leader"),
    ),
    (
        "rossby_raft_resting",
        "Whether this replica rests, since nothing is asked of its group",
        |seen| seen.status.resting.into(),
    ),
    (
        "rossby_expiry_blocked",
        "Whether no mail expires, since the clock of this node, the leader, jumped",
        |seen| seen.status.expiry_blocked.is_some().into(),
    ),
    (
        "rossby_time_ahead_seconds",
        "How far the service's time is ahead of the clock of this node, the leader",
        |seen| seen.status.time_ahead_ms / 1000,
    ),
    ("rossby_raft_members", "Members of the group", |seen| {
        seen.status.members.len() as u64
    }),
    (
        "rossby_raft_last_log_index",
        "Last entry in the log",
        |seen| seen.status.last_log_index.unwrap_or_default(),
    ),
    (
        "rossby_raft_committed_index",
        "Last committed entry",
        |seen| seen.status.committed_index.unwrap_or_default(),
    ),
    ("rossby_raft_applied_index", "Last applied entry", |seen| {
        seen.status.applied_index.unwrap_or_default()
    }),
    (
        "rossby_raft_checkpoint_index",
        "Entry of the checkpoint",
        |seen| seen.status.checkpoint_index.unwrap_or_default(),
    ),
    (
        "rossby_raft_follower_lag",
        "Entries that the last follower lacks",
        |seen| lag(&seen.status),
    ),
    (
        "rossby_wal_pinned_bytes",
        "Bytes of log since the last purge",
        |seen| seen.pinned_bytes,
    ),
];

const COUNTERS: [Figure; 4] = [
    (
        "rossby_checkpoints_begun",
        "Checkpoints of its own that this node has begun to write since it started",
        |seen| seen.rounds.begun,
    ),
    (
        "rossby_checkpoints_ended",
        "Those of them that are written and settled, or were given up; one that is begun and not ended \
         is being written",
        |seen| seen.rounds.ended,
    ),
    (
        "rossby_reads_by_lease",
        "Reads that this node, the leader, answered by its lease, without asking anybody",
        |seen| seen.reads.by_lease,
    ),
    (
        "rossby_reads_by_quorum",
        "Reads that this node, the leader, answered after a quorum had confirmed that it leads",
        |seen| seen.reads.by_quorum,
    ),
];

/// What became of signals, whomever they were for.
fn encode_signals(encoder: &mut DescriptorEncoder<'_>, membership: &Membership) -> Encoded {
    let (name, help) = (
        "rossby_signals",
        "Signals, such as that somebody is typing, by what became of them at this node",
    );
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (outcome, count) in membership.router.signal_fates() {
        let label = [("outcome", outcome)];
        ConstCounter::new(count).encode(metric.encode_family(&label)?)?;
    }
    Ok(())
}

fn encode_membership(encoder: &mut DescriptorEncoder<'_>, membership: &Membership) -> Encoded {
    encode_signals(encoder, membership)?;
    gauge(
        encoder,
        "rossby_map_version",
        "The newest cluster map that this node knows",
        membership.map.newest().version().0,
    )?;
    gauge(
        encoder,
        "rossby_store_overlay_bytes",
        "Bytes of state that wait for a checkpoint",
        membership.engine.store.overlay_bytes(),
    )?;
    let groups = membership.replicas.all();
    let seen: Vec<Seen> = groups
        .iter()
        .map(|group| Seen {
            label: [("group", group.id().to_string())],
            status: group.status(),
            rounds: group.checkpoint_rounds(),
            reads: group.read_counts(),
            pinned_bytes: membership.engine.wal.pinned_bytes(group.id()),
        })
        .collect();
    for (name, help, figure) in FIGURES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for seen in &seen {
            let value = i64::try_from(figure(seen)).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(metric.encode_family(&seen.label)?)?;
        }
    }
    for (name, help, figure) in COUNTERS {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for seen in &seen {
            ConstCounter::new(figure(seen)).encode(metric.encode_family(&seen.label)?)?;
        }
    }
    Ok(())
}

/// How far the slowest member is behind, as the leader knows it; 0 elsewhere.
fn lag(status: &GroupStatus) -> u64 {
    let last = status.last_log_index.unwrap_or_default();
    let matched = status
        .members
        .iter()
        .filter_map(|(_, _, _, matched)| *matched)
        .min();
    matched.map_or(0, |matched| last.saturating_sub(matched))
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Encoded {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    // Gauges are signed in the exposition format; no figure here comes near its end.
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(metric)
}
