use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NOON: u64 = 1_700_000_000_000;

fn judge_millis(own: u64, peers: &[u64], voters: usize) -> Verdict {
    let peers: Vec<Timestamp> = peers.iter().copied().map(Timestamp::from_millis).collect();
    judge(Timestamp::from_millis(own), &peers, voters)
}

#[test]
fn a_group_of_one_is_in_step_with_itself() {
    assert_eq!(judge_millis(NOON, &[], 1), Verdict::InStep);
}

#[test]
fn of_three_clocks_two_must_be_known() {
    assert_eq!(judge_millis(NOON, &[], 3), Verdict::Unknown);
    assert_eq!(judge_millis(NOON, &[NOON], 3), Verdict::InStep);
    assert_eq!(judge_millis(NOON, &[NOON + 1, NOON], 3), Verdict::InStep);
}

#[test]
fn the_one_wrong_clock_of_three_knows_it_and_the_others_go_on() {
    let wrong = NOON + MAX_SKEW_MS + 1;
    assert_eq!(judge_millis(wrong, &[NOON, NOON], 3), Verdict::OutOfStep);
    assert_eq!(judge_millis(NOON, &[wrong, NOON], 3), Verdict::InStep);
}

#[test]
fn two_clocks_that_disagree_stop_each_other() {
    let other = NOON + MAX_SKEW_MS + 1;
    assert_eq!(judge_millis(NOON, &[other], 3), Verdict::OutOfStep);
    assert_eq!(judge_millis(other, &[NOON], 3), Verdict::OutOfStep);
    assert_eq!(
        judge_millis(NOON, &[NOON + MAX_SKEW_MS], 3),
        Verdict::InStep
    );
}

proptest! {
    #[test]
    fn clocks_within_the_limit_of_each_other_are_in_step(
        base in 0..NOON, spread in vec(0..=MAX_SKEW_MS, 1..9)
    ) {
        let clocks: Vec<u64> = spread.iter().map(|offset| base + offset).collect();
        prop_assert_eq!(judge_millis(clocks[0], &clocks[1..], clocks.len()), Verdict::InStep);
    }

    #[test]
    fn a_minority_of_wrong_clocks_moves_nobody(
        right in vec(0..1000u64, 3..6), wrong in vec(any::<u64>(), 0..3)
    ) {
        let mut peers: Vec<u64> = right[1..].iter().map(|offset| NOON + offset).collect();
        peers.extend(&wrong[..wrong.len().min(right.len() - 1)]);
        let voters = peers.len() + 1;
        prop_assert_eq!(judge_millis(NOON + right[0], &peers, voters), Verdict::InStep);
    }

    #[test]
    fn a_clock_in_step_is_near_half_of_the_known_clocks(
        own in any::<u64>(), peers in vec(any::<u64>(), 0..8), voters in 1..9usize
    ) {
        let verdict = judge_millis(own, &peers, voters);
        prop_assert_eq!(verdict == Verdict::Unknown, peers.len() + 1 < voters / 2 + 1);
        if verdict == Verdict::InStep {
            let not_far_above = peers.iter().filter(|peer| **peer <= own.saturating_add(MAX_SKEW_MS)).count() + 1;
            let not_far_below = peers.iter().filter(|peer| peer.saturating_add(MAX_SKEW_MS) >= own).count() + 1;
            prop_assert!(not_far_above * 2 > peers.len());
            prop_assert!(not_far_below * 2 > peers.len());
        }
    }
}
