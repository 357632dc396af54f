//! Worlds, run as anybody runs them: by the command line.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::path::Path;
use std::process::{Command, Output};

/// Few enough for every change, many enough that leaders change and checkpoints are shipped.
const STEPS: &str = "120";

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
fn trace(seed: &str, shape: &str, into: &Path) -> String {
    let file = into.to_str().unwrap();
    let world = ["--seed", seed, "--shape", shape, "--steps", "60"];
    let output = simulation(&[&world[..], &["--trace", file]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    std::fs::read_to_string(into).unwrap()
}

/// Worlds that must hold every invariant; more and longer ones with `ROSSBY_LONG=1`. In small parts,
/// so that the test runner can spread them and none takes long on a busy machine.
fn hold(part: u64) {
    let (each, steps) = match std::env::var_os("ROSSBY_LONG") {
        Some(_) => (10, "300"),
        None => (2, STEPS),
    };
    let seeds = format!("{}..{}", part * each, (part + 1) * each);
    let output = simulation(&["--seeds", &seeds, "--steps", steps, "--jobs", "1"]);
    println!("{}", told(&output));
    // That a part shows nothing is no failure: what counts is the whole.
    assert!(matches!(output.status.code(), Some(0 | 4)));
}

macro_rules! every_invariant_holds {
    ($($name:ident: $part:literal,)*) => {
        mod every_invariant_holds {
            $(
                #[test]
                fn $name() {
                    super::hold($part);
                }
            )*
        }
    };
}

every_invariant_holds! {
    in_the_first_worlds: 0,
    in_the_second_worlds: 1,
    in_the_third_worlds: 2,
    in_the_fourth_worlds: 3,
    in_the_fifth_worlds: 4,
    in_the_sixth_worlds: 5,
    in_the_seventh_worlds: 6,
    in_the_eighth_worlds: 7,
    in_the_ninth_worlds: 8,
    in_the_tenth_worlds: 9,
}

#[test]
fn a_world_in_which_leaders_change_and_checkpoints_are_shipped_is_among_them() {
    let output = simulation(&["--seeds", "20..24", "--steps", STEPS, "--jobs", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

/// Of the kinds that are drawn seldom, some in any case.
fn hold_with_regions(shape: &str, seeds: &str) {
    let world = ["--seeds", seeds, "--shape", shape, "--steps", STEPS];
    let output = simulation(&[&world[..], &["--jobs", "1"]].concat());
    println!("{}", told(&output));
    assert!(matches!(output.status.code(), Some(0 | 4)));
}

/// In these worlds a group is added, and a node comes by a token that another may not use. If other worlds belong to
/// their seeds some day, seeds near them show it.
#[test]
fn every_invariant_holds_with_three_regions_of_one_node_that_grow() {
    let folder = tempfile::tempdir().unwrap();
    let traces = ["100", "101"].map(|seed| {
        let file = folder.path().join(seed);
        let world = ["--seed", seed, "--shape", "3x1", "--steps", STEPS];
        let output = simulation(&[&world[..], &["--trace", file.to_str().unwrap()]].concat());
        println!("{}", told(&output));
        assert_eq!(output.status.code(), Some(0));
        std::fs::read_to_string(file).unwrap()
    });
    let seen = traces.concat();
    for what in [": group 4", "letting in by", "used before"] {
        assert!(seen.contains(what), "{what}");
    }
}

#[test]
fn every_invariant_holds_with_three_regions_of_three_nodes() {
    hold_with_regions("3x3", "100..101");
}

#[test]
fn a_seed_shows_the_same_world_again_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    for shape in ["one", "3x1"] {
        let first = trace("5", shape, &folder.path().join("first"));
        let again = trace("5", shape, &folder.path().join("again"));
        let other = trace("6", shape, &folder.path().join("other"));
        assert!(first.lines().count() > 300, "too short to show anything");
        let differs = first.lines().zip(again.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{shape}");
        assert_eq!(first.len(), again.len());
        assert_ne!(first, other);
    }
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
        (&["--seed", "1", "--shape", "9x9"][..], "3x3"),
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
