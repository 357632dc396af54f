//! The base: an ordered key-value store below the overlay. It is rebuildable: nothing in it is
//! the only copy, so it promises no durability while it is in use, only that what was written can be
//! read. After a flush, as on shutdown, it should be what it was; whoever opens it checks that it is.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Bound;

use parking_lot::RwLock;

/// The base failed or is damaged. It is never repaired: it is rebuilt from the checkpoint.
#[derive(Debug, Clone, thiserror::Error)]
#[error("key-value base: {0}")]
pub struct BaseError(pub String);

/// A key and its value.
pub type BaseRow = (Vec<u8>, Vec<u8>);

/// One change: a key and its new value, or `None` to delete it.
pub type BaseWrite = (Vec<u8>, Option<Vec<u8>>);

/// An ordered map from bytes to bytes.
pub trait Base: Send + Sync + Debug + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// [`BaseError`] if the store failed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError>;

    /// Up to `limit` pairs with `start <= key < end`, in key order.
    ///
    /// # Errors
    /// [`BaseError`] if the store failed.
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError>;

    /// Applies changes. Callers keep a call to at most 256 KiB, since a store may stall readers
    /// meanwhile.
    ///
    /// # Errors
    /// [`BaseError`] if the store failed; some of the changes may then have been made.
    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError>;

    /// Makes what was written durable, as far as the store knows how. Slow: for shutdown only.
    ///
    /// # Errors
    /// [`BaseError`] if the store failed.
    fn flush(&self) -> Result<(), BaseError>;
}

/// A base in memory.
#[derive(Debug, Default)]
pub struct MemoryBase(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Base for MemoryBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        Ok(self.0.read().get(key).cloned())
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let map = self.0.read();
        let range = map.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
        Ok(range
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        let mut map = self.0.write();
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), BaseError> {
        Ok(())
    }
}
