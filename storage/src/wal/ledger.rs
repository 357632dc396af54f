//! What the records written so far add up to, without the entries themselves.
//!
//! The writer keeps one and puts it at the beginning of every segment. So no vote, purge mark or
//! tombstone ever needs an older segment, and a segment can go as soon as it holds no live entry.
//! Recovery replays records into another one and compares the two at each beginning.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::wire::{Reader, WireError, Writer};

use super::record::Kind;
use crate::LogPosition;

const LABEL: &str = "rossby wal ledger v1";
const VOTE_LIMIT: usize = 1 << 20;

/// All groups' state.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) groups: BTreeMap<GroupId, GroupLedger>,
    /// Replicas that were removed from this node.
    pub(super) removed: BTreeSet<(GroupId, ReplicaId)>,
}

/// One group's state.
#[derive(Debug, Clone)]
pub(super) struct GroupLedger {
    pub(super) replica: ReplicaId,
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<LogPosition>,
    pub(super) committed: Option<LogPosition>,
    /// Where the live entries are, in order and without gaps.
    runs: VecDeque<Run>,
}

/// Entries of one group that follow each other in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    segment: u32,
    first: u64,
    last: u64,
}

/// A change, as a record carries it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: Option<LogPosition>,
    pub(super) body: &'a Bytes,
}

impl GroupLedger {
    fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            vote: None,
            purged: None,
            committed: None,
            runs: VecDeque::new(),
        }
    }

    /// The first and last live index.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        Some((self.runs.front()?.first, self.runs.back()?.last))
    }

    fn append(&mut self, index: u64, segment: u32) -> Result<(), &'static str> {
        let after = |last: u64| last.checked_add(1);
        let expected = match (self.range(), self.purged) {
            (Some((_, last)), _) => after(last),
            (None, Some(purged)) => after(purged.index),
            (None, None) => Some(index),
        };
        if expected != Some(index) {
            return Err("an entry does not follow the one before it");
        }
        match self.runs.back_mut() {
            Some(run) if run.segment == segment => run.last = index,
            _ => self.runs.push_back(Run {
                segment,
                first: index,
                last: index,
            }),
        }
        Ok(())
    }

    fn truncate_after(&mut self, kept: Option<u64>) {
        let Some(kept) = kept else {
            return self.runs.clear();
        };
        self.runs.retain(|run| run.first <= kept);
        if let Some(run) = self.runs.back_mut() {
            run.last = run.last.min(kept);
        }
    }

    fn purge(&mut self, upto: LogPosition) {
        self.purged = self.purged.max(Some(upto));
        self.runs.retain(|run| run.last > upto.index);
        if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(upto.index + 1);
        }
    }
}

impl Ledger {
    /// Takes in the next record.
    ///
    /// # Errors
    /// What is wrong, if the record can not follow those before it.
    pub(super) fn apply(&mut self, change: Change<'_>, segment: u32) -> Result<(), &'static str> {
        if change.kind == Kind::Seal {
            return Ok(());
        }
        let id = (change.group, change.replica);
        if self.removed.contains(&id) {
            return Err("a record of a replica that was removed");
        }
        let new = || GroupLedger::new(change.replica);
        if change.kind == Kind::Remove {
            self.removed.insert(id);
            if self
                .groups
                .get(&change.group)
                .is_some_and(|held| held.replica == change.replica)
            {
                self.groups.remove(&change.group);
            }
            return Ok(());
        }
        let group = self.groups.entry(change.group).or_insert_with(new);
        if group.replica != change.replica {
            return Err("a record of another replica of the group");
        }
        match (change.kind, change.position) {
            (Kind::Entry, Some(position)) => group.append(position.index, segment)?,
            (Kind::Truncate, kept) => group.truncate_after(kept.map(|kept| kept.index)),
            (Kind::Purge, Some(upto)) => group.purge(upto),
            (Kind::Vote, None) => group.vote = Some(change.body.clone()),
            (Kind::Committed, committed) => group.committed = committed,
            _ => return Err("a record that makes no sense"),
        }
        Ok(())
    }

    /// The oldest segment that holds a live entry.
    pub(super) fn oldest_needed(&self) -> Option<u32> {
        self.groups
            .values()
            .filter_map(|group| group.runs.front())
            .map(|run| run.segment)
            .min()
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut writer = Writer::labelled(LABEL).u32(self.removed.len() as u32);
        for (group, replica) in &self.removed {
            writer = writer.u32(group.0).u64(replica.0);
        }
        writer = writer.u32(self.groups.len() as u32);
        for (id, group) in &self.groups {
            writer = writer.u32(id.0).u64(group.replica.0);
            writer = match &group.vote {
                Some(vote) => writer.u8(1).bytes(vote),
                None => writer.u8(0),
            };
            writer = put_pair(writer, group.purged.map(|at| (at.term, at.index)));
            writer = put_pair(writer, group.committed.map(|at| (at.term, at.index)));
            writer = put_pair(writer, group.range());
        }
        writer.finish().into()
    }

    /// The ledger in these bytes. Live entries are said to be in segment 0: where they really are
    /// is known only if their segment is still there.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(LABEL.len(), "label")? != LABEL.as_bytes() {
            return Err(WireError::Invalid("label"));
        }
        let mut ledger = Self::default();
        for _ in 0..reader.u32()? {
            ledger
                .removed
                .insert((GroupId(reader.u32()?), ReplicaId(reader.u64()?)));
        }
        for _ in 0..reader.u32()? {
            let id = GroupId(reader.u32()?);
            let mut group = GroupLedger::new(ReplicaId(reader.u64()?));
            if flag(&mut reader)? {
                group.vote = Some(Bytes::copy_from_slice(reader.bytes(VOTE_LIMIT, "vote")?));
            }
            let position = |(term, index)| LogPosition { term, index };
            group.purged = take_pair(&mut reader)?.map(position);
            group.committed = take_pair(&mut reader)?.map(position);
            let range = take_pair(&mut reader)?;
            group.runs.extend(range.map(|(first, last)| Run {
                segment: 0,
                first,
                last,
            }));
            ledger.groups.insert(id, group);
        }
        reader.finish()?;
        Ok(ledger)
    }
}

fn put_pair(writer: Writer, pair: Option<(u64, u64)>) -> Writer {
    match pair {
        Some((left, right)) => writer.u8(1).u64(left).u64(right),
        None => writer.u8(0),
    }
}

fn take_pair(reader: &mut Reader<'_>) -> Result<Option<(u64, u64)>, WireError> {
    Ok(if flag(reader)? {
        Some((reader.u64()?, reader.u64()?))
    } else {
        None
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("flag")),
    }
}
