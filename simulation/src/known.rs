//! What is known of a world from all that was seen of it so far. The invariants judge by it what comes
//! next.

use crate::observe::Observation;
use crate::oracle::Oracle;
use crate::replica_logs::ReplicaLogs;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Known {
    /// What the clients did and know.
    pub clients: Oracle,
    /// What stands in the replicas' logs.
    pub logs: ReplicaLogs,
}

impl Known {
    /// Takes in an observation, when all have judged it.
    pub fn learn(&mut self, observation: &Observation) {
        self.clients.learn(observation);
        self.logs.take_in(observation);
    }
}
