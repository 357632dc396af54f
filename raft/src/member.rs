//! Members of a group.

use rossby_domain::ids::NodeId;
use serde::{Deserialize, Serialize};

/// What a group's membership says of one replica: the node it is on and where that node listens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} at {}", self.node, self.peer_address)
    }
}
