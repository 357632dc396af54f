//! The search for a leader, with peers that follow a script: no group runs here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_domain::Outcome;
use rossby_domain::command::Expire;
use rossby_domain::ids::Epoch;
use tokio::time::Instant;

use super::*;
use crate::error::Retry;

const OWN: NodeId = NodeId(9);
const GROUP: GroupId = GroupId(2);
const PATIENCE: Duration = Duration::from_secs(3);

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        peer_address: format!("node-{node}:1"),
        client_address: format!("node-{node}:2"),
    }
}

fn partition() -> PartitionId {
    PartitionId::new(1).unwrap()
}

/// No replica here; the group may be at these nodes.
struct Map(Vec<u64>);

impl Directory for Map {
    fn owner(&self, _: PartitionId) -> Option<GroupId> {
        Some(GROUP)
    }

    fn replica(&self, _: GroupId) -> Option<Arc<Group>> {
        None
    }

    fn nodes(&self, _: GroupId) -> Vec<Member> {
        self.0.iter().map(|node| member(*node)).collect()
    }

    fn births(&self) -> Vec<PartitionId> {
        vec![partition()]
    }

    fn assigned(&self, _: GroupId) -> Vec<(PartitionId, Epoch)> {
        Vec::new()
    }
}

/// What a node says, time after time; the last for ever.
type Line = Result<(), ExecuteError>;

/// Peers that say their lines. Whoever is not in the script is not reached.
#[derive(Default)]
struct Script {
    lines: Mutex<BTreeMap<u64, Vec<Line>>>,
    asked: Mutex<Vec<u64>>,
}

impl Script {
    fn says(self, node: u64, lines: impl IntoIterator<Item = Line>) -> Self {
        let lines = lines.into_iter().collect();
        self.lines.lock().insert(node, lines);
        self
    }

    fn asked(&self) -> Vec<u64> {
        self.asked.lock().clone()
    }
}

#[async_trait]
impl Peers for Script {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        _: Instant,
    ) -> Result<Executed, ExecuteError> {
        self.asked.lock().push(member.node.0);
        let line = match self.lines.lock().get_mut(&member.node.0) {
            Some(lines) if lines.len() > 1 => lines.remove(0),
            Some(lines) => lines[0].clone(),
            None => Err(ExecuteError::Unreachable("nobody there".to_owned())),
        };
        line?;
        let done = match Work::decode(&request.work).unwrap() {
            Work::Commands(commands) => {
                Done::Replies(vec![Ok(Outcome::BlockChanged); commands.len()])
            }
            Work::Queries(_) => Done::Answers(vec![Answer::DeviceAuth(Some(1))]),
            Work::Signals(_) => Done::Signalled,
        };
        Ok(Executed {
            done: done.encode().unwrap(),
            time: Timestamp::from_millis(5),
        })
    }
}

struct World {
    script: Arc<Script>,
    router: Arc<Router>,
}

impl World {
    fn new(nodes: &[u64], script: Script) -> Self {
        let script = Arc::new(script);
        let peers: Arc<dyn Peers> = script.clone();
        let router = Router::new(OWN, Arc::new(Map(nodes.to_vec())), peers);
        Self { script, router }
    }

    async fn propose(&self) -> Result<Proposed, ApiError> {
        let command = || vec![(partition(), Command::Expire(Expire { limit: 1 }))];
        let deadline = Instant::now() + PATIENCE;
        self.router.propose(GROUP, command, deadline).await
    }

    async fn ask(&self) -> Result<Answer, ApiError> {
        let query = Query::Ownership(partition());
        let deadline = Instant::now() + PATIENCE;
        self.router.ask(GROUP, partition(), query, deadline).await
    }
}

fn names(node: u64) -> Line {
    let leader = Some(member(node));
    Err(ExecuteError::NotLeading { leader })
}

fn knows_nobody() -> Line {
    Err(ExecuteError::NotLeading { leader: None })
}

fn lost() -> Line {
    Err(ExecuteError::Lost("the connection broke".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn who_is_named_is_asked_at_once_and_first_from_then_on() {
    let script = Script::default().says(1, [names(3)]).says(3, [Ok(())]);
    let world = World::new(&[1, 2, 3], script);
    let began = Instant::now();
    let proposed = world.propose().await.unwrap();
    assert_eq!(proposed.replies, vec![Ok(Outcome::BlockChanged)]);
    assert_eq!(proposed.now(), Timestamp::from_millis(5));
    world.propose().await.unwrap();
    assert_eq!(world.script.asked(), [1, 3, 3]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_reached_is_passed_over() {
    let script = Script::default().says(3, [Ok(())]);
    let world = World::new(&[1, 2, 3], script);
    world.propose().await.unwrap();
    assert_eq!(world.script.asked(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_out() {
    let script = Script::default()
        .says(1, [knows_nobody(), names(2), names(2)])
        .says(2, [knows_nobody(), knows_nobody(), Ok(())]);
    let world = World::new(&[1, 2], script);
    world.propose().await.unwrap();
    assert_eq!(world.script.asked(), [1, 2, 1, 2, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_stale_hints_ends_at_the_leader() {
    let script = (1..6).fold(Script::default(), |script, node| {
        script.says(node, [names(node + 1)])
    });
    let world = World::new(&[1], script.says(6, [Ok(())]));
    world.ask().await.unwrap();
    assert_eq!(world.script.asked(), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn two_that_name_each_other_are_given_up_in_time_and_asked_seldom() {
    let script = Script::default().says(1, [names(2)]).says(2, [names(1)]);
    let world = World::new(&[1, 2], script);
    let began = Instant::now();
    let refused = world.propose().await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.code().retry()),
        (Code::Unavailable, Retry::Same)
    );
    assert!(began.elapsed() < PATIENCE);
    let asked = world.script.asked().len();
    assert!(asked <= 30, "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn a_chain_without_end_is_cut() {
    // Each names another that was never heard of.
    let script = (1..1000).fold(Script::default(), |script, node| {
        script.says(node, [names(node + 1)])
    });
    let world = World::new(&[1], script);
    assert_eq!(world.propose().await.unwrap_err().code(), Code::Unavailable);
    let asked = world.script.asked().len();
    assert!(asked <= 120, "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_unavailable_by_the_deadline() {
    let world = World::new(&[], Script::default());
    assert_eq!(world.propose().await.unwrap_err().code(), Code::Unavailable);
    assert!(world.script.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn commands_whose_answer_is_lost_have_an_unknown_outcome_and_are_not_repeated() {
    let world = World::new(&[1, 2], Script::default().says(1, [lost(), Ok(())]));
    let refused = world.propose().await.unwrap_err();
    assert_eq!(refused.code(), Code::OutcomeUnknown);
    assert_eq!(world.script.asked(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_query_whose_answer_is_lost_is_asked_again() {
    let world = World::new(&[1], Script::default().says(1, [lost(), Ok(())]));
    let answer = world.ask().await.unwrap();
    assert_eq!(answer, Answer::DeviceAuth(Some(1)));
    assert_eq!(world.script.asked(), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_refuses_keeps_its_meaning_and_ends_the_search() {
    let refusals = [
        (ExecuteError::Overloaded, Code::Overloaded),
        (ExecuteError::DiskFull, Code::DiskFull),
        (ExecuteError::ClockUnsafe, Code::ClockUnsafe),
        (ExecuteError::OutcomeUnknown, Code::OutcomeUnknown),
        (ExecuteError::NotOwner, Code::Unavailable),
        (ExecuteError::Malformed, Code::Internal),
    ];
    for (refusal, code) in refusals {
        let script = Script::default().says(1, [Err(refusal)]).says(2, [Ok(())]);
        let world = World::new(&[1, 2], script);
        assert_eq!(world.propose().await.unwrap_err().code(), code);
        assert_eq!(world.script.asked(), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_quorum_may_be_an_old_one_so_the_others_are_asked_once() {
    let script = Script::default().says(1, [Err(ExecuteError::NoQuorum)]);
    let world = World::new(&[1, 2], script.says(2, [Ok(())]));
    world.propose().await.unwrap();
    assert_eq!(world.script.asked(), [1, 2]);

    let script = Script::default()
        .says(1, [Err(ExecuteError::NoQuorum)])
        .says(2, [names(1)]);
    let world = World::new(&[1, 2], script);
    let began = Instant::now();
    assert_eq!(world.propose().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(world.script.asked(), [1, 2]);
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "others wait for this answer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_told_to_ask_itself_does_not() {
    let script = Script::default()
        .says(1, [names(OWN.0), names(2)])
        .says(2, [Ok(())]);
    let world = World::new(&[1], script);
    world.propose().await.unwrap();
    assert_eq!(world.script.asked(), [1, 1, 2]);
}

#[tokio::test]
async fn a_node_without_a_replica_does_nothing_for_a_peer_and_names_whom_it_knows() {
    let script = Script::default().says(1, [names(3)]).says(3, [Ok(())]);
    let world = World::new(&[1], script);
    let work = Work::Queries(vec![(partition(), Query::Ownership(partition()))]);
    let request = Execute {
        group: GROUP,
        work: work.encode().unwrap(),
    };
    let deadline = Instant::now() + PATIENCE;
    let refused = world.router.execute(request.clone(), deadline).await;
    assert_eq!(
        refused.unwrap_err(),
        ExecuteError::NotLeading { leader: None }
    );
    world.propose().await.unwrap();
    let refused = world.router.execute(request, deadline).await;
    let leader = Some(member(3));
    assert_eq!(refused.unwrap_err(), ExecuteError::NotLeading { leader });
    let malformed = Execute {
        group: GROUP,
        work: vec![1, 2, 3].into(),
    };
    let refused = world.router.execute(malformed, deadline).await;
    assert_eq!(refused.unwrap_err(), ExecuteError::Malformed);
}
