//! Which conversation something is said in.

use rossby_domain::ids::BoxId;
use serde::{Deserialize, Serialize};

use crate::envelope::ConversationId;
use crate::group::GroupId;

/// Which conversation something is said in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Conversation {
    /// With one other person, by their box.
    With(BoxId),
    /// In a group.
    In(GroupId),
}

impl Conversation {
    /// The conversation that two boxes say that they are in. Nobody can pass for somebody else in it: what is not between
    /// the two is in a group, if there is such a one.
    #[must_use]
    pub fn of(id: ConversationId, own: &BoxId, peer: &BoxId) -> Self {
        if id == ConversationId::direct(own, peer) {
            Self::With(*peer)
        } else {
            Self::In(GroupId::of(id))
        }
    }
}
