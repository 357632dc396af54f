use proptest::prelude::*;
use rossby_domain::time::DAY_MS;

use super::*;

const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A board that boots without knowing the time.
const YEARS_AHEAD: Timestamp = NOON.plus_millis(10 * 365 * DAY_MS);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_service_follows_its_clock_as_long_as_that_is_not_behind_the_log() {
    let (time, at) = (ServiceTime::default(), Duration::ZERO);
    time.learn(1, NOON, at);
    let own = NOON.plus_millis(5_000);
    assert_eq!(time.now(1, Some(own), at), Some(own));
    // What is only shown and never stamped may be taken back.
    assert_eq!(time.now(1, Some(YEARS_AHEAD), at), Some(YEARS_AHEAD));
    assert_eq!(time.now(1, Some(own), at), Some(own));
    assert_eq!(time.now(2, Some(own), at), None);
}

#[test]
fn after_a_wrong_stamp_the_time_goes_on_from_there() {
    let (time, at) = (ServiceTime::default(), Duration::ZERO);
    time.learn(1, NOON, at);
    time.stamped(1, YEARS_AHEAD, at);
    time.committed(1, YEARS_AHEAD, at + seconds(1));
    let now = time.now(1, Some(NOON), at + seconds(90));
    assert_eq!(now, Some(YEARS_AHEAD.plus_millis(90_000)));
    let hours = time.hours(1).unwrap();
    assert_eq!((hours.since, hours.covered), (NOON, YEARS_AHEAD));

    // The next leader knows it from the log, whatever its own clock shows.
    let next = ServiceTime::default();
    next.learn(2, YEARS_AHEAD, at);
    let now = next.now(2, Some(NOON), at + seconds(7));
    assert_eq!(now, Some(YEARS_AHEAD.plus_millis(7_000)));
    assert_eq!(next.now(2, None, at + seconds(7)), now);
    assert_eq!(next.hours(2).unwrap().since, YEARS_AHEAD);
}

#[test]
fn a_stamp_of_another_term_covers_nothing() {
    let (time, at) = (ServiceTime::default(), Duration::ZERO);
    time.learn(2, NOON, at);
    time.committed(1, YEARS_AHEAD, at);
    time.committed(3, YEARS_AHEAD, at);
    assert_eq!(time.hours(2).unwrap().covered, NOON);
    time.learn(1, YEARS_AHEAD, at);
    assert_eq!(time.hours(2).unwrap().since, NOON);
}

/// What may happen to three nodes and their log.
#[derive(Debug, Clone)]
enum Step {
    /// A node's clock is set this far from noon, or is out of step.
    Clock(usize, Option<i64>),
    Pass(u64),
    /// A node is elected; it may have lost its memory before.
    Elect {
        node: usize,
        restarted: bool,
    },
    /// Whoever thinks that it leads on a node stamps; it may never hear what became of it.
    Stamp {
        node: usize,
        hears: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let far = 20 * 365 * i64::try_from(DAY_MS).unwrap();
    let offset = prop_oneof![-20_000..20_000_i64, -far..far];
    prop_oneof![
        (0..3_usize, prop::option::of(offset)).prop_map(|(node, own)| Step::Clock(node, own)),
        (0..100_000_u64).prop_map(Step::Pass),
        (0..3_usize, any::<bool>()).prop_map(|(node, restarted)| Step::Elect { node, restarted }),
        (0..3_usize, prop::bool::weighted(0.8))
            .prop_map(|(node, hears)| Step::Stamp { node, hears }),
    ]
}

#[derive(Default)]
struct Node {
    time: ServiceTime,
    term: u64,
    offset: Option<i64>,
}

struct Model {
    nodes: [Node; 3],
    /// The node that was elected last: only what it proposes is committed.
    leader: Option<usize>,
    term: u64,
    log: Timestamp,
    passed: Duration,
    /// The hours of each reign, as they were last.
    hours: Vec<(u64, Hours)>,
}

impl Model {
    fn own(&self, node: &Node) -> Option<Timestamp> {
        let right = NOON.as_millis() + u64::try_from(self.passed.as_millis()).unwrap();
        let shown = right.saturating_add_signed(node.offset?);
        Some(Timestamp::from_millis(shown))
    }

    fn take(&mut self, step: &Step) {
        let at = self.passed;
        match *step {
            Step::Clock(node, offset) => self.nodes[node].offset = offset,
            Step::Pass(millis) => self.passed += Duration::from_millis(millis),
            Step::Elect { node, restarted } => {
                self.term += 1;
                self.leader = Some(node);
                let elected = &mut self.nodes[node];
                if restarted {
                    elected.time = ServiceTime::default();
                }
                elected.term = self.term;
                elected.time.learn(self.term, self.log, at);
            }
            Step::Stamp {
                node: at_node,
                hears,
            } => {
                let node = &self.nodes[at_node];
                let Some(stamp) = node.time.now(node.term, self.own(node), at) else {
                    return;
                };
                node.time.stamped(node.term, stamp, at);
                if self.leader == Some(at_node) {
                    self.log = self.log.max(stamp);
                    if hears {
                        node.time.committed(node.term, stamp, at);
                    }
                }
            }
        }
    }

    fn note_hours(&mut self) {
        for node in &self.nodes {
            if let Some(hours) = node.time.hours(node.term) {
                self.hours.retain(|(term, _)| *term != node.term);
                self.hours.push((node.term, hours));
            }
        }
        self.hours.sort_by_key(|(term, _)| *term);
    }
}

proptest! {
    /// Over any sequence of elections, restarts, clocks and lost answers, deposed leaders that go on
    /// included: no two reigns answer for the same signed time, and a leader's time is never before
    /// what it covers.
    #[test]
    fn no_two_reigns_answer_for_the_same_time(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model {
            nodes: Default::default(),
            leader: None,
            term: 0,
            log: Timestamp::default(),
            passed: Duration::ZERO,
            hours: Vec::new(),
        };
        for step in &steps {
            model.take(step);
            model.note_hours();
            for pair in model.hours.windows(2) {
                let (before, after) = (pair[0].1, pair[1].1);
                prop_assert!(before.covered <= after.since, "{before:?} {after:?}");
            }
            for node in &model.nodes {
                let now = node.time.now(node.term, model.own(node), model.passed);
                let hours = node.time.hours(node.term);
                prop_assert!(hours.is_none_or(|hours| Some(hours.covered) <= now));
            }
        }
    }

    /// Clocks that are right again move nothing: the time runs on as real time does, so that a
    /// client that was told it is right from then on, and reaches whatever lies ahead no later.
    #[test]
    fn once_clocks_are_right_the_time_runs_as_real_time_does(
        ahead in 0..u64::MAX / 4,
        behind in 0..NOON.as_millis(),
        passed in prop::collection::vec(0..10_000_000_u64, 1..20),
    ) {
        let (time, start) = (ServiceTime::default(), Duration::ZERO);
        let log = NOON.plus_millis(ahead);
        time.learn(1, log, start);
        let mut sum = 0;
        for millis in passed {
            sum += millis;
            let own = Timestamp::from_millis(NOON.as_millis() - behind).plus_millis(sum);
            let at = start + Duration::from_millis(sum);
            let now = time.now(1, Some(own), at).unwrap();
            prop_assert_eq!(now, log.plus_millis(sum));
            time.stamped(1, now, at);
            time.committed(1, now, at);
            prop_assert_eq!(time.hours(1).unwrap().covered, now);
        }
    }
}
