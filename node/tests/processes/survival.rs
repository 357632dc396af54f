//! Nodes die and hang while people write to each other; nothing acknowledged is lost, nothing comes
//! twice, and every sender's messages keep their order.
//!
//! `ROSSBY_SEED=<number>` repeats the choices of a failed run; `ROSSBY_LONG=1` makes more rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rossby_client::DeviceError;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use rossby_seams::random::{OsRandom, Random as _, SeededRandom, bytes};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::support::people::{Person, email};
use crate::support::witness::assert_one_history;
use crate::support::{Cluster, eventually};

const PEOPLE: [&str; 4] = ["ada", "ben", "cem", "dot"];

/// The choices of a run, all drawn from one seed.
pub struct Choices(SeededRandom);

impl Choices {
    pub fn new() -> Self {
        let seed = match std::env::var("ROSSBY_SEED") {
            Ok(text) => text.parse().expect("ROSSBY_SEED is not a number"),
            Err(_) => u64::from(u32::from_be_bytes(bytes(&OsRandom).unwrap())),
        };
        eprintln!("to repeat these choices: ROSSBY_SEED={seed}");
        Self(SeededRandom::new(seed))
    }

    pub fn below(&self, limit: usize) -> usize {
        let mut drawn = [0; 4];
        self.0.fill(&mut drawn).unwrap();
        u32::from_be_bytes(drawn) as usize % limit
    }

    fn coin(&self) -> bool {
        self.below(2) == 0
    }
}

/// What one person has sent: how many to each other, and which were acknowledged at once.
#[derive(Default)]
struct Ledger {
    written: BTreeMap<usize, usize>,
    acknowledged: BTreeSet<(usize, usize)>,
}

fn text(from: usize, to: usize, number: usize) -> String {
    format!("{} to {}, number {number}", PEOPLE[from], PEOPLE[to])
}

/// The people and what they do in the background.
pub struct Chat {
    runtime: Runtime,
    pub people: Arc<Vec<Person>>,
    stop: Arc<AtomicBool>,
    /// How many sends were acknowledged.
    progress: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Ledger>>,
    readers: Vec<JoinHandle<()>>,
}

impl Chat {
    /// Everybody registers, meets everybody, and begins to write and read.
    pub fn start(cluster: &Cluster, choices: &Choices) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let people = runtime.block_on(async {
            let mut people = Vec::new();
            for (index, name) in PEOPLE.iter().enumerate() {
                people.push(Person::with_box(cluster, email(name), index).await);
            }
            for person in &people {
                for other in &people {
                    person.add(other).await;
                }
            }
            people
        });
        let mut chat = Self {
            runtime,
            people: Arc::new(people),
            stop: Arc::default(),
            progress: Arc::default(),
            writers: Vec::new(),
            readers: Vec::new(),
        };
        for me in 0..PEOPLE.len() {
            let choices = Choices(SeededRandom::new(choices.below(usize::MAX) as u64));
            let (people, stop) = (Arc::clone(&chat.people), Arc::clone(&chat.stop));
            let progress = Arc::clone(&chat.progress);
            let writer = write(me, people, Arc::clone(&stop), progress, choices);
            chat.writers.push(chat.runtime.spawn(writer));
            let reader = read(me, Arc::clone(&chat.people), stop);
            chat.readers.push(chat.runtime.spawn(reader));
        }
        chat
    }

    /// Waits until this many more sends are acknowledged.
    pub fn wait_progress(&self, more: usize) {
        let goal = self.progress.load(Ordering::SeqCst) + more;
        eventually("people can write again", || {
            let failed = self.writers.iter().any(JoinHandle::is_finished)
                || self.readers.iter().any(JoinHandle::is_finished);
            assert!(!failed, "somebody could not go on");
            (self.progress.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    /// Ends the writing and holds everything against what was promised.
    pub fn finish(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::SeqCst);
        let people = Arc::clone(&self.people);
        let ledgers = self.runtime.block_on(async {
            let mut ledgers = Vec::new();
            for writer in self.writers {
                ledgers.push(writer.await.expect("a writer failed"));
            }
            for reader in self.readers {
                reader.await.expect("a reader failed");
            }
            // Before anything is sent again: all that was acknowledged is there, and nothing twice.
            read_all(&people).await;
            for (from, to) in pairs() {
                assert_acknowledged_came_once(&ledgers[from], &people, from, to);
            }
            for person in people.iter() {
                resend_all(person).await;
            }
            read_all(&people).await;
            ledgers
        });
        for (from, to) in pairs() {
            let written = ledgers[from].written.get(&to).copied().unwrap_or(0);
            let expected: Vec<_> = (1..=written).map(|number| text(from, to, number)).collect();
            let came = people[to].texts_from(&people[from].box_id());
            assert_eq!(came, expected, "{} to {}", PEOPLE[from], PEOPLE[to]);
        }
        assert_histories(&people);
        assert_copies_agree(cluster);
        for node in cluster.nodes() {
            let calm = !node.log().contains("panicked");
            assert!(calm, "node {} panicked", node.id());
        }
        eprintln!(
            "{} sends were acknowledged",
            self.progress.load(Ordering::SeqCst)
        );
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    let all = 0..PEOPLE.len();
    all.clone()
        .flat_map(move |from| all.clone().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}

/// Writes to the others in turn of chance until told to stop.
async fn write(
    me: usize,
    people: Arc<Vec<Person>>,
    stop: Arc<AtomicBool>,
    progress: Arc<AtomicUsize>,
    choices: Choices,
) -> Ledger {
    let mut ledger = Ledger::default();
    while !stop.load(Ordering::SeqCst) {
        let to = (me + 1 + choices.below(PEOPLE.len() - 1)) % PEOPLE.len();
        let number = *ledger
            .written
            .entry(to)
            .and_modify(|last| *last += 1)
            .or_insert(1);
        let content = Content::Text(text(me, to, number));
        let sent = people[me].device.send(&people[to].box_id(), &content).await;
        match sent.expect("the message could not even be kept").delivery {
            Delivery::Delivered(_) => {
                ledger.acknowledged.insert((to, number));
                progress.fetch_add(1, Ordering::SeqCst);
            }
            Delivery::Pending(error) => assert!(error.may_pass(), "{error}"),
            other => panic!("refused: {other:?}"),
        }
        // People pause; and the machine is not ours alone.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ledger
}

/// Reads until told to stop.
async fn read(me: usize, people: Arc<Vec<Person>>, stop: Arc<AtomicBool>) {
    let passing = |error: &DeviceError| assert!(error.may_pass(), "{error}");
    while !stop.load(Ordering::SeqCst) {
        match people[me].device.receive().await {
            Ok(received) => received.interrupted.iter().for_each(passing),
            Err(error) => passing(&error),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everybody reads all that is there.
async fn read_all(people: &[Person]) {
    for person in people {
        let received = person.device.receive().await.expect("can't read");
        assert!(received.interrupted.is_none(), "{received:?}");
        let rest = person.device.receive().await.expect("can't read");
        assert!(
            rest.messages.is_empty() && rest.status.depth == 0,
            "{rest:?}"
        );
    }
}

/// Sends whatever is pending, which must go through now.
async fn resend_all(person: &Person) {
    for sent in person.device.resend().await.expect("can't send") {
        assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
    }
    assert_eq!(person.device.pending().unwrap(), 0);
}

fn assert_acknowledged_came_once(ledger: &Ledger, people: &[Person], from: usize, to: usize) {
    let came = people[to].texts_from(&people[from].box_id());
    // In order, without a gap and none twice: the first so many of what was written.
    let expected: Vec<_> = (1..=came.len())
        .map(|number| text(from, to, number))
        .collect();
    assert_eq!(came, expected, "{} to {}", PEOPLE[from], PEOPLE[to]);
    let mut acknowledged = ledger.acknowledged.iter().filter(|(of, _)| *of == to);
    let lost = acknowledged.find(|(_, number)| *number > came.len());
    assert_eq!(lost, None, "lost, from {} to {}", PEOPLE[from], PEOPLE[to]);
}

fn assert_histories(people: &[Person]) {
    let boxes: Vec<_> = people.iter().map(Person::box_id).collect();
    let seen: Vec<_> = people.iter().map(|person| person.witness.seen()).collect();
    let senders: Vec<_> = boxes
        .iter()
        .map(|box_id| &box_id.as_bytes()[..])
        .zip(&seen)
        .collect();
    for (box_id, reader) in &senders {
        assert_one_history(box_id, reader, &senders);
    }
}

/// After the same log, the copies of each group that all nodes hold are the same to the byte.
fn assert_copies_agree(cluster: &Cluster) {
    let nodes = cluster.nodes().iter();
    let held: Vec<_> = nodes.map(|node| (node, node.groups())).collect();
    let groups: BTreeSet<u32> = held
        .iter()
        .flat_map(|(_, groups)| groups)
        .copied()
        .collect();
    for group in groups {
        eventually(&format!("the copies of group {group} agree"), || {
            let holders = held.iter().filter(|(_, groups)| groups.contains(&group));
            let all: Vec<_> = holders.map(|(node, _)| node.digests_of(group)).collect();
            let same_place = all.iter().all(|(index, _)| *index == all[0].0);
            same_place.then(|| assert!(all.iter().all(|digests| *digests == all[0]), "{all:?}"))
        });
    }
}

/// Brings a node back, and waits until it is of use.
fn restart(cluster: &mut Cluster, id: u64) {
    cluster.node(id).start();
    cluster.node(id).wait_ready();
}

#[test]
fn messages_survive_nodes_that_are_killed_one_after_another() {
    let choices = Choices::new();
    let mut cluster = Cluster::of(3);
    let chat = Chat::start(&cluster, &choices);
    let rounds = if std::env::var_os("ROSSBY_LONG").is_some() {
        60
    } else {
        4
    };
    let mut changes = 0;
    for round in 0..rounds {
        chat.wait_progress(1 + choices.below(30));
        let leader = cluster.leader();
        // Every other time it is the leader.
        let victim = if round % 2 == 0 {
            leader
        } else {
            1 + choices.below(3) as u64
        };
        if choices.coin() {
            cluster.node(victim).checkpoint();
        }
        cluster.node(victim).kill();
        if choices.coin() || round == 0 {
            // Two nodes go on without it.
            chat.wait_progress(1 + choices.below(30));
            changes += usize::from(cluster.leader() != leader);
        }
        restart(&mut cluster, victim);
    }
    assert!(changes > 0, "no leader changed: this run has shown nothing");
    chat.wait_progress(20);
    chat.finish(&cluster);
}

#[test]
fn messages_survive_all_nodes_killed_at_once() {
    let choices = Choices::new();
    let mut cluster = Cluster::of(3);
    let chat = Chat::start(&cluster, &choices);
    let rounds = if std::env::var_os("ROSSBY_LONG").is_some() {
        20
    } else {
        2
    };
    let mut terms = BTreeSet::new();
    for _ in 0..rounds {
        chat.wait_progress(1 + choices.below(30));
        if choices.coin() {
            cluster.node(1 + choices.below(3) as u64).checkpoint();
        }
        terms.insert(term(&mut cluster));
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
    chat.wait_progress(20);
    terms.insert(term(&mut cluster));
    assert!(
        terms.len() > rounds,
        "no leader changed: this run has shown nothing"
    );
    chat.finish(&cluster);
}

#[test]
fn messages_survive_a_leader_that_hangs_and_comes_back() {
    let choices = Choices::new();
    let mut cluster = Cluster::of(3);
    let chat = Chat::start(&cluster, &choices);
    let rounds = if std::env::var_os("ROSSBY_LONG").is_some() {
        20
    } else {
        2
    };
    for _ in 0..rounds {
        chat.wait_progress(1 + choices.below(30));
        let hung = cluster.leader();
        cluster.node(hung).pause();
        // The others find a leader among them, and people can write.
        let next = cluster.leader();
        assert_ne!(next, hung, "no leader changed: this run has shown nothing");
        chat.wait_progress(1 + choices.below(30));
        cluster.node(hung).resume();
        // It still takes itself for the leader, for a moment.
        chat.wait_progress(1 + choices.below(30));
        cluster.node(hung).wait_ready();
    }
    chat.finish(&cluster);
}

/// The term of the leader.
fn term(cluster: &mut Cluster) -> u64 {
    let leader = cluster.leader();
    let status = cluster.node(leader).status().unwrap();
    status["groups"][0]["term"].as_u64().unwrap()
}
