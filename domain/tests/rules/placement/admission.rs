//! Join tokens: who comes in by one, and the numbers that nodes get.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rossby_domain::command::{Admit, IssueToken, RevokeToken};
use rossby_domain::ids::{NodeId, PartitionId};
use rossby_domain::placement::{
    AdmissionRefusal, Change, JoinAttempt, Joiner, MAX_TOKENS, NodeEntry, PLACEMENT_PARTITION,
    PlacementRefusal, SurvivalGoal, TokenDigest, TokenRegion, TokenUse, TokenWanted,
};
use rossby_domain::query::answer;
use rossby_domain::tables::ReadTables as _;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

use super::place::Seat;
use super::{draining, entry, found, nodes, region};

const HOUR_MS: u64 = 60 * 60 * 1000;

fn digest(token: u8) -> TokenDigest {
    TokenDigest::of(&[token; 32])
}

fn wanted(node: Option<u64>, region: TokenRegion) -> TokenWanted {
    TokenWanted {
        node: node.map(NodeId),
        region,
        valid_for_ms: HOUR_MS,
    }
}

fn joiner(token: u8, attempt: u8, node: u64, entry: NodeEntry) -> Joiner {
    Joiner {
        token: digest(token),
        attempt: JoinAttempt([attempt; 16]),
        node: NodeId(node),
        entry,
    }
}

impl Seat {
    /// A cluster of nodes 1.. in the regions of these letters.
    fn of(letters: &str) -> Self {
        let mut seat = Self::new();
        let change = found(&nodes(letters), SurvivalGoal::Node);
        seat.place(0, &change).unwrap();
        seat
    }

    fn issue(&mut self, token: u8, wanted: TokenWanted) -> Reply {
        let digest = digest(token);
        let command = Command::IssueToken(IssueToken { digest, wanted });
        self.apply(PLACEMENT_PARTITION, command)
    }

    /// The number that a new token is for.
    fn issued(&mut self, token: u8, node: Option<u64>, region: TokenRegion) -> u64 {
        match self.issue(token, wanted(node, region)) {
            Ok(Outcome::TokenIssued { node, .. }) => node.0,
            other => panic!("{other:?}"),
        }
    }

    fn admit(&mut self, joiner: Joiner) -> Reply {
        self.apply(PLACEMENT_PARTITION, Command::Admit(Admit { joiner }))
    }

    /// What is refused changes nothing.
    fn not_admitted(&mut self, joiner: Joiner) -> AdmissionRefusal {
        let state = |seat: &Self| (seat.map(), seat.tables.admissions().unwrap());
        let before = state(self);
        let reply = self.admit(joiner);
        assert_eq!(state(self), before);
        match reply {
            Err(Rejection::AdmissionRefused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn revoke(&mut self, node: u64) -> Reply {
        let node = NodeId(node);
        let command = Command::RevokeToken(RevokeToken { node });
        self.apply(PLACEMENT_PARTITION, command)
    }

    fn listed(&self) -> Vec<(u64, TokenUse)> {
        let answer = answer(&self.tables, self.now, &Query::JoinTokens).unwrap();
        match answer {
            Answer::JoinTokens(tokens) => tokens
                .into_iter()
                .map(|token| (token.node.0, token.used))
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn not_issued(&mut self, token: u8, wanted: TokenWanted) -> AdmissionRefusal {
        match self.issue(token, wanted) {
            Err(Rejection::AdmissionRefused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_token_lets_one_node_in_once_and_its_own_try_may_ask_again() {
    let mut seat = Seat::of("aab");
    assert_eq!(seat.issued(1, None, TokenRegion::Known(region('a'))), 4);
    // A reply that was lost is asked for again.
    assert_eq!(seat.issued(1, None, TokenRegion::Any), 4);
    let first = joiner(1, 1, 4, entry(4, 'a'));
    assert!(matches!(
        seat.admit(first.clone()),
        Ok(Outcome::Placed { .. })
    ));
    assert!(seat.map().nodes().contains_key(&NodeId(4)));
    let after = seat.map();
    let again = seat.admit(first.clone());
    let version = after.version();
    assert_eq!(again, Ok(Outcome::Placed { version }));
    // The same directory at another address, after it was told to leave.
    let leaving = draining(entry(4, 'a'));
    let change = Change::PutNode {
        node: NodeId(4),
        entry: leaving.clone(),
    };
    seat.place(version.0, &change).unwrap();
    let moved = NodeEntry {
        client_address: "10.9.9.9:7470".to_owned(),
        ..entry(4, 'a')
    };
    seat.admit(joiner(1, 1, 4, moved.clone())).unwrap();
    assert_eq!(seat.map().nodes()[&NodeId(4)], draining(moved));
    // Another directory.
    let other = joiner(1, 2, 4, entry(4, 'a'));
    assert_eq!(seat.not_admitted(other), AdmissionRefusal::Used);
    // It has left for good.
    let version = seat.map().version();
    seat.place(version.0, &Change::RemoveNode(NodeId(4)))
        .unwrap();
    assert_eq!(seat.not_admitted(first), AdmissionRefusal::Used);
}

#[test]
fn whoever_shows_a_wrong_token_stays_out() {
    let mut seat = Seat::of("aab");
    seat.issued(1, None, TokenRegion::Known(region('a')));
    let cases = [
        (
            joiner(9, 1, 4, entry(4, 'a')),
            AdmissionRefusal::UnknownToken,
        ),
        (
            joiner(1, 1, 5, entry(5, 'a')),
            AdmissionRefusal::OtherNode {
                expected: NodeId(4),
                found: NodeId(5),
            },
        ),
        (
            joiner(1, 1, 4, entry(4, 'b')),
            AdmissionRefusal::OtherRegion {
                expected: region('a'),
                found: region('b'),
            },
        ),
        (
            // The address of node 1.
            joiner(1, 1, 4, entry(1, 'a')),
            AdmissionRefusal::Map(PlacementRefusal::Address(NodeId(4))),
        ),
    ];
    for (wrong, refusal) in cases {
        assert_eq!(seat.not_admitted(wrong), refusal);
    }
    // The number came by another way.
    let version = seat.map().version();
    let change = Change::PutNode {
        node: NodeId(4),
        entry: entry(4, 'a'),
    };
    seat.place(version.0, &change).unwrap();
    let taken = seat.not_admitted(joiner(1, 1, 4, entry(4, 'a')));
    assert_eq!(taken, AdmissionRefusal::AlreadyIn(NodeId(4)));
    // In time, but too late.
    seat.issued(2, None, TokenRegion::Any);
    seat.now = seat.now.plus_millis(HOUR_MS);
    let late = seat.not_admitted(joiner(2, 1, 5, entry(5, 'a')));
    assert_eq!(late, AdmissionRefusal::Expired);
    // Elsewhere than in the placement group's own partition.
    let command = Command::Admit(Admit {
        joiner: joiner(2, 1, 5, entry(5, 'a')),
    });
    let reply = seat.apply(PartitionId::try_from(1).unwrap(), command);
    assert!(matches!(reply, Err(Rejection::NotOwner { .. })));
}

#[test]
fn a_region_is_new_only_by_a_token_that_says_so() {
    let mut seat = Seat::of("ab");
    let known = TokenRegion::Known(region('c'));
    assert_eq!(
        seat.not_issued(1, wanted(None, known)),
        AdmissionRefusal::NoSuchRegion(region('c'))
    );
    seat.issued(1, None, TokenRegion::Any);
    assert_eq!(
        seat.not_admitted(joiner(1, 1, 3, entry(3, 'c'))),
        AdmissionRefusal::NoSuchRegion(region('c'))
    );
    assert_eq!(seat.issued(2, None, TokenRegion::New(region('c'))), 4);
    seat.admit(joiner(2, 1, 4, entry(4, 'c'))).unwrap();
    assert!(seat.map().regions().contains(&region('c')));
    // It is not new any more.
    seat.admit(joiner(1, 1, 3, entry(3, 'c'))).unwrap();
}

#[test]
fn a_token_is_good_for_a_while_and_there_are_not_too_many() {
    let mut seat = Seat::of("a");
    for valid_for_ms in [0, 999, u64::MAX] {
        let wanted = TokenWanted {
            valid_for_ms,
            ..wanted(None, TokenRegion::Any)
        };
        assert_eq!(seat.not_issued(1, wanted), AdmissionRefusal::Validity);
    }
    for token in 0..u8::try_from(MAX_TOKENS).unwrap() {
        seat.issued(token, None, TokenRegion::Any);
    }
    let more = wanted(None, TokenRegion::Any);
    assert_eq!(
        seat.not_issued(200, more.clone()),
        AdmissionRefusal::TooManyTokens
    );
    seat.now = seat.now.plus_millis(HOUR_MS);
    seat.issue(200, more).unwrap();
    // Those that are good no more are forgotten.
    let unknown = seat.not_admitted(joiner(0, 1, 2, entry(2, 'a')));
    assert_eq!(unknown, AdmissionRefusal::UnknownToken);
    let none = wanted(Some(u64::MAX), TokenRegion::Any);
    seat.issue(201, none).unwrap();
    let none = wanted(None, TokenRegion::Any);
    assert!(matches!(
        seat.not_issued(202, none),
        AdmissionRefusal::NumberTaken { .. }
    ));
}

#[test]
fn a_token_that_was_revoked_admits_nobody_and_one_that_was_used_is_not_revoked() {
    let mut seat = Seat::of("a");
    assert_eq!(seat.issued(1, None, TokenRegion::Any), 2);
    assert_eq!(seat.issued(2, None, TokenRegion::Any), 3);
    seat.admit(joiner(1, 1, 2, entry(2, 'a'))).unwrap();
    let revoked = Ok(Outcome::TokenRevoked);
    for _ in 0..2 {
        assert_eq!(seat.revoke(3), revoked);
    }
    let refusals = [
        (2, AdmissionRefusal::Joined(NodeId(2))),
        (4, AdmissionRefusal::NoToken(NodeId(4))),
    ];
    for (node, refusal) in refusals {
        let before = seat.tables.admissions().unwrap();
        assert_eq!(seat.revoke(node), Err(Rejection::AdmissionRefused(refusal)));
        assert_eq!(seat.tables.admissions().unwrap(), before);
    }
    let shown = seat.not_admitted(joiner(2, 1, 3, entry(3, 'a')));
    assert_eq!(shown, AdmissionRefusal::Revoked);
    // The one that was used goes on for its own try.
    seat.admit(joiner(1, 1, 2, entry(2, 'a'))).unwrap();
    let by = TokenUse::By(JoinAttempt([1; 16]));
    assert_eq!(seat.listed(), [(2, by), (3, TokenUse::Revoked)]);
    // Its number is not given again, and it takes nobody's place.
    for token in 3..=u8::try_from(MAX_TOKENS).unwrap() + 1 {
        assert_eq!(
            seat.issued(token, None, TokenRegion::Any),
            u64::from(token) + 1
        );
    }
    assert_eq!(seat.listed().len(), MAX_TOKENS);
    assert!(!seat.listed().contains(&(3, TokenUse::Revoked)));
    seat.now = seat.now.plus_millis(HOUR_MS);
    assert_eq!(seat.listed(), []);
    let late = Err(Rejection::AdmissionRefused(AdmissionRefusal::NoToken(
        NodeId(4),
    )));
    assert_eq!(seat.revoke(4), late);
}

#[derive(Debug, Clone)]
enum Step {
    Issue(Option<u64>),
    Put(u64),
    Leave(u64),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 2..12_u64;
    let step = prop_oneof![
        3 => prop::option::of(node.clone()).prop_map(Step::Issue),
        2 => node.clone().prop_map(Step::Put),
        2 => node.prop_map(Step::Leave),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn no_token_is_for_a_number_that_was_ever_used(steps in steps()) {
        let mut seat = Seat::of("a");
        let mut used = BTreeSet::from([1]);
        for (token, step) in (0..).zip(steps) {
            let version = seat.map().version().0;
            match step {
                Step::Issue(node) => {
                    if let Ok(Outcome::TokenIssued { node, .. }) =
                        seat.issue(token, wanted(node, TokenRegion::Any))
                    {
                        prop_assert!(used.insert(node.0), "{node} again");
                    }
                }
                Step::Put(node) => {
                    let change = Change::PutNode { node: NodeId(node), entry: draining(entry(node, 'a')) };
                    if seat.place(version, &change).is_ok() {
                        used.insert(node);
                    }
                }
                Step::Leave(node) => {
                    let _ = seat.place(version, &Change::RemoveNode(NodeId(node)));
                }
                Step::Wait => seat.now = seat.now.plus_millis(HOUR_MS),
            }
        }
    }
}
