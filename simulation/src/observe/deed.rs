//! From what a replica tells its witness to what the judges see.

use rossby_domain::ids::ReplicaId;
use rossby_raft::{Deed, SavedVote};

use super::{Digest, Recovered, ReplicaEvent, Vote};

/// What the judges see of a deed of this replica.
#[must_use]
pub fn events_of(replica: ReplicaId, deed: Deed) -> Vec<ReplicaEvent> {
    match deed {
        Deed::Started {
            vote,
            last,
            purged,
            checkpoint,
        } => vec![ReplicaEvent::Started(Recovered {
            vote: vote.map(Vote::from),
            last,
            purged,
            checkpoint,
            applied: checkpoint,
        })],
        Deed::Voted(vote) => {
            let leads = (vote.won && vote.candidate == replica)
                .then_some(ReplicaEvent::Leads { term: vote.term });
            let voted = ReplicaEvent::Voted(vote.into());
            std::iter::once(voted).chain(leads).collect()
        }
        Deed::Appended(entries) => entries
            .into_iter()
            .map(|(position, bytes)| ReplicaEvent::Appended {
                position,
                entry: Digest::of(&bytes),
            })
            .collect(),
        Deed::Flushed(upto) => vec![ReplicaEvent::Flushed { upto }],
        Deed::Truncating(after) => vec![ReplicaEvent::Truncated { after }],
        Deed::Purging(upto) => vec![ReplicaEvent::Purged { upto }],
        Deed::Committed(upto) => vec![ReplicaEvent::Committed { upto }],
        Deed::Applied(position, bytes) => vec![ReplicaEvent::Applied {
            position,
            entry: Digest::of(&bytes),
        }],
        Deed::Ruled(partitions) => partitions
            .into_iter()
            .map(|(partition, epoch)| ReplicaEvent::Ruled { partition, epoch })
            .collect(),
        Deed::Members {
            at,
            voters,
            learners,
        } => vec![ReplicaEvent::Members {
            at,
            voters,
            learners,
        }],
        Deed::CheckpointPublished(at) => vec![ReplicaEvent::CheckpointPublished { at }],
        Deed::CheckpointInstalled(at) => vec![ReplicaEvent::CheckpointInstalled { at }],
    }
}

impl From<SavedVote> for Vote {
    fn from(saved: SavedVote) -> Self {
        Self {
            term: saved.term,
            candidate: saved.candidate,
            won: saved.won,
        }
    }
}
