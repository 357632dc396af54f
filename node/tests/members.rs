//! Nodes come and go while the cluster serves: real processes, real orders, and people who write to each
//! other meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]
#![allow(clippy::indexing_slicing, missing_docs)] // A test may fail loudly.

mod support;

use std::collections::BTreeSet;

use support::{Cluster, eventually, stderr};

/// The nodes with a vote, and those without, as a node's status shows them.
fn members(cluster: &mut Cluster, at: u64) -> Option<(BTreeSet<u64>, BTreeSet<u64>)> {
    let status = cluster.node(at).status()?;
    let members = status["groups"][0]["members"].as_array()?.clone();
    let of = |voter: bool| {
        let members = members.iter().filter(|member| member["voter"] == voter);
        members
            .map(|member| member["node"].as_u64().unwrap())
            .collect()
    };
    Some((of(true), of(false)))
}

/// Waits until a node shows exactly these voters and nobody else.
fn wait_members(cluster: &mut Cluster, at: u64, voters: &[u64]) {
    let expected = (voters.iter().copied().collect(), BTreeSet::new());
    eventually(&format!("node {at} sees the voters {voters:?}"), || {
        (members(cluster, at)? == expected).then_some(())
    });
}

#[test]
fn a_cluster_grows_from_one_to_three_and_shrinks_back_to_one() {
    let mut cluster = Cluster::of(1);
    for id in [2, 3] {
        cluster.add_waiting(id);
        let new = cluster.at(id);
        let said = cluster.order_ok(1, &["add-node", &new]);
        assert!(said.contains(&format!("{id} nodes have a vote")), "{said}");
        cluster.node(id).wait_ready();
        // Again: nothing changes.
        let again = cluster.order_ok(1, &["add-node", &new]);
        assert_eq!(Some(again.as_str()), said.split_inclusive('\n').next_back());
    }
    for id in 1..=3 {
        wait_members(&mut cluster, id, &[1, 2, 3]);
    }
    for id in [1, 2] {
        // Whoever leads: the leader hands over first.
        let said = cluster.order_ok(3, &["remove-node", &id.to_string()]);
        assert!(said.contains(&format!("Node {id} is no member")), "{said}");
        cluster.node(id).wait_log("was removed from cluster");
    }
    wait_members(&mut cluster, 3, &[3]);
    cluster.node(3).wait_ready();
    let output = cluster.order(3, &["remove-node", "3"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}
