//! `rossby bench`: each kind of load, on nodes of its own and on a cluster that runs; what it counts, and
//! that nothing is left of it. Nothing here depends on how fast a machine is.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Cluster, Node, eventually, rossby, run, run_ok, stderr};

const SHORT: [&str; 4] = ["--warm-up=0", "--no-floor", "--json", "--clients=4"];

fn report(args: &[&str]) -> Value {
    let args = ["bench"].iter().chain(args).copied();
    serde_json::from_str(&run_ok(args)).expect("not one JSON object")
}

/// A report of a time in which something was done: a slow machine gets more of it.
fn report_of_load(args: &[&str]) -> Value {
    for seconds in ["--seconds=1", "--seconds=5", "--seconds=25"] {
        let args = ["bench"].iter().chain(args).chain([&seconds]).copied();
        let output = run(args);
        if !stderr(&output).contains("not one operation succeeded") {
            assert!(output.status.success(), "{}", stderr(&output));
            return serde_json::from_slice(&output.stdout).expect("not one JSON object");
        }
    }
    panic!("not one operation: {args:?}");
}

/// What every load must come to.
fn assert_whole(report: &Value, nodes: usize) {
    assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    assert!(report["per_second"].as_f64().unwrap() > 0.0, "{report}");
    let latency = &report["latency_ms"];
    let at = |name: &str| latency[name].as_f64().unwrap();
    assert!(at("p50") > 0.0, "{report}");
    assert!(at("p50") <= at("p99") && at("p99") <= at("p999") && at("p999") <= at("max"));
    let used: Vec<_> = report["nodes"].as_array().unwrap().iter().collect();
    assert_eq!(used.len(), nodes, "{report}");
    for used in used
        .iter()
        .map(|node| &node["used"])
        .chain([&report["client"]])
    {
        assert!(used["rss_bytes"].as_u64().unwrap() > 0, "{report}");
        assert!(used["cpu_us_per_operation"].as_f64().is_some(), "{report}");
    }
    assert!(
        report["checkpoints"]["rounds"].as_u64().is_some(),
        "{report}"
    );
}

#[test]
fn each_kind_of_load_runs_on_a_node_of_its_own_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("--data={}", folder.path().display());
    let loads: [&[&str]; 7] = [
        &["send", "--boxes=5", "--bytes=100"],
        &["send", "--boxes=1", "--read", "--sealed"],
        &["deliver", "--boxes=3"],
        &["fetch", "--waiting=7"],
        // Neither in one request nor in one page.
        &["fetch", "--waiting=70", "--bytes=65536"],
        &["lookup", "--boxes=3"],
        &["register"],
    ];
    for load in loads {
        let report = report_of_load(&[load, &SHORT, &["--local=1", &data]].concat());
        assert_whole(&report, 1);
        assert_eq!(report["workload"], load[0]);
        assert_eq!(report["floor"], Value::Null);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_cluster_that_runs_is_measured_over_all_its_nodes_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let codes = folder.path().join("codes.tsv");
    let courier_file = format!("--courier-file={}", codes.display());
    let cluster = Cluster::of_with(3, &[&courier_file]);
    let mut args = vec![
        "send".to_owned(),
        "--every-node".to_owned(),
        "--boxes=6".to_owned(),
    ];
    args.push(format!("--codes={}", codes.display()));
    for node in cluster.nodes() {
        args.push(format!("--server={}", node.client_address()));
        args.push(format!("--http={}", node.http_address()));
        args.push(format!("--pid={}", node.pid().as_raw_nonzero()));
    }
    let args: Vec<&str> = args.iter().map(String::as_str).chain(SHORT).collect();
    let report = report_of_load(&args);
    assert_whole(&report, 3);
    // The leader is known by its metrics and comes first.
    let leader = cluster.leader();
    let leads = cluster.nodes().iter().find(|node| node.id() == leader);
    let address = format!("http://{}", leads.unwrap().client_address());
    assert_eq!(report["nodes"][0]["server"], Value::from(address));
    // What was counted was done: the leader answered as many sends and more, those after the end.
    let (_, page) = leads.unwrap().page("/metrics").unwrap();
    let answered = page
        .lines()
        .find_map(|line| line.strip_prefix("rossby_calls_total{rpc=\"Send\",code=\"OK\"} "))
        .unwrap();
    let answered: u64 = answered.parse().unwrap();
    assert!(
        answered >= report["operations"].as_u64().unwrap(),
        "{answered} {report}"
    );
    assert!(
        cluster
            .nodes()
            .iter()
            .all(|node| node.leader() == Some(leader))
    );
}

#[test]
fn subscribers_wait_at_the_node_that_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, codes) = cluster_with_codes(folder.path());
    let node = cluster.nodes().first().unwrap();
    let server = format!("--server={}", node.client_address());
    let mut bench = rossby();
    bench.args(["bench", "idle", "--subscribers=20", "--warm-up=0"]);
    bench.args([&server, &codes]);
    let running = bench
        .arg("--seconds=600")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut running = running.unwrap();
    eventually("20 subscriptions", || {
        (figure(node, "rossby_subscriptions ") == Some(20)).then_some(())
    });
    kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(1));
    let idle = report(&[
        "idle",
        "--local=1",
        "--subscribers=20",
        "--seconds=1",
        "--warm-up=0",
        "--json",
    ]);
    assert_eq!(idle["subscribers"], 20);
    let before = &idle["nodes"][0]["rss_without_subscribers_bytes"];
    assert!(before.as_u64().unwrap() > 0, "{idle}");
}

#[test]
fn groups_of_which_nothing_is_asked_are_counted_at_rest_and_awake() {
    let idle = [
        "idle",
        "--local=3",
        "--groups=3",
        "--warm-up=0",
        "--seconds=1",
        "--json",
    ];
    let rests = report(&idle);
    // Those of boxes and the placement group, on three nodes.
    assert_eq!(
        (&rests["groups"], &rests["resting_replicas"]),
        (&3.into(), &12.into())
    );
    assert!(rests["nodes_cpu_percent"].as_f64().is_some(), "{rests}");
    for node in rests["nodes"].as_array().unwrap() {
        assert!(node["used"]["cpu_percent"].as_f64().is_some(), "{rests}");
    }
    let awake = report(&[&idle[..], &["--awake"]].concat());
    assert_eq!(awake["resting_replicas"], 0);
    for wrong in [
        &["idle", "--local=2", "--groups=3"][..],
        &["idle", "--local=3", "--subscribers=0"],
        &["send", "--local=2", "--groups=2", "--no-floor"],
    ] {
        let output = run([&["bench"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
}

#[test]
fn the_load_is_spread_evenly_over_groups() {
    let shape = ["--local=3", "--groups=3", "--boxes=7"];
    // Both in one run: what sends is chosen like what is sent to.
    let report = report_of_load(&[&["send"], &SHORT[..], &shape].concat());
    assert_whole(&report, 3);
    assert_eq!(report["groups"], 3);
    let spread = report["spread"].as_array().unwrap();
    let of = |name: &str| -> Vec<u64> {
        let figures = spread.iter().map(|group| group[name].as_u64());
        figures.map(Option::unwrap).collect()
    };
    assert_eq!(of("group"), [1, 2, 3]);
    assert_eq!((of("boxes"), of("clients")), (vec![3, 2, 2], vec![2, 1, 1]));
    assert!(of("partitions").iter().all(|owned| *owned > 0), "{report}");
    let nodes: Vec<&Value> = report["nodes"].as_array().unwrap().iter().collect();
    for group in spread {
        let leads = |node: &&&Value| node["server"] == group["leader"];
        assert!(nodes.iter().any(|node| leads(&node)), "{report}");
    }
}

#[test]
fn boxes_are_filled_with_as_many_as_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (cluster, codes) = cluster_with_codes(folder.path());
    let node = cluster.nodes().first().unwrap();
    let server = format!("--server={}", node.client_address());
    let fill = report(&[
        "fill",
        &server,
        &codes,
        "--boxes=30",
        "--waiting=11",
        "--bytes=100",
        "--json",
    ]);
    let said = (&fill["boxes"], &fill["waiting"]);
    assert_eq!(said, (&Value::from(30), &Value::from(11)));
    // 250 envelopes at most go into a request, and whole boxes: 22 and 8 of them.
    let sends = figure(node, "rossby_calls_total{rpc=\"Send\",code=\"OK\"} ");
    assert!(sends >= Some(2), "{sends:?}");
    // Into boxes in which mail waits, as a load: it is put there by others than those who are measured.
    let send = report(&[
        "send",
        &server,
        &codes,
        "--boxes=2",
        "--clients=2",
        "--waiting=3",
        "--seconds=1",
        "--warm-up=0",
        "--no-floor",
        "--json",
    ]);
    assert_eq!(send["waiting"], 3, "{send}");
    assert!(send["operations"].as_u64() > Some(0), "{send}");
    assert_eq!(
        send["errors"],
        Value::Object(serde_json::Map::new()),
        "{send}"
    );
    let own = report(&["fill", "--local=1", "--boxes=3", "--waiting=2", "--json"]);
    let disk = &own["nodes"][0]["disk"];
    assert!(disk["wal_bytes"].as_u64().unwrap() > 0, "{own}");
}

/// A node whose codes are in a file, and the flag that says where.
fn cluster_with_codes(folder: &Path) -> (Cluster, String) {
    let codes = folder.join("codes.tsv");
    let courier_file = format!("--courier-file={}", codes.display());
    let cluster = Cluster::of_with(1, &[&courier_file]);
    (cluster, format!("--codes={}", codes.display()))
}

/// What a node tells under this name.
fn figure(node: &Node, name: &str) -> Option<u64> {
    let (_, page) = node.page("/metrics")?;
    let mut values = page.lines().filter_map(|line| line.strip_prefix(name));
    values.next()?.parse().ok()
}

#[test]
fn a_device_speaks_to_a_group_and_what_that_takes_is_told() {
    let report = report(&[
        "group",
        "--local=1",
        "--members=5",
        "--devices=2",
        "--texts=3",
        "--json",
    ]);
    assert_eq!(report["members"], 5);
    // All members in one, and the copy for the speaker's other device.
    assert_eq!(report["requests"], 2.0);
    let (bytes, each) = (&report["sent_bytes"], &report["sent_bytes_per_member"]);
    assert_eq!(bytes.as_u64().unwrap() / 4, each.as_u64().unwrap());
    // A content of 256 bytes once it is padded, and a content key wrapped for two devices, each above 1,120 bytes.
    assert!(each.as_u64().unwrap() > 2 * 1_120, "{report}");
    let said = &report["said_ms"];
    let at = |name: &str| said[name].as_f64().unwrap();
    assert!(at("least") <= at("median") && at("median") <= at("most") && at("least") > 0.0);
}

#[test]
fn the_floor_is_told_alone_and_beside_a_load() {
    let floor = report(&["floor", "--clients=4", "--json"]);
    let beside = report_of_load(&[
        "send",
        "--local=1",
        "--boxes=2",
        "--clients=2",
        "--warm-up=0",
        "--json",
    ]);
    for floor in [&floor, &beside["floor"]] {
        for rate in [
            "echo",
            "sync_4k_1_file",
            "sync_4k_3_files",
            "sync_64k_1_file",
            "sync_64k_3_files",
        ] {
            let rate = &floor[format!("{rate}_per_second")];
            assert!(rate.as_f64().unwrap() > 0.0, "{floor}");
        }
    }
    assert!(
        beside["ratio"]["to_echo"].as_f64().unwrap() > 0.0,
        "{beside}"
    );
}

/// The processes of the nodes below a folder, by what they wrote of themselves.
fn pids(folder: &Path) -> Vec<i32> {
    let runs = std::fs::read_dir(folder).unwrap().flatten();
    let nodes = runs.flat_map(|run| {
        std::fs::read_dir(run.path())
            .into_iter()
            .flatten()
            .flatten()
    });
    nodes
        .filter_map(|node| {
            let text = std::fs::read_to_string(node.path().join("addresses.json")).ok()?;
            let addresses: Value = serde_json::from_str(&text).ok()?;
            addresses["pid"].as_i64()?.try_into().ok()
        })
        .collect()
}

/// A bench that would go on for long, with nodes in a new folder below this one, once it measures.
fn measuring(folder: &Path, nodes: usize, seconds: u64) -> (Child, Vec<i32>) {
    // Whoever runs the tests may ignore SIGHUP.
    let mut bench = Command::new("env");
    bench.arg("--default-signal=HUP");
    bench.arg(rossby().get_program());
    bench.args(["bench", "send", "--boxes=2", "--no-floor", "--warm-up=0"]);
    bench.arg(format!("--local={nodes}"));
    bench.arg(format!("--seconds={seconds}"));
    bench.arg(format!("--data={}", folder.display()));
    let mut bench = bench
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Measuring") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
    }
    bench.stderr = Some(said.into_inner());
    let found = pids(folder);
    assert_eq!(found.len(), nodes);
    (bench, found)
}

#[test]
fn nodes_of_its_own_end_with_it() {
    for (signal, nodes) in [(Signal::TERM, 3), (Signal::HUP, 1), (Signal::QUIT, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let (bench, nodes) = measuring(folder.path(), nodes, 600);
        kill_process(Pid::from_child(&bench), signal).unwrap();
        let output = bench.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        for node in nodes {
            assert!(!Path::new(&format!("/proc/{node}")).exists());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_node_of_its_own_that_ends_meanwhile_spoils_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (bench, nodes) = measuring(folder.path(), 3, 3);
    let node = Pid::from_raw(*nodes.first().unwrap()).unwrap();
    kill_process(node, Signal::KILL).unwrap();
    let output = bench.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended during the run"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn data_that_is_to_be_kept_stays_and_no_node_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = format!("--data={}", folder.path().display());
    report_of_load(
        &[
            &["lookup", "--boxes=2", "--local=1", "--keep", &data],
            &SHORT[..],
        ]
        .concat(),
    );
    let kept = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(kept.path().join("node-1/wal").is_dir());
    // A node that is asked to end takes away what it wrote of itself; one that is killed does not.
    assert_eq!(pids(folder.path()), Vec::<i32>::new());
}

#[test]
fn what_can_not_be_measured_is_said_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let codes = format!("--codes={}", folder.path().join("codes").display());
    let server = "--server=127.0.0.1:1";
    let missing = format!("--data={}", folder.path().join("missing").display());
    let nobody = format!("--codes={}", folder.path().join("missing/codes").display());
    let cases: [(&[&str], i32, &str); 13] = [
        (&["bench"], 2, "Usage"),
        (&["bench", "send"], 2, "--local"),
        (&["bench", "send", "--local=0"], 2, "--local"),
        (
            &["bench", "send", "--local=1", server, &codes],
            2,
            "cannot be used with",
        ),
        (&["bench", "send", server], 2, "--codes"),
        (
            &[
                "bench",
                "send",
                server,
                &codes,
                "--pid=1",
                "--pid=2",
                "--no-floor",
            ],
            2,
            "once for each",
        ),
        (
            &[
                "bench",
                "send",
                server,
                &codes,
                "--ca=/nowhere",
                "--no-floor",
            ],
            3,
            "/nowhere",
        ),
        (&["bench", "floor", &missing], 3, "missing"),
        (&["bench", "send", "--local=1", &missing], 3, "missing"),
        (&["bench", "fill", "--local=1", &missing], 3, "missing"),
        (&["bench", "send", server, &nobody], 3, "missing"),
        // Beyond the largest number that Linux gives out.
        (
            &["bench", "send", server, &codes, "--pid=1073741824"],
            2,
            "no process",
        ),
        (
            &["bench", "send", "--local=1", "--sealed", "--bytes=98304"],
            2,
            "no envelope",
        ),
    ];
    for (args, code, words) in cases {
        let output = run(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    let away = run([
        "bench",
        "send",
        server,
        &codes,
        "--boxes=1",
        "--clients=1",
        "--no-floor",
    ]);
    assert_eq!(away.status.code(), Some(4), "{}", stderr(&away));
}
