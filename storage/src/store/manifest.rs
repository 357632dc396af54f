//! The manifest: which files are a group's checkpoint, and what the state beside them is.
//!
//! ```text
//!   magic (8) | length of body u32 | body: version byte, bincode | SHA-256 of all before (32)
//! ```

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_seams::disk;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::{REMEDY_REPLICA, StoreError};
use super::files::{FileName, GroupFiles};
use super::row_file::RowFileKind;
use crate::LogPosition;
use crate::codec::{self, CodecError, Versioned};

/// The features of apply that this build has. A checkpoint of a higher level is refused: this
/// build would not come to the same outcomes as the replica that wrote it.
pub(crate) const FEATURE_LEVEL: u32 = 1;

pub(super) const MAGIC: &[u8; 8] = b"RSBYMNFT";
const HEAD_BYTES: usize = MAGIC.len() + 4;
const DIGEST_BYTES: usize = 32;

/// What a checkpoint consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Whose state it is.
    pub(crate) group: GroupId,
    /// At which entry.
    pub(crate) position: LogPosition,
    /// The membership at that entry.
    pub(crate) membership: Option<(Option<LogPosition>, Bytes)>,
    /// The features of apply that were in use.
    pub(crate) feature_level: u32,
    /// The partitions that have rows, in order.
    pub(crate) partitions: Vec<PartitionFiles>,
}

/// The files of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionFiles {
    /// The partition.
    pub(crate) partition: PartitionId,
    /// All rows at some earlier point.
    pub(crate) base: FileName,
    /// Changes since then, oldest first.
    pub(crate) deltas: Vec<FileName>,
}

impl PartitionFiles {
    /// All files, oldest first.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileName> {
        std::iter::once(&self.base).chain(&self.deltas)
    }
}

impl Versioned for Manifest {
    /// That of checkpoints whose files have no index of their envelopes was 1.
    const VERSION: u8 = 2;
}

impl Manifest {
    /// All files, partition by partition.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileName> {
        self.partitions.iter().flat_map(PartitionFiles::files)
    }

    /// All files, each once, with what they should hold.
    pub(crate) fn contents(&self) -> BTreeSet<(PartitionId, RowFileKind, FileName)> {
        let of_partition = self.partitions.iter().flat_map(|files| {
            let deltas = files.deltas.iter().map(|name| (RowFileKind::Delta, *name));
            std::iter::once((RowFileKind::Base, files.base))
                .chain(deltas)
                .map(|(kind, name)| (files.partition, kind, name))
        });
        of_partition.collect()
    }

    pub(crate) fn encode(&self) -> Result<Bytes, CodecError> {
        let body = codec::encode_value(self)?;
        let length =
            u32::try_from(body.len()).map_err(|_| CodecError::TooLong { length: body.len() })?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len() + DIGEST_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        Ok(bytes.into())
    }

    /// The manifest in these bytes. `location` and `remedy` are for the error.
    pub(crate) fn decode(
        bytes: &[u8],
        location: &str,
        remedy: &'static str,
    ) -> Result<Self, StoreError> {
        let damaged = |detail: String| StoreError::Corrupt {
            what: "checkpoint manifest",
            location: location.to_owned(),
            detail,
            remedy,
        };
        let (rest, digest) = bytes
            .split_last_chunk::<DIGEST_BYTES>()
            .ok_or_else(|| damaged("it is too short".to_owned()))?;
        if Sha256::digest(rest) != *digest {
            return Err(damaged("its digest does not match".to_owned()));
        }
        let body = rest.strip_prefix(MAGIC).and_then(|rest| {
            let (length, body) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            (body.len() == length).then_some(body)
        });
        let body = body.ok_or_else(|| damaged("it is not a manifest".to_owned()))?;
        let newer = |found, supported| StoreError::Version {
            what: "checkpoint manifest",
            location: location.to_owned(),
            found,
            supported,
        };
        let manifest: Self = codec::decode_value(body).map_err(|error| match error {
            CodecError::Version { found, supported } => newer(found.into(), supported.into()),
            other => damaged(other.to_string()),
        })?;
        if manifest.feature_level > FEATURE_LEVEL {
            return Err(newer(manifest.feature_level, FEATURE_LEVEL));
        }
        let rising = manifest
            .partitions
            .is_sorted_by(|a, b| a.partition < b.partition);
        if rising {
            Ok(manifest)
        } else {
            Err(damaged("its partitions are out of order".to_owned()))
        }
    }

    /// The manifest on the disk, with its bytes; `None` if the group has none.
    pub(crate) fn load(files: &GroupFiles) -> Result<Option<(Self, Bytes)>, StoreError> {
        let path = files.manifest_path();
        let bytes = match disk::read(&*files.disk, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StoreError::io("read", &path))?,
        };
        let location = path.display().to_string();
        let manifest = Self::decode(&bytes, &location, REMEDY_REPLICA)?;
        if manifest.group != files.group {
            return Err(StoreError::WrongGroup {
                found: manifest.group,
                expected: files.group,
            });
        }
        Ok(Some((manifest, bytes.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file = |seed| FileName {
            digest: [seed; 32],
            length: 1000 + u64::from(seed),
        };
        let partition = |number, deltas: &[u8]| PartitionFiles {
            partition: PartitionId::new(number).unwrap(),
            base: file(1),
            deltas: deltas.iter().map(|seed| file(*seed)).collect(),
        };
        Manifest {
            group: GroupId(1),
            position: LogPosition { term: 3, index: 77 },
            membership: Some((
                Some(LogPosition { term: 1, index: 1 }),
                Bytes::from_static(b"m"),
            )),
            feature_level: FEATURE_LEVEL,
            partitions: vec![partition(2, &[]), partition(9, &[2, 3])],
        }
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, StoreError> {
        Manifest::decode(bytes, "here", REMEDY_REPLICA)
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        assert_eq!(decode(&manifest().encode().unwrap()).unwrap(), manifest());
    }

    #[test]
    fn any_flipped_bit_and_any_lost_byte_is_refused() {
        let bytes = manifest().encode().unwrap().to_vec();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(
                    matches!(decode(&flipped), Err(StoreError::Corrupt { .. })),
                    "{at}.{bit}"
                );
            }
            assert!(
                matches!(decode(&bytes[..at]), Err(StoreError::Corrupt { .. })),
                "{at}"
            );
        }
    }

    #[test]
    fn a_higher_feature_level_is_refused_by_its_number() {
        let newer = Manifest {
            feature_level: FEATURE_LEVEL + 1,
            ..manifest()
        };
        let result = decode(&newer.encode().unwrap());
        assert!(
            matches!(result, Err(StoreError::Version { found, .. }) if found == FEATURE_LEVEL + 1)
        );
    }
}
