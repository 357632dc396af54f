//! The doors of the world: what `api`'s listeners and relay are in production, over the network in
//! memory. The mailbox service behind them is the real one.
//!
//! Twin of `rossby_api::relay`: one relay to the leader at most; what was handed to a peer and not
//! answered is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rossby_api::{ApiError, Call, CallError, CallReply, Code};
use rossby_domain::ids::NodeId;
use rossby_raft::Member;
use rossby_seams::transport::MemoryNetwork;
use tokio::time::{Instant, sleep, timeout_at};

use super::life::Life;
use super::node::Node;

/// The pause before a leader that can't be reached is asked for again.
const LEADER_PAUSE: Duration = Duration::from_millis(50);
/// Kept from the deadline, so that the caller gets our answer rather than a timeout of its own.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// What a server says.
pub enum Said {
    /// This.
    Answer(Result<CallReply, ApiError>),
    /// Nothing: its process ended.
    Nothing,
}

/// The doors of all nodes.
pub struct Doors {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    network: MemoryNetwork,
}

impl Doors {
    /// The doors of these nodes.
    #[must_use]
    pub fn new(nodes: BTreeMap<NodeId, Arc<Node>>, network: MemoryNetwork) -> Self {
        Self { nodes, network }
    }

    /// The process on a node.
    #[must_use]
    pub fn life(&self, node: NodeId) -> Option<Arc<Life>> {
        self.nodes.get(&node)?.life()
    }

    /// All processes that run.
    pub fn lives(&self) -> impl Iterator<Item = Arc<Life>> {
        self.nodes.values().filter_map(|node| node.life())
    }

    /// Has a node's process answer a call, by itself or by the leader.
    pub async fn call(&self, node: NodeId, life: &Life, call: Call) -> Said {
        match life
            .gone
            .run_until_cancelled(self.answer(node, life, call))
            .await
        {
            Some(answer) => Said::Answer(answer),
            None => Said::Nothing,
        }
    }

    async fn answer(&self, node: NodeId, life: &Life, call: Call) -> Result<CallReply, ApiError> {
        let give_up = call.deadline - ANSWER_MARGIN;
        loop {
            let leader = match life.mailbox.handle(&call).await {
                Err(CallError::Elsewhere { leader, .. }) => leader,
                Err(CallError::Refused(error)) => return Err(error),
                Ok(reply) => return Ok(reply),
            };
            if let Some(leader) = leader
                && let Some(answer) = self.relay(node, &leader, &call, give_up).await
            {
                return answer;
            }
            if Instant::now() + LEADER_PAUSE >= give_up {
                return Err(ApiError::unavailable("the leader can't be reached"));
            }
            sleep(LEADER_PAUSE).await;
        }
    }

    /// Hands a call to the leader; `None` if it was not reached, or does not lead.
    async fn relay(
        &self,
        from: NodeId,
        leader: &Member,
        call: &Call,
        give_up: Instant,
    ) -> Option<Result<CallReply, ApiError>> {
        let unknown = || Some(Err(ApiError::from(Code::OutcomeUnknown)));
        let way = self.network.travel(from, leader.node)?;
        let life = self.life(leader.node)?;
        sleep(way).await;
        if life.gone.is_cancelled() {
            return None;
        }
        let call = Call {
            relayed: true,
            deadline: give_up,
            ..call.clone()
        };
        // The leader goes on with it whatever becomes of who asked.
        let (mailbox, gone) = (Arc::clone(&life.mailbox), life.gone.clone());
        let handled =
            tokio::spawn(async move { gone.run_until_cancelled(mailbox.handle(&call)).await });
        let Ok(Ok(Some(answer))) = timeout_at(give_up, handled).await else {
            return unknown();
        };
        let Some(back) = self.network.travel(leader.node, from) else {
            return unknown();
        };
        sleep(back).await;
        match answer {
            Ok(reply) => Some(Ok(reply)),
            Err(CallError::Refused(error)) => Some(Err(error)),
            // It does not lead, and did nothing.
            Err(CallError::Elsewhere { .. }) => None,
        }
    }
}
