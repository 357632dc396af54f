//! A small cluster in which nodes die and return while the planner brings it where it should be.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{
    Change, ClusterMap, Health, Membership, NodeEntry, NodeState, PLACEMENT_GROUP, Patience,
    RegionName, Report, Step, SurvivalGoal, VOTERS_AT_HOME, birth, plan,
};

use super::{entry, found, nodes};

const LONG_MS: u64 = 24 * 3_600_000;

/// A group of the simulated cluster.
#[derive(Debug, Clone)]
struct Group {
    voters: BTreeSet<NodeId>,
    /// With whether they have caught up.
    learners: BTreeMap<NodeId, bool>,
    leader: Option<NodeId>,
    since_ms: u64,
}

/// A cluster that does what the planner says.
#[derive(Debug)]
struct Cluster {
    map: ClusterMap,
    groups: BTreeMap<GroupId, Group>,
    /// Since when nodes are down, and since when they are up.
    down: BTreeMap<NodeId, u64>,
    up: BTreeMap<NodeId, u64>,
    now_ms: u64,
}

#[derive(Debug, Clone)]
enum Event {
    /// Time passes, in seconds, and the planner runs; the groups whose bit is set are busy.
    Plan(u64, u8),
    Kill(u64),
    Return(u64),
    Drain(u64, bool),
    Come(u64, char),
    Goal(SurvivalGoal),
    /// A group gets another leader.
    Elect(u32, u64),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 1..12_u64;
    let letter = prop::sample::select(vec!['a', 'b', 'c', 'd', 'e']);
    let goal = prop::sample::select(vec![SurvivalGoal::Node, SurvivalGoal::Region]);
    let seconds = prop_oneof![1..30_u64, 30..400_u64];
    prop_oneof![
        12 => (seconds, prop_oneof![3 => Just(0_u8), 1 => any::<u8>()]).prop_map(|(s, b)| Event::Plan(s, b)),
        3 => node.clone().prop_map(Event::Kill),
        3 => node.clone().prop_map(Event::Return),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, drain)| Event::Drain(n, drain)),
        1 => (9..12_u64, letter).prop_map(|(n, letter)| Event::Come(n, letter)),
        1 => goal.prop_map(Event::Goal),
        1 => (0..6_u32, any::<u64>()).prop_map(|(g, which)| Event::Elect(g, which)),
    ]
}

fn is_majority(of: &BTreeSet<NodeId>, alive: impl Fn(&NodeId) -> bool) -> bool {
    of.iter().filter(|node| alive(node)).count() * 2 > of.len()
}

impl Cluster {
    fn new(letters: &str, goal: SurvivalGoal) -> Self {
        let nodes = nodes(letters);
        let map = ClusterMap::default().after(&found(&nodes, goal)).unwrap();
        let born = birth(&nodes, goal, VOTERS_AT_HOME);
        let data = born
            .groups
            .into_iter()
            .map(|(group, born)| (group, born.founders));
        let all = data.chain([(PLACEMENT_GROUP, born.placement)]);
        let groups = all.map(|(group, founders)| {
            let voters: BTreeSet<NodeId> = founders.into_values().collect();
            let leader = voters.first().copied();
            let (learners, since_ms) = (BTreeMap::new(), 0);
            (
                group,
                Group {
                    voters,
                    learners,
                    leader,
                    since_ms,
                },
            )
        });
        Self {
            groups: groups.collect(),
            down: BTreeMap::new(),
            up: map.nodes().keys().map(|node| (*node, 0)).collect(),
            map,
            now_ms: LONG_MS,
        }
    }

    fn is_up(&self, node: &NodeId) -> bool {
        !self.down.contains_key(node)
    }

    fn region(&self, node: &NodeId) -> Option<&RegionName> {
        self.map.nodes().get(node).map(|entry| &entry.region)
    }

    /// Whether voters go on whatever one region, or node, is lost.
    fn survives(&self, voters: &BTreeSet<NodeId>, goal: SurvivalGoal) -> bool {
        voters.iter().all(|lost| {
            is_majority(voters, |node| {
                let goes_too = match goal {
                    SurvivalGoal::Node => node == lost,
                    SurvivalGoal::Region => self.region(node) == self.region(lost),
                };
                self.is_up(node) && !goes_too
            })
        })
    }

    fn change(&mut self, change: &Change) {
        if let Ok(next) = self.map.after(change) {
            self.map = next;
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Plan(seconds, busy) => {
                self.plan(*seconds, *busy);
            }
            Event::Kill(node) if self.map.nodes().contains_key(&NodeId(*node)) => {
                self.down.entry(NodeId(*node)).or_insert(self.now_ms);
            }
            Event::Return(node) => {
                if self.down.remove(&NodeId(*node)).is_some() {
                    self.up.insert(NodeId(*node), self.now_ms);
                }
            }
            Event::Drain(node, drain) => {
                let node = NodeId(*node);
                if let Some(known) = self.map.nodes().get(&node).cloned() {
                    let state = if *drain {
                        NodeState::Draining
                    } else {
                        NodeState::Active
                    };
                    let entry = NodeEntry { state, ..known };
                    self.change(&Change::PutNode { node, entry });
                }
            }
            Event::Come(number, letter) => {
                let (node, entry) = (NodeId(*number), entry(*number, *letter));
                if !self.map.nodes().contains_key(&node) {
                    self.change(&Change::PutNode { node, entry });
                    self.up.insert(node, self.now_ms);
                }
            }
            Event::Goal(goal) => self.change(&Change::SetGoal(*goal)),
            Event::Elect(group, which) => {
                let (up, now) = (|node: &&NodeId| self.is_up(node), self.now_ms);
                let Some(found) = self.groups.get(&GroupId(*group)) else {
                    return;
                };
                let able: Vec<_> = found.voters.iter().filter(up).copied().collect();
                let leader = able.get(*which as usize % able.len().max(1)).copied();
                let group = self.groups.get_mut(&GroupId(*group)).unwrap();
                (group.leader, group.since_ms) = (leader, now);
            }
            Event::Kill(_) => {}
        }
        self.elect();
    }

    /// A group whose leader is gone gets another if it can.
    fn elect(&mut self) {
        let down = &self.down;
        for group in self.groups.values_mut() {
            let up = |node: &NodeId| !down.contains_key(node);
            let leads = |node: NodeId| up(&node) && group.voters.contains(&node);
            if !is_majority(&group.voters, up) {
                group.leader = None;
            } else if !group.leader.is_some_and(leads) {
                group.leader = group.voters.iter().copied().find(|node| up(node));
                group.since_ms = self.now_ms;
            }
        }
    }

    fn plan(&mut self, seconds: u64, busy: u8) -> usize {
        self.now_ms += seconds * 1000;
        let is_busy = |group: GroupId| busy >> (group.0 % 8) & 1 == 1;
        let since = |at: &u64| self.now_ms - at;
        let up = self
            .up
            .iter()
            .map(|(node, at)| (*node, Health::Up { for_ms: since(at) }));
        let down = self
            .down
            .iter()
            .map(|(node, at)| (*node, Health::Down { for_ms: since(at) }));
        let health: BTreeMap<_, _> = up.chain(down).collect();
        let reports = self.groups.iter().map(|(id, group)| {
            let learners = group.learners.iter();
            let caught_up = learners
                .filter(|(_, caught_up)| **caught_up)
                .map(|(node, _)| *node);
            let voters = group.voters.iter().copied();
            let report = Report {
                caught_up: voters
                    .filter(|node| self.is_up(node))
                    .chain(caught_up)
                    .collect(),
                membership: Membership {
                    leader: group.leader,
                    voters: group.voters.clone(),
                    coming: None,
                    learners: group.learners.keys().copied().collect(),
                },
                leads_for_ms: since(&group.since_ms),
                busy: is_busy(*id),
            };
            (*id, report)
        });
        let reports: BTreeMap<_, _> = reports.collect();
        let steps = plan(&self.map, &reports, &health, &Patience::default());
        assert_eq!(
            steps,
            plan(&self.map, &reports, &health, &Patience::default())
        );
        for (id, step) in &steps {
            assert!(!is_busy(*id), "{step:?} of a busy group");
            self.take(*id, step);
        }
        // Learners catch up until the next time.
        let down = &self.down;
        for group in self.groups.values_mut() {
            for (node, caught_up) in &mut group.learners {
                *caught_up |= !down.contains_key(node);
            }
        }
        self.elect();
        steps.len()
    }

    fn take(&mut self, id: GroupId, step: &Step) {
        let mut group = self.groups[&id].clone();
        let leader = group.leader.unwrap();
        assert!(
            is_majority(&group.voters, |node| self.is_up(node)),
            "{step:?}"
        );
        let mut after = group.voters.clone();
        let (coming, leaving) = match step {
            Step::TransferLeader { to } => {
                assert!(group.voters.contains(to) && self.is_up(to) && *to != leader);
                (group.leader, group.since_ms) = (Some(*to), self.now_ms);
                self.groups.insert(id, group);
                return;
            }
            Step::Replace { old, new } => {
                assert!(after.contains(old), "{step:?}");
                (BTreeSet::from([*new]), BTreeSet::from([*old]))
            }
            Step::Add { nodes } => (nodes.clone(), BTreeSet::new()),
            Step::Remove { nodes } => (BTreeSet::new(), nodes.clone()),
            Step::AddLearner { node } => {
                let is_free = !group.voters.contains(node) && self.is_up(node);
                assert!(is_free && self.map.is_active(*node), "{step:?}");
                assert!(self.map.keeps_copy(id, *node), "{step:?} of {id}");
                assert_ne!(group.learners.get(node), Some(&true), "{step:?}");
                group.learners.entry(*node).or_insert(false);
                self.groups.insert(id, group);
                return;
            }
        };
        assert!(!leaving.contains(&leader), "{step:?} takes the leader away");
        for node in &coming {
            assert!(!group.voters.contains(node) && self.is_up(node), "{step:?}");
            assert!(
                self.map.is_active(*node),
                "{step:?} chooses one that is draining"
            );
        }
        after.extend(&coming);
        for node in &leaving {
            after.remove(node);
            if !group.voters.contains(node) {
                assert!(group.learners.remove(node).is_some(), "{step:?} of nobody");
            }
        }
        assert!(after.len() <= 9 && (1..=2).contains(&(coming.len() + leaving.len())));
        assert!(
            is_majority(&after, |node| self.is_up(node)),
            "{step:?} loses the quorum"
        );
        for goal in [SurvivalGoal::Node, SurvivalGoal::Region] {
            let is_sought = goal == SurvivalGoal::Node || self.map.goal() == goal;
            let holds = is_sought && self.survives(&group.voters, goal);
            assert!(
                !holds || self.survives(&after, goal),
                "{step:?} breaks {goal} of {self:?}"
            );
        }
        let others = group.learners.keys();
        let others =
            others.filter(|node| !coming.contains(node) && !self.map.keeps_copy(id, **node));
        assert!(
            after == group.voters || others.count() == 0,
            "{step:?} beside another"
        );
        if coming
            .iter()
            .all(|node| group.learners.get(node) == Some(&true))
        {
            group.learners.retain(|node, _| !coming.contains(node));
            group.voters = after;
        } else {
            for node in coming {
                group.learners.entry(node).or_insert(false);
            }
        }
        self.groups.insert(id, group);
    }

    /// Everybody comes back, and nothing happens for a long time.
    fn calm_down(&mut self) {
        for node in std::mem::take(&mut self.down).into_keys() {
            self.up.insert(node, self.now_ms);
        }
        self.elect();
        let mut quiet = 0;
        for _ in 0..200 {
            let steps = self.plan(61, 0);
            quiet = if steps == 0 { quiet + 1 } else { 0 };
            // Two in a row, since a leader may have to cool down first.
            if quiet > 2 {
                return;
            }
        }
        panic!("the planner does not come to an end: {self:?}");
    }

    fn active_in(&self, region: &RegionName) -> usize {
        let there = self.map.nodes().values();
        let active = there.filter(|entry| entry.state == NodeState::Active);
        active.filter(|entry| entry.region == *region).count()
    }

    fn voters_in(&self, group: &Group, region: &RegionName) -> usize {
        let there = group.voters.iter();
        there
            .filter(|node| self.region(node) == Some(region))
            .count()
    }

    /// Copies without a vote: in two other regions, but for those that have voters.
    fn check_copies(&self, id: GroupId, group: &Group) {
        let told = format!("group {id} of {self:?}");
        let home = self.map.groups().get(&id).map(|entry| &entry.home);
        let home = home.filter(|_| self.map.goal() == SurvivalGoal::Node);
        let Some(home) = home else {
            assert!(group.learners.is_empty(), "{told}");
            return;
        };
        let regions = self.map.active_regions();
        let others = regions.iter().filter(|region| **region != home);
        let stays = |node: &&NodeId| self.map.is_active(**node);
        let voters: BTreeSet<_> = group.voters.iter().filter(stays).collect();
        let votes = |region: &&&RegionName| {
            let mut voters = voters.iter();
            voters.any(|voter| self.region(voter) == Some(**region))
        };
        let (voting, free): (Vec<&&RegionName>, Vec<&&RegionName>) = others.partition(votes);
        let expected = 2_usize.saturating_sub(voting.len()).min(free.len());
        let held: BTreeSet<_> = group
            .learners
            .keys()
            .map(|node| self.region(node))
            .collect();
        assert_eq!(
            (held.len(), group.learners.len()),
            (expected, expected),
            "{told}"
        );
        for (node, caught_up) in &group.learners {
            let region = self.region(node).unwrap();
            assert!(*caught_up && self.map.is_active(*node), "{told}");
            assert!(free.iter().any(|free| **free == region), "{told}");
        }
    }

    /// Whether each group stands as it should.
    fn check_desired(&self) {
        let regions: BTreeSet<&RegionName> = self.map.active_regions();
        for (id, group) in &self.groups {
            let told = format!("group {id} of {self:?}");
            self.check_copies(*id, group);
            let most = regions
                .iter()
                .map(|region| self.voters_in(group, region))
                .max()
                .unwrap();
            let drained = group.voters.iter().all(|node| self.map.is_active(*node));
            if *id == PLACEMENT_GROUP {
                if regions.len() >= 3 {
                    assert!(drained && most == 1, "{told}");
                    assert_eq!(
                        group.voters.len(),
                        if regions.len() >= 5 { 5 } else { 3 },
                        "{told}"
                    );
                }
                continue;
            }
            let home = &self.map.groups()[id].home;
            let (at_home, there) = (self.voters_in(group, home), self.active_in(home));
            if self.map.goal() == SurvivalGoal::Region {
                assert!(drained && most * 2 < group.voters.len(), "{told}");
                let others = regions.iter().filter(|region| **region != home);
                let pairs: usize = others.map(|region| self.active_in(region).min(2)).sum();
                let expected = if there >= 2 && pairs >= 3 {
                    (5, 2)
                } else {
                    (3, 1)
                };
                assert_eq!((group.voters.len(), at_home), expected, "{told}");
            } else if there >= 3 {
                assert!(
                    drained && at_home == group.voters.len() && at_home >= 3,
                    "{told}"
                );
            } else {
                // As many as there are; whoever else votes is needed to survive a node.
                assert!(at_home >= there, "{told}");
            }
            let leader = group.leader.as_ref().and_then(|leader| self.region(leader));
            assert_eq!(leader, Some(home), "{told}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_step_does_harm_and_in_quiet_all_come_where_they_should_be(
        letters in prop::sample::select(vec!["aaa", "aabb", "abc", "aabbc", "aaabbbcc", "abcdeab", "aaaaabc"]),
        goal in prop::sample::select(vec![SurvivalGoal::Node, SurvivalGoal::Region]),
        events in proptest::collection::vec(event(), 1..120),
    ) {
        let regions: BTreeSet<char> = letters.chars().collect();
        let goal = if regions.len() < 3 { SurvivalGoal::Node } else { goal };
        let mut cluster = Cluster::new(letters, goal);
        for event in &events {
            cluster.happen(event);
        }
        cluster.calm_down();
        cluster.check_desired();
    }
}
