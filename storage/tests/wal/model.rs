//! A simple model of the log, and a rig that drives both.
//!
//! The log is one ordered queue over all groups. So whatever happens, what is found afterwards must
//! be the model after some prefix of all records submitted, and that prefix must hold at least what
//! was reported durable. [`Rig`] keeps the model after every record to check just that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use proptest::prelude::*;
use rossby_domain::ids::GroupId;
use rossby_seams::disk::{MemoryDisk, PowerLoss};
use rossby_storage::LogPosition;
use rossby_storage::wal::{GroupLog, LogRecord, LogState, Wal, WalError, WalWriter};

use crate::harness::{Outcome, Waiting, append, at, entry, open, replica};

pub const GROUPS: u32 = 3;

/// What one group's log should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupModel {
    /// How many replicas of the group were removed from this node so far.
    pub removals: u64,
    pub vote: Option<Bytes>,
    pub purged: Option<LogPosition>,
    pub entries: BTreeMap<u64, LogRecord>,
}

impl GroupModel {
    fn last(&self) -> Option<LogPosition> {
        self.entries
            .values()
            .next_back()
            .map(|entry| entry.position)
            .or(self.purged)
    }

    fn purge(&mut self, upto: LogPosition) {
        self.purged = self.purged.max(Some(upto));
        self.entries = self.entries.split_off(&(upto.index + 1));
    }
}

pub type Model = BTreeMap<u32, GroupModel>;

#[derive(Debug, Clone)]
pub enum Op {
    Append {
        group: u32,
        sizes: Vec<usize>,
    },
    /// Drops this many of the last entries.
    Truncate {
        group: u32,
        count: u64,
    },
    TruncateAll {
        group: u32,
    },
    /// Purges this many of the first entries; more than there are goes beyond the end.
    Purge {
        group: u32,
        count: u64,
    },
    Vote {
        group: u32,
        size: usize,
    },
    Committed {
        group: u32,
    },
    Remove {
        group: u32,
    },
    Drain,
    /// The process stops and starts: in order, killed, or with power loss.
    Close,
    Crash(PowerLoss),
}

pub fn operation() -> impl Strategy<Value = Op> {
    let group = 0..GROUPS;
    let sizes = proptest::collection::vec(prop_oneof![0..200_usize, 0..4000_usize], 1..6);
    prop_oneof![
        12 => (group.clone(), sizes).prop_map(|(group, sizes)| Op::Append { group, sizes }),
        3 => (group.clone(), 0..4_u64).prop_map(|(group, count)| Op::Truncate { group, count }),
        1 => group.clone().prop_map(|group| Op::TruncateAll { group }),
        4 => (group.clone(), 0..12_u64).prop_map(|(group, count)| Op::Purge { group, count }),
        4 => (group.clone(), 0..600_usize).prop_map(|(group, size)| Op::Vote { group, size }),
        3 => group.clone().prop_map(|group| Op::Committed { group }),
        1 => group.prop_map(|group| Op::Remove { group }),
        12 => Just(Op::Drain),
        1 => Just(Op::Close),
        1 => prop_oneof![
            Just(PowerLoss::DropUnsynced),
            Just(PowerLoss::KeepAll),
            any::<u64>().prop_map(|seed| PowerLoss::KeepSome { seed }),
        ].prop_map(Op::Crash),
    ]
}

enum Pending {
    Call(Receiver<Result<(), WalError>>),
    Wait(Waiting),
}

pub struct Rig {
    pub disk: MemoryDisk,
    pub wal: Wal,
    pub writer: WalWriter,
    /// The model after each record that was submitted since the log was opened.
    pub history: Vec<Model>,
    /// How far the history is known to be durable.
    pub durable: usize,
    pending: Vec<(usize, Pending)>,
    marks: BTreeSet<(u32, u64, Option<LogPosition>)>,
    stamp: u64,
    /// How many more mutations the disk will see before the power goes, over restarts.
    stop: Option<u64>,
}

impl Rig {
    pub fn new(disk: MemoryDisk) -> Result<Self, WalError> {
        let (wal, writer) = open(&disk)?;
        let model = (0..GROUPS)
            .map(|group| (group, GroupModel::default()))
            .collect();
        Ok(Self {
            disk,
            wal,
            writer,
            history: vec![model],
            durable: 0,
            pending: Vec::new(),
            marks: BTreeSet::new(),
            stamp: 0,
            stop: None,
        })
    }

    /// A rig whose disk loses power before mutation `stop`, counted over restarts. The mutations of
    /// a restart itself are not counted.
    ///
    /// # Errors
    /// The power went before the log was open.
    pub fn stopping_at(stop: u64) -> Result<Self, WalError> {
        let disk = MemoryDisk::default();
        disk.stop_at_mutation(stop);
        let mut rig = Self::new(disk)?;
        rig.stop = Some(stop);
        Ok(rig)
    }

    fn model(&self) -> &Model {
        self.history.last().unwrap()
    }

    fn change(&mut self, group: u32, change: impl FnOnce(&mut GroupModel)) {
        let mut model = self.model().clone();
        change(model.get_mut(&group).unwrap());
        self.history.push(model);
    }

    fn log(&self, group: u32) -> GroupLog {
        self.wal
            .log(
                GroupId(group),
                replica(group, self.model()[&group].removals),
            )
            .unwrap()
    }

    fn stamped(&mut self, size: usize) -> Bytes {
        self.stamp += 1;
        // Zeros in the middle: what was never written must not be taken for them, nor they for it.
        let mut bytes = vec![0; size];
        let stamp = self.stamp.to_be_bytes();
        let tail = size.saturating_sub(200);
        bytes[..size.min(8)].copy_from_slice(&stamp[..size.min(8)]);
        bytes[tail..]
            .iter_mut()
            .zip(0_u64..)
            .for_each(|(byte, at)| *byte ^= (at + self.stamp) as u8);
        bytes.into()
    }

    /// Does one operation on the log and on the model.
    ///
    /// # Errors
    /// The log failed; the model then says what had been submitted.
    pub fn run(&mut self, op: &Op) -> Result<(), WalError> {
        match op {
            Op::Append { group, sizes } => self.append(*group, sizes)?,
            Op::Truncate { group, count } => {
                let model = &self.model()[group];
                let Some(last) = model.last() else {
                    return Ok(());
                };
                let floor = model.purged.map_or(0, |purged| purged.index);
                let kept = last.index.saturating_sub(*count).max(floor);
                self.change(*group, |model| {
                    model.entries.split_off(&(kept + 1));
                });
                let log = self.log(*group);
                self.wait(async move { log.truncate_after(Some(kept)).await })?;
            }
            Op::TruncateAll { group } => {
                self.change(*group, |model| model.entries.clear());
                let log = self.log(*group);
                self.wait(async move { log.truncate_after(None).await })?;
            }
            Op::Purge { group, count } => self.purge(*group, *count)?,
            Op::Vote { group, size } => {
                let vote = self.stamped(*size);
                self.change(*group, |model| model.vote = Some(vote.clone()));
                let log = self.log(*group);
                self.wait(async move { log.save_vote(vote).await })?;
            }
            Op::Committed { group } => {
                let last = self.model()[group].last();
                self.marks
                    .insert((*group, self.model()[group].removals, last));
                self.log(*group).save_committed(last)?;
            }
            Op::Remove { group } => {
                let removals = self.model()[group].removals;
                self.change(*group, |model| {
                    *model = GroupModel {
                        removals: removals + 1,
                        ..GroupModel::default()
                    };
                });
                let (wal, group) = (self.wal.clone(), *group);
                let id = (GroupId(group), replica(group, removals));
                self.wait(async move { wal.remove_replica(id.0, id.1).await })?;
            }
            Op::Drain => self.drain()?,
            Op::Close => {
                self.wal.shut_down();
                while self.writer.drain() {}
                self.settle()?;
                if self
                    .stop
                    .is_some_and(|stop| self.disk.mutations() + 1 >= stop)
                {
                    return Err(WalError::Closed);
                }
                assert_eq!(
                    self.durable,
                    self.history.len() - 1,
                    "closing makes all durable"
                );
                self.reopen(PowerLoss::DropUnsynced);
            }
            Op::Crash(loss) => self.reopen(*loss),
        }
        self.check_live()
    }

    fn append(&mut self, group: u32, sizes: &[usize]) -> Result<(), WalError> {
        let last = self.model()[&group].last();
        let term = last.map_or(1, |last| last.term) + self.stamp % 2;
        let first = last.map_or(u64::from(group), |last| last.index + 1);
        let mut entries = Vec::new();
        for (size, index) in sizes.iter().zip(first..) {
            entries.push(entry(term, index, self.stamped(*size)));
        }
        let told = append(&self.log(group), entries.clone())?;
        for entry in entries {
            self.change(group, |model| {
                drop(model.entries.insert(entry.position.index, entry))
            });
        }
        self.pending
            .push((self.history.len() - 1, Pending::Call(told)));
        Ok(())
    }

    fn purge(&mut self, group: u32, count: u64) -> Result<(), WalError> {
        let model = &self.model()[&group];
        let first = model.entries.keys().next().copied();
        let Some(upto) = first
            .or(model.purged.map(|at| at.index + 1))
            .map(|at| at + count)
        else {
            return Ok(());
        };
        let last = model.last().map_or(0, |last| last.term);
        let term = model
            .entries
            .get(&upto)
            .map_or(last, |entry| entry.position.term);
        self.change(group, |model| model.purge(at(term, upto)));
        let log = self.log(group);
        self.wait(async move { log.purge(at(term, upto)).await })
    }

    fn wait(
        &mut self,
        operation: impl Future<Output = Result<(), WalError>> + 'static,
    ) -> Result<(), WalError> {
        match Waiting::start(operation) {
            (_, Outcome::Told(outcome)) => outcome,
            (waiting, Outcome::Waits) => {
                self.pending
                    .push((self.history.len() - 1, Pending::Wait(waiting)));
                Ok(())
            }
        }
    }

    fn drain(&mut self) -> Result<(), WalError> {
        self.writer.drain();
        self.settle()
    }

    /// Hears what became durable. Things become so in order.
    fn settle(&mut self) -> Result<(), WalError> {
        let mut outcome = Ok(());
        let durable = &mut self.durable;
        let mut waits = false;
        self.pending.retain_mut(|(upto, pending)| {
            let told = match pending {
                Pending::Call(receiver) => receiver.try_recv().ok(),
                Pending::Wait(waiting) => match waiting.outcome() {
                    Outcome::Told(told) => Some(told),
                    Outcome::Waits => None,
                },
            };
            match told {
                None => {
                    waits = true;
                    return true;
                }
                Some(Ok(())) => {
                    assert!(!waits && outcome.is_ok(), "told out of order");
                    *durable = *upto;
                }
                Some(Err(failure)) => outcome = Err(failure),
            }
            false
        });
        outcome
    }

    /// What the open log shows must be the newest model.
    fn check_live(&self) -> Result<(), WalError> {
        for group in 0..GROUPS {
            let found = observe_group(&self.wal, group)?.0;
            assert_eq!(found, self.model()[&group], "group {group}");
        }
        Ok(())
    }

    fn reopen(&mut self, loss: PowerLoss) {
        let disk = self.disk.crash(loss);
        let (wal, writer) = open(&disk).expect("power loss never makes the log refuse");
        let found = self.expect_prefix(&wal);
        if let Some(stop) = &mut self.stop {
            *stop -= self.disk.mutations();
            disk.stop_at_mutation(disk.mutations() + *stop);
            *stop += disk.mutations();
        }
        (self.disk, self.wal, self.writer) = (disk, wal, writer);
        self.history = vec![found];
        self.durable = 0;
        self.pending.clear();
    }

    /// What a reopened log holds must be a prefix of what was submitted, with all that was reported
    /// durable.
    pub fn expect_prefix(&self, wal: &Wal) -> Model {
        let mut found = Model::new();
        for group in 0..GROUPS {
            let (model, committed) = observe_group(wal, group).unwrap();
            let mark = (group, model.removals, committed);
            assert!(
                committed.is_none() || self.marks.contains(&mark),
                "an invented mark"
            );
            found.insert(group, model);
        }
        let possible = &self.history[self.durable..];
        assert!(
            possible.contains(&found),
            "durable up to {} of {}; found {found:#?}; durable was {:#?}",
            self.durable,
            self.history.len() - 1,
            self.history[self.durable],
        );
        found
    }
}

/// All that a group's log shows, read entry by entry and at once.
pub fn observe_group(wal: &Wal, group: u32) -> Result<(GroupModel, Option<LogPosition>), WalError> {
    for removals in 0.. {
        let log = match wal.log(GroupId(group), replica(group, removals)) {
            Err(WalError::ReplicaRemoved { .. }) => continue,
            other => other?,
        };
        let LogState {
            purged,
            last,
            vote,
            committed,
        } = log.state();
        let first = purged.map_or(u64::from(group), |purged| purged.index + 1);
        let entries = log.read(first, u64::MAX)?;
        let entries: BTreeMap<_, _> = entries
            .into_iter()
            .map(|entry| (entry.position.index, entry))
            .collect();
        let model = GroupModel {
            removals,
            vote,
            purged,
            entries,
        };
        assert_eq!(last, model.last());
        return Ok((model, committed));
    }
    unreachable!("some replica is not removed")
}

fn cases() -> u32 {
    if std::env::var_os("ROSSBY_LONG").is_some() {
        5_000
    } else {
        400
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_agrees_with_the_model_across_restarts(
        script in proptest::collection::vec(operation(), 1..120),
    ) {
        let mut rig = Rig::new(MemoryDisk::default()).unwrap();
        for op in &script {
            rig.run(op).unwrap();
        }
        rig.run(&Op::Close).unwrap();
    }
}
