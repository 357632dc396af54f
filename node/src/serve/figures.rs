//! Figures of the groups and their storage, read when somebody asks for them.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rossby_api::http::Readiness as _;
use rossby_raft::GroupStatus;

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

fn encode_membership(encoder: &mut DescriptorEncoder<'_>, membership: &Membership) -> Encoded {
    let Membership {
        place,
        engine,
        group,
    } = membership;
    let status = group.status();
    let leads = u64::from(status.role == "leader");
    let followers_behind = lag(&status);
    let index = |index: Option<u64>| index.unwrap_or_default();
    let figures = [
        ("rossby_raft_term", "The group's term", status.term),
        (
            "rossby_raft_leader",
            "Whether this node leads the group",
            leads,
        ),
        (
            "rossby_expiry_blocked",
            "Whether no mail expires, since the clock of this node, the leader, jumped",
            status.expiry_blocked.is_some().into(),
        ),
        (
            "rossby_time_ahead_seconds",
            "How far the service's time is ahead of the clock of this node, the leader",
            status.time_ahead_ms / 1000,
        ),
        (
            "rossby_raft_members",
            "Members of the group",
            status.members.len() as u64,
        ),
        (
            "rossby_raft_last_log_index",
            "Last entry in the log",
            index(status.last_log_index),
        ),
        (
            "rossby_raft_committed_index",
            "Last committed entry",
            index(status.committed_index),
        ),
        (
            "rossby_raft_applied_index",
            "Last applied entry",
            index(status.applied_index),
        ),
        (
            "rossby_raft_checkpoint_index",
            "Entry of the checkpoint",
            index(status.checkpoint_index),
        ),
        (
            "rossby_raft_follower_lag",
            "Entries that the last follower lacks",
            followers_behind,
        ),
        (
            "rossby_wal_pinned_bytes",
            "Bytes of log since the last purge",
            engine.wal.pinned_bytes(place.held.group),
        ),
        (
            "rossby_store_overlay_bytes",
            "Bytes of state that wait for a checkpoint",
            engine.store.overlay_bytes(),
        ),
    ];
    for (name, help, value) in figures {
        gauge(encoder, name, help, value)?;
    }
    let rounds = group.checkpoint_rounds();
    let counters = [
        (
            "rossby_checkpoints_begun",
            "Checkpoints of its own that this node has begun to write since it started",
            rounds.begun,
        ),
        (
            "rossby_checkpoints_ended",
            "Those of them that are written and settled, or were given up; one that is begun and not ended \
             is being written",
            rounds.ended,
        ),
    ];
    for (name, help, value) in counters {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)?;
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
