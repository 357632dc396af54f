//! What the clocks of a world may have said.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;

use crate::observe::{SimTime, Who};

/// How far a clock may be from a quorum's and still stamp, in milliseconds.
const SKEW_MS: i64 = 10_000;

/// How far what a quorum's clocks agree on may ever have been from the world's time. One clock alone
/// expires nothing, however wrong it is, but where it is the only voter's. Two may: of three or five voters, two or three
/// that are heard are a quorum.
#[derive(Debug, Clone, Default)]
pub(super) struct Clocks {
    pub(super) wall: Timestamp,
    /// How long a letter waits at most; the design's limit if the world did not say.
    pub(super) envelope_ttl_ms: Option<u64>,
    /// How long an identifier stays at least that another box has proven; as above.
    pub(super) reset_delay_ms: Option<u64>,
    pub(super) offsets: BTreeMap<Who, i64>,
    /// The nodes that have been the only voter of a group.
    alone: BTreeSet<Who>,
    lowest_ms: i64,
    highest_ms: i64,
    /// How far any clock ever was from the world's time.
    behind_ms: i64,
    ahead_ms: i64,
    /// What clocks have gained that ran fast. A leader goes on by that from the last time that was stamped.
    gained_ms: i64,
}

impl Clocks {
    /// Notes a node, and its offset if that is told.
    pub(super) fn note(&mut self, node: Who, offset_ms: Option<i64>) {
        let offset = self.offsets.entry(node).or_default();
        *offset = offset_ms.unwrap_or(*offset);
        self.behind_ms = self.behind_ms.min(*offset);
        self.ahead_ms = self.ahead_ms.max(*offset);
        let mut offsets: Vec<i64> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        // At least so many clocks are below, or above, what a quorum shows.
        let outvoted = usize::from(offsets.len() > 1);
        let low = offsets.get(outvoted).copied().unwrap_or(0);
        let high = offsets.iter().rev().nth(outvoted).copied().unwrap_or(0);
        let alone = self.alone.iter().filter_map(|who| self.offsets.get(who));
        for offset in alone.copied().chain([low, high]) {
            self.lowest_ms = self.lowest_ms.min(offset - SKEW_MS);
            self.highest_ms = self.highest_ms.max(offset + SKEW_MS);
        }
    }

    /// Notes a node whose clock will have run so far.
    pub(super) fn note_drift(&mut self, node: Who, upto_ms: i64) {
        let before = self.offsets.get(&node).copied().unwrap_or_default();
        self.gained_ms += (upto_ms - before).max(0);
        self.note(node, Some(upto_ms));
    }

    /// The earliest and the latest time that a command may have been stamped with. Who stamps shows its own clock, or the last
    /// stamp and the time since.
    pub(super) fn stamps(&self, at: SimTime) -> (u64, u64) {
        let earliest = self.lowest_ms.max(self.behind_ms);
        let latest = self.highest_ms.min(self.ahead_ms + self.gained_ms);
        (self.shown(at, earliest), self.shown(at, latest))
    }

    /// Notes a node that is the only voter of a group.
    pub(super) fn note_alone(&mut self, node: Who) {
        self.alone.insert(node);
        self.note(node, None);
    }

    /// How long a letter waits at most, in milliseconds.
    pub(super) fn limit_ms(&self) -> u64 {
        let limit = self.envelope_ttl_ms;
        limit.unwrap_or_else(|| Limits::default().envelope_ttl_ms)
    }

    fn shown(&self, at: SimTime, offset_ms: i64) -> u64 {
        let wall = self.wall.as_millis().saturating_add(at.0);
        wall.saturating_add_signed(offset_ms)
    }
}
