//! A trap for a moment at which losing power tells most: right after something was promised.
//!
//! A power loss at a random time seldom falls into the few milliseconds in which a promise that is
//! not kept on disk yet would be forgotten. A trap waits for the promise.

use parking_lot::Mutex;
use rossby_domain::ids::NodeId;
use rossby_raft::Deed;
use tokio::sync::Notify;

/// What a replica has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It has voted.
    Vote,
    /// It has reported entries durable.
    Flush,
    /// It has published a checkpoint.
    Checkpoint,
    /// It has taken over a checkpoint.
    Installation,
    /// It is about to drop entries, from either end of its log.
    Drop,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Vote,
        Self::Flush,
        Self::Checkpoint,
        Self::Installation,
        Self::Drop,
    ];

    /// The moment of a deed, if it is one.
    #[must_use]
    pub fn of(deed: &Deed) -> Option<Self> {
        match deed {
            Deed::Voted(_) => Some(Self::Vote),
            Deed::Flushed(_) => Some(Self::Flush),
            Deed::CheckpointPublished(_) => Some(Self::Checkpoint),
            Deed::CheckpointInstalled(_) => Some(Self::Installation),
            Deed::Truncating(_) | Deed::Purging(_) => Some(Self::Drop),
            Deed::Started { .. }
            | Deed::Appended(_)
            | Deed::Committed(_)
            | Deed::Applied(..)
            | Deed::Ruled(_)
            | Deed::Members { .. } => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Free,
    Set(Moment, Option<NodeId>),
    Sprung(NodeId),
}

/// The one trap of a world.
#[derive(Debug)]
pub struct Trap {
    state: Mutex<State>,
    sprung: Notify,
}

impl Default for Trap {
    fn default() -> Self {
        Self {
            state: Mutex::new(State::Free),
            sprung: Notify::new(),
        }
    }
}

impl Trap {
    /// Sets it for the next such moment, of this node if one is given. `None` if it is set already.
    pub fn set(&self, moment: Moment, node: Option<NodeId>) -> Option<TrapGuard<'_>> {
        let mut state = self.state.lock();
        match *state {
            State::Free => {
                *state = State::Set(moment, node);
                Some(TrapGuard(self))
            }
            _ => None,
        }
    }

    /// A node has come to a moment.
    pub fn pass(&self, node: NodeId, moment: Moment) {
        let mut state = self.state.lock();
        if let State::Set(awaited, whose) = *state
            && awaited == moment
            && whose.is_none_or(|whose| whose == node)
        {
            *state = State::Sprung(node);
            drop(state);
            self.sprung.notify_one();
        }
    }
}

/// A trap that is set, until this is dropped.
#[derive(Debug)]
pub struct TrapGuard<'a>(&'a Trap);

impl TrapGuard<'_> {
    /// Waits until a node is in it.
    pub async fn sprung(&self) -> NodeId {
        loop {
            if let State::Sprung(node) = *self.0.state.lock() {
                return node;
            }
            self.0.sprung.notified().await;
        }
    }
}

impl Drop for TrapGuard<'_> {
    fn drop(&mut self) {
        *self.0.state.lock() = State::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trap_catches_the_first_that_fits_and_is_free_again_afterwards() {
        let trap = Trap::default();
        trap.pass(NodeId(1), Moment::Vote);
        {
            let set = trap.set(Moment::Vote, Some(NodeId(2))).unwrap();
            assert!(trap.set(Moment::Flush, None).is_none());
            trap.pass(NodeId(2), Moment::Flush);
            trap.pass(NodeId(1), Moment::Vote);
            trap.pass(NodeId(2), Moment::Vote);
            trap.pass(NodeId(3), Moment::Vote);
            assert_eq!(set.sprung().await, NodeId(2));
        }
        let set = trap.set(Moment::Flush, None).unwrap();
        trap.pass(NodeId(3), Moment::Flush);
        assert_eq!(set.sprung().await, NodeId(3));
    }
}
