//! The keys of one purpose, oldest first.

use rossby_seams::random::{Random, RandomError, bytes};
use zeroize::Zeroizing;

use super::KEY_BYTES;

/// Keys of one purpose that a cluster may have at a time.
pub const MAX_KEYS: usize = 4;

/// A key with its id.
pub struct Key {
    id: u32,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    pub fn new(id: u32, bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Self { id, bytes }
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}

/// The keys of one purpose. There is always a current one: the last.
pub struct Ring {
    older: Vec<Key>,
    current: Key,
}

impl Ring {
    /// One new key.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        Ok(Self {
            older: Vec::new(),
            current: Key::new(1, Zeroizing::new(bytes(random)?)),
        })
    }

    /// These keys, oldest first; `None` if there are none, too many, or ids that do not rise.
    pub fn new(mut keys: Vec<Key>) -> Option<Self> {
        if keys.len() > MAX_KEYS || !keys.is_sorted_by(|a, b| a.id < b.id) {
            return None;
        }
        let current = keys.pop()?;
        Some(Self {
            older: keys,
            current,
        })
    }

    /// Adds a new key, which is the current one from now on.
    pub fn rotate(&mut self, random: &dyn Random) -> Result<(), RandomError> {
        let bytes = Zeroizing::new(bytes(random)?);
        let next = Key::new(self.current.id.saturating_add(1), bytes);
        self.older.push(std::mem::replace(&mut self.current, next));
        if self.older.len() >= MAX_KEYS {
            self.older.remove(0);
        }
        Ok(())
    }

    /// The key that new things are made with.
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// The key with this id.
    pub fn get(&self, id: u32) -> Option<&Key> {
        self.newest_first().find(|key| key.id == id)
    }

    /// All keys, oldest first.
    pub fn oldest_first(&self) -> impl Iterator<Item = &Key> {
        self.older.iter().chain([&self.current])
    }

    /// All keys, the current one first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Key> {
        [&self.current].into_iter().chain(self.older.iter().rev())
    }
}
