//! A single node as a process: how it starts, what it survives, what it refuses.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rossby_seams::random::{Random as _, SeededRandom};

use crate::support::{self, Cluster, run, run_ok, stderr};

#[test]
fn a_node_without_a_cluster_makes_one_and_says_when_it_is_ready() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let line = format!("Rossby is ready: clients at {}", node.client_address());
    support::eventually("the ready line", || {
        node.out().contains(&line).then_some(())
    });
    let status = node.status().unwrap();
    assert_eq!(status["groups"][0]["role"], "leader");
    assert!(status["cluster"].is_string(), "{status}");
    let mode = std::fs::metadata(node.secrets())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let (status, metrics) = node.page("/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("\nrossby_ready 1\n"), "{metrics}");
}

#[test]
fn a_clock_that_is_in_no_doubt_needs_no_confirmation() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let data = node.data().display().to_string();
    let told = run_ok(["cluster", "confirm-time", "--data", &data]);
    assert_eq!(told, "The time of group 1 was not in doubt.\n");
    let group = &node.status().unwrap()["groups"][0];
    assert!(group["expiry_blocked"].is_null(), "{group}");
    let (_, metrics) = node.page("/metrics").unwrap();
    assert!(
        metrics.contains("\nrossby_expiry_blocked{group=\"1\"} 0\n"),
        "{metrics}"
    );
    let other = run(["cluster", "confirm-time", "--data", &data, "--group", "2"]);
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
}

#[test]
fn a_node_that_is_told_to_stop_ends_in_good_order_and_starts_again_as_itself() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let before = node.status().unwrap()["cluster"].clone();
    let stopped = node.terminate();
    assert_eq!(stopped.status.code(), Some(0));
    assert!(!node.data().join("admin.sock").exists());
    assert!(!node.data().join("addresses.json").exists());
    node.start();
    node.wait_ready();
    assert_eq!(node.status().unwrap()["cluster"], before);
    assert!(
        !node.log().contains("not closed in good order"),
        "{}",
        node.log()
    );
}

#[test]
fn a_killed_node_starts_again_as_itself_and_rebuilds_its_base() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let before = node.status().unwrap()["cluster"].clone();
    for _ in 0..3 {
        node.kill();
        node.start();
        node.wait_ready();
        assert_eq!(node.status().unwrap()["cluster"], before);
    }
    assert!(
        node.log().contains("not closed in good order"),
        "{}",
        node.log()
    );
}

#[test]
fn a_node_killed_while_it_makes_its_cluster_finishes_it_at_the_next_start() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    // Kills at moments spread over the first start, from nothing on the disk to all of it.
    let pauses_ms: &[u64] = if support::long() {
        &[0, 10, 20, 40, 60, 80, 100, 150, 200, 300, 400, 600]
    } else {
        &[0, 60, 200]
    };
    for &pause_ms in pauses_ms {
        node.kill();
        std::fs::remove_dir_all(node.data()).unwrap();
        node.start();
        std::thread::sleep(Duration::from_millis(pause_ms));
        node.kill();
        node.start();
        node.wait_ready();
    }
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let mut args = node.command_line();
    args.extend([
        "--listen=127.0.0.1:0".to_owned(),
        "--http=127.0.0.1:0".to_owned(),
    ]);
    args.retain(|arg| !arg.ends_with(&node.client_address().to_string()));
    args.retain(|arg| !arg.ends_with(&node.http_address().to_string()));
    let output = run(args);
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("is in use by another rossby process"),
        "{}",
        stderr(&output)
    );
    node.wait_ready();
}

#[test]
fn an_address_in_use_is_refused_with_advice() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let output = run([
        "serve".to_owned(),
        format!("--data={}", folder.path().join("data").display()),
        format!("--secrets={}", folder.path().join("cluster.keys").display()),
        format!("--listen={}", taken.local_addr().unwrap()),
        "--http=127.0.0.1:0".to_owned(),
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("another program listens there"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_data_of_another_node_is_refused() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    node.terminate();
    node.args().push("--node=2".to_owned());
    let mut args = node.command_line();
    args.retain(|arg| arg != "--node=1");
    let output = run(args);
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("belongs to node 1"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_secrets_of_another_cluster_are_refused() {
    let mut ours = Cluster::single();
    let mut theirs = Cluster::single();
    let node = ours.node(1);
    node.terminate();
    std::fs::copy(theirs.node(1).secrets(), node.secrets()).unwrap();
    let output = run(node.command_line());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("secrets of another cluster"),
        "{}",
        stderr(&output)
    );
    // And missing ones are not made anew: that would lock everybody out.
    std::fs::remove_file(node.secrets()).unwrap();
    let output = run(node.command_line());
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(!node.secrets().exists());
}

#[test]
fn a_base_that_is_gone_or_garbage_is_rebuilt_and_that_is_said() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    node.checkpoint();
    let before = node.lasting_digests();
    node.terminate();
    std::fs::remove_dir_all(node.data().join("base")).unwrap();
    node.start();
    node.wait_ready();
    assert_eq!(node.lasting_digests(), before);
    node.terminate();
    assert!(node.log().contains("rebuil"), "{}", node.log());
    for file in ["db", "conf"] {
        std::fs::write(node.data().join("base").join(file), b"garbage").unwrap();
    }
    node.start();
    node.wait_ready();
    assert_eq!(node.lasting_digests(), before);
}

#[test]
fn a_damaged_identity_is_refused_and_named() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    node.terminate();
    std::fs::write(node.data().join("node"), b"{\"version\":1}").unwrap();
    let output = run(node.command_line());
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("data/node is damaged"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_damaged_log_is_refused_and_named() {
    use std::os::unix::fs::FileExt as _;
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    node.terminate();
    let first = node.data().join("wal/0000000001.wal");
    let log = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&first)
        .unwrap();
    // Within the first entry, which takes over all partitions, with whole records behind it.
    let at = 6000;
    let mut byte = [0];
    log.read_exact_at(&mut byte, at).unwrap();
    log.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let output = run(node.command_line());
    assert_eq!(output.status.code(), Some(10), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("0000000001.wal"),
        "{}",
        stderr(&output)
    );
    // Mended, it is what it was: nothing was thrown away meanwhile.
    log.write_all_at(&byte, at).unwrap();
    node.start();
    node.wait_ready();
}

/// Sends bytes and reads to the end of whatever comes back.
fn throw(bytes: &[u8], address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    // The node may hang up before it has read all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(
            error.kind(),
            std::io::ErrorKind::WouldBlock,
            "the connection stays open"
        );
    }
}

#[test]
fn random_bytes_on_any_port_harm_nobody() {
    let mut cluster = Cluster::single();
    let node = cluster.node(1);
    let random = SeededRandom::new(11);
    for length in [0_usize, 1, 24, 1000, 200_000] {
        let mut noise = vec![0; length];
        random.fill(&mut noise).unwrap();
        throw(&noise, node.client_address());
        throw(&noise, node.http_address());
        // A real opening of HTTP/2, then noise.
        let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        opening.extend(&noise);
        throw(&opening, node.client_address());
        let mut admin = UnixStream::connect(node.data().join("admin.sock")).unwrap();
        let _ = admin.write_all(&noise);
    }
    node.wait_ready();
    assert!(node.status().is_some());
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
