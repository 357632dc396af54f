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

use parking_lot::Mutex;
use rossby_api::peer::Connections;
use rossby_domain::ids::{MapVersion, NodeId};
use rossby_domain::placement::{
    ClusterMap, PLACEMENT_GROUP, PLACEMENT_PARTITION, placement_voters,
};
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_raft::{Group, Leadership, Member};
use rossby_seams::disk::{self, Disk};
use rossby_seams::random;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::node::{Membership, Node};
use super::sealed::{seal, unseal};

/// The map's file in the data directory.
const FILE: &str = "map";
/// What the file begins with.
const WHAT: &str = "rossby cluster map";
/// Between two questions to peers.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a peer may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Keeps the newest map.
pub struct MapKeeper {
    disk: Arc<dyn Disk>,
    path: PathBuf,
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
        let path = data.join(FILE);
        let kept = match disk::read(&*disk, &path) {
            Ok(bytes) => unseal(WHAT, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ClusterMap::default()),
            Err(error) => Err(error.to_string()),
        };
        let kept = kept.unwrap_or_else(|reason| {
            let path = path.display();
            warn!(%path, reason, "the cluster map kept here can't be used: it is asked for again");
            ClusterMap::default()
        });
        Self {
            disk,
            path,
            newest: watch::channel(Arc::new(kept)).0,
            ahead: Mutex::default(),
            told: Notify::new(),
            writing: Mutex::default(),
        }
    }

    /// The newest map; of version 0 if none is known.
    #[must_use]
    pub fn newest(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.newest.borrow())
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

    /// A peer knows a newer map: it is asked next.
    pub fn note_ahead(&self, node: NodeId, address: String) {
        if !address.is_empty() {
            *self.ahead.lock() = Some((node, address));
            self.told.notify_one();
        }
    }

    /// Writes each new map down, until told to stop.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut newest = self.newest.subscribe();
        // What is in the file, or was there and can't be read.
        let mut written = match disk::read(&*self.disk, &self.path) {
            Ok(bytes) => unseal::<ClusterMap>(WHAT, &bytes).map_or(MapVersion(0), |m| m.version()),
            Err(_) => MapVersion(0),
        };
        loop {
            let map = Arc::clone(&newest.borrow_and_update());
            if map.version() > written {
                let version = map.version();
                let keeper = Arc::clone(&self);
                let write = tokio::task::spawn_blocking(move || keeper.write(&map));
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
                changed = newest.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    fn write(&self, map: &ClusterMap) -> io::Result<()> {
        let bytes = seal(WHAT, map)?;
        let _writing = self.writing.lock();
        disk::replace(&*self.disk, &self.path, &bytes)
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
                beyond = group.applied_beyond(applied) => match beyond {
                    Some(index) => applied = Some(index),
                    None => return,
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Asks a peer for a newer map.
    async fn ask(&self, peers: &Connections, own: &Member, node: NodeId, address: &str) {
        let asked = async {
            let connection = peers.get(node, address).await.map_err(|e| e.to_string())?;
            let request = v1::NewerMapRequest {
                known_version: self.newest().version().0,
                peer_address: own.peer_address.clone(),
            };
            let answer = connection.client().get_map(request).await;
            answer.map_err(|status| status.message().to_owned())
        };
        let answer = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(reason)) => return debug!(%node, reason, "a peer was asked for the cluster map"),
            Err(_) => return debug!(%node, "a peer does not tell the cluster map"),
        };
        if answer.map.is_empty() {
            return;
        }
        match serde_json::from_slice::<ClusterMap>(&answer.map) {
            Ok(map) => {
                let version = map.version();
                if self.offer(Arc::new(map)) {
                    info!(%version, from = %node, "a newer cluster map");
                }
            }
            Err(error) => warn!(%node, %error, "a peer told what is no cluster map"),
        }
    }
}

impl Node {
    /// Asks peers for newer maps, as long as this node does not hear of them from the placement group
    /// itself.
    pub(super) async fn ask_for_maps(&self) {
        let Some((peers, membership)) = self.parts.peers.as_ref().zip(self.membership()) else {
            return;
        };
        let keeper = &membership.map;
        while !self.stop_tasks.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = keeper.told.notified() => {}
                () = self.stop_tasks.cancelled() => return,
            }
            let ahead = keeper.ahead.lock().take();
            if ahead.is_none() && hears_of_maps(membership) {
                continue;
            }
            if let Some((node, address)) = ahead.or_else(|| self.someone(membership)) {
                let own = self.own_member();
                let asking = keeper.ask(peers, &own, node, &address);
                let _ = self.stop_tasks.run_until_cancelled(asking).await;
            }
        }
    }

    /// Any other node of the map; without a map, any other member of this node's groups. Those of the
    /// placement group are asked more often: they know first.
    fn someone(&self, membership: &Membership) -> Option<(NodeId, String)> {
        let map = membership.map.newest();
        let [first, second] = random::bytes(&*self.parts.random).ok()?;
        let mut known: Vec<(NodeId, String)> = Vec::new();
        let voters = placement_voters(map.nodes(), &BTreeMap::new());
        let preferred = first % 2 == 0;
        for (node, entry) in map.nodes() {
            if !preferred || voters.contains(node) {
                known.push((*node, entry.peer_address.clone()));
            }
        }
        if map.nodes().is_empty() {
            let members = membership.replicas.members().into_iter();
            known.extend(members.map(|member| (member.node, member.peer_address)));
        }
        known.retain(|(node, address)| *node != self.id() && !address.is_empty());
        let at = usize::from(second) % known.len().max(1);
        known.into_iter().nth(at)
    }
}

/// Whether a leader of the placement group speaks to this node's replica of it.
fn hears_of_maps(membership: &Membership) -> bool {
    let placement = membership.replicas.get(PLACEMENT_GROUP);
    placement.is_some_and(|group| group.leadership() != Leadership::Unknown)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rossby_domain::ids::{ClusterId, PartitionCount};
    use rossby_domain::placement::{Change, NodeEntry, NodeState, RegionName};
    use rossby_seams::disk::MemoryDisk;

    use super::super::founding::Founding;
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
        let cluster = ClusterId::from_random([7; 16]);
        let name = "test".to_owned();
        let plan = Founding::new(cluster, name, PartitionCount::DEFAULT, None, nodes);
        plan.unwrap().map().unwrap()
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
        let keeping = tokio::spawn(Arc::clone(&keeper).keep(stop.clone()));
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
        let written = seal(WHAT, &second()).unwrap();
        for at in (0..written.len()).step_by(7) {
            let mut flipped = written.clone();
            flipped[at] ^= 4;
            disk::replace(&*disk, Path::new("/data/map"), &flipped).unwrap();
            assert_eq!(open(&disk).newest().version(), MapVersion(0), "byte {at}");
        }
        disk::replace(&*disk, Path::new("/data/map"), &written).unwrap();
        assert_eq!(*open(&disk).newest(), second());
    }
}
