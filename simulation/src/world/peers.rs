//! Work that one process has another do, over the network in memory.
//!
//! Twin of `rossby_api::peer::PeerExecutors`: what was handed to a peer and not answered is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_api::router::{Execute, ExecuteError, Executed, Peers};
use rossby_domain::ids::NodeId;
use rossby_raft::Member;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::life::Life;
use super::node::Common;

/// Kept from the deadline, so that a peer's answer comes before it is given up.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The processes that run, or ran.
#[derive(Default)]
pub struct Lives(Mutex<BTreeMap<NodeId, Weak<Life>>>);

impl Lives {
    /// A process has begun on a node.
    pub(super) fn begin(&self, node: NodeId, life: &Arc<Life>) {
        self.0.lock().insert(node, Arc::downgrade(life));
    }

    /// The process on a node, unless it has ended.
    fn get(&self, node: NodeId) -> Option<Arc<Life>> {
        let life = self.0.lock().get(&node)?.upgrade()?;
        (!life.gone.is_cancelled()).then_some(life)
    }
}

/// The other processes, as one of them reaches them.
pub(super) struct LifePeers {
    node: NodeId,
    common: Arc<Common>,
    gone: CancellationToken,
}

impl LifePeers {
    pub(super) fn new(node: NodeId, common: Arc<Common>, gone: CancellationToken) -> Self {
        Self { node, common, gone }
    }

    /// The process on a node, once something has travelled there.
    async fn reach(&self, to: NodeId) -> Option<Arc<Life>> {
        if self.gone.is_cancelled() {
            return None;
        }
        let way = self.common.network.travel(self.node, to)?;
        let life = self.common.lives.get(to)?;
        sleep(way).await;
        (!life.gone.is_cancelled()).then_some(life)
    }
}

#[async_trait]
impl Peers for LifePeers {
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        let Ok(Some(life)) = timeout_at(deadline, self.reach(member.node)).await else {
            return Err(ExecuteError::Unreachable("nothing runs there".to_owned()));
        };
        let lost = || ExecuteError::Lost("nothing came back".to_owned());
        let given_up = deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline);
        // It goes on there whatever becomes of who asked.
        let (mailbox, gone) = (Arc::clone(&life.mailbox), life.gone.clone());
        let executing = tokio::spawn(async move {
            gone.run_until_cancelled(mailbox.execute(request, given_up))
                .await
        });
        let Ok(Ok(Some(result))) = timeout_at(deadline, executing).await else {
            return Err(lost());
        };
        let network = &self.common.network;
        let back = network.travel(member.node, self.node).ok_or_else(lost)?;
        sleep(back).await;
        result
    }
}
