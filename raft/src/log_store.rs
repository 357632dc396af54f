//! The log of a replica, as openraft sees it: a thin coat over the node's write-ahead log.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use rossby_domain::wire;
use rossby_storage::wal::{GroupLog, LogRecord};

use crate::frame::{read_vote, write_vote};
use crate::types::{
    Entry, LogId, TypeConfig, Vote, decode_payload, encode_payload, invalid_data, log_id, position,
    storage_failure,
};

/// The version of the bytes of a saved vote.
const VOTE_VERSION: u8 = 1;
/// A follower is sent at most about this many bytes of entries in one request: openraft bounds
/// only their number.
pub(crate) const MAX_APPEND_BYTES: usize = 1024 * 1024;
/// Entries read at a time when their sizes are not known yet.
const READ_STEP_ENTRIES: u64 = 16;

/// The log of one replica. Clones share it.
#[derive(Debug, Clone)]
pub struct LogStore {
    log: GroupLog,
}

impl LogStore {
    /// Over the replica's part of the node's log.
    #[must_use]
    pub fn new(log: GroupLog) -> Self {
        Self { log }
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let records = self.log.read(from, to).map_err(storage_failure)?;
        records.into_iter().map(entry).collect()
    }

    fn vote(&self) -> io::Result<Option<Vote>> {
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

fn encode_vote(vote: &Vote) -> Vec<u8> {
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
        let (from, to) = bounds(&range);
        let state = self.log.state();
        // What was purged, and what was not appended yet, is left out, as the contract has it.
        let from = from.max(state.purged.map_or(0, |purged| purged.index + 1));
        let to = to.min(state.last.map_or(0, |last| last.index + 1));
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(from, to)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = start;
        while next < end && bytes < MAX_APPEND_BYTES {
            let to = end.min(next.saturating_add(READ_STEP_ENTRIES));
            for record in self.log.read(next, to).map_err(storage_failure)? {
                // One entry is always given, however large.
                if !entries.is_empty() && bytes + record.bytes.len() > MAX_APPEND_BYTES {
                    return Ok(entries);
                }
                bytes += record.bytes.len();
                entries.push(entry(record)?);
            }
            let reached = entries.last().map_or(next, |entry| entry.log_id.index + 1);
            if reached < to {
                break;
            }
            next = reached;
        }
        Ok(entries)
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
            .map_err(storage_failure)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log
            .save_committed(committed.as_ref().map(position))
            .map_err(storage_failure)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.state().committed.map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries
            .into_iter()
            .map(|entry| LogRecord {
                position: position(&entry.log_id),
                bytes: encode_payload(&entry.payload),
            })
            .collect();
        let on_durable = Box::new(move |result: Result<(), _>| {
            callback.io_completed(result.map_err(storage_failure));
        });
        self.log
            .append(records, on_durable)
            .map_err(storage_failure)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log
            .truncate_after(last.map(|last| last.index))
            .await
            .map_err(storage_failure)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log
            .purge(position(&upto))
            .await
            .map_err(storage_failure)
    }
}
