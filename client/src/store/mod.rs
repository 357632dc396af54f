//! What a device keeps, encrypted, in its home directory.
//!
//! ```text
//!   home/            0700
//!     lock           held while a process uses the home: one at a time
//!     key            0600: the master key, wrapped under the passphrase (key_file.rs)
//!     device.redb    0600: rows; keys hashed under a secret key, values encrypted (cipher.rs)
//! ```
//!
//! Invariants: a write transaction is durable when it returns, and happens whole or not at all.
//! Someone with the files but without the passphrase learns how many rows there are and about how
//! large they are, and can not change, exchange or add any. They can put back an older copy of the
//! whole directory: sending notices that by the counters ([`crate::device`]). They can also take a
//! row away or put back an older one in its place, which nothing notices yet.

mod cipher;
mod home;
mod key_file;
mod passphrase;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use rossby_seams::random::{Random, RandomError, bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use self::cipher::RowCipher;
use self::home::Lock;
pub use self::passphrase::{KdfCost, Passphrase};
pub use self::rows::*;
use crate::crypto::secret::Secret;

const DATABASE_NAME: &str = "device.redb";
/// The layout of the rows as a whole. A home of a later one is refused.
const SCHEMA: u32 = 1;

/// Why the store can not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no store in this directory.
    #[error("there is no device in {}", .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is already a device in {}", .0.display())]
    Exists(PathBuf),
    /// Another process uses it.
    #[error("another process is using {}", .0.display())]
    InUse(PathBuf),
    /// Not the passphrase (or the key file was changed, which looks the same).
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// An empty passphrase where none was allowed.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The key file is not usable.
    #[error("the key file is not usable: {0}")]
    KeyFile(&'static str),
    /// A file could not be read or written.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("the device's database failed: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A row does not decrypt or is not what it should be.
    #[error("a row of the device's {table} table is damaged")]
    Damaged {
        /// The table.
        table: &'static str,
    },
    /// Written by a later version.
    #[error(
        "this device was written by a later version of rossby (schema {found}, known {SCHEMA})"
    )]
    LaterSchema {
        /// The schema found.
        found: u32,
    },
    /// A value could not be encrypted or encoded.
    #[error("a row could not be encrypted")]
    Encrypt,
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

macro_rules! database_errors {
    ($($kind:ident),*) => {
        $(impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}
database_errors!(
    CommitError,
    DatabaseError,
    StorageError,
    TableError,
    TransactionError
);

/// A kind of row: one table, one type of key, one type of value with its version.
pub trait Row: Serialize + DeserializeOwned {
    /// The table's name.
    const TABLE: &'static str;
    /// The version of this value's encoding.
    const VERSION: u8;
    /// What a row is found by.
    type Key: Serialize + DeserializeOwned;

    /// The row in a value of an earlier version; `None` if there was none such.
    fn of_earlier(_version: u8, _value: &[u8]) -> Option<Self> {
        None
    }
}

fn definition(table: &'static str) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table)
}

fn encode_key<R: Row>(key: &R::Key) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    bincode::serde::encode_to_vec(key, bincode::config::standard())
        .map(Zeroizing::new)
        .map_err(|_| StoreError::Encrypt)
}

fn encode_value<R: Row>(row: &R) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(vec![R::VERSION]);
    let value = bincode::serde::encode_to_vec(row, bincode::config::standard())
        .map(Zeroizing::new)
        .map_err(|_| StoreError::Encrypt)?;
    bytes.reserve_exact(value.len());
    bytes.extend_from_slice(&value);
    Ok(bytes)
}

fn decode_value<R: Row>(bytes: &[u8]) -> Result<R, StoreError> {
    let damaged = || StoreError::Damaged { table: R::TABLE };
    match bytes.split_first() {
        Some((version, value)) if *version == R::VERSION => decode::<R, R>(value),
        Some((version, value)) => R::of_earlier(*version, value).ok_or_else(damaged),
        None => Err(damaged()),
    }
}

fn decode<R: Row, T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    match bincode::serde::decode_from_slice(bytes, bincode::config::standard()) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        _ => Err(StoreError::Damaged { table: R::TABLE }),
    }
}

/// An open store.
pub struct Store {
    database: redb::Database,
    cipher: RowCipher,
    random: Arc<dyn Random>,
    home: PathBuf,
    /// Last, so that it is let go of after the database is closed.
    _lock: Lock,
}

impl Store {
    /// Makes a store in `home`, which is made if it is not there, with the rows that `first` puts
    /// in. Whatever cuts it off before the end, there is no store then, and it can be made anew.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::InUse`], and whatever writing can meet.
    pub fn create(
        home: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        random: Arc<dyn Random>,
        first: impl FnOnce(&mut Batch<'_>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        home::prepare(home)?;
        let lock = Lock::take(home)?;
        if Self::is_in(home) {
            return Err(StoreError::Exists(home.to_owned()));
        }
        let master = Secret::new(bytes(random.as_ref())?);
        // Without a key file, a database is what a crash in here left behind: nobody can read it.
        let database = home::new_database(&home.join(DATABASE_NAME))?;
        let cipher = RowCipher::new(&master);
        let store = Self {
            database,
            cipher,
            random,
            home: home.to_owned(),
            _lock: lock,
        };
        store.write(|batch| {
            batch.put(&(), &Schema { version: SCHEMA })?;
            first(batch)
        })?;
        // The key file comes last: it is what makes the directory a device.
        key_file::write(home, &master, passphrase, cost, store.random.as_ref())?;
        Ok(store)
    }

    /// Whether there is a store in `home`.
    #[must_use]
    pub fn is_in(home: &Path) -> bool {
        home.join(key_file::NAME).exists()
    }

    /// Opens the store in `home`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::InUse`], [`StoreError::WrongPassphrase`],
    /// [`StoreError::LaterSchema`], and whatever reading can meet.
    pub fn open(
        home: &Path,
        passphrase: &Passphrase,
        random: Arc<dyn Random>,
    ) -> Result<Self, StoreError> {
        if !Self::is_in(home) {
            return Err(StoreError::Missing(home.to_owned()));
        }
        home::tighten(home, &[key_file::NAME, DATABASE_NAME])?;
        let lock = Lock::take(home)?;
        let master = key_file::read(home, passphrase)?;
        let database = redb::Database::open(home.join(DATABASE_NAME))?;
        let cipher = RowCipher::new(&master);
        let store = Self {
            database,
            cipher,
            random,
            home: home.to_owned(),
            _lock: lock,
        };
        match store.get::<Schema>(&())? {
            Some(Schema { version: SCHEMA }) => Ok(store),
            Some(Schema { version }) if version > SCHEMA => {
                Err(StoreError::LaterSchema { found: version })
            }
            _ => Err(StoreError::Damaged {
                table: Schema::TABLE,
            }),
        }
    }

    /// Wraps the master key under another passphrase.
    ///
    /// # Errors
    /// [`StoreError::WrongPassphrase`] if `old` is not the one in force.
    pub fn change_passphrase(
        &self,
        old: &Passphrase,
        new: &Passphrase,
        cost: KdfCost,
    ) -> Result<(), StoreError> {
        let master = key_file::read(&self.home, old)?;
        key_file::write(&self.home, &master, new, cost, self.random.as_ref())
    }

    /// Erases the store: the wrapped key first, without which nobody reads the rest, then the rest, and the
    /// directory if nothing else is in it.
    ///
    /// # Errors
    /// [`StoreError::Io`]. Once the key is gone there is no store any more.
    pub fn erase(&self) -> Result<(), StoreError> {
        home::erase(&self.home, &[key_file::NAME, DATABASE_NAME])
    }

    /// Where it is.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// One row.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Database`].
    pub fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(definition(R::TABLE)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        let key = encode_key::<R>(key)?;
        let hashed = self.cipher.hash(R::TABLE, &key);
        let Some(stored) = table.get(hashed.as_slice())? else {
            return Ok(None);
        };
        self.cipher
            .decrypt(R::TABLE, &hashed, stored.value(), |_, value| {
                decode_value::<R>(value)
            })
            .map(Some)
    }

    /// All rows of a kind, in no order that means anything.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Database`].
    pub fn all<R: Row>(&self) -> Result<Vec<(R::Key, R)>, StoreError> {
        let transaction = self.database.begin_read()?;
        let table = match transaction.open_table(definition(R::TABLE)) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let mut rows = Vec::new();
        for entry in table.iter()? {
            let (hashed, stored) = entry?;
            rows.push(self.cipher.decrypt(
                R::TABLE,
                hashed.value(),
                stored.value(),
                |key, value| Ok((decode::<R, R::Key>(key)?, decode_value::<R>(value)?)),
            )?);
        }
        Ok(rows)
    }

    /// Runs a write transaction: all of it is durable when this returns, or none of it happened.
    ///
    /// # Errors
    /// What `write` returns, or [`StoreError::Database`].
    pub fn write<T, E: From<StoreError>>(
        &self,
        write: impl FnOnce(&mut Batch<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.database.begin_write().map_err(StoreError::from)?;
        let mut batch = Batch {
            transaction,
            cipher: &self.cipher,
            random: self.random.as_ref(),
        };
        // On an error the transaction is dropped, which undoes it.
        let value = write(&mut batch)?;
        batch.transaction.commit().map_err(StoreError::from)?;
        Ok(value)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

/// A write transaction.
pub struct Batch<'a> {
    transaction: redb::WriteTransaction,
    cipher: &'a RowCipher,
    random: &'a dyn Random,
}

impl Batch<'_> {
    /// One row, as this transaction has it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Database`].
    pub fn get<R: Row>(&self, key: &R::Key) -> Result<Option<R>, StoreError> {
        let key = encode_key::<R>(key)?;
        let hashed = self.cipher.hash(R::TABLE, &key);
        let table = self.transaction.open_table(definition(R::TABLE))?;
        let Some(stored) = table.get(hashed.as_slice())? else {
            return Ok(None);
        };
        self.cipher
            .decrypt(R::TABLE, &hashed, stored.value(), |_, value| {
                decode_value::<R>(value)
            })
            .map(Some)
    }

    /// Inserts or replaces a row.
    ///
    /// # Errors
    /// [`StoreError::Encrypt`], [`StoreError::Random`], [`StoreError::Database`].
    pub fn put<R: Row>(&mut self, key: &R::Key, row: &R) -> Result<(), StoreError> {
        let (key, value) = (encode_key::<R>(key)?, encode_value(row)?);
        let hashed = self.cipher.hash(R::TABLE, &key);
        let stored = self
            .cipher
            .encrypt(self.random, R::TABLE, &hashed, &key, &value)?;
        let mut table = self.transaction.open_table(definition(R::TABLE))?;
        table.insert(hashed.as_slice(), stored.as_slice())?;
        Ok(())
    }

    /// Removes a row, if it is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove<R: Row>(&mut self, key: &R::Key) -> Result<(), StoreError> {
        let key = encode_key::<R>(key)?;
        let hashed = self.cipher.hash(R::TABLE, &key);
        let mut table = self.transaction.open_table(definition(R::TABLE))?;
        table.remove(hashed.as_slice())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
