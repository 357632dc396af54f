//! Worlds, run as anybody runs them: by the command line.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::Path;
use std::process::{Command, Output};

/// Few enough for every change, many enough that leaders change and checkpoints are shipped.
const STEPS: &str = "150";

fn simulation(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rossby-simulation"));
    command.args(arguments).env_remove("RUST_LOG");
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Every observation of a world.
fn trace(seed: &str, into: &Path) -> String {
    let file = into.to_str().unwrap();
    let output = simulation(&["--seed", seed, "--steps", "80", "--trace", file]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    std::fs::read_to_string(into).unwrap()
}

/// Worlds that must hold every invariant; more and longer ones with `ROSSBY_LONG=1`. In parts, so
/// that the test runner can spread them.
fn hold(part: u64) {
    let (each, steps) = match std::env::var_os("ROSSBY_LONG") {
        Some(_) => (25, "300"),
        None => (5, STEPS),
    };
    let seeds = format!("{}..{}", part * each, (part + 1) * each);
    let output = simulation(&["--seeds", &seeds, "--steps", steps, "--jobs", "1"]);
    println!("{}", told(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_first_worlds_hold_every_invariant() {
    hold(0);
}

#[test]
fn the_second_worlds_hold_every_invariant() {
    hold(1);
}

#[test]
fn the_third_worlds_hold_every_invariant() {
    hold(2);
}

#[test]
fn the_fourth_worlds_hold_every_invariant() {
    hold(3);
}

#[test]
fn a_seed_shows_the_same_world_again_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let first = trace("5", &folder.path().join("first"));
    let again = trace("5", &folder.path().join("again"));
    let other = trace("6", &folder.path().join("other"));
    assert!(first.lines().count() > 500, "too short to show anything");
    let differs = first.lines().zip(again.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None);
    assert_eq!(first.len(), again.len());
    assert_ne!(first, other);
}

#[test]
fn a_set_of_worlds_without_a_change_of_leader_is_said_to_show_nothing() {
    let output = simulation(&["--seeds", "0..1", "--steps", "10", "--no-faults"]);
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    assert!(told(&output).contains("1 invalid"), "{}", told(&output));
}

#[test]
fn wrong_usage_is_refused_with_what_would_be_right() {
    for (arguments, hint) in [
        (&[][..], "--seed"),
        (&["--seeds", "9..3"][..], "0..20"),
        (&["--seed", "1", "--plant", "no-such-bug"][..], "dedupe-off"),
    ] {
        let output = simulation(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = told(&output);
        assert!(told.contains(hint), "{arguments:?}: {told}");
    }
}

#[test]
#[cfg(not(feature = "planted-bugs"))]
fn a_build_without_planted_bugs_says_so() {
    let output = simulation(&["--seed", "1", "--plant", "dedupe-off"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("--features planted-bugs"));
}
