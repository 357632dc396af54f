//! Segment files: `<number>.wal`, filled to their full length before the first record is written.
//!
//! ```text
//!   sector 0   segment header {magic, format, number, salt, length, CRC}, {synced up to, CRC}
//!   sector 1.. records, then filler up to the end
//! ```
//!
//! The filler of a sector is eight bytes, made from the salt and the sector's number, repeated: a
//! sector that was never written is told from any that was, even from one that holds zeros. It is
//! also real data, so that no file system keeps it as a hole and allocates under an fdatasync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::wire::{Reader, Writer};
use rossby_seams::disk::{Disk, DiskFile};

use super::WalError;
use super::record::{HEADER_BYTES, Header, Kind, Place, SECTOR_BYTES, span};

/// The version of the format of segments and records.
pub(super) const FORMAT: u32 = 1;
/// Where the first record of a segment stands.
pub(super) const FIRST_RECORD: u32 = SECTOR_BYTES as u32;

const MAGIC: u64 = u64::from_be_bytes(*b"RossbyWL");
const HEADER_FIELDS: usize = 32;
/// Where the second part of the header begins: two numbers and their checksum.
const SYNCED_AT: usize = HEADER_FIELDS + 4;
const SYNCED_BYTES: usize = 12;
/// How much filler is made in memory at a time.
const FILL_PIECE_BYTES: u32 = 1 << 20;
const SUFFIX: &str = "wal";
const UNFINISHED_SUFFIX: &str = "wal-unfinished";

/// A segment that is complete on disk.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    /// Goes into every checksum and the filler. Comes out of the log's own content, so nobody
    /// outside can write bytes that look like a record.
    pub(super) salt: u64,
    pub(super) bytes: u32,
    /// The end of the last drain when this segment was begun to be made: the log reaches that far.
    pub(super) synced_upto: Place,
    pub(super) path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Opens a segment and checks its header.
    pub(super) fn open(disk: &dyn Disk, path: &Path, number: u32) -> Result<Self, WalError> {
        let damaged = |what| WalError::Corrupt {
            path: path.to_owned(),
            offset: 0,
            what,
        };
        let file = disk.open(path).map_err(WalError::io("open", path))?;
        let length = file.len().map_err(WalError::io("measure", path))?;
        let mut sector = [0; SECTOR_BYTES];
        if length < SECTOR_BYTES as u64 {
            return Err(damaged("the segment is too short"));
        }
        file.read_exact_at(&mut sector, 0)
            .map_err(WalError::io("read", path))?;
        let header = SegmentHeader::decode(&sector).ok_or_else(|| damaged("bad segment header"))?;
        if header.format != FORMAT {
            let (found, supported) = (header.format, FORMAT);
            return Err(WalError::UnknownVersion {
                path: path.to_owned(),
                found,
                supported,
            });
        }
        if header.number != number || u64::from(header.bytes) != length {
            return Err(damaged("the segment header is that of another file"));
        }
        Ok(Self {
            number,
            salt: header.salt,
            bytes: header.bytes,
            synced_upto: header.synced_upto,
            path: path.to_owned(),
            file,
        })
    }

    pub(super) fn place(&self, offset: u32) -> Place {
        Place {
            segment: self.number,
            offset,
        }
    }

    pub(super) fn corrupt(&self, offset: usize, what: &'static str) -> WalError {
        WalError::Corrupt {
            path: self.path.clone(),
            offset: offset as u64,
            what,
        }
    }

    /// The whole file.
    pub(super) fn read_all(&self) -> Result<Vec<u8>, WalError> {
        let mut bytes = vec![0; self.bytes as usize];
        self.file
            .read_exact_at(&mut bytes, 0)
            .map_err(WalError::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Writes and syncs.
    pub(super) fn write(&self, bytes: &[u8], offset: u32) -> Result<(), WalError> {
        let written = self.file.write_all_at(bytes, u64::from(offset));
        written.map_err(WalError::io("write", &self.path))?;
        self.file
            .sync_data()
            .map_err(WalError::io("sync", &self.path))
    }

    /// A planted bug: syncs what was written before, and writes.
    pub(super) fn write_unsynced(&self, bytes: &[u8], offset: u32) -> Result<(), WalError> {
        let synced = self.file.sync_data();
        synced.map_err(WalError::io("sync", &self.path))?;
        let written = self.file.write_all_at(bytes, u64::from(offset));
        written.map_err(WalError::io("write", &self.path))
    }

    /// Reads one record back and checks every byte of it.
    pub(super) fn read_record(
        &self,
        offset: u32,
        span: usize,
    ) -> Result<(Header, Bytes), WalError> {
        let mut bytes = vec![0; span];
        let read = self.file.read_exact_at(&mut bytes, u64::from(offset));
        read.map_err(WalError::io("read", &self.path))?;
        let damaged = || self.corrupt(offset as usize, "an entry is not what was written");
        let head = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
        let header = Header::decode(head, self.place(offset), self.salt).ok_or_else(damaged)?;
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = Bytes::from(bytes)
            .try_slice(HEADER_BYTES, end)
            .ok_or_else(damaged)?;
        if crc32c::crc32c(&body) != header.body_crc {
            return Err(damaged());
        }
        Ok((header, body))
    }

    /// What the segment's first record says it follows, if that is whole and the record it should be.
    pub(super) fn begin(&self) -> Result<Option<Place>, WalError> {
        let mut head = [0; HEADER_BYTES];
        let read = self.file.read_exact_at(&mut head, u64::from(FIRST_RECORD));
        read.map_err(WalError::io("read", &self.path))?;
        let header = Header::decode(&head, self.place(FIRST_RECORD), self.salt);
        let room = (self.bytes - FIRST_RECORD) as usize;
        let begin = header.filter(|header| header.kind == Kind::Begin);
        let Some(begin) = begin.filter(|begin| span(begin.body_bytes as usize) <= room) else {
            return Ok(None);
        };
        match self.read_record(FIRST_RECORD, span(begin.body_bytes as usize)) {
            Ok(_) => Ok(Some(begin.synced_upto)),
            Err(WalError::Corrupt { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Whether a sector of this segment still holds its filler.
    pub(super) fn is_unwritten(&self, sector: usize, bytes: &[u8]) -> bool {
        let filler = filler(self.salt, sector);
        bytes.starts_with(&filler) && bytes == filler.repeat(SECTOR_BYTES / filler.len())
    }
}

trait TrySlice: Sized {
    fn try_slice(&self, start: usize, end: usize) -> Option<Self>;
}

impl TrySlice for Bytes {
    fn try_slice(&self, start: usize, end: usize) -> Option<Self> {
        (start <= end && end <= self.len()).then(|| self.slice(start..end))
    }
}

struct SegmentHeader {
    format: u32,
    number: u32,
    salt: u64,
    bytes: u32,
    synced_upto: Place,
}

impl SegmentHeader {
    fn encode(&self) -> [u8; SECTOR_BYTES] {
        let fields = Writer::default()
            .u64(MAGIC)
            .u32(self.format)
            .u32(self.number)
            .u64(self.salt)
            .u32(self.bytes)
            .u32(0)
            .finish();
        let mut sector = [0; SECTOR_BYTES];
        let synced = self.encode_synced();
        let (head, rest) = sector.split_at_mut(HEADER_FIELDS);
        head.copy_from_slice(&fields);
        if let Some(crc) = rest.first_chunk_mut() {
            *crc = crc32c::crc32c(head).to_be_bytes();
        }
        if let Some(place) = sector.get_mut(SYNCED_AT..SYNCED_AT + SYNCED_BYTES) {
            place.copy_from_slice(&synced);
        }
        sector
    }

    /// Its checksum covers the salt, so that it is not taken for another segment's.
    fn encode_synced(&self) -> [u8; SYNCED_BYTES] {
        let mut bytes = [0; SYNCED_BYTES];
        let (place, crc) = bytes.split_at_mut(SYNCED_BYTES - 4);
        let (segment, offset) = place.split_at_mut(4);
        segment.copy_from_slice(&self.synced_upto.segment.to_be_bytes());
        offset.copy_from_slice(&self.synced_upto.offset.to_be_bytes());
        let seed = crc32c::crc32c(&self.salt.to_be_bytes());
        crc.copy_from_slice(&crc32c::crc32c_append(seed, place).to_be_bytes());
        bytes
    }

    /// Later formats keep magic, format and checksum where they are, so that a newer log is told
    /// from a damaged one.
    fn decode(sector: &[u8; SECTOR_BYTES]) -> Option<Self> {
        let (head, rest) = sector.split_at(HEADER_FIELDS);
        let mut reader = Reader::new(head);
        let magic = reader.u64().ok()?;
        let synced = sector.get(SYNCED_AT..SYNCED_AT + SYNCED_BYTES)?;
        let mut place = Reader::new(synced);
        let header = Self {
            format: reader.u32().ok()?,
            number: reader.u32().ok()?,
            salt: reader.u64().ok()?,
            bytes: reader.u32().ok()?,
            synced_upto: Place {
                segment: place.u32().ok()?,
                offset: place.u32().ok()?,
            },
        };
        let sound =
            magic == MAGIC && rest.first_chunk() == Some(&crc32c::crc32c(head).to_be_bytes());
        let known = header.format != FORMAT || header.encode_synced() == synced;
        (sound && known).then_some(header)
    }
}

fn filler(salt: u64, sector: usize) -> [u8; 8] {
    mix(salt ^ sector as u64).to_be_bytes()
}

/// Spreads every bit over all others (the finaliser of SplitMix64, Steele et al. 2014).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The segment files in a folder, oldest first. What is left of one whose making was interrupted
/// is removed.
pub(super) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u32, PathBuf)>, WalError> {
    let mut segments = Vec::new();
    for path in disk
        .list(directory)
        .map_err(WalError::io("list", directory))?
    {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        match (suffix, stem.and_then(|stem| stem.parse().ok())) {
            (Some(UNFINISHED_SUFFIX), Some::<u32>(_)) => remove(disk, &path)?,
            (Some(SUFFIX), Some(number)) if number > 0 => segments.push((number, path)),
            _ => {}
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Removes a file for good.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), WalError> {
    disk.remove(path).map_err(WalError::io("remove", path))?;
    let directory = path.parent().unwrap_or(path);
    disk.sync_directory(directory)
        .map_err(WalError::io("sync", directory))
}

/// A segment in the making: filled piece by piece, so that nobody waits for the whole.
#[derive(Debug)]
pub(super) struct Preparation {
    header: SegmentHeader,
    directory: PathBuf,
    unfinished: PathBuf,
    file: Arc<dyn DiskFile>,
    filled: u32,
}

impl std::fmt::Debug for SegmentHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentHeader")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Preparation {
    pub(super) fn start(
        disk: &dyn Disk,
        directory: &Path,
        number: u32,
        salt: u64,
        bytes: u32,
        synced_upto: Place,
    ) -> Result<Self, WalError> {
        let unfinished = directory.join(format!("{number:010}.{UNFINISHED_SUFFIX}"));
        let file = disk
            .create(&unfinished)
            .map_err(WalError::io("create", &unfinished))?;
        let header = SegmentHeader {
            format: FORMAT,
            number,
            salt,
            bytes,
            synced_upto,
        };
        Ok(Self {
            header,
            directory: directory.to_owned(),
            unfinished,
            file,
            filled: 0,
        })
    }

    pub(super) fn filled(&self) -> u32 {
        self.filled
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled >= self.header.bytes
    }

    /// Fills at most `limit` bytes more (rounded up to a sector), then syncs.
    ///
    /// # Errors
    /// What was filled before this call stays; the next call does this one's work again.
    pub(super) fn step(&mut self, limit: u32) -> Result<(), WalError> {
        let end = self.filled.saturating_add(limit).min(self.header.bytes);
        let mut filled = self.filled;
        while filled < end {
            let piece = self.piece(filled, end);
            let written = self.file.write_all_at(&piece, u64::from(filled));
            written.map_err(WalError::io("fill", &self.unfinished))?;
            filled += piece.len() as u32;
        }
        let synced = self.file.sync_data();
        synced.map_err(WalError::io("sync", &self.unfinished))?;
        self.filled = filled;
        Ok(())
    }

    /// What a fresh segment holds from byte `start`, where a sector begins, up to the end of the
    /// sector that holds `end`; or less, if that is more than one piece.
    fn piece(&self, start: u32, end: u32) -> Vec<u8> {
        let first = start / FIRST_RECORD;
        let last = end
            .min(start.saturating_add(FILL_PIECE_BYTES))
            .div_ceil(FIRST_RECORD);
        let mut piece = Vec::with_capacity((last - first) as usize * SECTOR_BYTES);
        for sector in first..last {
            match sector {
                0 => piece.extend_from_slice(&self.header.encode()),
                _ => {
                    let filler = filler(self.header.salt, sector as usize);
                    piece.extend_from_slice(&filler.repeat(SECTOR_BYTES / filler.len()));
                }
            }
        }
        piece
    }

    /// Gives the filled segment its name. Only after this returns is it used.
    pub(super) fn finish(&self, disk: &dyn Disk) -> Result<Segment, WalError> {
        let path = self
            .directory
            .join(format!("{:010}.{SUFFIX}", self.header.number));
        disk.rename(&self.unfinished, &path)
            .map_err(WalError::io("rename", &self.unfinished))?;
        let synced = disk.sync_directory(&self.directory);
        synced.map_err(WalError::io("sync", &self.directory))?;
        Ok(Segment {
            number: self.header.number,
            salt: self.header.salt,
            bytes: self.header.bytes,
            synced_upto: self.header.synced_upto,
            path,
            file: Arc::clone(&self.file),
        })
    }
}
