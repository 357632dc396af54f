//! The doors of the world: what `api`'s listeners and relay are in production, over the network in
//! memory. The mailbox service behind them is the real one.
//!
//! Twin of `rossby_api::relay`: one relay to the leader at most; what was handed to a peer and not
//! answered is not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use rossby_api::router::Next;
use rossby_api::{ApiError, Call, CallError, CallReply, Code};
use rossby_domain::ids::NodeId;
use rossby_raft::Member;
use rossby_seams::transport::MemoryNetwork;
use tokio::time::{Instant, sleep, timeout_at};

use super::life::Life;
use super::node::Node;

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
        let group = match life.mailbox.handle(&call).await {
            Err(CallError::Elsewhere { group, .. }) => group,
            Err(CallError::Refused(error)) => return Err(error),
            Ok(reply) => return Ok(reply),
        };
        let mut search = life.router.search(group, call.deadline);
        loop {
            let leader = match search.next().await? {
                Next::At(leader) => leader,
                // It leads by now.
                Next::Here(_) => match life.mailbox.handle(&call).await {
                    Err(CallError::Elsewhere { .. }) => continue,
                    Err(CallError::Refused(error)) => return Err(error),
                    Ok(reply) => return Ok(reply),
                },
            };
            match self.relay(node, &leader, &call, search.give_up()).await {
                Relayed::Unreached => search.silent(&leader, "nothing runs there".to_owned()),
                Relayed::NotHere(named) => {
                    search.refused(&leader, named, "it does not lead".to_owned());
                }
                Relayed::Answer(answer) => {
                    search.found(&leader);
                    return answer;
                }
            }
        }
    }

    /// Hands a call to a node that may lead.
    async fn relay(&self, from: NodeId, leader: &Member, call: &Call, give_up: Instant) -> Relayed {
        let unknown = || Relayed::Answer(Err(ApiError::from(Code::OutcomeUnknown)));
        let Some(way) = self.network.travel(from, leader.node) else {
            return Relayed::Unreached;
        };
        let Some(life) = self.life(leader.node) else {
            return Relayed::Unreached;
        };
        sleep(way).await;
        if life.gone.is_cancelled() {
            return Relayed::Unreached;
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
            Ok(reply) => Relayed::Answer(Ok(reply)),
            Err(CallError::Refused(error)) => Relayed::Answer(Err(error)),
            Err(CallError::Elsewhere { leader, .. }) => Relayed::NotHere(leader),
        }
    }
}

/// What became of a call at a peer.
enum Relayed {
    /// It was answered there, or nobody knows.
    Answer(Result<CallReply, ApiError>),
    /// That peer does not lead, and did nothing; whom it named.
    NotHere(Option<Member>),
    /// Nothing got there.
    Unreached,
}
