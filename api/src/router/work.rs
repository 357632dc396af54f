//! What one node has another do, and what comes back, as bytes.
//!
//! ```text
//!   version (1 byte) ── Work | Done by the codec of `storage`
//! ```
//!
//! Peers are authenticated; their bytes are judged all the same: of bounded size, read whole or not at
//! all, and never with a panic.

use bytes::Bytes;
use rossby_domain::ids::PartitionId;
use rossby_domain::{Answer, Command, Query, Reply};
use rossby_storage::codec::{CodecError, Versioned, decode_value, encode_value};
use serde::{Deserialize, Serialize};

use crate::signals::Signal;

/// The most bytes of work, or of what comes of it. A request of a client has a quarter.
pub(crate) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The most commands or queries in one piece of work.
const MAX_PARTS: usize = 4096;

/// What a group is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Propose these, in this order. Each partition's epoch is filled in where they are proposed.
    Commands(Vec<(PartitionId, Command)>),
    /// Answer these, linearizably.
    Queries(Vec<(PartitionId, Query)>),
    /// Give these to whoever listens to their boxes now.
    Signals(Vec<(PartitionId, Signal)>),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// A reply for each command.
    Replies(Vec<Reply>),
    /// An answer to each query.
    Answers(Vec<Answer>),
    /// Of signals nothing is told.
    Signalled,
}

impl Versioned for Work {
    const VERSION: u8 = 1;
}

impl Versioned for Done {
    const VERSION: u8 = 1;
}

impl Work {
    /// Its bytes.
    ///
    /// # Errors
    /// [`CodecError`] if it is more than a peer takes.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        bounded(encode_value(self)?)
    }

    /// The work in these bytes.
    ///
    /// # Errors
    /// [`CodecError`] if they are none, or too much.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let work: Self = decode_value(within(bytes)?)?;
        match work.parts() {
            1..=MAX_PARTS => Ok(work),
            parts => Err(CodecError::Malformed(format!("work in {parts} parts"))),
        }
    }

    /// Whether it may be done again if nobody knows whether it was done.
    pub const fn is_query(&self) -> bool {
        matches!(self, Self::Queries(_) | Self::Signals(_))
    }

    const fn parts(&self) -> usize {
        match self {
            Self::Commands(commands) => commands.len(),
            Self::Queries(queries) => queries.len(),
            Self::Signals(signals) => signals.len(),
        }
    }
}

impl Done {
    /// Its bytes.
    ///
    /// # Errors
    /// [`CodecError`] if it is more than a peer takes.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        bounded(encode_value(self)?)
    }

    /// What came of `work`, in these bytes.
    ///
    /// # Errors
    /// [`CodecError`] if they are not that.
    pub fn decode(bytes: &[u8], work: &Work) -> Result<Self, CodecError> {
        let done: Self = decode_value(within(bytes)?)?;
        let fits = match (&done, work) {
            (Self::Replies(replies), Work::Commands(commands)) => replies.len() == commands.len(),
            (Self::Answers(answers), Work::Queries(queries)) => answers.len() == queries.len(),
            (Self::Signalled, Work::Signals(_)) => true,
            _ => false,
        };
        if fits {
            Ok(done)
        } else {
            Err(CodecError::Malformed("not what came of this".to_owned()))
        }
    }
}

fn within(bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.len() {
        length if length > MAX_BYTES => Err(CodecError::TooLong { length }),
        _ => Ok(bytes),
    }
}

fn bounded(bytes: Vec<u8>) -> Result<Bytes, CodecError> {
    within(&bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use rossby_domain::Rejection;
    use rossby_domain::command::Expire;

    use super::*;

    fn partition() -> PartitionId {
        PartitionId::new(7).unwrap()
    }

    fn commands(count: usize) -> Work {
        let command = Command::Expire(Expire { limit: 3 });
        Work::Commands(vec![(partition(), command); count])
    }

    #[test]
    fn work_and_what_came_of_it_read_back() {
        let query = (partition(), Query::Ownership(partition()));
        for work in [commands(1), commands(MAX_PARTS), Work::Queries(vec![query])] {
            assert_eq!(Work::decode(&work.encode().unwrap()), Ok(work));
        }
        let work = commands(1);
        let done = Done::Replies(vec![Err(Rejection::QueueFull)]);
        assert_eq!(Done::decode(&done.encode().unwrap(), &work), Ok(done));
    }

    #[test]
    fn work_in_no_parts_or_too_many_is_refused() {
        for count in [0, MAX_PARTS + 1] {
            let bytes = commands(count).encode().unwrap();
            assert!(matches!(
                Work::decode(&bytes),
                Err(CodecError::Malformed(_))
            ));
        }
        let long = vec![1; MAX_BYTES + 1];
        assert!(matches!(
            Work::decode(&long),
            Err(CodecError::TooLong { .. })
        ));
        assert_eq!(Work::decode(&[]), Err(CodecError::Empty));
    }

    #[test]
    fn what_came_of_other_work_is_refused() {
        let answer = Done::Answers(vec![Answer::DeviceAuth(None)]);
        let answer = answer.encode().unwrap();
        assert!(Done::decode(&answer, &commands(1)).is_err());
        let replies = Done::Replies(vec![Err(Rejection::QueueFull)]);
        assert!(Done::decode(&replies.encode().unwrap(), &commands(2)).is_err());
    }
}
