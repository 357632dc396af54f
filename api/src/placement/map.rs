//! The newest cluster map that this node knows.
//!
//! ```text
//!   the plan, `<data>/map` ──┐
//!   own replica of group 0 ──┼──► offer ──► newest ──► whoever routes, leads or asks
//!   a peer, every second   ──┘                └─────► `<data>/map`
//! ```
//!
//! Invariants: a version never goes back. The map is a hint: what a group owns is fenced in the group's own
//! log. So a file that is damaged or missing costs no more than asking for the map again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_domain::ids::{MapVersion, NodeId};
use rossby_domain::placement::{
    ClusterMap, NodeEntry, PLACEMENT_GROUP, PLACEMENT_PARTITION, placement_voters,
};
use rossby_domain::{Answer, Query};
use rossby_raft::{Blocking, Group, Groups, Leadership, Member};
use rossby_seams::disk::Disk;
use rossby_seams::random::{self, Random};
use rossby_seams::watch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::replicas::Replicas;
use super::sealed::SealedFile;

/// The map in the data directory.
const FILE: SealedFile = SealedFile {
    name: "map",
    what: "rossby cluster map",
};
/// Between two questions to peers.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A node that hears of maps from its placement group asks all the same, every so many times: the group may go on
/// without the part that this node is in.
const ASK_ANYWAY: u32 = 5;
/// Every time at first, when that may have come about while the node was away.
const AT_FIRST: u32 = 20;
/// How long a peer may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where newer maps come from: other nodes.
#[async_trait]
pub trait MapSource: Send + Sync {
    /// The map of a node, if it is newer than the one known here.
    ///
    /// # Errors
    /// Why the node does not tell.
    async fn newer(
        &self,
        node: NodeId,
        address: &str,
        known: MapVersion,
    ) -> Result<Option<ClusterMap>, String>;
}

/// Keeps the newest map.
pub struct MapKeeper {
    disk: Arc<dyn Disk>,
    /// The data directory.
    folder: PathBuf,
    newest: watch::Sender<Arc<ClusterMap>>,
    /// Who said that it knows a newer one.
    ahead: Mutex<Option<(NodeId, String)>>,
    told: Notify,
    /// Held while the file is replaced.
    writing: Mutex<()>,
}

impl MapKeeper {
    /// What the file in a data directory says; nothing if there is none that can be used.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>, data: &std::path::Path) -> Self {
        let kept = Self::read(&*disk, data).unwrap_or_else(|reason| {
            let path = FILE.path(data);
            let path = path.display();
            warn!(%path, reason, "the cluster map kept here can't be used: it is asked for again");
            ClusterMap::default()
        });
        Self {
            disk,
            folder: data.to_owned(),
            newest: watch::channel(Arc::new(kept)).0,
            ahead: Mutex::default(),
            told: Notify::new(),
            writing: Mutex::default(),
        }
    }

    /// The map in the file in a data directory; of version 0 if there is none.
    ///
    /// # Errors
    /// Why what is there can't be used.
    pub fn read(disk: &dyn Disk, data: &std::path::Path) -> Result<ClusterMap, String> {
        FILE.read(disk, data).map(Option::unwrap_or_default)
    }

    /// The newest map; of version 0 if none is known.
    #[must_use]
    pub fn newest(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.newest.borrow())
    }

    /// Changes of [`Self::newest`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.newest.subscribe()
    }

    /// Takes a map in, if it is newer; whether it is.
    pub fn offer(&self, map: Arc<ClusterMap>) -> bool {
        self.newest.send_if_modified(|newest| {
            let newer = map.version() > newest.version();
            if newer {
                *newest = map;
            }
            newer
        })
    }

    /// A peer knows a newer map: it is asked next. So is it where this node knows nobody to ask.
    pub fn note_ahead(&self, node: NodeId, address: String) {
        if !address.is_empty() {
            *self.ahead.lock() = Some((node, address));
            self.told.notify_one();
        }
    }

    /// Writes each new map down, until told to stop.
    pub async fn keep(self: Arc<Self>, blocking: Blocking, stop: CancellationToken) {
        let mut newest = self.newest.subscribe();
        // What is in the file, or was there and can't be read.
        let kept: Option<ClusterMap> = FILE.read(&*self.disk, &self.folder).ok().flatten();
        let mut written = kept.map_or(MapVersion(0), |map| map.version());
        loop {
            let map = Arc::clone(&newest.borrow_and_update());
            if map.version() > written {
                let version = map.version();
                let keeper = Arc::clone(&self);
                let write = blocking.run(move || keeper.write(&map));
                match write.await {
                    Ok(Ok(())) => {
                        written = version;
                        debug!(%version, "kept a newer cluster map");
                    }
                    // A help for the next start only.
                    Ok(Err(error)) => warn!(%error, "the cluster map could not be written down"),
                    Err(error) => warn!(%error, "the cluster map could not be written down"),
                }
            }
            tokio::select! {
                biased;
                changed = newest.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Introduces the other nodes of each new map to this node's groups, until told to stop.
    pub async fn introduce(
        self: Arc<Self>,
        node: NodeId,
        groups: Arc<Groups>,
        stop: CancellationToken,
    ) {
        let mut newest = self.newest.subscribe();
        loop {
            let map = Arc::clone(&newest.borrow_and_update());
            let others = map.nodes().iter().filter(|(other, _)| **other != node);
            let member = |(node, entry): (&NodeId, &NodeEntry)| Member {
                node: *node,
                peer_address: entry.peer_address.clone(),
                client_address: entry.client_address.clone(),
            };
            groups.introduce(others.map(member).collect());
            tokio::select! {
                biased;
                changed = newest.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn write(&self, map: &ClusterMap) -> io::Result<()> {
        let _writing = self.writing.lock();
        FILE.write(&*self.disk, &self.folder, map)
    }

    /// Writes the newest map down at once, and returns it.
    ///
    /// # Errors
    /// The system's error.
    pub fn write_newest(&self) -> io::Result<Arc<ClusterMap>> {
        let newest = self.newest();
        self.write(&newest)?;
        Ok(newest)
    }

    /// Takes the maps from this node's own replica of the placement group, until it ends.
    pub async fn follow(self: Arc<Self>, group: Arc<Group>, stop: CancellationToken) {
        let mut applied = None;
        loop {
            match group.read_local(PLACEMENT_PARTITION, &Query::Map) {
                Ok(Answer::Map(map)) => {
                    let version = map.version();
                    if self.offer(Arc::new(map)) {
                        info!(%version, "the cluster map has changed");
                    }
                }
                Ok(_) => return,
                Err(error) => debug!(%error, "the cluster map can't be read here"),
            }
            tokio::select! {
                biased;
                beyond = group.applied_beyond(applied) => match beyond {
                    Some(index) => applied = Some(index),
                    None => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Asks other nodes for newer maps, as long as this node does not hear of them from the placement group
    /// itself, until told to stop.
    pub async fn ask_others(
        &self,
        source: &dyn MapSource,
        (own, replicas): (NodeId, &Replicas),
        random: &dyn Random,
        stop: &CancellationToken,
    ) {
        let mut turn: u32 = 0;
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.told.notified() => {}
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            turn = turn.wrapping_add(1);
            let ahead = self.ahead.lock().take();
            let asks_anyway = turn <= AT_FIRST || turn.is_multiple_of(ASK_ANYWAY);
            if ahead.is_none() && hears_of_maps(replicas) && !asks_anyway {
                continue;
            }
            let someone = || self.someone(own, replicas, random);
            if let Some((node, address)) = ahead.or_else(someone) {
                let asking = self.ask(source, node, &address);
                let _ = stop.run_until_cancelled(asking).await;
            }
        }
    }

    /// Asks a node for a newer map.
    async fn ask(&self, source: &dyn MapSource, node: NodeId, address: &str) {
        let asked = source.newer(node, address, self.newest().version());
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(Some(map))) => {
                let version = map.version();
                if self.offer(Arc::new(map)) {
                    info!(%version, from = %node, "a newer cluster map");
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(reason)) => debug!(%node, reason, "a peer was asked for the cluster map"),
            Err(_) => debug!(%node, "a peer does not tell the cluster map"),
        }
    }

    /// Any other node of the map; without a map, any other member of this node's groups. Those of the
    /// placement group are asked more often: they know first.
    fn someone(
        &self,
        own: NodeId,
        replicas: &Replicas,
        random: &dyn Random,
    ) -> Option<(NodeId, String)> {
        let map = self.newest();
        let [first, second] = random::bytes(random).ok()?;
        let mut known: Vec<(NodeId, String)> = Vec::new();
        let voters = placement_voters(map.nodes(), &BTreeMap::new());
        let preferred = first % 2 == 0;
        for (node, entry) in map.nodes() {
            if !preferred || voters.contains(node) {
                known.push((*node, entry.peer_address.clone()));
            }
        }
        if map.nodes().is_empty() {
            let members = replicas.members().into_iter();
            known.extend(members.map(|member| (member.node, member.peer_address)));
        }
        known.retain(|(node, address)| *node != own && !address.is_empty());
        let at = usize::from(second) % known.len().max(1);
        known.into_iter().nth(at)
    }
}

/// Whether a leader of the placement group speaks to this node's replica of it.
fn hears_of_maps(replicas: &Replicas) -> bool {
    let placement = replicas.get(PLACEMENT_GROUP);
    placement.is_some_and(|group| group.leadership() != Leadership::Unknown)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rossby_domain::ids::PartitionCount;
    use rossby_domain::placement::{
        Beginning, Birth, Change, NodeEntry, NodeState, RegionName, SurvivalGoal, VOTERS_AT_HOME,
        birth,
    };
    use rossby_seams::disk::{self, MemoryDisk};

    use super::*;

    fn entry(node: u64) -> NodeEntry {
        NodeEntry {
            region: RegionName::default(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: format!("10.0.0.{node}:7470"),
            state: NodeState::Active,
        }
    }

    fn first() -> ClusterMap {
        let nodes = BTreeMap::from([(NodeId(1), entry(1))]);
        let goal = SurvivalGoal::Node;
        let Birth { groups, .. } = birth(&nodes, goal, VOTERS_AT_HOME);
        let change = Change::Found(Beginning {
            goal,
            partitions: PartitionCount::DEFAULT,
            nodes,
            groups,
        });
        ClusterMap::default().after(&change).unwrap()
    }

    fn second() -> ClusterMap {
        let change = Change::PutNode {
            node: NodeId(2),
            entry: entry(2),
        };
        first().after(&change).unwrap()
    }

    fn disk() -> Arc<dyn Disk> {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        disk.create_directory(Path::new("/data")).unwrap();
        disk
    }

    fn open(disk: &Arc<dyn Disk>) -> MapKeeper {
        MapKeeper::open(Arc::clone(disk), Path::new("/data"))
    }

    #[test]
    fn versions_never_go_back() {
        let keeper = open(&disk());
        assert_eq!(keeper.newest().version(), MapVersion(0));
        assert!(!keeper.offer(Arc::new(ClusterMap::default())));
        assert!(keeper.offer(Arc::new(second())));
        assert!(!keeper.offer(Arc::new(first())));
        assert!(!keeper.offer(Arc::new(second())));
        assert_eq!(*keeper.newest(), second());
    }

    #[tokio::test]
    async fn a_map_is_found_again_after_a_restart() {
        let disk = disk();
        let keeper = Arc::new(open(&disk));
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(Arc::clone(&keeper).keep(Blocking::Threads, stop.clone()));
        keeper.offer(Arc::new(second()));
        while open(&disk).newest().version() != second().version() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        keeping.await.unwrap();
        assert_eq!(*open(&disk).newest(), second());
    }

    #[test]
    fn a_damaged_map_is_none_and_keeps_nobody_from_starting() {
        let disk = disk();
        assert_eq!(
            MapKeeper::read(&*disk, Path::new("/data")),
            Ok(ClusterMap::default())
        );
        FILE.write(&*disk, Path::new("/data"), &second()).unwrap();
        let written = disk::read(&*disk, Path::new("/data/map")).unwrap();
        for at in (0..written.len()).step_by(7) {
            let mut flipped = written.clone();
            flipped[at] ^= 4;
            disk::replace(&*disk, Path::new("/data/map"), &flipped).unwrap();
            assert_eq!(open(&disk).newest().version(), MapVersion(0), "byte {at}");
            assert!(MapKeeper::read(&*disk, Path::new("/data")).is_err());
        }
        disk::replace(&*disk, Path::new("/data/map"), &written).unwrap();
        assert_eq!(*open(&disk).newest(), second());
    }
}
