//! What a state that was restored from a backup must stay above.
//!
//! What happened between the backup and its restoring is not known there: how many sequences,
//! generations and serials were given out meanwhile, and to whom. Given out again they would stand
//! for something else, and a device that knows them already would take new mail for old, or
//! acknowledge it unseen. So all of them go on far above: at a floor made of the time of the
//! restoring, which rises from one restoring to the next, whatever backup each began from.

use serde::{Deserialize, Serialize};

use crate::ids::Sequence;
use crate::time::Timestamp;

/// How far apart the floors of two restorings are that are a second apart: more than any box or
/// directory can count in a second. 2^53 is reached in the year 2242.
const PER_SECOND: u64 = 1 << 20;

/// When a partition's state was last restored from a backup, and what that means for what it gives
/// out. The default is a state that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restored {
    /// When; zero if never. No request that was signed up to then may be accepted: whoever led
    /// before may have accepted it.
    pub at: Timestamp,
    /// Device tokens of this generation and below are not accepted any more; zero if all are.
    pub refused_tokens: u64,
}

impl Restored {
    /// The mark of a state that is restored now, on top of that of the backup. With `revoke` no
    /// token that was ever given out is accepted any more.
    #[must_use]
    pub fn again(self, now: Timestamp, revoke: bool) -> Self {
        let mut next = Self {
            at: self.at.max(now),
            refused_tokens: self.refused_tokens,
        };
        if revoke {
            next.refused_tokens = next.floor();
        }
        next
    }

    /// Generations and serials that were given out before are all at or below this.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.at.as_secs().saturating_mul(PER_SECOND)
    }

    /// Sequences that were given out before are all at or below this.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        Sequence(self.floor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn the_floor_rises_with_every_restoring_from_whatever_backup() {
        let (first, later) = (Timestamp::from_millis(1_795_359_845_000), 60_000);
        let never = Restored::default();
        assert_eq!(never.floor(), 0);
        let once = never.again(first, false);
        let twice = once.again(first.plus_millis(later), false);
        let same_backup_again = never.again(first.plus_millis(later), false);
        assert!(once.floor() > 0 && twice.floor() > once.floor());
        assert_eq!(twice.floor(), same_backup_again.floor());
        // Room for a million a second in between, and for whoever counts in doubles.
        assert!(twice.floor() - once.floor() >= 60 * 1_000_000);
        assert!(twice.floor() + 100 * 365 * DAY * PER_SECOND < 1 << 53);
    }

    #[test]
    fn tokens_once_revoked_stay_so() {
        let at = Timestamp::from_millis(1_795_359_845_000);
        let revoked = Restored::default().again(at, true);
        assert_eq!(revoked.refused_tokens, revoked.floor());
        let later = revoked.again(at.plus_millis(5_000), false);
        assert_eq!(later.refused_tokens, revoked.refused_tokens);
        assert!(later.floor() > later.refused_tokens);
    }
}
