//! Looks on from outside: while a leader's lease is good, nobody else leads, or has led later.
//!
//! People find out too, by reading what is the latest no more; but that takes one who reads at the old leader
//! just after another wrote through the new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::GroupId;
use rossby_raft::Group;
use tokio::time::sleep;

use super::node::Node;
use super::recorder::Recorder;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Accuses the first leader whose lease outlives its reign.
pub async fn watch(nodes: Vec<Arc<Node>>, recorder: Arc<Recorder>) {
    loop {
        let mut groups: BTreeMap<GroupId, Vec<Arc<Group>>> = BTreeMap::new();
        for life in nodes.iter().filter_map(|node| node.life()) {
            for replica in life.replicas.all() {
                groups.entry(replica.id()).or_default().push(replica);
            }
        }
        if let Some(what) = groups.values().find_map(|replicas| outlived(replicas)) {
            return recorder.accuse("one lease at a time", what);
        }
        sleep(LOOK).await;
    }
}

/// Looks at the replicas of one group.
fn outlived(replicas: &[Arc<Group>]) -> Option<String> {
    let reigns = replicas
        .iter()
        .filter_map(|replica| Some((replica, replica.led_term()?)));
    let (latest, term) = reigns.clone().max_by_key(|(_, term)| *term)?;
    let (old, earlier) = reigns
        .clone()
        .find(|(replica, earlier)| *earlier < term && replica.leads_by_lease())?;
    Some(format!(
        "the lease of replica {}, of term {earlier}, is good while replica {} leads term {term}",
        old.replica(),
        latest.replica()
    ))
}
