//! `rossby listen`: messages come as they are sent, each once and in order, whatever becomes of the
//! nodes and of the listener itself.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::people::{Person, email};
use crate::support::{Cluster, eventually, long, rossby, run_ok};

/// A running `rossby listen --json`. Killed when dropped.
struct Listening {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    said: PathBuf,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Listening {
    fn start(home: &Path, more: &[&str]) -> Self {
        let said = home.with_extension("said");
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(&said).unwrap();
        let mut child = rossby()
            .args(["listen", "--json", "--no-passphrase", "--home"])
            .arg(home)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, into) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        let reader = std::thread::spawn(move || {
            // A line cut off by a kill was not shown.
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    into.lock().unwrap().push(line);
                }
            }
        });
        Self {
            child,
            lines,
            said,
            reader: Some(reader),
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    fn shown(&self) -> Vec<Value> {
        self.lines.lock().unwrap().clone()
    }

    fn texts(&self) -> Vec<String> {
        self.shown().iter().map(text_of).collect()
    }

    fn wait_for(&self, count: usize) {
        let what = format!("{count} messages are shown\n{}", self.said());
        eventually(&what, || (self.texts().len() >= count).then_some(()));
    }

    fn wait_said(&self, what: &str) {
        eventually(&format!("it says {what:?}"), || {
            self.said().contains(what).then_some(())
        });
    }

    /// Ends it by a signal; all that it showed, and its exit code.
    fn end(mut self, signal: Signal) -> (Vec<Value>, Option<i32>) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.wait()
    }

    fn wait(&mut self) -> (Vec<Value>, Option<i32>) {
        let child = &mut self.child;
        let status = eventually("the listener ends", || child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        (self.shown(), status.code())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- listener\n{}", self.said());
        }
    }
}

fn text_of(line: &Value) -> String {
    line["text"].as_str().unwrap_or_default().to_owned()
}

fn texts(lines: &[Value]) -> Vec<String> {
    lines.iter().map(text_of).collect()
}

/// Somebody who writes, and the home of somebody who listens.
struct Scene {
    cluster: Cluster,
    runtime: tokio::runtime::Runtime,
    writer: Arc<Person>,
    to: rossby_domain::ids::BoxId,
    home: PathBuf,
}

impl Scene {
    fn of(cluster: Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (writer, to, home) = runtime.block_on(async {
            let reader = Person::with_box(&cluster, email("rea"), 0).await;
            let writer = Person::with_box(&cluster, email("wim"), 1).await;
            writer.add(&reader).await;
            // The home is the listener's from now on.
            (writer, reader.box_id(), reader.home.clone())
        });
        Self {
            cluster,
            runtime,
            writer: Arc::new(writer),
            to,
            home,
        }
    }

    fn write(&self, words: &str) {
        let content = Content::Text(words.to_owned());
        let sent = self
            .runtime
            .block_on(self.writer.device.send(&self.to, &content));
        assert!(matches!(sent.unwrap().delivery, Delivery::Delivered(_)));
    }

    fn listen(&self, more: &[&str]) -> Listening {
        Listening::start(&self.home, more)
    }
}

#[test]
fn messages_are_shown_as_they_come_and_ctrl_c_is_an_end_in_good_order() {
    let scene = Scene::of(Cluster::single());
    scene.write("before");
    let listening = scene.listen(&[]);
    listening.wait_for(1);
    scene.write("one");
    listening.wait_for(2);
    scene.write("two");
    listening.wait_for(3);
    let (shown, code) = listening.end(Signal::INT);
    assert_eq!(texts(&shown), ["before", "one", "two"]);
    assert_eq!(code, Some(0));

    // Nothing comes again, and what is beyond the count is for the next one.
    scene.write("three");
    scene.write("four");
    let mut listening = scene.listen(&["--count", "1", "--for", "300"]);
    let (shown, code) = listening.wait();
    assert_eq!((texts(&shown), code), (vec!["three".to_owned()], Some(0)));
    let mut listening = scene.listen(&["--count", "1", "--for", "300"]);
    let (shown, code) = listening.wait();
    assert_eq!((texts(&shown), code), (vec!["four".to_owned()], Some(0)));
    let mut listening = scene.listen(&["--for", "1"]);
    assert_eq!(listening.wait(), (Vec::new(), Some(0)));
    assert_eq!(shown[0]["message"], 4);
}

#[test]
fn a_node_that_stops_sends_its_listeners_away_at_once_and_they_come_back() {
    let mut scene = Scene::of(Cluster::single());
    let listening = scene.listen(&[]);
    listening.wait_said("listening;");
    let stopped = scene.cluster.node(1).terminate();
    assert_eq!(stopped.status.code(), Some(0));
    listening.wait_said("the service is away");
    scene.cluster.node(1).start();
    scene.cluster.node(1).wait_ready();
    listening.wait_said("listening again");
    scene.write("back");
    listening.wait_for(1);
    let (shown, code) = listening.end(Signal::TERM);
    assert_eq!((texts(&shown), code), (vec!["back".to_owned()], Some(0)));
}

#[test]
fn a_device_rotates_its_keys_and_its_mail_goes_on() {
    let scene = Scene::of(Cluster::single());
    let rotate = || {
        let home = scene.home.display().to_string();
        let args = [
            "keys",
            "rotate",
            "--json",
            "--no-passphrase",
            "--home",
            &home,
        ];
        let said: Value = serde_json::from_str(&run_ok(args)).unwrap();
        (said["counter"].as_u64(), said["kept"].as_u64())
    };
    let listen_to_one = || {
        let mut listening = scene.listen(&["--count", "1", "--for", "300"]);
        let (shown, code) = listening.wait();
        assert_eq!(code, Some(0));
        texts(&shown)
    };
    scene.write("for the first key");
    assert_eq!(rotate(), (Some(2), Some(2)));
    assert_eq!(listen_to_one(), ["for the first key"]);
    scene.write("for the key before");
    assert_eq!(listen_to_one(), ["for the key before"]);
    assert_eq!(rotate(), (Some(3), Some(2)));
    // The writer's copy of the keys is too old now: sealed again on the way.
    scene.write("for a new key");
    assert_eq!(listen_to_one(), ["for a new key"]);
}

/// Writes numbered messages until it is told to stop; what it wrote.
fn write_on(
    scene: &Scene,
    stop: &Arc<AtomicBool>,
    written: &Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<Vec<String>> {
    let (writer, to) = (Arc::clone(&scene.writer), scene.to);
    let (stop, written) = (Arc::clone(stop), Arc::clone(written));
    scene.runtime.spawn(async move {
        let mut all = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let words = format!("number {}", all.len());
            let content = Content::Text(words.clone());
            // What is not known to be delivered is kept, and goes out before the next one.
            writer.device.send(&to, &content).await.unwrap();
            all.push(words);
            written.fetch_add(1, Ordering::SeqCst);
        }
        while writer.device.pending().unwrap() > 0 {
            writer.device.resend().await.unwrap();
        }
        all
    })
}

#[test]
fn nothing_is_lost_or_doubled_while_leaders_and_the_listener_itself_are_killed() {
    let mut scene = Scene::of(Cluster::of(3));
    let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let writing = write_on(&scene, &stop, &written);
    let go_on = |more: usize| {
        let goal = written.load(Ordering::SeqCst) + more;
        eventually("the writer goes on", || {
            assert!(!writing.is_finished(), "the writer failed");
            (written.load(Ordering::SeqCst) >= goal).then_some(())
        });
    };
    let mut listening = scene.listen(&[]);
    let mut shown = Vec::new();
    let rounds = if long() { 6 } else { 2 };
    for round in 0..rounds {
        let before = listening.texts().len();
        listening.wait_for(before + 3);
        let leader = scene.cluster.leader();
        scene.cluster.node(leader).kill();
        go_on(5);
        let before = listening.texts().len();
        listening.wait_for(before + 3);
        if round % 2 == 0 {
            let (lines, code) = listening.end(Signal::KILL);
            assert_eq!(code, None);
            shown.extend(lines);
            go_on(3);
            listening = scene.listen(&[]);
            listening.wait_for(3);
        }
        scene.cluster.node(leader).start();
        scene.cluster.node(leader).wait_ready();
    }
    stop.store(true, Ordering::SeqCst);
    let all = scene.runtime.block_on(writing).unwrap();
    let last = all.last().unwrap().clone();
    eventually("the last message is shown", || {
        listening.texts().contains(&last).then_some(())
    });
    let (lines, code) = listening.end(Signal::INT);
    assert_eq!(code, Some(0));
    shown.extend(lines);
    // What was being shown when the listener was killed may come twice, under one number.
    shown.dedup_by_key(|line| line["message"].as_u64());
    assert_eq!(texts(&shown), all);
}
