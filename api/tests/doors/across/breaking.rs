//! What goes wrong between nodes: a group loses its quorum, and a node all others, in the midst of what it has them do.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rossby_api::peer::PeerExecutors;
use rossby_api::router::{Execute, ExecuteError, Executed, Peers};
use rossby_domain::Command;
use rossby_domain::command::Expire;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_raft::{Member, ProposeError};
use rossby_seams::transport::Cut;
use tokio::time::Instant;

use super::world::{STUCK, World, owner, seats};

/// What a node has had others do, and how much more it can.
#[derive(Default)]
pub struct Others(Mutex<State>);

#[derive(Default)]
struct State {
    dispatched: Vec<(GroupId, NodeId)>,
    /// What is still done before it loses them.
    left: Option<usize>,
    is_broken: bool,
}

/// What becomes of one thing.
enum Turn {
    Done,
    DoneUnheard,
    Refused,
}

impl Others {
    /// All that it has had done since this was last asked.
    pub fn dispatched(&self) -> Vec<(GroupId, NodeId)> {
        std::mem::take(&mut self.0.lock().unwrap().dispatched)
    }

    fn break_off(&self, after: usize) {
        self.0.lock().unwrap().left = Some(after);
    }

    /// It reaches them again; whether it ever came to where it was to lose them.
    fn mend(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        state.left = None;
        std::mem::take(&mut state.is_broken)
    }

    fn turn(&self, to: (GroupId, NodeId)) -> Turn {
        let mut state = self.0.lock().unwrap();
        state.dispatched.push(to);
        let Some(left) = &mut state.left else {
            return Turn::Done;
        };
        let turn = match *left {
            0 => Turn::Refused,
            1 => Turn::DoneUnheard,
            _ => Turn::Done,
        };
        *left = left.saturating_sub(1);
        state.is_broken |= !matches!(turn, Turn::Done);
        turn
    }
}

/// The other nodes, over real connections.
pub struct Counting {
    pub peers: PeerExecutors,
    pub others: Arc<Others>,
}

#[async_trait]
impl Peers for Counting {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        match self.others.turn((request.group, member.node)) {
            Turn::Done => self.peers.execute(member, request, deadline).await,
            Turn::DoneUnheard => {
                self.peers.execute(member, request, deadline).await?;
                Err(ExecuteError::OutcomeUnknown)
            }
            // Nobody is asked again and again, which would only take time.
            Turn::Refused => Err(ExecuteError::NoQuorum),
        }
    }
}

impl World {
    /// Takes a group's replicas apart: it has no quorum from then on, and knows it.
    pub async fn silence(&self, group: GroupId) {
        self.silent.store(true, Ordering::SeqCst);
        let seats = seats(group);
        let ways = seats
            .iter()
            .flat_map(|a| seats.iter().map(move |b| (*a, *b)));
        for (from, to) in ways.filter(|(from, to)| from != to) {
            self.network.cut(NodeId(from), NodeId(to), Cut::Broken);
        }
        let home = self.partitions.all().find(|it| owner(*it) == Some(group));
        let nothing = || vec![(home.unwrap(), Command::Expire(Expire { limit: 0 }))];
        let began = Instant::now();
        for node in seats {
            let replica = self.replica(*node, group);
            while !matches!(
                replica
                    .propose(nothing(), Instant::now() + Duration::from_millis(200))
                    .await,
                Err(ProposeError::NoQuorum | ProposeError::NotLeader { .. })
            ) {
                assert!(began.elapsed() < STUCK, "it still has a quorum");
            }
        }
    }

    /// Puts all groups together again, and waits until somebody leads this one.
    pub async fn heal(&self, group: GroupId) {
        self.silent.store(false, Ordering::SeqCst);
        self.network.heal();
        let is_led = || self.leader(group).is_some();
        self.eventually("it is led again", is_led).await;
    }

    /// Has a node lose all others once they have done so much more for it, of which it does not hear the last.
    pub fn break_off(&self, node: u64, after: usize) {
        self.nodes[&node].others.break_off(after);
    }

    /// It reaches them again; whether it ever came to where it was to lose them.
    pub fn mend(&self, node: u64) -> bool {
        self.nodes[&node].others.mend()
    }
}
