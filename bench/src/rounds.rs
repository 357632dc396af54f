//! When checkpoints were written, and which operations were under way meanwhile.
//!
//! A node tells only how many it has begun and ended, so a round is known as exactly as it was looked
//! for: it lasts from when the last look was asked at which it had not begun, until the first was answered
//! at which it had ended.

use crate::drive::Sample;

/// What a node told at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// When it was asked, in milliseconds since the measuring began.
    pub asked_ms: u32,
    /// When it had answered: what it told was so at some time between.
    pub answered_ms: u32,
    /// Rounds begun since the node started.
    pub begun: u64,
    /// Rounds ended since then.
    pub ended: u64,
}

/// A time in which a node wrote at least one checkpoint, in milliseconds since the measuring began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// From.
    pub from_ms: u32,
    /// To.
    pub to_ms: u32,
}

/// When one node wrote checkpoints, by what it told, earliest first; and how many it began.
#[must_use]
pub fn spells(looks: &[Look]) -> (Vec<Spell>, u64) {
    let mut spells = Vec::new();
    let mut open: Option<u32> = looks
        .first()
        .and_then(|look| (look.begun > look.ended).then_some(look.asked_ms));
    let mut rounds = u64::from(open.is_some());
    for pair in looks.windows(2) {
        let [before, now] = pair else { continue };
        let begun = now.begun.saturating_sub(before.begun);
        rounds += begun;
        if begun > 0 {
            open = open.or(Some(before.asked_ms));
        }
        if now.begun <= now.ended
            && let Some(from_ms) = open.take()
        {
            spells.push(Spell {
                from_ms,
                to_ms: now.answered_ms,
            });
        }
    }
    if let (Some(from_ms), Some(last)) = (open, looks.last()) {
        spells.push(Spell {
            from_ms,
            to_ms: last.answered_ms,
        });
    }
    (spells, rounds)
}

/// The operations that were under way in one of the spells, and the others.
#[must_use]
pub fn split(samples: &[Sample], spells: &[Spell]) -> (Vec<Sample>, Vec<Sample>) {
    samples.iter().partition(|sample| {
        let began_ms = sample.ended_ms.saturating_sub(sample.took_us / 1000);
        let meets = |spell: &Spell| began_ms <= spell.to_ms && sample.ended_ms >= spell.from_ms;
        spells.iter().any(meets)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(told: &[(u32, u64, u64)]) -> Vec<Look> {
        let look = |&(asked_ms, begun, ended): &(u32, u64, u64)| Look {
            asked_ms,
            answered_ms: asked_ms + 7,
            begun,
            ended,
        };
        told.iter().map(look).collect()
    }

    fn spell(from_ms: u32, to_ms: u32) -> Spell {
        Spell { from_ms, to_ms }
    }

    #[test]
    fn a_round_lasts_from_the_look_before_it_to_the_look_after() {
        let told = looks(&[
            (0, 4, 4),
            (100, 4, 4),
            (200, 5, 4),
            (300, 5, 4),
            (400, 5, 5),
        ]);
        assert_eq!(spells(&told), (vec![spell(100, 407)], 1));
        // Begun and ended between two looks.
        let told = looks(&[(0, 4, 4), (100, 6, 6), (200, 6, 6)]);
        assert_eq!(spells(&told), (vec![spell(0, 107)], 2));
    }

    #[test]
    fn rounds_that_do_not_begin_or_end_in_the_measured_time_count_for_what_is_in_it() {
        let told = looks(&[(0, 5, 4), (100, 5, 5), (200, 5, 5), (300, 6, 5)]);
        assert_eq!(spells(&told), (vec![spell(0, 107), spell(200, 307)], 2));
        assert_eq!(spells(&[]), (Vec::new(), 0));
        assert_eq!(spells(&looks(&[(0, 1, 1)])), (Vec::new(), 0));
    }

    #[test]
    fn an_operation_is_inside_if_any_of_it_was() {
        let sample = |ended_ms, took_us| Sample { ended_ms, took_us };
        let across = sample(250, 200_000);
        let (before, after) = (sample(90, 5_000), sample(260, 5_000));
        let (inside, outside) = split(&[before, across, after], &[spell(100, 200)]);
        assert_eq!(inside, [across]);
        assert_eq!(outside, [before, after]);
    }
}
