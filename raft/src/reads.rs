//! Linearizable reads by ReadIndex (Raft thesis, section 6.4): the leader confirms that it still
//! leads, with one heartbeat round that all concurrent reads share, then waits until what was
//! committed at the start is applied here. No clock is trusted.

use std::time::Duration;

use openraft::LinearizerOption;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::{Instant, timeout_at};

use crate::answers::ReadError;
use crate::core::Core;

impl Core {
    pub(crate) async fn confirm_leadership(&self, deadline: Instant) -> Result<(), ReadError> {
        self.admit_read()?;
        let confirming = async {
            let left = deadline.saturating_duration_since(Instant::now());
            // A quorum's word from before this read does not count: zero age.
            let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(left);
            let linearizer = match self.raft.get_read_linearizer(option).await {
                Ok(linearizer) => linearizer,
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    return Err(ReadError::NotLeader {
                        leader: forward.leader_node,
                    });
                }
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                    return Err(ReadError::NoQuorum);
                }
                Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
            };
            match linearizer.await_ready(&self.raft).await {
                Ok(_) => Ok(()),
                Err(_) => Err(ReadError::Stopped),
            }
        };
        timeout_at(deadline, confirming)
            .await
            .unwrap_or(Err(ReadError::NoQuorum))
    }
}
