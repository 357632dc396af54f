//! No send is acknowledged before it is durable on a majority of the nodes: real nodes under `strace`,
//! whose system calls are held against what they answered.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use rossby_client::connection::{Exchange, GrpcWire, Wire, WireError, WireReply};
use rossby_client::device::{Delivery, LookupBy};
use rossby_client::envelope::Content;
use rossby_proto::v1::{self, send_outcome};
use tokio::runtime::Runtime;

use crate::support::people::{Person, email};
use crate::support::strace::strace_works;
use crate::support::trace::{Recording, Trace, length};
use crate::support::witness::Witness;
use crate::support::{Cluster, Node};

const NODES: u64 = 3;
const QUORUM: usize = 2;
/// A text of a common length.
const TEXT_BYTES: usize = 1000;

/// An envelope whose sender was told that it is stored.
struct Acknowledged {
    /// Sealed under a key of its own, so these bytes are nowhere but in this envelope.
    body: Bytes,
    /// How long each node's trace was when the sender had the answer.
    marks: Vec<u64>,
}

/// What senders were told, and how far the traces of all nodes were then.
#[derive(Default)]
struct Told {
    traces: OnceLock<Vec<PathBuf>>,
    all: Mutex<Vec<Acknowledged>>,
}

/// The network, which looks at the traces as soon as a `Send` is answered.
struct Watched {
    network: GrpcWire,
    told: Arc<Told>,
}

#[async_trait]
impl Wire for Watched {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let (path, message) = (exchange.path, exchange.message.clone());
        let reply = self.network.exchange(exchange).await?;
        if let Some(traces) = self.told.traces.get()
            && path.ends_with("/Send")
        {
            let marks = traces.iter().map(|path| length(path)).collect();
            self.told.note(message, reply.message.clone(), marks);
        }
        Ok(reply)
    }
}

impl Told {
    fn note(&self, request: Bytes, reply: Bytes, marks: Vec<u64>) {
        let request = v1::SendRequest::decode(request).unwrap();
        let reply = v1::SendResponse::decode(reply).unwrap();
        assert_eq!(request.envelopes.len(), reply.outcomes.len());
        for (envelope, outcome) in request.envelopes.into_iter().zip(reply.outcomes) {
            assert_eq!(envelope.counter, outcome.counter);
            if let Some(send_outcome::Result::Sequence(_)) = outcome.result {
                let (body, marks) = (envelope.body, marks.clone());
                self.all.lock().unwrap().push(Acknowledged { body, marks });
            }
        }
    }
}

/// A cluster, somebody to write to, and people who do so while the nodes are traced.
struct Subject {
    cluster: Cluster,
    runtime: Runtime,
    reader: Person,
    writers: Vec<Person>,
    told: Arc<Told>,
}

impl Subject {
    fn new(writers: usize) -> Self {
        let cluster = Cluster::of(NODES);
        let runtime = Runtime::new().unwrap();
        let told = Arc::new(Told::default());
        let (reader, writers) = runtime.block_on(async {
            let reader = Person::with_box(&cluster, email("reader"), 0).await;
            let by = LookupBy::Identifier(reader.identifier.clone());
            let mut all = Vec::new();
            for number in 0..writers {
                let (network, told) = (GrpcWire::new(None), Arc::clone(&told));
                let witness = Witness::over(Arc::new(Watched { network, told }));
                let name = email(&format!("writer-{number}"));
                let writer = Person::witnessed(&cluster, name, number, witness);
                writer.join(&cluster).await;
                writer.device.add_contact(&by, None, false).await.unwrap();
                all.push(writer);
            }
            (reader, all)
        });
        Self {
            cluster,
            runtime,
            reader,
            writers,
            told,
        }
    }

    /// Every writer sends so many letters, one after the other; all writers at the same time. What
    /// was acknowledged, and the trace of each node.
    fn write(self, letters: usize) -> (Vec<Acknowledged>, Vec<Trace>) {
        let recording = |node: &Node| {
            let path = self.cluster.path().join(format!("trace-{}", node.id()));
            Recording::begin(node, path)
        };
        let recordings: Vec<_> = self.cluster.nodes().iter().map(recording).collect();
        let paths = recordings.iter().map(|one| one.path().to_owned()).collect();
        self.told.traces.set(paths).unwrap();
        let to = self.reader.box_id();
        let content = Content::Text("x".repeat(TEXT_BYTES));
        self.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for writer in self.writers {
                let content = content.clone();
                tasks.spawn(async move {
                    for _ in 0..letters {
                        let sent = writer.device.send(&to, &content).await.unwrap();
                        let delivery = sent.delivery;
                        assert!(matches!(delivery, Delivery::Delivered(_)), "{delivery:?}");
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("a writer failed");
            }
        });
        let traces = recordings.into_iter().map(Recording::end).collect();
        (std::mem::take(&mut self.told.all.lock().unwrap()), traces)
    }
}

/// On how many nodes it was durable when its sender was told that it is stored.
fn durable_on(told: &Acknowledged, traces: &[Trace]) -> usize {
    let pairs = traces.iter().zip(&told.marks);
    let durable = pairs.filter(|(trace, mark)| {
        let at = trace.durable(&told.body);
        at.is_some_and(|at| at <= **mark)
    });
    durable.count()
}

/// Each of so many acknowledged sends was durable on a majority before its sender knew.
fn assert_durable(acknowledged: &[Acknowledged], traces: &[Trace], sent: usize) {
    assert_eq!(acknowledged.len(), sent);
    for (number, told) in acknowledged.iter().enumerate() {
        let nodes = durable_on(told, traces);
        let places = |trace: &Trace| trace.durable(&told.body);
        assert!(
            nodes >= QUORUM,
            "send {number} was acknowledged when it was durable on {nodes} nodes: traces of {:?} \
             bytes then, durable at {:?}",
            told.marks,
            traces.iter().map(places).collect::<Vec<_>>(),
        );
    }
    let syncs: Vec<_> = traces.iter().map(Trace::syncs).collect();
    eprintln!("{sent} sends, each durable on {QUORUM} nodes or more; syncs of the logs: {syncs:?}");
}

#[test]
fn a_send_is_synced_by_a_majority_before_it_is_acknowledged() {
    const LETTERS: usize = 25;
    if !strace_works() {
        return;
    }
    let (acknowledged, traces) = Subject::new(1).write(LETTERS);
    assert_durable(&acknowledged, &traces, LETTERS);
    // One at a time, so none shares a sync with another.
    let syncs: usize = traces.iter().map(Trace::syncs).sum();
    assert!(syncs >= QUORUM * LETTERS, "{syncs} syncs");
}

#[test]
fn so_is_each_of_many_sends_at_the_same_time() {
    const WRITERS: usize = 16;
    const LETTERS: usize = 5;
    if !strace_works() {
        return;
    }
    let (acknowledged, traces) = Subject::new(WRITERS).write(LETTERS);
    assert_durable(&acknowledged, &traces, WRITERS * LETTERS);
}

// What follows shows that both can fail: traces as strace prints them.

const BODY: &str = "sealed";

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn file(name: &str) -> String {
    format!("9<{}>", hex(&format!("/data/{name}")))
}

fn write(name: &str, bytes: &str) -> String {
    let (file, length) = (file(name), bytes.len());
    let bytes = hex(bytes);
    format!("7  pwrite64({file}, \"{bytes}\", {length}, 512) = {length}")
}

fn sync(name: &str) -> String {
    format!("7  fdatasync({}) = 0", file(name))
}

/// How many lines of a trace there were when the body was durable.
fn durable_after(lines: &[String]) -> Option<usize> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let at = Trace::parse(&text).durable(BODY.as_bytes())?;
    let (before, _) = text.split_at(usize::try_from(at).unwrap());
    Some(before.lines().count())
}

#[test]
fn a_write_is_durable_when_the_next_sync_of_its_file_has_ended() {
    let log = "wal/1.wal";
    let others = || write(log, "other");
    let with_it = || write(log, &format!("before {BODY} behind"));
    let lines = [sync(log), with_it(), others(), sync(log), sync(log)];
    assert_eq!(durable_after(&lines), Some(4));
    // Acknowledged before the sync: what was synced is what was written before.
    assert_eq!(durable_after(&[others(), sync(log), with_it()]), None);
    assert_eq!(durable_after(&[others(), sync(log)]), None);
    // Files that are not the log, or another segment of it.
    let base = "base/db";
    assert_eq!(durable_after(&[write(base, BODY), sync(base)]), None);
    assert_eq!(durable_after(&[with_it(), sync(base)]), None);
    assert_eq!(durable_after(&[with_it(), sync("wal/2.wal")]), None);
    let unfinished = "wal/1.wal-unfinished";
    let lines = [write(unfinished, BODY), sync(unfinished)];
    assert_eq!(durable_after(&lines), None);
}

#[test]
fn a_failed_call_makes_nothing_durable() {
    let log = "wal/1.wal";
    let broken = |call: String| {
        let (call, _) = call.rsplit_once(" = ").unwrap();
        format!("{call} = -1 EIO (Input/output error)")
    };
    let lines = [write(log, BODY), broken(sync(log))];
    assert_eq!(durable_after(&lines), None);
    let lines = [broken(write(log, BODY)), sync(log)];
    assert_eq!(durable_after(&lines), None);
    // A write that came only half way.
    let whole = write(log, BODY);
    let half = format!("{} = 3", whole.rsplit_once(" = ").unwrap().0);
    assert_eq!(durable_after(&[half, sync(log)]), None);
}

#[test]
fn a_sync_that_began_before_the_write_had_ended_does_not_count() {
    let log = "wal/1.wal";
    let begun = |call: &str| format!("{} <unfinished ...>", call.rsplit_once(')').unwrap().0);
    let ended = |thread: u8, name: &str, result| {
        format!("{thread}  <... {name} resumed>)          = {result}")
    };
    // Thread 7 writes, thread 8 syncs.
    let (writing, syncing) = (write(log, BODY), sync(log).replacen('7', "8", 1));
    let early = [
        begun(&syncing),
        writing.clone(),
        ended(8, "fdatasync", 0),
        "8  --- SIGCHLD {si_signo=SIGCHLD} ---".to_owned(),
    ];
    assert_eq!(durable_after(&early), None);
    let early = [
        begun(&writing),
        begun(&syncing),
        ended(7, "pwrite64", BODY.len()),
        ended(8, "fdatasync", 0),
    ];
    assert_eq!(durable_after(&early), None);
    let late = [
        begun(&writing),
        ended(7, "pwrite64", BODY.len()),
        begun(&syncing),
        write(log, "other"),
        ended(8, "fdatasync", 0),
    ];
    assert_eq!(durable_after(&late), Some(5));
    // Not over yet, or begun before anybody looked.
    assert_eq!(durable_after(&[writing, begun(&syncing)]), None);
    assert_eq!(durable_after(&[ended(8, "fdatasync", 0)]), None);
}

#[test]
fn only_nodes_count_whose_sync_came_before_the_answer() {
    let log = "wal/1.wal";
    let text = format!("{}\n{}\n", write(log, BODY), sync(log));
    let all = text.len() as u64;
    let traces = [(); 3].map(|()| Trace::parse(&text));
    let on = |marks: [u64; 3]| {
        let body = Bytes::from_static(BODY.as_bytes());
        let marks = marks.to_vec();
        durable_on(&Acknowledged { body, marks }, &traces)
    };
    assert_eq!(on([all, all, all]), 3);
    assert_eq!(on([all, all - 1, all + 1]), 2);
    assert_eq!(on([all - 1, 0, all]), 1);
}
