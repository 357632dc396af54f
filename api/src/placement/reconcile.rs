//! Has the groups become what the map asks for: on the node that leads the placement group, and on no other.
//!
//! ```text
//!   every second:  all nodes ─► who answers, what their groups tell ─► plan (pure, crate domain)
//!                                                                       │ one step of a group at a time
//!                                    the group's leader ◄── TakeStep ◄──┘ the same again, until none is asked for
//! ```
//!
//! A group that an order left in the map without having brought it to life is brought to life from here as well.
//!
//! Nothing is written down: whoever leads the placement group next plans the same from what there is. What is
//! remembered here (since when nodes answer, which steps were begun) is lost with the leadership, and only
//! makes the next leader wait longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{Change, ClusterMap, Health, Patience, Report, Step, plan};
use rossby_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::grow::{bring_to_life, unborn};
use crate::admin::OperatorError;
use crate::peer::{GroupReport, PlannedStep};

/// Between two plans.
const TICK: Duration = Duration::from_secs(1);
/// A step that failed is tried again after so long.
const AGAIN: Duration = Duration::from_secs(3);
/// A group that an order left unborn may be brought to life by that order, given again, for so long.
const UNBORN: Duration = Duration::from_secs(5);

/// What nodes answered; `None` if they did not.
pub type Told = BTreeMap<NodeId, Option<Vec<GroupReport>>>;
/// What is known of each group, and which nodes did not answer.
pub type Known = (Vec<v1::KnownGroup>, Vec<NodeId>);

/// A node and the others, as the loop meets them.
#[async_trait]
pub trait Ground: Send + Sync + 'static {
    /// Whether this node surely leads the placement group.
    fn leads_placement(&self) -> bool;

    /// The newest map that this node knows; of version 0 if it knows none.
    fn map(&self) -> Arc<ClusterMap>;

    /// Asks all nodes of the map, this one too, for what their groups tell.
    async fn ask_all(&self, map: &ClusterMap) -> Told;

    /// A step of the plan is begun that was not asked for just before.
    fn begun(&self, step: &Step);

    /// Has the leader of a group carry a step on.
    ///
    /// # Errors
    /// [`OperatorError`]; the same step is given again.
    async fn give_step(
        &self,
        leader: NodeId,
        group: GroupId,
        planned: PlannedStep,
    ) -> Result<(), OperatorError>;

    /// The steps that are under way now, to be shown.
    fn under_way(&self, steps: Vec<v1::StepUnderWay>);

    /// What is known of each group, from its leader if that answers; and which nodes of the map do not answer.
    ///
    /// # Errors
    /// [`OperatorError`] if this node is in no cluster.
    async fn known_groups(&self) -> Result<Known, OperatorError>;

    /// Has the placement group change the map; the version of the map then. That nothing would change is no error.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn change_map(&self, change: Change) -> Result<MapVersion, OperatorError>;

    /// Has a founder of a group start its replica, if it does not hold it yet; with `initialise` it also gives the
    /// group its first members.
    ///
    /// # Errors
    /// [`OperatorError`]; it may be done again.
    async fn found_replica(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        founder: (ReplicaId, NodeId),
        initialise: bool,
    ) -> Result<(), OperatorError>;
}

/// What a step is called where steps are counted and shown.
#[must_use]
pub fn kind(step: &Step) -> &'static str {
    match step {
        Step::Replace { .. } => "replace",
        Step::Add { .. } => "add",
        Step::AddLearner { .. } => "add_learner",
        Step::Remove { .. } => "remove",
        Step::TransferLeader { .. } => "transfer_leader",
    }
}

fn words(step: &Step) -> String {
    let list = |nodes: &BTreeSet<NodeId>| {
        let nodes: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
        nodes.join(" and ")
    };
    match step {
        Step::Replace { old, new } => format!("node {new} comes for node {old}"),
        Step::Add { nodes } => format!("{} comes", list(nodes)),
        Step::AddLearner { node } => format!("node {node} comes without a vote"),
        Step::Remove { nodes } => format!("{} leaves", list(nodes)),
        Step::TransferLeader { to } => format!("node {to} is to lead"),
    }
}

/// Since when nodes answer or do not, by this node's own clock.
#[derive(Debug, Default)]
struct Watched(BTreeMap<NodeId, (bool, Instant)>);

impl Watched {
    fn note(&mut self, node: NodeId, answers: bool, now: Instant) {
        let seen = self.0.entry(node).or_insert((answers, now));
        if seen.0 != answers {
            *seen = (answers, now);
        }
    }

    fn health(&self, now: Instant) -> BTreeMap<NodeId, Health> {
        let health = |(node, (answers, since)): (&NodeId, &(bool, Instant))| {
            let for_ms = now.duration_since(*since).as_millis();
            let for_ms = u64::try_from(for_ms).unwrap_or(u64::MAX);
            let health = match answers {
                true => Health::Up { for_ms },
                false => Health::Down { for_ms },
            };
            (*node, health)
        };
        self.0.iter().map(health).collect()
    }
}

/// A step of a group that was begun.
struct Begun {
    step: Step,
    task: Option<JoinHandle<Result<(), OperatorError>>>,
    /// What was last said of its failing.
    failure: Option<String>,
    not_before: Instant,
}

/// What is remembered from one plan to the next.
#[derive(Default)]
struct Memory {
    watched: Watched,
    begun: BTreeMap<GroupId, Begun>,
    /// Groups that nobody has taken part in yet, and when they are to be brought to life.
    unborn: BTreeMap<GroupId, Instant>,
}

impl Memory {
    /// Takes note of what became of the steps that were given.
    async fn collect(&mut self, now: Instant) {
        for (group, begun) in &mut self.begun {
            let Some(task) = begun.task.take_if(|task| task.is_finished()) else {
                continue;
            };
            let said = match task.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = &said {
                begun.not_before = now + AGAIN;
                if begun.failure != said {
                    warn!(%group, step = ?begun.step, reason, "a step of the plan failed: it is tried again");
                }
            }
            begun.failure = said.or(begun.failure.take());
        }
    }

    /// Forgets the steps that are not asked for any more. While a group is busy nothing is asked of it.
    fn forget(&mut self, steps: &BTreeMap<GroupId, Step>, reports: &BTreeMap<GroupId, Report>) {
        self.begun.retain(|group, begun| {
            let is_idle = |report: &Report| !report.busy && report.membership.coming.is_none();
            let is_over = !steps.contains_key(group) && reports.get(group).is_some_and(is_idle);
            begun.task.is_some() || !is_over
        });
    }

    /// The steps that were begun and are asked for still, as they are told.
    fn under_way(&self) -> Vec<v1::StepUnderWay> {
        let begun = self.begun.iter();
        begun
            .map(|(group, begun)| v1::StepUnderWay {
                group_id: group.0,
                kind: kind(&begun.step).to_owned(),
                what: words(&begun.step),
                failure: begun.failure.clone().unwrap_or_default(),
            })
            .collect()
    }

    /// Whether a step is to be given now; and whether that is the first time.
    fn due(&self, group: GroupId, step: &Step, now: Instant) -> (bool, bool) {
        match self.begun.get(&group) {
            Some(begun) if begun.task.is_some() => (false, false),
            Some(begun) if begun.step == *step => (now >= begun.not_before, false),
            _ => (true, true),
        }
    }
}

/// Plans and has the steps carried out, whenever this node leads the placement group, until told to stop.
pub async fn reconcile(ground: Arc<dyn Ground>, patience: Patience, stop: CancellationToken) {
    let mut memory = Memory::default();
    while !stop.is_cancelled() {
        let _ = stop.run_until_cancelled(sleep(TICK)).await;
        if !ground.leads_placement() {
            memory = Memory::default();
            ground.under_way(Vec::new());
            continue;
        }
        let planning = plan_once(&ground, &patience, &mut memory);
        let _ = stop.run_until_cancelled(planning).await;
        ground.under_way(memory.under_way());
    }
}

async fn plan_once(ground: &Arc<dyn Ground>, patience: &Patience, memory: &mut Memory) {
    let map = ground.map();
    if map.version() == MapVersion(0) {
        return;
    }
    let told = ground.ask_all(&map).await;
    let now = Instant::now();
    memory.collect(now).await;
    memory
        .watched
        .0
        .retain(|node, _| map.nodes().contains_key(node));
    for (node, answer) in &told {
        memory.watched.note(*node, answer.is_some(), now);
    }
    let all_answer = told.values().all(Option::is_some);
    let reports = latest(told);
    finish_births(ground, memory, &map, &reports, all_answer).await;
    let led: BTreeMap<GroupId, NodeId> = reports
        .iter()
        .filter_map(|(group, report)| Some((*group, report.membership.leader?)))
        .collect();
    let mut steps = plan(&map, &reports, &memory.watched.health(now), patience);
    steps.retain(|group, step| {
        let report = reports.get(group);
        report.is_some_and(|report| !is_premature(step, report, patience))
    });
    memory.forget(&steps, &reports);
    // It may have taken long to ask.
    if !ground.leads_placement() {
        return;
    }
    for (group, step) in steps {
        let (Some(leader), Some(report)) = (led.get(&group), reports.get(&group)) else {
            continue;
        };
        let voters = report.membership.voters.clone();
        let planned = PlannedStep { step, voters };
        begin_step(ground, memory, group, planned, *leader, now);
    }
}

/// Brings groups to life that an order put in the map, and left when only some of their founders held a
/// replica. What cannot be told from a group that was lost is left alone: all nodes must answer.
async fn finish_births(
    ground: &Arc<dyn Ground>,
    memory: &mut Memory,
    map: &Arc<ClusterMap>,
    reports: &BTreeMap<GroupId, Report>,
    all_answer: bool,
) {
    let silent = |group: &&GroupId| !reports.contains_key(group);
    let mut silent: BTreeSet<GroupId> = map.groups().keys().filter(silent).copied().collect();
    if !all_answer || silent.is_empty() {
        memory.unborn.clear();
        return;
    }
    let unborn = match ground.known_groups().await {
        Ok((known, quiet)) if quiet.is_empty() => unborn(known),
        _ => BTreeSet::new(),
    };
    silent.retain(|group| unborn.contains(group));
    memory.unborn.retain(|group, _| silent.contains(group));
    for group in silent {
        let now = Instant::now();
        let due = *memory.unborn.entry(group).or_insert(now + UNBORN);
        if now < due || !ground.leads_placement() {
            continue;
        }
        warn!(%group, "an order has left this group unborn: it is brought to life now");
        if let Err(error) = bring_to_life(&**ground, group, map).await {
            warn!(%group, %error, "the group is still unborn: it is tried again");
        }
        memory.unborn.insert(group, Instant::now() + UNBORN);
    }
}

fn begin_step(
    ground: &Arc<dyn Ground>,
    memory: &mut Memory,
    group: GroupId,
    planned: PlannedStep,
    leader: NodeId,
    now: Instant,
) {
    let step = planned.step.clone();
    let (is_due, is_first) = memory.due(group, &step, now);
    if !is_due {
        return;
    }
    if is_first {
        info!(%group, ?step, %leader, "a step towards what the map asks for");
        ground.begun(&step);
    }
    let ground = Arc::clone(ground);
    let task = tokio::spawn(async move { ground.give_step(leader, group, planned).await });
    let failure = memory.begun.remove(&group).filter(|_| !is_first);
    let begun = Begun {
        step,
        task: Some(task),
        failure: failure.and_then(|begun| begun.failure),
        not_before: now,
    };
    memory.begun.insert(group, begun);
}

/// Of each group, what its leader of the latest term tells.
#[must_use]
pub fn latest(told: Told) -> BTreeMap<GroupId, Report> {
    let mut latest: BTreeMap<GroupId, (u64, Report)> = BTreeMap::new();
    for report in told.into_values().flatten().flatten() {
        match latest.get(&report.group) {
            Some((term, _)) if *term >= report.term => {}
            _ => {
                latest.insert(report.group, (report.term, report.report));
            }
        }
    }
    let report = |(group, (_, report))| (group, report);
    latest.into_iter().map(report).collect()
}

/// A member without a vote that nobody wants may be half added by an operator's order that the leader
/// before this one carried on, and that is given again.
fn is_premature(step: &Step, report: &Report, patience: &Patience) -> bool {
    let is_learner = |node: &NodeId| report.membership.learners.contains(node);
    match step {
        Step::Remove { nodes } if nodes.iter().all(is_learner) => {
            report.leads_for_ms < patience.stable_ms
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::placement::Membership;

    use super::*;

    const NODE: NodeId = NodeId(1);
    const GROUP: GroupId = GroupId(1);

    fn report(leads_for_ms: u64, busy: bool) -> Report {
        let membership = Membership {
            leader: Some(NODE),
            learners: [NodeId(4)].into(),
            ..Membership::default()
        };
        Report {
            membership,
            leads_for_ms,
            busy,
            ..Report::default()
        }
    }

    fn remove(node: u64) -> Step {
        Step::Remove {
            nodes: [NodeId(node)].into(),
        }
    }

    #[test]
    fn a_node_is_up_or_down_for_as_long_as_it_answered_or_did_not() {
        let (mut watched, start) = (Watched::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        watched.note(NODE, true, at(0));
        watched.note(NODE, true, at(3));
        assert_eq!(watched.health(at(5))[&NODE], Health::Up { for_ms: 5_000 });
        watched.note(NODE, false, at(6));
        watched.note(NODE, false, at(8));
        assert_eq!(watched.health(at(9))[&NODE], Health::Down { for_ms: 3_000 });
        watched.note(NODE, true, at(10));
        assert_eq!(watched.health(at(10))[&NODE], Health::Up { for_ms: 0 });
        assert_eq!(watched.health(at(10)).get(&NodeId(2)), None);
    }

    #[test]
    fn the_leader_of_the_latest_term_is_believed() {
        let of = |term, leads_for_ms| GroupReport {
            group: GROUP,
            term,
            owned: 0,
            report: report(leads_for_ms, false),
        };
        let told = Told::from([
            (NodeId(1), Some(vec![of(3, 10)])),
            (NodeId(2), Some(vec![of(5, 20)])),
            (NodeId(3), Some(vec![of(4, 30)])),
            (NodeId(4), None),
        ]);
        assert_eq!(latest(told)[&GROUP].leads_for_ms, 20);
    }

    #[test]
    fn a_new_leader_takes_no_half_added_member_out() {
        let patience = Patience::default();
        assert!(is_premature(&remove(4), &report(10, false), &patience));
        assert!(!is_premature(&remove(4), &report(60_000, false), &patience));
        assert!(!is_premature(&remove(2), &report(10, false), &patience));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_given_again_until_it_is_not_asked_for_and_begun_once() {
        let (mut memory, now) = (Memory::default(), Instant::now());
        assert_eq!(memory.due(GROUP, &remove(4), now), (true, true));
        let begin = |error: Option<&str>| {
            let outcome = error.map_or(Ok(()), |text| {
                Err(OperatorError::Unavailable(text.to_owned()))
            });
            Begun {
                step: remove(4),
                task: Some(tokio::spawn(async move { outcome })),
                failure: None,
                not_before: now,
            }
        };
        memory.begun.insert(GROUP, begin(None));
        assert_eq!(memory.due(GROUP, &remove(4), now), (false, false));
        tokio::task::yield_now().await;
        memory.collect(now).await;
        assert_eq!(memory.due(GROUP, &remove(4), now), (true, false));
        assert_eq!(memory.due(GROUP, &remove(5), now), (true, true));
        // One that failed waits a little.
        memory.begun.insert(GROUP, begin(Some("no quorum")));
        tokio::task::yield_now().await;
        memory.collect(now).await;
        assert_eq!(memory.due(GROUP, &remove(4), now), (false, false));
        assert_eq!(memory.due(GROUP, &remove(4), now + AGAIN), (true, false));
        let shown = memory.under_way();
        assert_eq!(shown.len(), 1);
        let words = [&shown[0].kind, &shown[0].what, &shown[0].failure];
        assert_eq!(words, ["remove", "node 4 leaves", "no quorum"]);
        // Nothing is asked of a busy group; once it is idle the step is over.
        let (none, busy) = (BTreeMap::new(), BTreeMap::from([(GROUP, report(0, true))]));
        memory.forget(&none, &busy);
        assert_eq!(memory.begun.len(), 1);
        let idle = BTreeMap::from([(GROUP, report(0, false))]);
        memory.forget(&none, &idle);
        assert!(memory.begun.is_empty());
    }
}
