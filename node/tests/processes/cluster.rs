//! Clusters of real processes over mutual TLS: how they are made, led, and kept apart.

use std::io::{Read as _, Write as _};

use crate::support::{self, Cluster, copy, eventually, run, stderr};

#[test]
fn three_nodes_become_a_cluster_that_keeps_a_leader_whoever_dies() {
    let mut cluster = Cluster::of(3);
    let first = cluster.leader();
    let status = cluster.node(first).status().unwrap();
    assert_eq!(
        status["groups"][0]["members"].as_array().unwrap().len(),
        3,
        "{status}"
    );
    cluster.node(first).kill();
    let second = cluster.leader();
    assert_ne!(second, first);
    cluster.node(second).wait_ready();
    cluster.node(first).start();
    cluster.node(first).wait_ready();
    assert_eq!(
        cluster.leader(),
        second,
        "a returning node must not depose the leader"
    );
    // All at once, as in a power cut.
    for id in 1..=3 {
        cluster.node(id).kill();
    }
    for id in 1..=3 {
        cluster.node(id).start();
    }
    for id in 1..=3 {
        cluster.node(id).wait_ready();
    }
}

#[test]
fn leadership_moves_where_the_operator_wants_it() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let to = if leader == 3 { 1 } else { leader + 1 };
    let order = |cluster: &mut Cluster, at: u64, to: u64| {
        let data = cluster.node(at).data().display().to_string();
        run([
            "cluster",
            "transfer-leader",
            "--data",
            &data,
            "--to",
            &to.to_string(),
        ])
    };
    // Only the leader can hand over; others say who it is.
    let output = order(&mut cluster, to, to);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("node {leader}")),
        "{}",
        stderr(&output)
    );
    // Nobody can make a node lead that has no vote: trying again will not help.
    let output = order(&mut cluster, leader, 9);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("node 9 has no vote"),
        "{}",
        stderr(&output)
    );
    let output = order(&mut cluster, leader, to);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(cluster.leader(), to);
}

#[test]
fn a_leader_that_is_told_to_stop_hands_over_first() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let stopped = cluster.node(leader).terminate();
    assert_eq!(stopped.status.code(), Some(0));
    assert!(
        cluster.node(leader).log().contains("handed over"),
        "{}",
        cluster.node(leader).log()
    );
    assert_ne!(cluster.leader(), leader);
}

#[test]
fn init_is_finished_by_giving_it_again_and_refuses_another_plan() {
    let mut cluster = Cluster::waiting(3);
    let (status, body) = cluster.node(1).page("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("cluster init"), "{body}");
    // Node 3 is away: the founder can't even describe it, and nothing is made.
    cluster.node(3).kill();
    let output = cluster.init();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("node 3"), "{}", stderr(&output));
    cluster.node(3).start();
    cluster.node(3).wait_alive();
    let output = cluster.init();
    assert!(output.status.success(), "{}", stderr(&output));
    // Once more changes nothing, even after a restart.
    let made = cluster.init();
    assert_eq!(made.stdout, output.stdout);
    cluster.node(1).kill();
    cluster.node(1).start();
    cluster.node(1).wait_ready();
    assert_eq!(cluster.init().stdout, output.stdout);
    let data = cluster.node(1).data().display().to_string();
    let alone = format!("1={}", cluster.node(1).peer_address());
    let output = run(["cluster", "init", "--data", &data, "--node", &alone]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn whoever_is_killed_during_init_the_same_command_finishes_it() {
    let moments: &[(u64, u64)] = if support::long() {
        &[
            (1, 20),
            (1, 50),
            (1, 100),
            (1, 200),
            (1, 300),
            (1, 500),
            (1, 700),
            (2, 50),
            (2, 200),
            (2, 400),
            (3, 300),
            (3, 600),
        ]
    } else {
        &[(1, 100), (1, 500), (2, 200)]
    };
    for &(victim, pause_ms) in moments {
        let mut cluster = Cluster::waiting(3);
        let data = cluster.node(1).data().display().to_string();
        let nodes: Vec<_> = cluster
            .nodes()
            .iter()
            .map(|node| format!("--node={}={}", node.id(), node.peer_address()))
            .collect();
        let mut init = support::rossby();
        init.args(["cluster", "init", "--data", &data]).args(&nodes);
        let mut init = init.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        cluster.node(victim).kill();
        init.wait().unwrap();
        cluster.node(victim).start();
        cluster.node(victim).wait_alive();
        let output = cluster.init();
        assert!(
            output.status.success(),
            "node {victim} after {pause_ms} ms: {}",
            stderr(&output)
        );
        for node in cluster.nodes() {
            node.wait_ready();
        }
    }
}

#[test]
fn a_node_that_loses_its_disk_while_a_cluster_is_made_does_not_get_its_old_place_again() {
    let theirs = Cluster::single();
    let mut cluster = Cluster::waiting(3);
    // Node 3 can't take its place, which the founder finds out when node 2 has its own.
    let secrets = cluster.node(3).secrets();
    std::fs::create_dir_all(secrets.parent().unwrap()).unwrap();
    std::fs::copy(theirs.nodes()[0].secrets(), &secrets).unwrap();
    let output = cluster.init();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("secrets"), "{}", stderr(&output));
    let old = cluster.node(2).status().unwrap()["groups"][0]["replica"].clone();
    assert_eq!(old, 2);
    cluster.node(2).kill();
    cluster.node(2).wipe();
    std::fs::remove_file(secrets).unwrap();
    cluster.node(2).start();
    cluster.node(2).wait_alive();
    // The others are a majority: the cluster is made without it, which is said as long as it is so.
    let place = cluster.at(2);
    for _ in 0..2 {
        let output = cluster.init();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(11), "{said}");
        assert!(said.contains("left out: node 2."), "{said}");
        assert!(said.contains(&format!("replace-node 2 {place}")), "{said}");
        let made = String::from_utf8(output.stdout).unwrap();
        assert!(made.contains("is made: 2 of 3 nodes"), "{made}");
    }
    cluster.node(1).wait_log("gets no place by that plan");
    for id in [1, 3] {
        cluster.node(id).wait_ready();
    }
    let of_node_2 = cluster.node(2).status().unwrap();
    assert_eq!(of_node_2["groups"], serde_json::json!([]), "{of_node_2}");
    cluster.order_ok(1, &["replace-node", "2", &place]);
    cluster.node(2).wait_ready();
    assert!(cluster.init().status.success());
    let new = cluster.node(2).status().unwrap()["groups"][0]["replica"].clone();
    assert!(new.as_u64() > Some(1024), "{new}");
}

#[test]
fn a_node_with_the_data_of_another_cluster_is_left_out_of_a_new_one() {
    let mut theirs = Cluster::single_numbered(2);
    let mut ours = Cluster::waiting(3);
    theirs.node(2).terminate();
    ours.node(2).kill();
    let (from, to) = (theirs.node(2).data(), ours.node(2).data());
    std::fs::remove_dir_all(&to).unwrap();
    copy(&from, &to);
    let secrets = ours.node(2).secrets();
    std::fs::create_dir_all(secrets.parent().unwrap()).unwrap();
    std::fs::copy(theirs.node(2).secrets(), &secrets).unwrap();
    ours.node(2).start();
    ours.node(2).wait_alive();
    eventually("node 2 knows its cluster", || {
        ours.node(2)
            .status()
            .filter(|status| status["cluster"].is_string())
    });
    let output = ours.init();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("belongs to cluster"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_member_without_a_way_to_its_peers_is_refused() {
    let mut cluster = Cluster::of(3);
    let node = cluster.node(2);
    node.terminate();
    let mut args = node.command_line();
    args.retain(|arg| !arg.starts_with("--peer"));
    let output = run(args);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("--peer-listen"),
        "{}",
        stderr(&output)
    );
    node.start();
    node.wait_ready();
}

#[test]
fn a_follower_that_is_away_does_not_keep_the_leader_busy() {
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let follower = if leader == 1 { 2 } else { 1 };
    cluster.node(follower).kill();
    let before = cluster.node(leader).cpu_ticks();
    std::thread::sleep(std::time::Duration::from_secs(2));
    // A loop without a pause takes all of a core: some 200 of these ticks of 10 ms. An idle node in
    // a debug build takes about 10.
    let spent = cluster.node(leader).cpu_ticks() - before;
    assert!(spent < 80, "the leader was busy for {spent} of 200 ticks");
}

#[test]
fn noise_on_the_peer_port_harms_nobody() {
    use rossby_seams::random::{Random as _, SeededRandom};
    let mut cluster = Cluster::of(3);
    let leader = cluster.leader();
    let random = SeededRandom::new(13);
    for length in [0_usize, 1, 300, 100_000] {
        let mut noise = vec![0; length];
        random.fill(&mut noise).unwrap();
        let address = cluster.node(leader).peer_address();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        // The node may hang up before it has read all of it.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(cluster.leader(), leader);
    assert!(!cluster.node(leader).log().contains("panicked"));
}

#[test]
fn copies_of_a_partition_are_the_same_on_every_node() {
    let cluster = Cluster::of(3);
    cluster.leader();
    eventually("the copies agree", || {
        let all: Vec<_> = cluster.nodes().iter().map(support::Node::digests).collect();
        let applied = all
            .iter()
            .all(|(index, _)| *index == all[0].0 && *index > 0);
        applied.then(|| assert!(all.iter().all(|digests| *digests == all[0]), "{all:?}"))
    });
    // Nobody was spoken to by a node that had not entered yet.
    for node in cluster.nodes() {
        assert!(!node.log().contains("refused the link"), "{}", node.log());
    }
}
