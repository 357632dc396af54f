//! Holds what is found on a disk against the history of who wrote it.

use std::path::Path;
use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::base::{Base as _, MemoryBase};
use rossby_seams::disk::Disk;
use rossby_storage::LogPosition;
use rossby_storage::wal::{LogRecord, Wal};

use crate::history::{History, Logs, Marks};
use crate::player::{Failure, GROUPS, Opened, append, base_for, entry, finish, open};

/// What is found, and what may be.
pub struct Found<'a> {
    pub disk: Arc<dyn Disk>,
    pub root: &'a Path,
    /// The base as the last run left it.
    pub base: &'a Arc<MemoryBase>,
    pub history: &'a History,
    pub sure: Marks,
    pub possible: Marks,
}

/// A copy, so that a look at it changes nothing.
pub fn copy_of(base: &MemoryBase) -> Arc<MemoryBase> {
    let rows = base.range(&[], &[0xff; 64], usize::MAX).unwrap();
    let copy = MemoryBase::default();
    let writes = rows.into_iter().map(|(key, value)| (key, Some(value)));
    copy.write(writes.collect()).unwrap();
    Arc::new(copy)
}

impl Found<'_> {
    /// Starts, and compares everything; then goes on, and starts once more.
    ///
    /// `Err` if the node refuses to start with what is there. Panics if it starts with something
    /// that never was.
    pub fn check(&self) -> Result<(), Failure> {
        let base = base_for(&self.disk, self.root, &copy_of(self.base));
        let mut opened = open(&self.disk, self.root, &base)?;
        let logs = self.compare(&mut opened)?;
        let grown = self.go_on(&mut opened, &logs)?;
        drop(opened);
        let base = base_for(&self.disk, self.root, &base);
        let opened = open(&self.disk, self.root, &base)?;
        assert!(
            matches(&opened.wal, &grown),
            "what was added later is not there"
        );
        Ok(())
    }

    /// Starts and compares everything, and leaves it at that.
    pub fn look(&self) -> Result<(), Failure> {
        let base = base_for(&self.disk, self.root, &copy_of(self.base));
        let mut opened = open(&self.disk, self.root, &base)?;
        self.compare(&mut opened).map(drop)
    }

    fn compare(&self, opened: &mut Opened) -> Result<Logs, Failure> {
        let range = self.sure.identities..=self.possible.identities;
        let known = &self.history.identities[range];
        let identity = opened.data.identity().cloned();
        // What start-up checks before a replica runs.
        if let Some(identity) = &identity {
            for held in &identity.replicas {
                opened
                    .wal
                    .log(held.group, held.replica)
                    .map_err(|error| error.to_string())?;
            }
        }
        if !known.contains(&identity) {
            let held = identity
                .as_ref()
                .map_or(0, |identity| identity.replicas.len());
            assert!(held < GROUPS.len(), "{identity:?} is none of {known:?}");
            return Err("it lacks a replica and serves nothing of that group".to_owned());
        }
        let range = self.sure.logs..=self.possible.logs;
        let states = &self.history.logs[range.clone()];
        let found = states.iter().find(|logs| matches(&opened.wal, logs));
        let Some(logs) = found else {
            panic!("the log is none of the states {range:?}");
        };
        for group in GROUPS {
            self.compare_state(opened, group, logs)?;
        }
        Ok(logs.clone())
    }

    fn compare_state(&self, opened: &mut Opened, group: u32, logs: &Logs) -> Result<(), Failure> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut state = opened
            .store
            .group(GroupId(group))
            .map_err(|error| text(&error))?;
        let found = state.applied().position;
        let range = self.sure.checkpoints..=self.possible.checkpoints;
        let known: Vec<_> = self.history.checkpoints[range]
            .iter()
            .map(|checkpoints| checkpoints.get(&group).copied())
            .collect();
        let index = found.map(|at| at.index);
        let model = logs.get(&group).cloned().unwrap_or_default();
        let purged = model.purged.map(|(_, index)| index);
        if purged > index {
            return Err(format!(
                "the log begins after {purged:?}, the checkpoint is at {index:?}"
            ));
        }
        assert!(
            known.contains(&index),
            "checkpoint {index:?} is none of {known:?}"
        );
        self.compare_digests(group, found, &state)?;
        for (index, (term, bytes)) in &model.entries {
            if found.is_none_or(|found| found.index < *index) {
                let (term, index) = (*term, *index);
                let at = LogPosition { term, index };
                state.apply_batch(at, bytes).map_err(|error| text(&error))?;
                self.compare_digests(group, Some(at), &state)?;
            }
        }
        if let Some(cut) = state.cut() {
            let written = cut.write().map_err(|error| text(&error))?;
            written.publish().map_err(|error| text(&error))?;
        }
        Ok(())
    }

    fn compare_digests(
        &self,
        group: u32,
        at: Option<LogPosition>,
        state: &rossby_storage::store::GroupStore,
    ) -> Result<(), Failure> {
        let digests = state
            .reader()
            .digests()
            .map_err(|error| error.to_string())?;
        let expected = at.map(|at| self.history.digests.get(&(group, at.index, at.term)));
        match expected {
            None => assert!(digests.1.is_empty()),
            // An entry that was never applied by who wrote it.
            Some(None) => {}
            Some(Some(expected)) => assert_eq!(&digests.1, expected, "{group} at {at:?}"),
        }
        Ok(())
    }

    /// Adds an entry and a vote to each group.
    fn go_on(&self, opened: &mut Opened, logs: &Logs) -> Result<Logs, Failure> {
        let mut grown = logs.clone();
        for (group, model) in &mut grown {
            let replica = ReplicaId(model.replica);
            let log = opened.wal.log(GroupId(*group), replica);
            let log = log.map_err(|error| error.to_string())?;
            let (term, index) = (99, model.next().unwrap_or(1));
            let bytes = entry(*group, term, index, 300);
            let position = LogPosition { term, index };
            let record = LogRecord {
                position,
                bytes: bytes.clone(),
            };
            append(&log, &mut opened.writer, vec![record])?;
            model.entries.insert(index, (term, bytes));
            let vote = bytes::Bytes::from_static(b"later");
            finish(&mut opened.writer, log.save_vote(vote.clone()))?;
            model.vote = Some(vote);
        }
        Ok(grown)
    }
}

/// Whether a log holds just this.
pub fn matches(wal: &Wal, logs: &Logs) -> bool {
    logs.iter().all(|(group, model)| {
        let id = GroupId(*group);
        let gone = |replica: &u64| wal.log(id, ReplicaId(*replica)).is_err();
        if !model.removed.iter().all(gone) {
            return false;
        }
        let Ok(log) = wal.log(id, ReplicaId(model.replica)) else {
            return false;
        };
        let state = log.state();
        let pair = |at: LogPosition| (at.term, at.index);
        let entries = log.read(log.first_index().unwrap_or_default(), u64::MAX);
        let Ok(entries) = entries else { return false };
        let same_entries = entries.len() == model.entries.len()
            && entries
                .iter()
                .zip(&model.entries)
                .all(|(found, (index, (term, bytes)))| {
                    pair(found.position) == (*term, *index) && found.bytes == *bytes
                });
        same_entries
            && state.vote == model.vote
            && state.purged.map(pair) == model.purged
            && state.last.map(pair) == model.last()
    })
}
