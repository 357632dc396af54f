//! Looks on from outside: while a leader's lease is good, nobody else leads, or has led later.
//!
//! People find out too, by reading what is the latest no more; but that takes one who reads at the old leader
//! just after another wrote through the new one.

use std::sync::Arc;
use std::time::Duration;

use rossby_raft::Group;
use tokio::time::sleep;

use super::node::Node;
use super::recorder::Recorder;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Accuses the first leader whose lease outlives its reign.
pub async fn watch(nodes: Vec<Arc<Node>>, recorder: Arc<Recorder>) {
    loop {
        let lives: Vec<_> = nodes.iter().filter_map(|node| node.life()).collect();
        let groups: Vec<&Group> = lives.iter().map(|life| &*life.group).collect();
        if let Some(what) = outlived(&groups) {
            return recorder.accuse("one lease at a time", what);
        }
        sleep(LOOK).await;
    }
}

fn outlived(groups: &[&Group]) -> Option<String> {
    let reigns = groups
        .iter()
        .filter_map(|group| Some((group, group.led_term()?)));
    let (latest, term) = reigns.clone().max_by_key(|(_, term)| *term)?;
    let (old, earlier) = reigns
        .clone()
        .find(|(group, earlier)| *earlier < term && group.leads_by_lease())?;
    Some(format!(
        "the lease of replica {}, of term {earlier}, is good while replica {} leads term {term}",
        old.replica(),
        latest.replica()
    ))
}
