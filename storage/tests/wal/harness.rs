//! Drives the log by hand: nothing is written until a test says so.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::MemoryDisk;
use rossby_storage::LogPosition;
use rossby_storage::wal::{GroupLog, LogRecord, Wal, WalError, WalOptions, WalWriter};

pub const FOLDER: &str = "/data/wal";
/// The smallest segments, so that tests go through many of them, and a cache of a few entries.
pub const OPTIONS: WalOptions = WalOptions {
    segment_bytes: 16 << 10,
    cache_bytes: 4 << 10,
};

pub fn open(disk: &MemoryDisk) -> Result<(Wal, WalWriter), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(FOLDER), OPTIONS)
}

pub fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

pub fn entry(term: u64, index: u64, bytes: impl Into<Bytes>) -> LogRecord {
    LogRecord {
        position: at(term, index),
        bytes: bytes.into(),
    }
}

/// An operation of the log that somebody waits for.
pub struct Waiting(Pin<Box<dyn Future<Output = Result<(), WalError>>>>);

impl Waiting {
    /// Starts an operation: what it submits is in the queue when this returns.
    pub fn start(
        operation: impl Future<Output = Result<(), WalError>> + 'static,
    ) -> (Self, Outcome) {
        let mut waiting = Self(Box::pin(operation));
        let outcome = waiting.outcome();
        (waiting, outcome)
    }

    pub fn outcome(&mut self) -> Outcome {
        match self
            .0
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(outcome) => Outcome::Told(outcome),
            Poll::Pending => Outcome::Waits,
        }
    }
}

#[derive(Debug)]
pub enum Outcome {
    Waits,
    Told(Result<(), WalError>),
}

impl Outcome {
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::Told(Ok(())))
    }
}

/// Runs an operation to its end, draining as needed.
pub fn finish(
    writer: &mut WalWriter,
    operation: impl Future<Output = Result<(), WalError>>,
) -> Result<(), WalError> {
    let mut operation = Box::pin(operation);
    loop {
        match operation
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => assert!(writer.drain(), "waits for a drain that never comes"),
        }
    }
}

/// Appends; the receiver hears when it is durable.
pub fn append(
    log: &GroupLog,
    entries: Vec<LogRecord>,
) -> Result<Receiver<Result<(), WalError>>, WalError> {
    let (sender, receiver) = mpsc::channel();
    log.append(entries, Box::new(move |outcome| drop(sender.send(outcome))))?;
    Ok(receiver)
}

pub fn drain_all(writer: &mut WalWriter) {
    while writer.drain() {}
}

/// The log of the first replica of a group.
pub fn log(wal: &Wal, group: u32) -> GroupLog {
    log_of(wal, group, 0)
}

/// The log of the replica that follows this many removed ones.
pub fn log_of(wal: &Wal, group: u32, removals: u64) -> GroupLog {
    wal.log(GroupId(group), replica(group, removals)).unwrap()
}

/// Replica ids are never used again: each removal makes room for another.
pub fn replica(group: u32, removals: u64) -> ReplicaId {
    ReplicaId(100 * (removals + 1) + u64::from(group))
}
