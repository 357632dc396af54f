//! What `rossby placement explain` says of a loss is what happens: voters are placed by chance, a region or a node
//! is lost while people write, and each box is held against what was said of its group.
//!
//! `ROSSBY_SEED=<number>` repeats the choices of a failed run; `ROSSBY_LONG=1` makes more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rossby_client::DeviceError;
use rossby_client::connection::CallError;
use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::regions::{group_of, wait_leaders};
use crate::support::people::{Person, email, one_patient_try};
use crate::support::witness::Ending;
use crate::support::{Cluster, PATIENCE, eventually, long, stderr};
use crate::survival::Choices;

/// Where nodes are; the last ones cost more time.
const SHAPES: [&[&str]; 5] = [
    &["asia", "asia", "eu", "us"],
    &["asia", "eu", "eu", "us"],
    &["asia", "eu", "us", "us"],
    &["asia", "asia", "eu", "eu", "us"],
    &["asia", "asia", "asia", "eu", "us"],
];
/// The plan would take back what chance has placed.
const BY_HAND: &str = "[placement]\nreconcile = false\n";
/// How often a voter comes or goes before the first loss.
const MOVES: usize = 4;
/// So many letters are acknowledged before anything is lost.
const LETTERS: usize = 12;

#[test]
fn what_is_said_of_a_loss_is_what_happens() {
    let choices = Choices::new();
    let (clusters, losses, shapes) = if long() { (6, 4, 5) } else { (1, 2, 3) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..clusters {
        let regions = SHAPES[choices.below(shapes)];
        let goal = ["node", "region"][choices.below(2)];
        let cluster = Cluster::in_regions_to_survive(regions, BY_HAND, goal);
        let mut world = World::new(&runtime, cluster, regions, goal, &choices);
        for loss in 0..losses {
            let lost = if loss % 2 == 0 {
                Lost::Region(["asia", "eu", "us"][choices.below(3)])
            } else {
                Lost::Node(1 + choices.below(regions.len()) as u64)
            };
            eprintln!("{regions:?}, to survive a {goal}: {lost:?} is lost");
            world.lose(&runtime, lost);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Lost {
    Region(&'static str),
    Node(u64),
}

/// What was said of a loss.
#[derive(Debug)]
struct Said {
    /// Groups that have no quorum then.
    unavailable: BTreeSet<u64>,
    /// Groups of which acknowledged writes may be lost.
    at_risk: BTreeSet<u64>,
}

/// Letters from one person to another, by their places among the people.
pub type Pair = (usize, usize);

/// A cluster, somebody in each region, and what they wrote to each other.
struct World<'a> {
    cluster: Cluster,
    regions: &'a [&'static str],
    goal: &'static str,
    people: Vec<Person>,
    written: BTreeMap<Pair, usize>,
    acknowledged: BTreeMap<Pair, usize>,
}

impl<'a> World<'a> {
    fn new(
        runtime: &Runtime,
        mut cluster: Cluster,
        regions: &'a [&'static str],
        goal: &'static str,
        choices: &Choices,
    ) -> Self {
        let mut homes = vec![0];
        homes.extend((1..regions.len()).filter(|at| regions[*at] != regions[at - 1]));
        let people = runtime.block_on(async {
            let mut people = Vec::new();
            for (at, name) in homes.into_iter().zip(["ada", "ben", "cem"]) {
                people.push(Person::with_box(&cluster, email(name), at).await);
            }
            for from in &people {
                for to in &people {
                    from.add(to).await;
                }
            }
            people
        });
        let groups: Vec<u64> = people.iter().map(group_of).collect();
        assert_eq!(groups, [1, 2, 3], "boxes are born at home");
        wait_leaders(&mut cluster, 1);
        // Once each, since a node that has left a group may not have heard of that yet.
        let mut moves = BTreeSet::new();
        for _ in 0..MOVES {
            let node = 1 + choices.below(regions.len()) as u64;
            moves.insert((choices.below(4) as u64, node));
        }
        for (group, node) in moves {
            move_voter(&mut cluster, group, node);
        }
        let nothing = BTreeMap::new();
        Self {
            cluster,
            regions,
            goal,
            people,
            written: nothing.clone(),
            acknowledged: nothing,
        }
    }

    fn nodes_of(&self, lost: Lost) -> Vec<u64> {
        let nodes = (1..).zip(self.regions);
        let gone = |(node, region): (u64, &&str)| match lost {
            Lost::Region(of) => (*region == of).then_some(node),
            Lost::Node(of) => (node == of).then_some(node),
        };
        nodes.filter_map(gone).collect()
    }

    /// Something is lost while people write, and comes back.
    fn lose(&mut self, runtime: &Runtime, lost: Lost) {
        let gone = self.nodes_of(lost);
        let mut left = (1..).take(self.regions.len());
        let left = left.find(|node| !gone.contains(node)).unwrap();
        let address = format!("http://{}", self.cluster.node(left).client_address());
        let moved = std::mem::take(&mut self.people).into_iter();
        let moved =
            moved.map(|person| person.reopened(std::slice::from_ref(&address), one_patient_try()));
        self.people = moved.collect();
        wait_leaders(&mut self.cluster, left);
        let said = self.ask(left, lost);
        eprintln!("{said:?}");
        runtime.block_on(self.write_until_lost(&gone));
        let can_change = !said.unavailable.contains(&0);
        eventually("the map can be changed exactly if that was said", || {
            let set = ["set", "survive", self.goal];
            let output = self.cluster.placement_output(left, &set, false);
            match (output.status.code(), can_change) {
                (Some(0), true) | (Some(4), false) => Some(()),
                // It elects, or has not noticed yet.
                (Some(0 | 4 | 6), _) => None,
                _ => panic!("{}", stderr(&output)),
            }
        });
        runtime.block_on(self.compare(&said));
        for node in &gone {
            self.cluster.node(*node).start();
        }
        for node in gone {
            self.cluster.node(node).wait_ready();
        }
        runtime.block_on(self.all_is_there());
    }

    fn ask(&mut self, at: u64, lost: Lost) -> Said {
        let told = eventually("it is told without guessing", || {
            let told = self.cluster.placement(at, &["explain"]);
            let nobody = serde_json::json!([]);
            (told["guessed"] == nobody && told["silent"] == nobody).then_some(told)
        });
        let (of, what) = match lost {
            Lost::Region(region) => (&told["regions"], serde_json::json!({ "region": region })),
            Lost::Node(node) => (&told["nodes"], serde_json::json!({ "node": node })),
        };
        let mut all = of.as_array().unwrap().iter();
        let said = all.find(|said| said["lost"] == what).unwrap();
        eprintln!("{}", said["sentence"]);
        let groups = said["groups"].as_object().unwrap().iter();
        let of = |is_so: fn(&Value) -> bool| {
            let so = groups.clone().filter(|(_, harm)| is_so(harm));
            so.map(|(group, _)| group.parse().unwrap()).collect()
        };
        Said {
            unavailable: of(|harm| harm["unavailable"] == true),
            at_risk: of(|harm| harm["writes"] != "safe"),
        }
    }

    /// Everybody writes to everybody until nodes die, and to the end of what was begun.
    async fn write_until_lost(&mut self, gone: &[u64]) {
        // So that no refusal of their clocks hides another one.
        join_all(self.people.iter().map(|person| until_read(person, || true))).await;
        let (stop, progress) = (AtomicBool::new(false), AtomicUsize::new(0));
        let people = &self.people;
        let written = &self.written;
        let writers = (0..people.len()).map(|me| {
            let (stop, progress) = (&stop, &progress);
            async move {
                let mut counts = Vec::new();
                for to in (0..people.len()).filter(|to| *to != me) {
                    let before = written.get(&(me, to)).copied().unwrap_or_default();
                    counts.push(((me, to), before, before));
                }
                'writing: loop {
                    for ((_, to), written, acknowledged) in &mut counts {
                        if stop.load(Ordering::SeqCst) {
                            break 'writing;
                        }
                        *written += 1;
                        match write(people, (me, *to), *written).await {
                            Ok(()) => *acknowledged = *written,
                            Err(_) => break 'writing,
                        }
                        progress.fetch_add(1, Ordering::SeqCst);
                    }
                }
                counts
            }
        });
        let cluster = &mut self.cluster;
        let losing = async {
            let began = Instant::now();
            while progress.load(Ordering::SeqCst) < LETTERS {
                assert!(began.elapsed() < PATIENCE, "nobody can write");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for node in gone {
                cluster.node(*node).kill();
            }
            stop.store(true, Ordering::SeqCst);
        };
        let (counts, ()) = tokio::join!(join_all(writers), losing);
        for (pair, written, acknowledged) in counts.into_iter().flatten() {
            self.written.insert(pair, written);
            self.acknowledged.insert(pair, acknowledged);
        }
    }

    /// Each box answers, with all that was acknowledged, or is refused: as it was said.
    async fn compare(&mut self, said: &Said) {
        let count = self.people.len();
        let served = |at: usize| !said.unavailable.contains(&(at as u64 + 1));
        let people = &self.people;
        // First those that are served, so that their groups have elected and are no reason to refuse.
        let reading = (0..count).filter(|at| served(*at)).map(|at| {
            let acknowledged = &self.acknowledged;
            async move {
                let is_safe = !said.at_risk.contains(&(at as u64 + 1));
                let all_came = || {
                    let from = acknowledged.iter().filter(|((_, to), _)| *to == at);
                    let came = |from: usize| people[at].texts_from(&people[from].box_id()).len();
                    let mut from = from;
                    from.all(|((from, _), count)| came(*from) >= *count)
                };
                until_read(&people[at], || !is_safe || all_came()).await;
            }
        });
        join_all(reading).await;
        let trying = (0..count).map(|me| {
            let to = (me + 1) % count;
            let mut number = self.written.get(&(me, to)).copied().unwrap_or_default();
            async move {
                people[me].witness.forget_tries();
                if !served(me) {
                    assert_refused(&people[me], refused_at_last(&people[me]).await);
                }
                loop {
                    number += 1;
                    people[me].witness.forget_tries();
                    match write(people, (me, to), number).await {
                        Ok(()) => {
                            assert!(served(me) && served(to), "{me} to {to}, and {said:?}");
                            return ((me, to), number);
                        }
                        // Its leader may have gone again meanwhile, or is just being found.
                        Err(error) if served(me) && served(to) => {
                            assert!(error.may_pass(), "{error}");
                        }
                        Err(error) => {
                            assert_refused(&people[me], Some(error));
                            return ((me, to), number);
                        }
                    }
                }
            }
        });
        for (pair, written) in join_all(trying).await {
            self.written.insert(pair, written);
        }
    }

    /// With everybody back, all that was written comes, in order and once.
    async fn all_is_there(&self) {
        let began = Instant::now();
        for person in &self.people {
            while person.device.pending().unwrap() > 0 {
                assert!(began.elapsed() < PATIENCE, "what waits can't be sent");
                for sent in person.device.resend().await.unwrap() {
                    match sent.delivery {
                        Delivery::Delivered(_) => {}
                        Delivery::Pending(error) => assert!(error.may_pass(), "{error}"),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        for (to, reader) in self.people.iter().enumerate() {
            until_read(reader, || true).await;
            for (from, sender) in self.people.iter().enumerate() {
                let written = self.written.get(&(from, to)).copied().unwrap_or_default();
                let expected: Vec<String> = (1..=written).map(|n| text((from, to), n)).collect();
                assert_eq!(reader.texts_from(&sender.box_id()), expected);
            }
        }
    }
}

/// Gives a node a vote in a group, or takes it from one that has another group and is not the last.
fn move_voter(cluster: &mut Cluster, group: u64, node: u64) {
    let shown = cluster.placement(1, &["show"]);
    let groups = shown["groups"].as_array().unwrap().iter();
    let votes: BTreeSet<(u64, u64)> = groups
        .chain([&shown["placement"]])
        .flat_map(|group| {
            let members = group["members"].as_array().unwrap().iter();
            members.map(|member| {
                let numbers = (group["group"].as_u64(), member["node"].as_u64());
                (numbers.0.unwrap_or_default(), numbers.1.unwrap())
            })
        })
        .collect();
    let voters = votes.iter().filter(|(of, _)| *of == group).count();
    let held = votes.iter().filter(|(_, on)| *on == node).count();
    let (of, number) = (group.to_string(), node.to_string());
    if !votes.contains(&(group, node)) {
        let place = cluster.at(node);
        cluster.order_ok(1, &["add-node", &place, "--group", &of]);
    } else if voters > 1 && held > 1 {
        cluster.order_ok(1, &["remove-node", &number, "--group", &of]);
    }
}

pub fn text((from, to): Pair, number: usize) -> String {
    format!("{from} to {to}, number {number}")
}

/// Writes a letter; the error if it was not acknowledged, and waits.
pub async fn write(people: &[Person], pair: Pair, number: usize) -> Result<(), DeviceError> {
    let (from, to) = (&people[pair.0], &people[pair.1]);
    let content = Content::Text(text(pair, number));
    let sent = from.device.send(&to.box_id(), &content).await;
    match sent.expect("the letter could not even be kept").delivery {
        Delivery::Delivered(_) => Ok(()),
        Delivery::Pending(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// Reads until a box answers and what it gave is enough.
pub async fn until_read(person: &Person, is_enough: impl Fn() -> bool) {
    let began = Instant::now();
    loop {
        assert!(
            began.elapsed() < PATIENCE,
            "gave up reading as {}",
            person.identifier.as_str()
        );
        match person.device.receive().await {
            Ok(received) => match received.interrupted {
                None if is_enough() => return,
                None => panic!(
                    "acknowledged, and not there: {}",
                    person.identifier.as_str()
                ),
                Some(error) => assert!(error.may_pass(), "{error}"),
            },
            Err(error) => assert!(error.may_pass(), "{error}"),
        }
    }
}

/// What a reader is told once no lease of the group's leader holds any more: until then it is served.
pub async fn refused_at_last(person: &Person) -> Option<DeviceError> {
    let began = Instant::now();
    loop {
        person.witness.forget_tries();
        let received = person.device.receive().await;
        if received.is_err() || began.elapsed() > PATIENCE {
            return received.err();
        }
    }
}

/// It was the service that said that it can't now, in its own words: about the call, or about its recipient.
pub fn assert_refused(person: &Person, error: Option<DeviceError>) {
    let error = error.expect("it is served, though it was said that it would not be");
    let tries = person.witness.seen().tries;
    let is_typed = |code: &str| code == "UNAVAILABLE" || code == "OUTCOME_UNKNOWN";
    let of_call = |ending: &Ending| matches!(ending, Ending::Refused(code) if is_typed(code));
    let last = tries.last().map(|(_, ending)| ending);
    let typed = match &error {
        DeviceError::Call(CallError::Refused(refusal)) => is_typed(&refusal.code),
        error => error.is_unreachable() && last.is_some_and(of_call),
    };
    assert!(typed, "{error}: {tries:?}");
}
