//! The key file: the store's random master key, wrapped under the passphrase.
//!
//! ```text
//!   label "rossby key file v1", u32 memory in KiB, u32 passes, u32 lanes, 16 salt, 24 nonce,
//!   u32 + 48 master key in XChaCha20-Poly1305 (AAD: everything before)
//! ```
//!
//! It is replaced as a whole (a new file, synced, renamed over the old one), so that a crash leaves
//! the old or the new one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use rossby_domain::wire::{Reader, WireError, Writer};
use rossby_seams::random::{Random, bytes};
use zeroize::Zeroizing;

use super::StoreError;
use super::passphrase::{KdfCost, Passphrase};
use crate::crypto::secret::Secret;

/// Its name in the home directory.
pub(super) const NAME: &str = "key";
const NEW_NAME: &str = "key.new";
const LABEL: &str = "rossby key file v1";
const WRAPPED_BYTES: usize = 48;
/// More than any key file has.
const MAX_BYTES: u64 = 4096;

fn header(cost: &KdfCost, salt: &[u8; 16], nonce: &[u8; 24]) -> Vec<u8> {
    Writer::labelled(LABEL)
        .u32(cost.memory_kib)
        .u32(cost.passes)
        .u32(cost.lanes)
        .fixed(salt)
        .fixed(nonce)
        .finish()
}

/// Wraps the master key and puts the file in place.
pub(super) fn write(
    home: &Path,
    master: &Secret<32>,
    passphrase: &Passphrase,
    cost: KdfCost,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let (salt, nonce) = (bytes(random)?, bytes(random)?);
    let header = header(&cost, &salt, &nonce);
    let key = cost.derive(passphrase, &salt)?;
    let wrapped = XChaCha20Poly1305::new(key.expose().into())
        .encrypt(
            &nonce.into(),
            Payload {
                msg: master.expose(),
                aad: &header,
            },
        )
        .map_err(|_| StoreError::Encrypt)?;
    let length = u32::try_from(wrapped.len()).map_err(|_| StoreError::Encrypt)?;
    let contents = [&header[..], &length.to_be_bytes(), &wrapped].concat();
    replace(home, &contents).map_err(|source| StoreError::Io {
        what: "write the key file",
        source,
    })
}

fn replace(home: &Path, contents: &[u8]) -> std::io::Result<()> {
    let new = home.join(NEW_NAME);
    // What a crash left behind is of no use.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&new, home.join(NAME))?;
    File::open(home)?.sync_all()
}

/// Reads the file and unwraps the master key.
pub(super) fn read(home: &Path, passphrase: &Passphrase) -> Result<Secret<32>, StoreError> {
    let path = home.join(NAME);
    let io = |source| StoreError::Io {
        what: "read the key file",
        source,
    };
    if std::fs::metadata(&path).map_err(io)?.len() > MAX_BYTES {
        return Err(StoreError::KeyFile("far too long"));
    }
    let contents = std::fs::read(&path).map_err(io)?;
    let parsed = parse(&contents).map_err(|_| StoreError::KeyFile("not a key file"))?;
    if !parsed.cost.is_sane() {
        return Err(StoreError::KeyFile("absurd Argon2 parameters"));
    }
    let key = parsed.cost.derive(passphrase, &parsed.salt)?;
    let header = header(&parsed.cost, &parsed.salt, &parsed.nonce);
    let master = XChaCha20Poly1305::new(key.expose().into())
        .decrypt(
            &parsed.nonce.into(),
            Payload {
                msg: parsed.wrapped,
                aad: &header,
            },
        )
        .map(Zeroizing::new)
        .map_err(|_| StoreError::WrongPassphrase)?;
    let master = master
        .as_slice()
        .try_into()
        .map_err(|_| StoreError::KeyFile("wrong length"))?;
    Ok(Secret::new(master))
}

struct Parsed<'a> {
    cost: KdfCost,
    salt: [u8; 16],
    nonce: [u8; 24],
    wrapped: &'a [u8],
}

fn parse(contents: &[u8]) -> Result<Parsed<'_>, WireError> {
    let mut reader = Reader::new(contents);
    if reader.bytes(LABEL.len(), "label")? != LABEL.as_bytes() {
        return Err(WireError::Invalid("label"));
    }
    let cost = KdfCost {
        memory_kib: reader.u32()?,
        passes: reader.u32()?,
        lanes: reader.u32()?,
    };
    let (salt, nonce) = (reader.fixed()?, reader.fixed()?);
    let wrapped = reader.bytes(WRAPPED_BYTES, "wrapped key")?;
    reader.finish()?;
    Ok(Parsed {
        cost,
        salt,
        nonce,
        wrapped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rossby_seams::random::SeededRandom;

    #[test]
    fn a_changed_byte_anywhere_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::new("swordfish").unwrap();
        let master = Secret::new([5; 32]);
        let random = SeededRandom::new(1);
        write(home.path(), &master, &passphrase, KdfCost::NONE, &random).unwrap();
        assert_eq!(read(home.path(), &passphrase).unwrap(), master);
        let good = std::fs::read(home.path().join(NAME)).unwrap();
        for at in 0..good.len() {
            // The high bytes of the cost would make the test slow, and are the next test's.
            if (22..34).contains(&at) {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(home.path().join(NAME), &bad).unwrap();
            assert!(read(home.path(), &passphrase).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_file_that_asks_for_absurd_work_is_refused_at_once() {
        let home = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::new("swordfish").unwrap();
        let cost = KdfCost {
            memory_kib: u32::MAX,
            passes: u32::MAX,
            lanes: 1,
        };
        let header = header(&cost, &[0; 16], &[0; 24]);
        let contents = [&header[..], &48_u32.to_be_bytes(), &[0; 48]].concat();
        std::fs::write(home.path().join(NAME), contents).unwrap();
        assert!(matches!(
            read(home.path(), &passphrase),
            Err(StoreError::KeyFile(_))
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
