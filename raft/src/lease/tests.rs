use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use rossby_domain::time::Timestamp;

use super::*;

const LEADER: ReplicaId = ReplicaId(1);
const TERM: u64 = 5;

/// A clock of which only [`Clock::lasting`] matters, in nanoseconds.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }

    fn running(&self) -> Duration {
        Duration::ZERO
    }

    fn lasting(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// A lease of 400 ms, on a clock that shows 10 s.
fn lease() -> (Arc<Hand>, Lease) {
    let hand = Arc::new(Hand::default());
    hand.set(Duration::from_secs(10));
    let lease = Lease::new(hand.clone(), Timing::lan());
    (hand, lease)
}

impl Hand {
    fn set(&self, shown: Duration) {
        let nanos = u64::try_from(shown.as_nanos()).unwrap();
        self.0.store(nanos, Ordering::SeqCst);
    }
}

fn sets(sets: &[&[u64]]) -> Vec<BTreeSet<ReplicaId>> {
    let set = |ids: &&[u64]| ids.iter().copied().map(ReplicaId).collect();
    sets.iter().map(set).collect()
}

#[test]
fn it_counts_from_when_the_append_was_sent() {
    let (hand, lease) = lease();
    let voters = sets(&[&[1, 2, 3]]);
    assert!(!lease.is_good(TERM, LEADER, &voters));
    let sent = lease.now();
    hand.set(Duration::from_millis(10_300));
    lease.accepted(TERM, ReplicaId(2), sent);
    // One that was sent earlier and comes in later takes nothing back.
    lease.accepted(TERM, ReplicaId(2), Duration::from_secs(9));
    hand.set(Duration::from_millis(10_399));
    assert!(lease.is_good(TERM, LEADER, &voters));
    hand.set(Duration::from_millis(10_400));
    assert!(!lease.is_good(TERM, LEADER, &voters));
}

#[test]
fn a_majority_of_every_set_must_have_promised_and_the_leader_be_one_of_each() {
    let (_, lease) = lease();
    for voter in [2, 3, 9] {
        lease.accepted(TERM, ReplicaId(voter), lease.now());
    }
    let good: [&[&[u64]]; 5] = [
        &[&[1]],
        &[&[1, 2]],
        &[&[1, 2, 4]],
        &[&[1, 2, 3, 4, 5]],
        &[&[1, 2, 4], &[1, 3, 5]],
    ];
    for voters in good {
        assert!(lease.is_good(TERM, LEADER, &sets(voters)), "{voters:?}");
    }
    let not: [&[&[u64]]; 7] = [
        &[],
        &[&[2]],
        &[&[2, 3]],
        &[&[1, 4]],
        &[&[1, 2, 4, 5]],
        &[&[1, 2, 4], &[1, 5, 6]],
        &[&[1, 2, 3], &[2, 3, 9]],
    ];
    for voters in not {
        assert!(!lease.is_good(TERM, LEADER, &sets(voters)), "{voters:?}");
    }
}

#[test]
fn a_leader_alone_needs_nobody_and_promises_of_other_terms_do_not_count() {
    let (_, lease) = lease();
    assert!(lease.is_good(TERM, LEADER, &sets(&[&[1]])));
    let voters = sets(&[&[1, 2, 3]]);
    lease.accepted(TERM, ReplicaId(2), lease.now());
    assert!(!lease.is_good(TERM + 1, LEADER, &voters));
    lease.accepted(TERM + 1, ReplicaId(3), lease.now());
    assert!(lease.is_good(TERM + 1, LEADER, &voters));
    lease.accepted(TERM, ReplicaId(2), lease.now());
    assert!(!lease.is_good(TERM, LEADER, &voters));
    assert!(!lease.is_good(TERM, LEADER, &sets(&[&[1]])));
}

#[test]
fn a_handover_ends_it_until_the_next_term() {
    let (_, lease) = lease();
    let voters = sets(&[&[1, 2, 3]]);
    lease.accepted(TERM, ReplicaId(2), lease.now());
    lease.give_up(TERM - 1);
    assert!(lease.is_good(TERM, LEADER, &voters));
    lease.give_up(TERM);
    lease.accepted(TERM, ReplicaId(2), lease.now());
    assert!(!lease.is_good(TERM, LEADER, &voters));
    lease.accepted(TERM + 1, ReplicaId(2), lease.now());
    assert!(lease.is_good(TERM + 1, LEADER, &voters));
}

/// What happens next, to one of the others.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The leader sends it an append.
    Send,
    /// It hears the next one that was sent, and promises.
    Hear,
    /// The leader hears of its next promise.
    Accept,
    /// It starts again: what was on the way to it is lost, and it knows of no promise.
    Restart,
}

/// A voter, its clock's pace in millionths of real time, and what is on the way.
struct Voter {
    pace: u64,
    /// Until when it elects nobody else, in real time.
    promised: Duration,
    sent: VecDeque<Duration>,
    accepted: VecDeque<Duration>,
}

impl Voter {
    /// How long a time on its clock is in truth, rounded up.
    fn real(&self, shown: Duration) -> Duration {
        let micros = shown.as_nanos() * 1_000 / u128::from(self.pace) + 1;
        Duration::from_micros(u64::try_from(micros).unwrap())
    }
}

const SLOWEST: u64 = 900_000;

proptest! {
    // What voters promise and the leader counts, by clocks whose paces differ by a quarter at most.
    #[test]
    fn while_it_is_good_nobody_else_can_be_elected(
        leader_pace in SLOWEST..1_100_000_u64,
        paces in prop::collection::vec(SLOWEST..=SLOWEST * 5 / 4, 2..=4),
        events in prop::collection::vec(
            (0..4_usize, 0..150_u64, prop_oneof![
                3 => Just(Event::Send),
                3 => Just(Event::Hear),
                3 => Just(Event::Accept),
                1 => Just(Event::Restart),
            ]),
            1..200,
        ),
    ) {
        let timing = Timing::lan();
        let (hand, lease) = lease();
        let ids = 1..=u64::try_from(paces.len()).unwrap() + 1;
        let voters = vec![ids.map(ReplicaId).collect::<BTreeSet<_>>()];
        // A quarter faster than the leader's at most.
        let fit = |pace: u64| pace.min(leader_pace * 5 / 4);
        let mut others: Vec<Voter> = paces.iter().map(|pace| Voter {
            pace: fit(*pace),
            promised: Duration::ZERO,
            sent: VecDeque::new(),
            accepted: VecDeque::new(),
        }).collect();
        let mut now = Duration::from_secs(10);
        for (which, passed_ms, event) in events {
            now += Duration::from_millis(passed_ms);
            hand.set(now * u32::try_from(leader_pace).unwrap() / 1_000_000);
            let at = which % others.len();
            let id = ReplicaId(u64::try_from(at).unwrap() + 2);
            let voter = &mut others[at];
            match event {
                Event::Send => voter.sent.push_back(lease.now()),
                Event::Hear => if let Some(sent) = voter.sent.pop_front() {
                    voter.promised = now + voter.real(timing.election_min);
                    voter.accepted.push_back(sent);
                },
                Event::Accept => if let Some(sent) = voter.accepted.pop_front() {
                    lease.accepted(TERM, id, sent);
                },
                Event::Restart => {
                    voter.sent.clear();
                    voter.promised = now + voter.real(timing.election_min);
                }
            }
            let willing = others.iter().filter(|voter| voter.promised <= now).count();
            if willing > voters[0].len() / 2 {
                prop_assert!(!lease.is_good(TERM, LEADER, &voters));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_starts_again_votes_for_nobody_until_no_promise_of_before_can_matter() {
    let timing = Timing::lan();
    let (new, old) = (
        Abstinence::begin(false, timing),
        Abstinence::begin(true, timing),
    );
    assert!(!new.lasts());
    tokio::time::advance(timing.election_min - Duration::from_millis(1)).await;
    assert!(old.lasts());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!old.lasts());
}
