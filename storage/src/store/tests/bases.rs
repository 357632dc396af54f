//! Bases that count, forget and fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rossby_seams::base::{Base, BaseError, BaseRow, BaseWrite, MemoryBase};

/// A base that counts what is written to it.
#[derive(Debug, Default)]
pub(super) struct CountingBase {
    inner: MemoryBase,
    rows: AtomicUsize,
}

impl CountingBase {
    /// Rows written since the last call.
    pub(super) fn take(&self) -> usize {
        self.rows.swap(0, Ordering::Relaxed)
    }
}

impl Base for CountingBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        self.inner.get(key)
    }
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        self.inner.range(start, end, limit)
    }
    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        let size = |(key, value): &BaseWrite| key.len() + value.as_ref().map_or(0, Vec::len);
        assert!(
            changes.iter().map(size).sum::<usize>() <= 256 * 1024,
            "a chunk is too large"
        );
        self.rows.fetch_add(changes.len(), Ordering::Relaxed);
        self.inner.write(changes)
    }
    fn flush(&self) -> Result<(), BaseError> {
        self.inner.flush()
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A base that may forget, row by row, what was written since the last flush. No real one is that
/// bad.
#[derive(Debug, Default)]
pub(super) struct ForgetfulBase {
    inner: MemoryBase,
    flushed: Mutex<Rows>,
}

impl ForgetfulBase {
    fn rows(&self) -> Rows {
        self.inner
            .range(&[0], &[0xff; 16], usize::MAX)
            .unwrap()
            .into_iter()
            .collect()
    }

    /// The base after power loss: each row as it was flushed, or as it is now.
    pub(super) fn after_loss(&self, seed: u64) -> Self {
        let (now, flushed) = (self.rows(), self.flushed.lock().clone());
        let mut rows = Rows::new();
        let mut chance = seed;
        for key in now.keys().chain(flushed.keys()) {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let source = if chance >> 63 == 0 { &now } else { &flushed };
            match source.get(key) {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        let inner = MemoryBase::default();
        let changes = rows
            .clone()
            .into_iter()
            .map(|(key, value)| (key, Some(value)));
        inner.write(changes.collect()).unwrap();
        Self {
            inner,
            flushed: Mutex::new(rows),
        }
    }
}

impl Base for ForgetfulBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        self.inner.get(key)
    }
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        self.inner.range(start, end, limit)
    }
    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        self.inner.write(changes)
    }
    fn flush(&self) -> Result<(), BaseError> {
        *self.flushed.lock() = self.rows();
        Ok(())
    }
}

/// A base that fails one write.
#[derive(Debug, Default)]
pub(super) struct FailingBase {
    inner: MemoryBase,
    /// Writes until then.
    left: Mutex<Option<usize>>,
}

impl FailingBase {
    /// Fails the write after `writes` more.
    pub(super) fn fail_after(&self, writes: usize) {
        *self.left.lock() = Some(writes);
    }
}

impl Base for FailingBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        self.inner.get(key)
    }
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        self.inner.range(start, end, limit)
    }
    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        let mut left = self.left.lock();
        *left = match *left {
            Some(0) => {
                *left = None;
                return Err(BaseError("planted".to_owned()));
            }
            other => other.map(|writes| writes - 1),
        };
        self.inner.write(changes)
    }
    fn flush(&self) -> Result<(), BaseError> {
        self.inner.flush()
    }
}
