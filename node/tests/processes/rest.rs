//! A cluster of which nothing is asked rests; its leader dies or hangs meanwhile, and people go on.

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;

use crate::support::people::{Person, email};
use crate::support::{Cluster, Node, eventually};

/// Replicas that rest on a node.
fn resting(node: &Node) -> usize {
    let (_, page) = node.page("/metrics").unwrap_or_default();
    let lines = page.lines();
    lines
        .filter(|line| line.starts_with("rossby_raft_resting{") && line.ends_with(" 1"))
        .count()
}

fn wait_rest(cluster: &Cluster) {
    eventually("both groups rest on all nodes", || {
        cluster
            .nodes()
            .iter()
            .all(|node| resting(node) == 2)
            .then_some(())
    });
}

/// Takes the leader away from a cluster at rest, writes to a box, and brings it back.
fn without_the_leader(away: impl Fn(&mut Node), back: impl Fn(&mut Node)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::of(3);
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 1).await;
        ada.add(&ben).await;
        (ada, ben)
    });
    let send = |text: &str| {
        let content = Content::Text(text.to_owned());
        let sent = runtime.block_on(ada.device.send(&ben.box_id(), &content));
        let sent = sent.unwrap();
        assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
    };
    wait_rest(&cluster);
    // To be looked at wakes nobody.
    let leader = cluster.leader();
    wait_rest(&cluster);
    away(cluster.node(leader));
    send("without the leader");
    back(cluster.node(leader));
    cluster.node(leader).wait_ready();
    wait_rest(&cluster);
    send("from a rest");
    runtime.block_on(ben.device.receive()).unwrap();
    let texts = ben.texts_from(&ada.box_id());
    assert_eq!(texts, ["without the leader", "from a rest"]);
}

#[test]
fn people_go_on_when_the_leader_of_a_cluster_at_rest_dies() {
    without_the_leader(Node::kill, Node::start);
}

#[test]
fn people_go_on_when_the_leader_of_a_cluster_at_rest_hangs() {
    without_the_leader(Node::pause, Node::resume);
}
