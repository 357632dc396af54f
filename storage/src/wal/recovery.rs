//! Reading the log back after any kind of stop.
//!
//! One drain at most was under way when the power went, and the disk may have written any of its
//! sectors. So at the end of the log, and only there, a record may be missing or torn:
//!
//! - it starts at or above every `synced_upto` that any record of the log carries, and
//! - one of its sectors still holds the filler of a sector that was never written.
//!
//! Then it was never reported durable and is dropped, with all that follows. Anything else that does
//! not read back is damage, and the log refuses to open; also if the log ends before what the header
//! of any segment says, which is how a lost file shows. What can not be told: the last drain's
//! sectors all turned back into filler after they were synced, by a disk that lies.
//!
//! Records at and above the highest `synced_upto` may never have been synced, even if they read back
//! now (they may come from the page cache), so they are written again and synced before anybody
//! hears of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::GroupId;
use rossby_seams::disk::Disk;

use super::WalError;
use super::index::Slot;
use super::ledger::{Change, Ledger};
use super::record::{HEADER_BYTES, Header, Kind, Place, SECTOR_BYTES, span};
use super::segment::{self, FIRST_RECORD, Segment, mix};

/// What the log holds.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) ledger: Ledger,
    pub(super) entries: BTreeMap<GroupId, VecDeque<Slot>>,
    /// Segments that hold records, by number.
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Where the last segment goes on; `None` after a torn tail: then a new one is needed.
    pub(super) continues_at: Option<u32>,
    /// Where the log ends.
    pub(super) end: Place,
    /// A segment that was prepared and not used.
    pub(super) prepared: Option<Segment>,
    /// No segment has this number or a higher one, but for the prepared one.
    pub(super) next_number: u32,
    pub(super) chain: u64,
    pub(super) sealed: bool,
    /// How many records were replayed.
    pub(super) records: u64,
}

/// What stands at a place of a segment.
enum Found {
    Record {
        header: Header,
        body: Range<usize>,
        next: usize,
    },
    /// The rest of the sector is padding.
    Padding,
    /// The sector was never written, or the segment ends.
    Unwritten,
    /// A record of which some sectors were never written.
    Torn,
    Damaged(&'static str),
}

/// A segment and its bytes.
struct Image {
    segment: Segment,
    bytes: Vec<u8>,
}

impl Image {
    fn load(segment: Segment) -> Result<Self, WalError> {
        let bytes = segment.read_all()?;
        Ok(Self { segment, bytes })
    }

    fn is_unwritten(&self, sector: usize) -> bool {
        let start = sector * SECTOR_BYTES;
        let bytes = self.bytes.get(start..start + SECTOR_BYTES);
        bytes.is_some_and(|bytes| self.segment.is_unwritten(sector, bytes))
    }

    fn header(&self, at: usize) -> Option<Header> {
        let bytes = self.bytes.get(at..)?.first_chunk()?;
        Header::decode(bytes, self.segment.place(at as u32), self.segment.salt)
    }

    fn look(&self, at: usize) -> Found {
        let sector = at / SECTOR_BYTES;
        if at >= self.bytes.len() || self.is_unwritten(sector) {
            return Found::Unwritten;
        }
        let slot = self.bytes.get(at..at + HEADER_BYTES).unwrap_or_default();
        if !at.is_multiple_of(SECTOR_BYTES) && slot.iter().all(|byte| *byte == 0) {
            return Found::Padding;
        }
        let Some(header) = self.header(at) else {
            return Found::Damaged("a record's header is not what was written");
        };
        let start = at + HEADER_BYTES;
        let body = start..start.saturating_add(header.body_bytes as usize);
        let Some(bytes) = self.bytes.get(body.clone()) else {
            return Found::Damaged("a record is longer than its segment");
        };
        if crc32c::crc32c(bytes) != header.body_crc {
            let mut rest = sector + 1..body.end.div_ceil(SECTOR_BYTES);
            return if rest.any(|sector| self.is_unwritten(sector)) {
                Found::Torn
            } else {
                Found::Damaged("a record's body is not what was written")
            };
        }
        if header.synced_upto > self.segment.place(at as u32) {
            return Found::Damaged("a record says that what follows it was there before it");
        }
        Found::Record {
            header,
            next: at + span(body.len()),
            body,
        }
    }

    /// The highest `synced_upto` of any record that starts at `from` or later, readable or not.
    fn highest_synced(&self, from: usize) -> Option<Place> {
        let sectors = from / SECTOR_BYTES..self.bytes.len() / SECTOR_BYTES;
        let written = sectors.filter(|sector| !self.is_unwritten(*sector));
        let slots = written.flat_map(|sector| {
            let start = sector * SECTOR_BYTES;
            (start..start + SECTOR_BYTES).step_by(HEADER_BYTES)
        });
        let headers = slots
            .filter(|at| *at >= from)
            .filter_map(|at| self.header(at));
        headers.map(|header| header.synced_upto).max()
    }

    fn is_unwritten_from(&self, at: usize) -> bool {
        (at.div_ceil(SECTOR_BYTES)..self.bytes.len() / SECTOR_BYTES).all(|s| self.is_unwritten(s))
    }
}

/// Replays records, oldest first.
struct Replay {
    ledger: Option<Ledger>,
    entries: BTreeMap<GroupId, BTreeMap<u64, Slot>>,
    highest_synced: Place,
    chain: u64,
    sealed: bool,
    records: u64,
}

impl Replay {
    /// Replays a segment up to `end`, or as far as it goes; where it stopped and at what.
    fn segment(&mut self, image: &Image, end: Option<u32>) -> Result<(usize, Found), WalError> {
        let mut at = FIRST_RECORD as usize;
        loop {
            if end.is_some_and(|end| at >= end as usize) {
                return Ok((at, Found::Unwritten));
            }
            match image.look(at) {
                Found::Record { header, body, next } => {
                    let bytes = image.bytes.get(body).unwrap_or_default();
                    let taken = self.record(image, at, &header, bytes);
                    taken.map_err(|what| image.segment.corrupt(at, what))?;
                    at = next;
                }
                Found::Padding => at = at.next_multiple_of(SECTOR_BYTES),
                stopped => return Ok((at, stopped)),
            }
        }
    }

    fn record(
        &mut self,
        image: &Image,
        at: usize,
        header: &Header,
        body: &[u8],
    ) -> Result<(), &'static str> {
        self.highest_synced = self.highest_synced.max(header.synced_upto);
        let head = header.encode(image.segment.place(at as u32), image.segment.salt);
        self.chain = mix(self.chain ^ u64::from(crc32c::crc32c(&head)));
        self.sealed = header.kind == Kind::Seal;
        self.records += 1;
        if header.kind == Kind::Begin {
            return match &self.ledger {
                _ if at != FIRST_RECORD as usize => Err("a segment begins in its middle"),
                Some(ledger) if ledger.encode() != body => {
                    Err("the segment does not go on from what the one before it holds")
                }
                Some(_) => Ok(()),
                None => {
                    let ledger = Ledger::decode(body).map_err(|_| "unreadable ledger")?;
                    self.ledger = Some(ledger);
                    Ok(())
                }
            };
        }
        let ledger = self
            .ledger
            .as_mut()
            .ok_or("a segment without a beginning")?;
        let body = Bytes::copy_from_slice(if header.kind == Kind::Vote { body } else { &[] });
        let change = Change {
            kind: header.kind,
            group: header.group,
            replica: header.replica,
            position: header.position,
            body: &body,
        };
        ledger.apply(change, image.segment.number)?;
        self.entries(image, at, header);
        Ok(())
    }

    fn entries(&mut self, image: &Image, at: usize, header: &Header) {
        let entries = self.entries.entry(header.group).or_default();
        match (header.kind, header.position) {
            (Kind::Entry, Some(position)) => {
                let place = image.segment.place(at as u32);
                let slot = Slot::written(position.term, header.body_bytes, place);
                entries.insert(position.index, slot);
            }
            (Kind::Truncate, Some(kept)) => {
                entries.split_off(&kept.index.saturating_add(1));
            }
            (Kind::Purge, Some(upto)) => {
                *entries = entries.split_off(&upto.index.saturating_add(1));
            }
            (Kind::Truncate, None) | (Kind::Remove, _) => entries.clear(),
            _ => {}
        }
    }
}

/// Reads all segments of a folder. Changes nothing but for what an interrupted creation left, and
/// for the tail, which is made durable.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    segment_bytes: u32,
) -> Result<Recovered, WalError> {
    let mut used = Vec::new();
    let mut unused = Vec::new();
    let mut next_number = 1;
    let mut promised = Place::default();
    for (number, path) in segment::list(disk, directory)? {
        let segment = Segment::open(disk, &path, number)?;
        next_number = number.saturating_add(1);
        promised = promised.max(segment.synced_upto);
        match segment.begin()? {
            Some(follows) => used.push((segment, follows)),
            None => unused.push(Image::load(segment)?),
        }
    }
    let empty = Replay {
        ledger: None,
        entries: BTreeMap::new(),
        highest_synced: promised,
        chain: 0,
        sealed: true,
        records: 0,
    };
    check_chain(&used, &unused)?;
    let mut recovered = replay(used, &unused, empty)?;
    recovered.next_number = next_number;
    recovered.prepared = keep_prepared(disk, unused, segment_bytes)?;
    Ok(recovered)
}

/// Segments follow each other without one missing, and none of those before the last is unused.
fn check_chain(used: &[(Segment, Place)], unused: &[Image]) -> Result<(), WalError> {
    for pair in used.windows(2) {
        if let [(before, _), (segment, follows)] = pair
            && follows.segment != before.number
        {
            return Err(segment.corrupt(0, "the segment before this one is missing"));
        }
    }
    let last = used.last().map_or(0, |(segment, _)| segment.number);
    match unused.iter().find(|image| image.segment.number < last) {
        Some(image) => Err(image
            .segment
            .corrupt(FIRST_RECORD as usize, "the segment has lost its beginning")),
        None => Ok(()),
    }
}

fn replay(
    used: Vec<(Segment, Place)>,
    unused: &[Image],
    mut replay: Replay,
) -> Result<Recovered, WalError> {
    let ends: Vec<Place> = used.iter().skip(1).map(|(_, follows)| *follows).collect();
    let mut segments = BTreeMap::new();
    let mut continues_at = None;
    let mut end = Place::default();
    let mut ends = ends.into_iter();
    for (segment, _) in used {
        let image = Image::load(segment)?;
        if let Some(end) = ends.next() {
            let (at, stopped) = replay.segment(&image, Some(end.offset))?;
            if at != end.offset as usize {
                let what = match stopped {
                    Found::Damaged(what) => what,
                    _ => "records are missing that were synced",
                };
                return Err(image.segment.corrupt(at, what));
            }
        } else {
            let at;
            (at, continues_at) = finish_tail(&image, unused, &mut replay)?;
            end = image.segment.place(at as u32);
        }
        segments.insert(image.segment.number, Arc::new(image.segment));
    }
    if let (true, Some(image)) = (segments.is_empty(), unused.first())
        && replay.highest_synced > Place::default()
    {
        let what = "the segments before this one are missing";
        return Err(image.segment.corrupt(0, what));
    }
    check_untouched(unused, replay.highest_synced)?;
    let ledger = replay.ledger.unwrap_or_default();
    let entries = check_entries(&ledger, replay.entries, &segments)?;
    Ok(Recovered {
        ledger,
        entries,
        segments,
        continues_at,
        end,
        prepared: None,
        next_number: 0,
        chain: replay.chain,
        sealed: replay.sealed,
        records: replay.records,
    })
}

/// Replays the last segment and settles where the log ends and whether it can go on there.
fn finish_tail(
    image: &Image,
    unused: &[Image],
    replay: &mut Replay,
) -> Result<(usize, Option<u32>), WalError> {
    let (at, stopped) = replay.segment(image, None)?;
    if let Found::Damaged(what) = stopped {
        return Err(image.segment.corrupt(at, what));
    }
    let here = image.highest_synced(at);
    let later = unused
        .iter()
        .filter_map(|image| image.highest_synced(FIRST_RECORD as usize));
    let seen = later
        .chain(here)
        .chain([replay.highest_synced])
        .max()
        .unwrap_or_default();
    if seen > image.segment.place(at as u32) {
        return Err(image
            .segment
            .corrupt(at, "records are missing that were synced"));
    }
    replay.highest_synced = seen;
    let intact = matches!(stopped, Found::Unwritten) && image.is_unwritten_from(at);
    let synced = if seen.segment == image.segment.number {
        seen.offset
    } else {
        FIRST_RECORD
    };
    let tail = image.bytes.get(synced as usize..at).unwrap_or_default();
    if !tail.is_empty() {
        image.segment.write(tail, synced)?;
    }
    Ok((
        at,
        intact.then_some(at.next_multiple_of(SECTOR_BYTES) as u32),
    ))
}

/// Of the segments that were not begun, one may hold a torn first drain; none may hold more.
fn check_untouched(unused: &[Image], highest_synced: Place) -> Result<(), WalError> {
    for image in unused {
        let first = FIRST_RECORD as usize;
        match image.look(first) {
            Found::Damaged(what) => return Err(image.segment.corrupt(first, what)),
            Found::Record { .. } | Found::Padding => {
                return Err(image
                    .segment
                    .corrupt(first, "a segment without a beginning"));
            }
            Found::Unwritten | Found::Torn => {}
        }
        let seen = image
            .highest_synced(first)
            .unwrap_or_default()
            .max(highest_synced);
        if seen > image.segment.place(FIRST_RECORD) {
            return Err(image
                .segment
                .corrupt(first, "records are missing that were synced"));
        }
    }
    Ok(())
}

/// Every live entry must have been found.
fn check_entries(
    ledger: &Ledger,
    mut found: BTreeMap<GroupId, BTreeMap<u64, Slot>>,
    segments: &BTreeMap<u32, Arc<Segment>>,
) -> Result<BTreeMap<GroupId, VecDeque<Slot>>, WalError> {
    let mut entries = BTreeMap::new();
    for (id, group) in &ledger.groups {
        let slots = found.remove(id).unwrap_or_default();
        let live = group.range().map_or(0, |(first, last)| last - first + 1);
        let bounds = slots.first_key_value().zip(slots.last_key_value());
        let bounds = bounds.map(|((first, _), (last, _))| (*first, *last));
        if slots.len() as u64 != live || bounds != group.range() {
            let what = "older segments are missing that hold entries";
            return Err(match segments.first_key_value() {
                Some((_, segment)) => segment.corrupt(0, what),
                None => WalError::Closed,
            });
        }
        entries.insert(*id, slots.into_values().collect());
    }
    Ok(entries)
}

/// Keeps one prepared segment, if it has the right size, and removes the others, and those with a
/// torn first drain.
fn keep_prepared(
    disk: &dyn Disk,
    unused: Vec<Image>,
    segment_bytes: u32,
) -> Result<Option<Segment>, WalError> {
    let mut prepared = None;
    for image in unused {
        let untouched = image.is_unwritten_from(FIRST_RECORD as usize);
        if prepared.is_none() && untouched && image.segment.bytes == segment_bytes {
            prepared = Some(image.segment);
        } else {
            segment::remove(disk, &image.segment.path)?;
        }
    }
    Ok(prepared)
}

/// How far a segment reads on its own, whatever the others hold.
pub(super) fn readable(segment: Segment) -> Result<(u64, Option<WalError>), WalError> {
    let image = Image::load(segment)?;
    let mut records = 0;
    let mut at = FIRST_RECORD as usize;
    loop {
        match image.look(at) {
            Found::Record { next, .. } => {
                records += 1;
                at = next;
            }
            Found::Padding => at = at.next_multiple_of(SECTOR_BYTES),
            Found::Unwritten | Found::Torn => return Ok((records, None)),
            Found::Damaged(what) => return Ok((records, Some(image.segment.corrupt(at, what)))),
        }
    }
}
