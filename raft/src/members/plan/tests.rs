use proptest::prelude::*;

use super::*;

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        peer_address: format!("node{node}:1"),
        client_address: String::new(),
    }
}

/// A group in which every step is carried out at once.
#[derive(Debug, Clone)]
struct Model {
    members: Members,
    /// What each node holds; a node that is not here runs with an empty directory.
    holds: BTreeMap<NodeId, ReplicaId>,
    next: u64,
    /// Where a member without a vote is to stay so.
    copies: BTreeSet<NodeId>,
    /// How many voters there were, one number for each change of them.
    numbers: Vec<usize>,
}

impl Model {
    fn new(nodes: u64, silent: &BTreeSet<u64>) -> Self {
        let seats = (1..=nodes).map(|node| {
            let seat = Seat {
                member: member(node),
                voter: true,
                answers: node == 1 || !silent.contains(&node),
                behind: Some(0),
            };
            (ReplicaId(node), seat)
        });
        let members = Members {
            leader: ReplicaId(1),
            seats: seats.collect(),
            joint: false,
        };
        let holds = (1..=nodes).map(|node| (NodeId(node), ReplicaId(node)));
        Self {
            holds: holds.collect(),
            next: 100,
            copies: BTreeSet::new(),
            numbers: Vec::new(),
            members,
        }
    }

    fn newcomers(&self, order: &Order) -> Newcomers {
        let answer = |node: NodeId| match self.holds.get(&node) {
            Some(held) => Newcomer::Holds(*held),
            None => Newcomer::Free,
        };
        let new = order.newcomers().iter();
        new.map(|new| (new.node, answer(new.node))).collect()
    }

    fn next(&self, order: &Order) -> Result<Step, Refused> {
        next_step(order, &self.members, &self.newcomers(order), &self.copies)
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Ask | Step::Done(_) => {}
            Step::Finish => self.members.joint = false,
            Step::AddLearner(member) => {
                self.next += 1;
                let replica = ReplicaId(self.next);
                self.holds.insert(member.node, replica);
                let seat = Seat {
                    member,
                    voter: false,
                    answers: true,
                    behind: None,
                };
                self.members.seats.insert(replica, seat);
            }
            Step::DropLearner(replica) => {
                self.members.seats.remove(&replica);
            }
            Step::SetMember(replica, member) => {
                self.members.seats.get_mut(&replica).unwrap().member = member;
            }
            Step::CatchUp(replica) => {
                self.members.seats.get_mut(&replica).unwrap().behind = Some(0);
            }
            Step::HandOver(to) => {
                let seats = self.members.seats.iter();
                let other = seats
                    .filter(|(replica, seat)| **replica != self.members.leader && seat.voter)
                    .filter(|(_, seat)| to.is_none_or(|to| to == seat.member.node))
                    .find(|(_, seat)| seat.answers);
                self.members.leader = *other.expect("nobody to hand over to").0;
            }
            Step::SetVoters(voters) => {
                assert!(voters.contains(&self.members.leader), "the leader is out");
                let quorum = voters.len() / 2 + 1;
                let answer = |voter: &&ReplicaId| self.members.seats[*voter].answers;
                assert!(voters.iter().filter(answer).count() >= quorum, "no quorum");
                let before = self.members.voters();
                self.members
                    .seats
                    .retain(|replica, _| voters.contains(replica) || !before.contains(replica));
                for voter in &voters {
                    let seat = self.members.seats.get_mut(voter).unwrap();
                    assert!(
                        seat.behind
                            .is_some_and(|behind| behind <= CAUGHT_UP_ENTRIES)
                    );
                    seat.voter = true;
                }
                self.numbers.push(voters.len());
            }
        }
    }

    /// Gives an order until it is done or refused.
    fn order(&mut self, order: &Order) -> Result<(), Refused> {
        for _ in 0..16 {
            match self.next(order)? {
                Step::Done(_) => return Ok(()),
                step => self.carry_out(step),
            }
        }
        panic!("never done: {order:?} {self:?}");
    }
}

fn few() -> impl Strategy<Value = BTreeSet<u64>> {
    proptest::collection::btree_set(1..8u64, 1..3)
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![
        few().prop_map(|nodes| Order::Add(nodes.into_iter().map(member).collect())),
        (few(), any::<bool>()).prop_map(|(nodes, half_added_only)| Order::Remove {
            nodes: nodes.into_iter().map(NodeId).collect(),
            half_added_only,
        }),
        (1..8u64).prop_map(|node| Order::AddLearner(member(node))),
        (1..8u64, 1..8u64).prop_map(|(old, new)| Order::Replace {
            old: NodeId(old),
            new: member(new),
        }),
    ]
}

proptest! {
    /// Whoever is silent, whoever was wiped, and wherever an order before broke off: an order comes to
    /// an end in few steps, never sets voters that could not go on (which `carry_out` checks), changes the
    /// voters at most once, and given again changes nothing.
    #[test]
    fn every_order_ends_keeps_a_quorum_and_can_be_given_again(
        nodes in 1..6u64,
        silent in proptest::collection::btree_set(1..6u64, 0..3),
        wiped in proptest::collection::btree_set(1..6u64, 0..2),
        broken_off in proptest::option::of((orders(), 0..6usize)),
        copies in proptest::collection::btree_set(1..8u64, 0..3),
        order in orders(),
    ) {
        let mut model = Model::new(nodes, &silent);
        model.copies = copies.into_iter().map(NodeId).collect();
        for node in wiped {
            model.holds.remove(&NodeId(node));
        }
        if let Some((other, steps)) = broken_off {
            for _ in 0..steps {
                if let Ok(step) = model.next(&other) {
                    model.carry_out(step);
                }
            }
        }
        let before = model.members.voters().len();
        model.numbers.clear();
        let done = model.order(&order);
        prop_assert!(model.numbers.len() <= 1, "{:?}", model.numbers);
        prop_assert!(!model.members.voters().is_empty());
        if matches!(order, Order::Replace { .. }) {
            prop_assert_eq!(model.members.voters().len(), before);
        }
        if done.is_ok() {
            let after = model.members.clone();
            prop_assert_eq!(model.order(&order), Ok(()));
            prop_assert_eq!(model.members, after);
        }
    }
}

#[test]
fn a_change_of_voters_that_is_half_way_is_ended_before_anything_else() {
    let mut model = Model::new(3, &BTreeSet::new());
    model.members.joint = true;
    let order = Order::Remove {
        nodes: [NodeId(2)].into(),
        half_added_only: false,
    };
    let step = next_step(&order, &model.members, &Newcomers::new(), &BTreeSet::new());
    assert_eq!(step, Ok(Step::Finish));
}

#[test]
fn who_has_not_caught_up_gets_no_vote() {
    let mut model = Model::new(3, &BTreeSet::new());
    let order = Order::Add(vec![member(4)]);
    model.carry_out(Step::AddLearner(member(4)));
    let replica = ReplicaId(model.next);
    for (behind, answers) in [
        (None, true),
        (Some(CAUGHT_UP_ENTRIES + 1), true),
        (Some(0), false),
    ] {
        let seat = model.members.seats.get_mut(&replica).unwrap();
        (seat.behind, seat.answers) = (behind, answers);
        let next = model.next(&order);
        assert_eq!(next, Ok(Step::CatchUp(replica)));
    }
}

/// From three to five voters and back, never through four, of which one region could hold half.
#[test]
fn two_come_and_two_leave_at_once() {
    let mut model = Model::new(3, &BTreeSet::new());
    let add = Order::Add(vec![member(4), member(5)]);
    assert_eq!(model.order(&add), Ok(()));
    assert_eq!(model.numbers, [5]);
    // The leader is one of those that leave, and hands over to one that stays.
    let remove = Order::Remove {
        nodes: [NodeId(1), NodeId(2)].into(),
        half_added_only: false,
    };
    assert_eq!(model.order(&remove), Ok(()));
    assert_eq!(model.numbers, [5, 3]);
    assert_eq!(model.members.leader, ReplicaId(3));
}

#[test]
fn one_that_can_not_come_keeps_the_other_from_half_coming() {
    let mut model = Model::new(3, &BTreeSet::new());
    model.holds.insert(NodeId(5), ReplicaId(77));
    let add = Order::Add(vec![member(4), member(5)]);
    let (node, replica) = (NodeId(5), ReplicaId(77));
    let refused = Refused::HoldsOther { node, replica };
    assert_eq!(model.order(&add), Err(refused));
    assert_eq!(model.members.seats.len(), 3);
}

#[test]
fn nobody_gets_a_vote_before_all_have_caught_up() {
    let mut model = Model::new(3, &BTreeSet::new());
    let add = Order::Add(vec![member(4), member(5)]);
    for _ in 0..2 {
        let step = model.next(&add).unwrap();
        assert!(matches!(step, Step::AddLearner(_)), "{step:?}");
        model.carry_out(step);
    }
    let learners: Vec<ReplicaId> = [4, 5]
        .into_iter()
        .map(|node| model.members.learner_on(NodeId(node)).unwrap())
        .collect();
    model.carry_out(Step::CatchUp(learners[0]));
    let step = model.next(&add);
    assert_eq!(step, Ok(Step::CatchUp(learners[1])));
}

#[test]
fn a_copy_stays_without_a_vote_is_in_nobodys_way_and_may_get_one() {
    let mut model = Model::new(3, &BTreeSet::new());
    model.copies = [NodeId(4)].into();
    let copy = Order::AddLearner(member(4));
    assert_eq!(model.order(&copy), Ok(()));
    let learner = model.members.learner_on(NodeId(4)).unwrap();
    assert_eq!(model.members.voters().len(), 3);
    assert_eq!(model.order(&Order::Add(vec![member(5)])), Ok(()));
    assert_eq!(model.members.learner_on(NodeId(4)), Some(learner));
    // Its disk is lost: it begins anew under another replica id.
    model.holds.remove(&NodeId(4));
    assert_eq!(model.order(&copy), Ok(()));
    let anew = model.members.learner_on(NodeId(4)).unwrap();
    assert!(anew > learner);
    // Another goal: as a voter it goes on with what it has.
    model.copies.clear();
    let (node, other) = (NodeId(4), Order::Add(vec![member(6)]));
    assert_eq!(model.order(&other), Err(Refused::Underway { node }));
    assert_eq!(model.order(&Order::Add(vec![member(4)])), Ok(()));
    assert_eq!(model.members.voter_on(NodeId(4)), Some(anew));
}
