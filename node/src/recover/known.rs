//! What a stopped node has of each group, as it is printed, and as the same command reads it on another node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rossby_api::placement::MapKeeper;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, Successor};
use rossby_raft::{Member, ReplicaSurvey, survey};
use rossby_seams::disk::{Disk, Inspection, ReadOnlyFileDisk};
use rossby_storage::LogPosition;
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica};
use rossby_storage::store;
use rossby_storage::wal::{self, Wal, WalOptions};
use serde::{Deserialize, Serialize};

use super::judge::Voice;
use super::pending;
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
    /// Those before, while they may be the ones that are committed.
    pub members_before: Vec<LeftMember>,
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
        let told = |members: Vec<(ReplicaId, Member, bool)>| {
            let members = members.into_iter();
            let member = |(replica, member, _): (ReplicaId, Member, bool)| LeftMember {
                replica,
                node: member.node,
                peer_address: member.peer_address,
                client_address: member.client_address,
            };
            members.map(member).collect()
        };
        Self {
            group: held.group,
            replica: held.replica,
            last: found.last.max(checkpoint),
            committed: found.committed,
            members: told(found.members),
            members_before: told(found.members_before),
            electorates: found.electorates,
        }
    }

    /// All who may be members.
    pub fn all_members(&self) -> impl Iterator<Item = &LeftMember> {
        self.members.iter().chain(&self.members_before)
    }

    /// What it tells of its group, as that is judged.
    pub fn voice(&self) -> Voice {
        let members = self.all_members();
        Voice {
            replica: self.replica,
            last: self.last,
            electorates: self.electorates.clone(),
            members: members
                .map(|member| (member.replica, member.node))
                .collect(),
        }
    }

    /// Whether it tells of each member once, and of all who vote.
    fn is_whole(&self) -> bool {
        let mut known = BTreeSet::new();
        let is_once = self
            .members
            .iter()
            .all(|member| known.insert(member.replica));
        let mut voters = self.electorates.iter().flatten();
        is_once && voters.all(|voter| known.contains(voter))
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
    /// The newest cluster map that it knows.
    pub map: ClusterMap,
    /// The groups that were recovered on it, of which no map tells yet.
    pub recovered: BTreeMap<GroupId, Successor>,
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
        let report: Self = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
        let mut groups = BTreeSet::new();
        let mut left = report.groups.iter();
        match left.all(|left| left.is_whole() && groups.insert(left.group)) {
            true => Ok(report),
            false => Err(wrong(&"it contradicts itself")),
        }
    }

    /// What is left of a group there.
    pub fn group(&self, group: GroupId) -> Option<&Left> {
        self.groups.iter().find(|left| left.group == group)
    }

    /// All nodes of which it knows, and where their peers reach them.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let members = self.groups.iter().flat_map(Left::all_members);
        let members = members.map(|member| (member.node, member.peer_address.as_str()));
        let nodes = self.map.nodes().iter();
        members.chain(nodes.map(|(node, entry)| (*node, entry.peer_address.as_str())))
    }
}

/// What there is in a data directory.
pub struct Found {
    /// What is left.
    pub report: Report,
    /// The cluster that it is of.
    pub cluster: ClusterIdentity,
    /// The log, only for reading.
    pub log: Wal,
}

/// Looks at all replicas in a data directory that the caller has locked, and changes nothing.
///
/// # Errors
/// If something can't be read, or is damaged.
pub fn look(data: &DataDirectory) -> Result<Found, Failure> {
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
        map: map(data)?,
        recovered: recovered(data)?,
    };
    Ok(Found {
        report,
        cluster: cluster.clone(),
        log,
    })
}

/// The newest map that the node has written down.
fn map(data: &DataDirectory) -> Result<ClusterMap, Failure> {
    MapKeeper::read(&**data.disk(), data.path()).map_err(|reason| {
        let text = format!("the cluster map in {}: {reason}", data.path().display());
        Failure::new(Exit::Storage, text).help(
            "move the file `map` away. What it alone said is lost then, unless the report of another node says it",
        )
    })
}

/// What was recovered before, and is yet to be told.
fn recovered(data: &DataDirectory) -> Result<BTreeMap<GroupId, Successor>, Failure> {
    match pending::read(&**data.disk(), data.path()) {
        Ok(Some(Change::Recover { groups, .. })) => Ok(groups),
        Ok(_) => Ok(BTreeMap::new()),
        Err(reason) => {
            let text = format!("what was recovered in {}: {reason}", data.path().display());
            Err(Failure::new(Exit::Storage, text))
        }
    }
}
