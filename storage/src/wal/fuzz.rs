//! What holds for the log's files. See [`crate::fuzz`].

use std::path::Path;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::{Disk as _, MemoryDisk};

use super::WalError;
use super::ledger::{Change, Ledger};
use super::record::{HEADER_BYTES, Header, Kind, Place, SECTOR_BYTES, span};
use super::recovery::{Recovered, recover};
use super::segment::{FIRST_RECORD, Preparation, Segment};
use crate::LogPosition;

const SEGMENT_BYTES: u32 = 16 << 10;
const SALT: u64 = 7;
const DIRECTORY: &str = "/wal";

/// A log. After a first byte of 0 the rest is the header of one record, after one of 255 the first
/// sector of a segment. After any other it is the records of a log, which get right checksums (see
/// [`Script`]): what recovery accepts it accepts again, as the same.
pub fn wal(data: &[u8]) -> bool {
    match data.split_first() {
        None => false,
        Some((0, head)) => header(head),
        Some((255, sector)) => first_sector(sector),
        Some((mode, records)) => log(*mode, records).unwrap_or(false),
    }
}

fn header(bytes: &[u8]) -> bool {
    let place = Place {
        segment: 1,
        offset: FIRST_RECORD,
    };
    let found = bytes
        .first_chunk::<HEADER_BYTES>()
        .and_then(|bytes| Some((bytes, Header::decode(bytes, place, SALT)?)));
    if let Some((bytes, header)) = &found {
        assert_eq!(header.encode(place, SALT), **bytes);
    }
    found.is_some()
}

/// A log of one segment whose first sector begins with any bytes.
fn first_sector(bytes: &[u8]) -> bool {
    let written = || {
        let disk = MemoryDisk::default();
        disk.create_directory(Path::new(DIRECTORY))
            .map_err(WalError::io("create", Path::new(DIRECTORY)))?;
        let script = Script::begin(&disk, 1, &[])?;
        let head = bytes.get(..SECTOR_BYTES).unwrap_or(bytes);
        script.segment.write(head, 0)?;
        Ok::<_, WalError>(disk)
    };
    written().is_ok_and(|disk| recovers(&disk))
}

fn log(mode: u8, records: &[u8]) -> Result<bool, WalError> {
    let disk = MemoryDisk::default();
    disk.create_directory(Path::new(DIRECTORY))
        .map_err(WalError::io("create", Path::new(DIRECTORY)))?;
    let mut script = Script::begin(&disk, mode, records)?;
    while script.step(&disk)? {}
    Ok(recovers(&disk))
}

fn recovers(disk: &MemoryDisk) -> bool {
    let directory = Path::new(DIRECTORY);
    let Ok(first) = recover(disk, directory, SEGMENT_BYTES) else {
        return false;
    };
    let again = recover(disk, directory, SEGMENT_BYTES);
    assert!(again.is_ok_and(|again| summary(&again) == summary(&first)));
    true
}

fn summary(log: &Recovered) -> (Bytes, Place, u64, usize, Option<u32>) {
    let entries = log.entries.values().map(|slots| slots.len()).sum();
    (
        log.ledger.encode(),
        log.end,
        log.chain,
        entries,
        log.continues_at,
    )
}

/// Writes records as the input says, seven bytes and a body each:
/// kind, flags, group and replica (a nibble each), term, index, `synced_upto` (sectors), length.
/// If bit 2 of the mode is set, two bytes come before all: the segment and the sector up to which the
/// log was synced, as the headers of all segments tell.
struct Script<'a> {
    input: &'a [u8],
    /// What the headers of segments tell.
    synced_upto: Place,
    segment: Segment,
    at: u32,
    ledger: Ledger,
}

const HAS_POSITION: u8 = 1;
const BAD_BODY: u8 = 2;
const TORN: u8 = 4;
const HUGE_INDEX: u8 = 8;
const NEW_SEGMENT: u8 = 16;
const SECTOR_END: u8 = 32;

impl<'a> Script<'a> {
    /// The first segment. If bit 1 of the mode is set, the input begins with the length of a ledger,
    /// which is put at its beginning as it is.
    fn begin(disk: &MemoryDisk, mode: u8, input: &'a [u8]) -> Result<Self, WalError> {
        let (synced_upto, input) = match input.split_first_chunk() {
            Some((&[segment, sector], rest)) if mode & 4 != 0 => {
                let place = Place {
                    segment: segment.into(),
                    offset: u32::from(sector) * SECTOR_BYTES as u32,
                };
                (place, rest)
            }
            _ => (Place::default(), input),
        };
        let (ledger, input) = match input.split_first() {
            Some((length, rest)) if mode & 2 != 0 => {
                let length = usize::from(*length).min(rest.len());
                let (ledger, input) = rest.split_at(length);
                (Bytes::copy_from_slice(ledger), input)
            }
            _ => (Ledger::default().encode(), input),
        };
        let mut script = Self {
            input,
            synced_upto,
            segment: prepare(disk, 1, synced_upto)?,
            at: FIRST_RECORD,
            ledger: Ledger::decode(&ledger).unwrap_or_default(),
        };
        script.write(
            Kind::Begin,
            GroupId(0),
            ReplicaId(0),
            None,
            &ledger,
            0,
            Place::default(),
        )?;
        Ok(script)
    }

    /// The next record; whether there was one.
    fn step(&mut self, disk: &MemoryDisk) -> Result<bool, WalError> {
        let Some((&[kind, flags, who, term, index, synced, length], rest)) =
            self.input.split_first_chunk()
        else {
            return Ok(false);
        };
        let (body, rest) = rest.split_at(usize::from(length).min(rest.len()));
        self.input = rest;
        if flags & NEW_SEGMENT != 0 && self.segment.number < 4 {
            let end = self.segment.place(self.at);
            self.segment = prepare(disk, self.segment.number + 1, self.synced_upto)?;
            self.at = FIRST_RECORD;
            let ledger = self.ledger.encode();
            self.write(Kind::Begin, GroupId(0), ReplicaId(0), None, &ledger, 0, end)?;
        }
        if flags & SECTOR_END != 0 {
            self.at = self.at.next_multiple_of(SECTOR_BYTES as u32);
        }
        let kinds = [
            Kind::Entry,
            Kind::Truncate,
            Kind::Purge,
            Kind::Vote,
            Kind::Committed,
            Kind::Remove,
            Kind::Seal,
        ];
        let kind = kinds
            .get(usize::from(kind) % 8)
            .copied()
            .unwrap_or(Kind::Begin);
        let index = match flags & HUGE_INDEX {
            0 => u64::from(index),
            _ => u64::MAX - u64::from(index),
        };
        let position = LogPosition {
            term: term.into(),
            index,
        };
        let synced = Place {
            segment: self.segment.number,
            offset: u32::from(synced) * SECTOR_BYTES as u32,
        };
        let (group, replica) = (GroupId((who >> 4).into()), ReplicaId((who & 15).into()));
        let position = (flags & HAS_POSITION != 0).then_some(position);
        self.write(kind, group, replica, position, body, flags, synced)?;
        Ok(true)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a record")]
    fn write(
        &mut self,
        kind: Kind,
        group: GroupId,
        replica: ReplicaId,
        position: Option<LogPosition>,
        body: &[u8],
        flags: u8,
        synced_upto: Place,
    ) -> Result<(), WalError> {
        let length = span(body.len()) as u32;
        if self.at + length > SEGMENT_BYTES {
            return Ok(());
        }
        let header = Header {
            kind,
            group,
            replica,
            position,
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body) ^ u32::from(flags & BAD_BODY),
            synced_upto,
        };
        let mut bytes = header.encode(self.segment.place(self.at), SALT).to_vec();
        if flags & TORN == 0 {
            bytes.extend_from_slice(body);
            bytes.resize(length as usize, 0);
        }
        // As a drain does, up to the end of the last sector that it touches.
        let end = (self.at as usize + bytes.len()).next_multiple_of(SECTOR_BYTES);
        bytes.resize(end - self.at as usize, 0);
        self.segment.write(&bytes, self.at)?;
        self.at += length;
        let body = &Bytes::copy_from_slice(body);
        let change = Change {
            kind,
            group,
            replica,
            position,
            body,
        };
        if kind != Kind::Begin {
            // What can't follow is written all the same: recovery must notice.
            let _ = self.ledger.apply(change, self.segment.number);
        }
        Ok(())
    }
}

fn prepare(disk: &MemoryDisk, number: u32, synced: Place) -> Result<Segment, WalError> {
    let directory = Path::new(DIRECTORY);
    let mut preparation = Preparation::start(disk, directory, number, SALT, SEGMENT_BYTES, synced)?;
    preparation.step(u32::MAX)?;
    preparation.finish(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::fuzz::replay::{replay, seed, with};

    #[test]
    fn the_corpus_of_logs_holds() {
        replay("wal", wal);
    }

    #[test]
    fn real_logs_are_accepted() {
        let place = Place {
            segment: 1,
            offset: FIRST_RECORD,
        };
        let head = Header {
            kind: Kind::Entry,
            group: GroupId(1),
            replica: ReplicaId(1),
            position: Some(LogPosition { term: 1, index: 4 }),
            body_bytes: 5,
            body_crc: 6,
            synced_upto: Place::default(),
        };
        seed(
            "wal",
            "seed-header",
            &with(0, &head.encode(place, SALT)),
            wal,
        );
        let entry = |index: u8| [0, 1, 0x11, 1, index, 0, 3, b'a', b'b', b'c'];
        let vote = [3, 0, 0x11, 0, 0, 0, 2, b'v', b'w'];
        let purge = [2, 1, 0x11, 1, 1, 0, 0];
        let truncate = [1, 1, 0x11, 1, 2, 0, 0];
        let second = [0, 1 | NEW_SEGMENT, 0x11, 1, 3, 0, 1, b'd'];
        let records = [
            entry(1).as_slice(),
            &vote,
            &entry(2),
            &entry(3),
            &purge,
            &truncate,
            &second,
            &[4, 1, 0x11, 1, 2, 0, 0],
            &[6, 0, 0x11, 0, 0, 0, 0],
        ]
        .concat();
        seed("wal", "seed-log", &with(1, &records), wal);
        let torn = [
            &records[..19],
            &[0, 1 | TORN, 0x11, 1, 2, 0, 200],
            &[7; 200],
        ]
        .concat();
        seed("wal", "seed-torn", &with(1, &torn), wal);
        let ledger = Ledger::default().encode();
        let with_ledger = [&[ledger.len() as u8], ledger.as_ref(), &records[..19]].concat();
        seed("wal", "seed-ledger", &with(3, &with_ledger), wal);
        let reached = [&[1, 2], records.as_slice()].concat();
        seed("wal", "seed-reached", &with(5, &reached), wal);
        let disk = MemoryDisk::default();
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        let sector = Script::begin(&disk, 1, &[]).unwrap().segment.read_all();
        let sector = sector.unwrap()[..SECTOR_BYTES].to_vec();
        seed("wal", "seed-first-sector", &with(255, &sector), wal);
    }
}
