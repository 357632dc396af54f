//! The log of a replica, as openraft sees it: a thin coat over the node's write-ahead log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use rossby_domain::wire;
use rossby_storage::wal::{GroupLog, LogRecord};

use crate::types::{
    Entry, LogId, TypeConfig, Vote, decode_payload, encode_payload, invalid_data, log_id, position,
    read_vote, storage_failure, write_vote,
};
use crate::witness::{Deed, Line, SavedVote};

/// The version of the bytes of a saved vote.
const VOTE_VERSION: u8 = 1;
/// A follower is sent at most about this many bytes of entries in one request: openraft bounds
/// only their number.
pub(crate) const MAX_APPEND_BYTES: u64 = 1024 * 1024;

/// The log of one replica. Clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    log: GroupLog,
    witness: Line,
}

impl LogStore {
    /// Over the replica's part of the node's log.
    #[must_use]
    pub fn new(log: GroupLog) -> Self {
        let witness = Line::default();
        Self { log, witness }
    }

    pub(crate) fn witnessed(self, witness: Line) -> Self {
        Self { witness, ..self }
    }

    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        self.log
            .state()
            .vote
            .map(|bytes| decode_vote(&bytes))
            .transpose()
    }
}

fn entry(record: LogRecord) -> io::Result<Entry> {
    let payload = decode_payload(record.bytes).map_err(invalid_data)?;
    Ok(Entry {
        log_id: log_id(record.position),
        payload,
    })
}

/// The bytes of a vote, as the log holds it.
pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    write_vote(wire::Writer::default().u8(VOTE_VERSION), vote).finish()
}

fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let mut reader = wire::Reader::new(bytes);
    let version = reader.u8().map_err(invalid_data)?;
    if version != VOTE_VERSION {
        let reason = format!("vote version {version} is not known");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let vote = read_vote(&mut reader).map_err(invalid_data)?;
    reader.finish().map_err(invalid_data)?;
    Ok(vote)
}

/// The half-open range of indexes that `range` means.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(from) => from.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(to) => to.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // What was purged, and what was not appended yet, is left out, as the contract has it.
        let Some(first) = self.log.first_index() else {
            return Ok(Vec::new());
        };
        let (from, to) = bounds(&range);
        let records = self
            .log
            .read(from.max(first), to)
            .map_err(storage_failure)?;
        records.into_iter().map(entry).collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let records = self.log.read_limited(start, end, MAX_APPEND_BYTES);
        records
            .map_err(storage_failure)?
            .into_iter()
            .map(entry)
            .collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id),
            last_log_id: state.last.map(log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.log
            .save_vote(encode_vote(vote).into())
            .await
            .map_err(storage_failure)?;
        self.witness.tell(|| Deed::Voted(SavedVote::of(vote)));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = &committed {
            self.witness.tell(|| Deed::Committed(position(committed)));
        }
        self.log
            .save_committed(committed.as_ref().map(position))
            .map_err(storage_failure)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.log.state();
        // A hint that was saved for entries which the log then lost with its tail.
        Ok(state
            .committed
            .zip(state.last)
            .map(|(committed, last)| log_id(committed.min(last))))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<_> = entries
            .into_iter()
            .map(|entry| LogRecord {
                position: position(&entry.log_id),
                bytes: encode_payload(&entry.payload),
            })
            .collect();
        self.witness.tell(|| {
            let entries = records.iter();
            Deed::Appended(
                entries
                    .map(|entry| (entry.position, entry.bytes.clone()))
                    .collect(),
            )
        });
        let witness = self.witness.clone();
        let last = records.last().map(|last| last.position);
        let on_durable = Box::new(move |result: Result<(), _>| {
            if let (Ok(()), Some(last)) = (&result, last) {
                witness.tell(|| Deed::Flushed(last));
            }
            callback.io_completed(result.map_err(storage_failure));
        });
        self.log
            .append(records, on_durable)
            .map_err(storage_failure)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let kept = last.as_ref().map(|last| last.index);
        self.witness.tell(|| Deed::Truncating(kept));
        self.log.truncate_after(kept).await.map_err(storage_failure)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.witness.tell(|| Deed::Purging(position(&upto)));
        self.log
            .purge(position(&upto))
            .await
            .map_err(storage_failure)
    }
}
