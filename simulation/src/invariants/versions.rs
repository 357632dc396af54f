//! A linearizability check for objects that only ever go up: the end of a queue, a cursor, a counter.
//!
//! Such an object passes through its levels in order, so the order of the writes is known and only
//! their points in time are not. The check is complete: give each level the earliest point that it can
//! have (not before somebody asked for it, not before the level below it, not before a read of that
//! level began), and see whether each reply that depends on it came after that point.

use std::collections::BTreeMap;

use crate::oracle::Moment;

/// What is known of one level.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    /// When it was first asked for.
    asked: Option<Moment>,
    /// The first reply that shows that it had been reached.
    reached_by: Option<Moment>,
    /// When the last of those calls began that saw just this level.
    last_read: Option<Moment>,
}

/// The history of one object.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    levels: BTreeMap<u64, Level>,
    /// Replies in their order, with the highest level shown so far.
    floors: Vec<(Moment, u64)>,
}

impl Versions {
    /// Somebody asks for what would bring the object to this level. It begins at level 0.
    pub fn asks(&mut self, level: u64, now: Moment) {
        if level == 0 {
            return;
        }
        self.levels
            .entry(level)
            .or_default()
            .asked
            .get_or_insert(now);
    }

    /// A reply shows that the object had reached this level.
    pub fn reached(&mut self, level: u64, now: Moment) {
        let entry = self.levels.entry(level).or_default();
        entry.reached_by.get_or_insert(now);
        let before = self.floors.last().map_or(0, |(_, floor)| *floor);
        self.floors.push((now, before.max(level)));
    }

    /// A call saw the object at this very level.
    ///
    /// # Errors
    /// The higher level that an earlier reply had shown before the call began.
    pub fn read(&mut self, level: u64, began: Moment, now: Moment) -> Result<(), u64> {
        let known = self.floors.partition_point(|(at, _)| *at < began);
        let floor = known
            .checked_sub(1)
            .and_then(|last| self.floors.get(last))
            .map_or(0, |(_, floor)| *floor);
        if floor > level {
            return Err(floor);
        }
        let entry = self.levels.entry(level).or_default();
        entry.last_read = entry.last_read.max(Some(began));
        self.reached(level, now);
        Ok(())
    }

    /// Whether there are points in time that explain all replies.
    ///
    /// # Errors
    /// The level that some reply shows before it can have been reached.
    pub fn check(&self) -> Result<(), u64> {
        let mut earliest = Moment::default();
        for (number, level) in &self.levels {
            let point = earliest.max(level.asked.unwrap_or_default());
            if level.reached_by.is_some_and(|by| by < point) {
                return Err(*number);
            }
            // A level that was only asked for may never have been.
            if level.reached_by.is_some() {
                earliest = point.max(level.last_read.unwrap_or_default());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(moment: u64) -> Moment {
        Moment(moment)
    }

    #[test]
    fn overlapping_calls_may_see_either_level() {
        let mut versions = Versions::default();
        versions.asks(1, at(10));
        versions.read(1, at(12), at(14)).unwrap();
        versions.read(0, at(13), at(16)).unwrap();
        versions.reached(1, at(20));
        assert_eq!(versions.check(), Ok(()));
    }

    #[test]
    fn a_read_of_what_is_known_to_be_past_is_stale() {
        let mut versions = Versions::default();
        versions.asks(1, at(1));
        versions.reached(1, at(2));
        assert_eq!(versions.read(0, at(3), at(4)), Err(1));
    }

    #[test]
    fn a_level_seen_before_it_was_asked_for_is_caught() {
        let mut versions = Versions::default();
        versions.read(1, at(1), at(2)).unwrap();
        versions.asks(1, at(3));
        assert_eq!(versions.check(), Err(1));
    }

    #[test]
    fn levels_that_can_not_be_ordered_are_caught_although_no_read_is_stale() {
        // Level 2 is seen by 20, but level 1 only came to be asked for at 30.
        let mut versions = Versions::default();
        versions.asks(2, at(10));
        versions.read(2, at(11), at(20)).unwrap();
        versions.asks(1, at(30));
        versions.reached(1, at(40));
        assert_eq!(versions.check(), Err(2));
    }

    proptest! {
        /// Calls with random spans and points in them, over an object that goes up at known points.
        #[test]
        fn what_has_points_is_accepted_and_a_reply_before_its_time_is_not(
            writes in proptest::collection::vec((0..20_u64, 1..20_u64, 1..20_u64), 1..20),
            reads in proptest::collection::vec((0..400_u64, 0..30_u64, 0..30_u64), 0..40),
        ) {
            let mut events = Vec::new();
            let mut points = Vec::new();
            let mut point = 0;
            for (level, (before, gap, after)) in (1..).zip(&writes) {
                point += gap;
                points.push((point, level));
                events.push((point.saturating_sub(*before), 0, level, 0));
                events.push((point + after, 1, level, 0));
            }
            for (at, before, after) in &reads {
                let level = points.iter().filter(|(point, _)| point <= at).count() as u64;
                events.push((at + after, 2, level, at.saturating_sub(*before)));
            }
            // At one moment: what is asked for comes before what is answered.
            events.sort_unstable();
            let moment = |time: u64, kind: u64| Moment(time * 4 + kind);
            let mut versions = Versions::default();
            for (time, kind, level, began) in &events {
                match kind {
                    0 => versions.asks(*level, moment(*time, 0)),
                    1 => versions.reached(*level, moment(*time, 3)),
                    _ => versions.read(*level, moment(*began, 0), moment(*time, 3)).unwrap(),
                }
            }
            prop_assert_eq!(versions.check(), Ok(()));
            // One more level, seen at a moment that is over before it is asked for.
            let next = writes.len() as u64 + 1;
            let end = events.last().map_or(0, |(time, ..)| *time);
            versions.read(next, moment(end + 1, 0), moment(end + 2, 3)).unwrap();
            versions.asks(next, moment(end + 3, 0));
            prop_assert_eq!(versions.check(), Err(next));
        }
    }
}
