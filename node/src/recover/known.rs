//! What a stopped node has of each group, as it is printed, and as the same command reads it on another node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_raft::{ReplicaSurvey, survey};
use rossby_seams::disk::{Disk, Inspection, ReadOnlyFileDisk};
use rossby_storage::LogPosition;
use rossby_storage::datadir::{DataDirectory, HeldReplica};
use rossby_storage::store;
use rossby_storage::wal::{self, Wal, WalOptions};
use serde::{Deserialize, Serialize};

use super::judge::Members;
use crate::exit::{Exit, Failure};

/// A replica of a group that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its last entry.
    pub last: Option<LogPosition>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogPosition>,
    /// The members that it knows last.
    pub members: Vec<LeftMember>,
    /// The sets of voters of each of which a majority must agree.
    pub electorates: Vec<BTreeSet<ReplicaId>>,
}

/// A member, as a replica that is left knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftMember {
    /// The member.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Where peers reach that.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
}

impl Left {
    fn of(held: HeldReplica, found: ReplicaSurvey, checkpoint: Option<LogPosition>) -> Self {
        let members = found.members.into_iter();
        Self {
            group: held.group,
            replica: held.replica,
            last: found.last.max(checkpoint),
            committed: found.committed,
            members: members
                .map(|(replica, member, _)| LeftMember {
                    replica,
                    node: member.node,
                    peer_address: member.peer_address,
                    client_address: member.client_address,
                })
                .collect(),
            electorates: found.electorates,
        }
    }

    /// Its members, as they are judged.
    pub fn judged(&self) -> Members {
        let nodes: BTreeMap<ReplicaId, NodeId> = self
            .members
            .iter()
            .map(|member| (member.replica, member.node))
            .collect();
        let on = |voters: &BTreeSet<ReplicaId>| {
            let on = voters.iter().filter_map(|voter| nodes.get(voter));
            on.copied().collect()
        };
        Members {
            electorates: self.electorates.iter().map(on).collect(),
            all: nodes.values().copied().collect(),
        }
    }

    /// How many entries it has that it does not know to be committed.
    pub fn doubtful(&self) -> u64 {
        let index = |at: Option<LogPosition>| at.map_or(0, |at| at.index);
        index(self.last).saturating_sub(index(self.committed))
    }
}

/// All that is left on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The replicas on it.
    pub groups: Vec<Left>,
}

impl Report {
    /// What another node that is left said.
    ///
    /// # Errors
    /// If the file is no report.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let wrong = |reason: &dyn std::fmt::Display| {
            let text = format!("{}: {reason}", path.display());
            Failure::new(Exit::Config, text).help(
                "`rossby recover --json --dry-run` on that node, stopped, says what belongs there",
            )
        };
        let text = fs::read(path).map_err(|error| wrong(&error))?;
        serde_json::from_slice(&text).map_err(|error| wrong(&error))
    }

    /// What is left of a group there.
    pub fn group(&self, group: GroupId) -> Option<&Left> {
        self.groups.iter().find(|left| left.group == group)
    }
}

/// Looks at all replicas in a data directory that the caller has locked, and changes nothing. The log is only for
/// reading.
///
/// # Errors
/// If something can't be read, or is damaged.
pub fn look(data: &DataDirectory) -> Result<(Report, Wal), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Storage, error)
            .help("`rossby check` says all that is wrong; a damaged replica can't be gone on from")
    };
    let identity = data.identity();
    let cluster = identity.and_then(|identity| identity.cluster.as_ref());
    let (Some(identity), Some(cluster)) = (identity, cluster) else {
        let text = format!("{} is of no cluster", data.path().display());
        return Err(Failure::new(Exit::Refused, text).help("there is nothing to recover in it"));
    };
    let view = || -> Arc<dyn Disk> { Arc::new(Inspection::new(Arc::new(ReadOnlyFileDisk))) };
    let (log, _) =
        wal::examine(view(), &data.wal(), WalOptions::default()).map_err(|error| failed(&error))?;
    let mut groups = Vec::new();
    for held in &identity.replicas {
        // Each group is recovered as if it were the only one.
        let (state, _) = store::examine(view(), &data.checkpoints(), held.group)
            .map_err(|error| failed(&error))?;
        let replica = log
            .log(held.group, held.replica)
            .map_err(|error| failed(&error))?;
        let found = survey(&replica, &state).map_err(|error| failed(&error))?;
        groups.push(Left::of(*held, found, state.applied().position));
    }
    let report = Report {
        cluster: cluster.id,
        node: identity.node,
        groups,
    };
    Ok((report, log))
}
