//! What one record looks like on disk.
//!
//! ```text
//!   byte 0      4       5     6         8      12       16        24     32      40          48    52   60   64
//!        magic  kind  has   reserved   group  body     replica   term   index   synced_upto body  res. own
//!                     position                length                                        CRC         CRC
//!        body, padded with zeros to a multiple of 64
//! ```
//!
//! Records start at multiples of 64 bytes, so a header never straddles two sectors: after power loss
//! it is whole or unwritten. Its CRC also covers the segment's salt and the record's place, which are
//! not stored with it: bytes that a client sent, or a sector that the disk put in the wrong place, do
//! not pass for a record.

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};

use crate::LogPosition;

/// What the disk writes in one step, whatever happens to the power.
pub(super) const SECTOR_BYTES: usize = 512;
/// Bytes of a record before its body; also the alignment of records.
pub(super) const HEADER_BYTES: usize = 64;

const MAGIC: u32 = u32::from_be_bytes(*b"RsWr");
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// A place in the log. Places are ordered as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// The segment's number; 0 stands for "before all segments".
    pub(super) segment: u32,
    /// The byte in it.
    pub(super) offset: u32,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A segment begins; the body is the [`super::ledger::Ledger`] of all that came before.
    Begin = 1,
    /// An entry at `position`.
    Entry = 2,
    /// All entries after `position` (its term is not used), or all of them, are dropped.
    Truncate = 3,
    /// All entries up to `position` are dropped.
    Purge = 4,
    /// The vote is now the body.
    Vote = 5,
    /// The log is known to be committed up to `position`.
    Committed = 6,
    /// The replica is removed for good.
    Remove = 7,
    /// The log was closed in order; tells that all before it was synced.
    Seal = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        let all = [
            Self::Begin,
            Self::Entry,
            Self::Truncate,
            Self::Purge,
            Self::Vote,
            Self::Committed,
            Self::Remove,
            Self::Seal,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One change of the log, wherever it will be written.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: Option<LogPosition>,
    pub(super) body: Bytes,
}

impl Record {
    /// Bytes that the record takes in a segment.
    pub(super) fn span(&self) -> usize {
        span(self.body.len())
    }
}

/// Bytes that a record with a body of `body_bytes` takes in a segment.
pub(super) fn span(body_bytes: usize) -> usize {
    HEADER_BYTES
        .saturating_add(body_bytes)
        .div_ceil(HEADER_BYTES)
        .saturating_mul(HEADER_BYTES)
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) position: Option<LogPosition>,
    pub(super) body_bytes: u32,
    pub(super) body_crc: u32,
    /// The end of the last drain that was synced before this record was written.
    pub(super) synced_upto: Place,
}

impl Header {
    pub(super) fn encode(&self, place: Place, salt: u64) -> [u8; HEADER_BYTES] {
        let position = self.position.unwrap_or(LogPosition { term: 0, index: 0 });
        let fields = rossby_domain::wire::Writer::default()
            .u32(MAGIC)
            .u8(self.kind as u8)
            .u8(u8::from(self.position.is_some()))
            .u16(0)
            .u32(self.group.0)
            .u32(self.body_bytes)
            .u64(self.replica.0)
            .u64(position.term)
            .u64(position.index)
            .u32(self.synced_upto.segment)
            .u32(self.synced_upto.offset)
            .u32(self.body_crc)
            .u64(0)
            .finish();
        let mut bytes = [0; HEADER_BYTES];
        let (checked, crc) = bytes.split_at_mut(CHECKED_BYTES);
        checked.copy_from_slice(&fields);
        crc.copy_from_slice(&checksum(checked, place, salt).to_be_bytes());
        bytes
    }

    /// The header in these bytes, `None` if they are not one that was written at this place.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES], place: Place, salt: u64) -> Option<Self> {
        let (checked, crc) = bytes.split_at(CHECKED_BYTES);
        if crc != checksum(checked, place, salt).to_be_bytes() {
            return None;
        }
        let mut reader = rossby_domain::wire::Reader::new(checked);
        let magic = reader.u32().ok()?;
        let kind = Kind::from_byte(reader.u8().ok()?)?;
        let has_position = reader.u8().ok()?;
        let reserved = reader.u16().ok()?;
        let group = GroupId(reader.u32().ok()?);
        let body_bytes = reader.u32().ok()?;
        let replica = ReplicaId(reader.u64().ok()?);
        let position = LogPosition {
            term: reader.u64().ok()?,
            index: reader.u64().ok()?,
        };
        let synced_upto = Place {
            segment: reader.u32().ok()?,
            offset: reader.u32().ok()?,
        };
        let body_crc = reader.u32().ok()?;
        let known = magic == MAGIC && has_position <= 1 && reserved == 0;
        known.then_some(Self {
            kind,
            group,
            replica,
            position: (has_position == 1).then_some(position),
            body_bytes,
            body_crc,
            synced_upto,
        })
    }
}

fn checksum(checked: &[u8], place: Place, salt: u64) -> u32 {
    let mut seed = [0; 16];
    let (left, right) = seed.split_at_mut(8);
    left.copy_from_slice(&salt.to_be_bytes());
    let place = (u64::from(place.segment) << 32) | u64::from(place.offset);
    right.copy_from_slice(&place.to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let numbers = (any::<u32>(), any::<u64>(), any::<Option<(u64, u64)>>());
        let rest = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
        (1..=8_u8, numbers, rest).prop_map(|(kind, (group, replica, position), rest)| Header {
            kind: Kind::from_byte(kind).unwrap(),
            group: GroupId(group),
            replica: ReplicaId(replica),
            position: position.map(|(term, index)| LogPosition { term, index }),
            body_bytes: rest.0,
            body_crc: rest.1,
            synced_upto: Place {
                segment: rest.2,
                offset: rest.3,
            },
        })
    }

    proptest! {
        #[test]
        fn a_header_reads_back_at_its_place_only(
            header in header(), segment in 1..9_u32, offset in any::<u32>(), salt in any::<u64>(),
        ) {
            let place = Place { segment, offset };
            let bytes = header.encode(place, salt);
            prop_assert_eq!(Header::decode(&bytes, place, salt), Some(header));
            let elsewhere = Place { segment: segment + 1, offset };
            prop_assert_eq!(Header::decode(&bytes, elsewhere, salt), None);
            prop_assert_eq!(Header::decode(&bytes, place, salt ^ 1), None);
        }

        #[test]
        fn a_flipped_bit_is_seen(header in header(), bit in 0..HEADER_BYTES * 8) {
            let place = Place { segment: 1, offset: 512 };
            let mut bytes = header.encode(place, 7);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes, place, 7), None);
        }
    }

    #[test]
    fn spans_are_multiples_of_the_header() {
        assert_eq!([span(0), span(1), span(64), span(65)], [64, 128, 128, 192]);
    }
}
