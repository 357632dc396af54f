//! A world: a cluster with a spare node, its people and everything that befalls them, from one seed.
//!
//! ```text
//!   person ── device (client crate) ── wire ── doors ── mailbox service (api) ── group (raft)
//!                                                                                  │
//!   faults ──► network in memory, disks in memory, clocks, processes ◄── storage ──┘
//!                             everything that is seen ──► recorder ──► invariants
//! ```
//!
//! Invariant: nothing here, and nothing that runs in it, asks the machine for time, randomness or
//! order. One world is one process with one thread; its time passes only while nobody has anything
//! to do.

pub mod birth;
mod clock;
pub mod courier;
mod devices;
pub mod dice;
pub mod door;
mod fates;
pub mod faults;
mod growing;
mod joining;
pub mod layout;
mod leases;
mod leaving;
pub mod life;
pub mod node;
pub mod operator;
mod peers;
pub mod person;
pub mod recorder;
mod recovery;
mod reset;
mod suspending;
pub mod trap;
mod trial;
pub mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rossby_api::ClusterSecrets;
use rossby_domain::ids::{ClusterId, GroupId, NodeId};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_seams::disk::PowerLoss;
use rossby_seams::random::{self, SeededRandom};
use rossby_seams::transport::MemoryNetwork;
use rossby_seams::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::clock::WorldClock;
use self::dice::Dice;
use self::door::Doors;
use self::faults::Faults;
use self::layout::{Layout, Shape};
use self::node::{Common, Node};
use self::operator::Operator;
use self::person::{Directory, Person, PersonParts, Phase, Steps};
use self::recorder::{Figures, Recorder};
use self::wire::{CallIds, DeviceWire, Ways};
use crate::invariants::Violation;
use crate::observe::{ClientId, Digest, ReplicaEvent, What, Who};

/// What every world's clocks show when it begins.
const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const PEOPLE: u32 = 4;
/// How long letters wait in worlds in which some expire, at least and at most, in milliseconds. More
/// than clocks may be apart, so that some must not have expired.
const SHORT_TTL_MS: (u64, u64) = (22_000, 60_000);
/// How long an identifier stays with its box that another has proven, at least and at most, in milliseconds: twice that is
/// longer than any try of a call.
const RESET_DELAY_MS: (u64, u64) = (5_000, 9_000);
/// How slow and how fast the clocks of leases are: voters' are a quarter faster than the slowest.
const PACE_PERMILLE: (u64, u64) = (800, 1_200);
/// After healing, everything must come to its end within this time of the world.
const LIVENESS: Duration = Duration::from_secs(300);
/// Between two looks whether something has come to its end.
const LOOK: Duration = Duration::from_millis(100);
/// No world lasts longer, by its own time.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// What a world is made from.
#[derive(Debug)]
pub struct Plan {
    /// Everything is drawn from this.
    pub seed: u64,
    /// How many things people do.
    pub steps: u64,
    /// Whether anything goes wrong.
    pub faults: bool,
    /// Its kind; drawn from the seed if not given.
    pub shape: Option<Shape>,
    /// Where every observation is written, if anywhere.
    pub trace: Option<File>,
    /// A folder for the devices' files, for this world alone.
    pub homes: PathBuf,
}

/// What became of a world.
#[derive(Debug)]
pub struct Report {
    /// What was broken first, if anything.
    pub violation: Option<Violation>,
    /// Its kind.
    pub shape: Shape,
    /// Its size.
    pub figures: Figures,
    /// How long it was, by its own time.
    pub lasted: Duration,
    /// A digest of every observation.
    pub digest: [u8; 32],
    /// Its last events, for people.
    pub timeline: String,
}

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The runtime could not be made.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
    /// A value of the world is not possible.
    #[error("the world can not be made: {0}")]
    Setting(String),
}

fn setting(error: impl std::fmt::Display) -> WorldError {
    WorldError::Setting(error.to_string())
}

/// Runs a world to its end, or to the first broken invariant. A process should run no second one.
///
/// # Errors
/// [`WorldError`] if there can be no world.
pub fn run(plan: Plan) -> Result<Report, WorldError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(async {
        let recorder = Arc::new(Recorder::new(plan.trace));
        listen_for_panics(&recorder);
        let dice = Dice::new(plan.seed);
        let shape = plan
            .shape
            .unwrap_or_else(|| Shape::drawn(&dice.stream("shape")));
        let world = World::new(&recorder, dice, shape, plan.steps, plan.homes)?;
        tokio::select! {
            biased;
            () = recorder.broken() => {}
            lived = timeout(LONGEST, world.live(plan.faults)) => if lived.is_err() {
                recorder.accuse("liveness", "the world did not come to its end".to_owned());
            }
        }
        recorder.finish();
        Ok(Report {
            violation: recorder.violation(),
            shape,
            figures: recorder.figures(),
            lasted: recorder.begun().elapsed(),
            digest: recorder.digest(),
            timeline: recorder.timeline(),
        })
    })
}

/// A panic of any task breaks the world.
fn listen_for_panics(recorder: &Arc<Recorder>) {
    let recorder = Arc::clone(recorder);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        recorder.accuse("no panic", panic.to_string());
    }));
}

/// How long letters wait in a world: mostly as long as by the design, and in some so shortly that they
/// expire while people look.
fn envelope_ttl_ms(dice: &Dice) -> u64 {
    let (least, most) = SHORT_TTL_MS;
    if dice.permille(250) {
        dice.between(least, most)
    } else {
        Limits::default().envelope_ttl_ms
    }
}

/// At which pace leases run out on a node: up to the bound that `rossby_raft` states, and as far the other way.
fn pace_permille(dice: &Dice) -> u32 {
    let (least, most) = PACE_PERMILLE;
    u32::try_from(dice.between(least, most)).unwrap_or(1_000)
}

struct World {
    recorder: Arc<Recorder>,
    common: Arc<Common>,
    nodes: Vec<Arc<Node>>,
    faults: Arc<Faults>,
    operator: Arc<Operator>,
    steps: Arc<Steps>,
    people: Mutex<Vec<Person>>,
}

impl World {
    fn new(
        recorder: &Arc<Recorder>,
        dice: Dice,
        shape: Shape,
        steps: u64,
        homes: PathBuf,
    ) -> Result<Self, WorldError> {
        let layout = Layout::new(shape, &dice.stream("layout")).map_err(setting)?;
        let network = MemoryNetwork::seeded(dice.seed_of("network"));
        network.set_usual(faults::calm());
        let secrets = SeededRandom::new(dice.seed_of("secrets"));
        let envelope_ttl_ms = envelope_ttl_ms(&dice.stream("limits"));
        let (shortest, longest) = RESET_DELAY_MS;
        let reset_delay_ms = dice.stream("resets").between(shortest, longest);
        let common = Arc::new(Common {
            recorder: Arc::clone(recorder),
            network: network.clone(),
            cluster: ClusterId::from_random(random::bytes(&secrets).map_err(setting)?),
            secrets: Arc::new(ClusterSecrets::generate(&secrets).map_err(setting)?),
            layout,
            limits: Limits {
                // People here ask for codes until they have a box.
                codes_per_day: 10_000,
                code_pause_ms: 5,
                envelope_ttl_ms,
                reset_delay_ms,
                ..Limits::default()
            },
            codes: courier::Codes::default(),
            trap: trap::Trap::default(),
            checkpoint_log_bytes: 24 << 10,
            nodes: OnceLock::new(),
            astray_permille: AtomicU64::new(0),
            astray_dice: dice.stream("astray"),
            dice,
        });
        let clock = || WorldClock::new(recorder.begun(), NOON);
        let paces = common.dice.stream("paces");
        let paced = || clock().paced(pace_permille(&paces));
        let known: Vec<NodeId> = common.layout.nodes.keys().copied().collect();
        let to_come = common.layout.to_come.keys();
        let nodes: Vec<Arc<Node>> = known
            .iter()
            .chain(to_come)
            .map(|id| Arc::new(Node::new(*id, paced(), Arc::clone(&common))))
            .collect();
        let weak = nodes.iter().map(|node| (node.id, Arc::downgrade(node)));
        // Nobody but this sets it.
        let _ = common.nodes.set(weak.collect());
        let ways = Arc::new(Ways::default());
        let steps = Arc::new(Steps::new(steps));
        let operator = Arc::new(Operator::new(Arc::clone(&common), nodes.clone()));
        let faults = Faults::new(
            Arc::clone(&common),
            nodes.clone(),
            Arc::clone(&ways),
            Arc::clone(&operator),
        );
        let by_id: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.clone())).collect();
        let doors = Arc::new(Doors::new(by_id, network));
        let (ids, directory) = (Arc::new(CallIds::default()), Arc::new(Directory::default()));
        let person = |number| {
            let id = ClientId(number);
            // Everybody begins elsewhere.
            let begin_at = usize::try_from(number).unwrap_or_default() % known.len();
            let region = nodes
                .get(begin_at)
                .map(|node| common.layout.region(node.id));
            let wire = DeviceWire::new(
                (id, region.unwrap_or_default()),
                Arc::clone(&common),
                Arc::clone(&doors),
                Arc::clone(&ways),
                Arc::clone(&ids),
            );
            Person::new(PersonParts {
                id,
                homes: homes.to_owned(),
                wire: Arc::new(wire),
                clock: Arc::new(clock()),
                nodes: known.clone(),
                begin_at,
                common: Arc::clone(&common),
                directory: Arc::clone(&directory),
                steps: Arc::clone(&steps),
            })
            .map_err(setting)
        };
        let people = (1..=PEOPLE).map(person).collect::<Result<_, _>>()?;
        Ok(Self {
            recorder: Arc::clone(recorder),
            common,
            nodes,
            faults: Arc::new(faults),
            operator,
            steps,
            people: Mutex::new(people),
        })
    }

    async fn live(&self, with_faults: bool) {
        self.recorder.saw(
            Who::World,
            What::Began {
                wall: NOON,
                envelope_ttl_ms: self.common.limits.envelope_ttl_ms,
                reset_delay_ms: self.common.limits.reset_delay_ms,
            },
        );
        if let Err(error) = self.found().await {
            return self.recorder.accuse("founding", error);
        }
        let (phase, phases) = watch::channel(Phase::Work);
        let done = Arc::new(watch::channel(0).0);
        let mut lives = JoinSet::new();
        let mut doings = Vec::new();
        for person in std::mem::take(&mut *self.people.lock()) {
            doings.push((person.id, Arc::clone(&person.doing)));
            let (id, recorder) = (person.id, Arc::clone(&self.recorder));
            let life = person.live(phases.clone(), Arc::clone(&done));
            lives.spawn(async move {
                if let Err(error) = life.await {
                    let what = format!("client {}: {error}", id.0);
                    recorder.accuse("no surprise for people", what);
                }
            });
        }
        lives.spawn(leases::watch(
            self.nodes.clone(),
            Arc::clone(&self.recorder),
        ));
        let mut faults = JoinSet::new();
        if with_faults {
            faults.spawn(Arc::clone(&self.faults).run());
        }
        while !self.steps.are_over() {
            sleep(LOOK).await;
        }
        faults.shutdown().await;
        self.faults.heal().await;
        if timeout(LIVENESS, self.operator.settle()).await.is_err() {
            return self.stuck(&doings);
        }
        self.end_removed();
        self.recorder.saw(Who::World, What::Healed);
        for (next, all_done) in [(Phase::Settle, PEOPLE), (Phase::Read, 2 * PEOPLE)] {
            phase.send_replace(next);
            let mut watched = done.subscribe();
            let all = watched.wait_for(|done| *done >= u64::from(all_done));
            if timeout(LIVENESS, all).await.is_err() {
                return self.stuck(&doings);
            }
        }
        lives.shutdown().await;
        if with_faults && self.common.layout.has_map() {
            Box::pin(self.lose_a_region()).await;
        }
        for group in self.operator.groups() {
            Box::pin(self.agree(group)).await;
        }
    }

    fn stuck(&self, doings: &[(ClientId, Arc<Mutex<&'static str>>)]) {
        let doing: Vec<String> = doings
            .iter()
            .map(|(id, doing)| format!("client {} {}", id.0, doing.lock()))
            .collect();
        let states: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|node| node.life())
            .flat_map(|life| life.replicas.all())
            .map(|group| format!("{:?}", group.status()))
            .collect();
        let what = format!(
            "after healing: {}; {}; {}",
            doing.join(", "),
            self.operator.unsettled(),
            states.join("; ")
        );
        self.recorder.accuse("liveness after healing", what);
    }

    /// Nodes that were removed are of no use any more, and are stopped. Where there is a map, a node may hold
    /// replicas of other groups.
    fn end_removed(&self) {
        if self.common.layout.has_map() {
            return;
        }
        for node in &self.nodes {
            let groups = node.life().map(|life| life.replicas.all());
            let mut groups = groups.iter().flatten();
            if groups.any(|group| group.is_dismissed()) {
                node.crash(PowerLoss::KeepAll);
            }
        }
    }

    /// Starts all nodes and brings the groups to life.
    async fn found(&self) -> Result<(), String> {
        let layout = &self.common.layout;
        self.faults.set_up_ways();
        for node in &self.nodes {
            node.start().await.map_err(|error| error.to_string())?;
            let held = layout.held_by(node.id);
            if !held.is_empty() {
                let entered = node.take_places(held, None).await;
                entered.map_err(|error| error.to_string())?;
            }
        }
        for (group, founders) in &layout.founders {
            let members = founders.iter();
            let members = members.map(|(replica, node)| (*replica, layout::member(*node)));
            let first = founders.values().next();
            let first = first.and_then(|node| self.common.life(*node)?.replicas.get(*group));
            let founded = first.ok_or("no node")?.initialize(members.collect()).await;
            founded.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Waits until all replicas of a group have applied the same, and shows their states.
    async fn agree(&self, group: GroupId) {
        // By now all that run are members, and all members run.
        let replicas = || -> Vec<_> {
            let lives = self.nodes.iter().filter_map(|node| node.life());
            lives
                .filter_map(|life| Some((life.node, life.replicas.get(group)?)))
                .collect()
        };
        let applied = || -> Vec<Option<u64>> {
            let replicas = replicas().into_iter();
            replicas
                .map(|(_, replica)| replica.status().applied_index)
                .collect()
        };
        let alike = async {
            loop {
                let (now, _) = (applied(), sleep(LOOK).await);
                let same = now.windows(2).all(|pair| pair.first() == pair.last());
                if same && applied() == now && now.iter().all(Option::is_some) {
                    return;
                }
            }
        };
        if timeout(LIVENESS, alike).await.is_err() {
            let what = format!("replicas of group {group} have applied {:?}", applied());
            return self.recorder.accuse("liveness after healing", what);
        }
        let mut states = Vec::new();
        for (node, replica) in replicas() {
            let Ok((Some(at), digests)) = replica.reader().digests() else {
                let what = format!("the state of node {node} can not be read");
                return self.recorder.accuse("states agree at the end", what);
            };
            for (partition, digest) in &digests {
                let event = ReplicaEvent::State {
                    at,
                    partition: *partition,
                    digest: Digest::of(digest),
                };
                let replica = replica.replica();
                self.recorder.saw(
                    Who::Node(node),
                    What::Replica {
                        group,
                        replica,
                        event,
                    },
                );
            }
            states.push((at, digests));
        }
        if states.windows(2).any(|pair| pair.first() != pair.last()) {
            let what = "replicas that applied the same log have different states".to_owned();
            self.recorder.accuse("states agree at the end", what);
        }
    }
}
