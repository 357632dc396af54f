//! The command line.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Parser};
use rossby_domain::planted::Bug;
use rossby_simulation::world::layout::Shape;

/// How many things the people of a world do if nothing else is said.
pub const STEPS: u64 = 300;

const AFTER: &str = "\
Examples:
  rossby-simulation --seeds 0..20             twenty worlds, as .ci/run has it
  rossby-simulation --seed 7                  one world, with its last events if something breaks
  rossby-simulation --seed 7 --trace 7.txt    the same world again, every observation in a file

Exit codes:
   0  every invariant held
   1  an invariant was broken: the command that shows it again is printed
   2  wrong command line
   3  no world could be run
   4  nothing was broken, but no world had both a change of leader and a shipped checkpoint:
      such a set of seeds shows nothing; take more seeds or more steps";

/// Runs worlds: a cluster of one or three regions and its people in one process, on simulated time, network
/// and disks.
/// Everything that happens in a world is drawn from its seed, so a seed shows the same world again.
#[derive(Debug, Parser)]
#[command(name = "rossby-simulation", version, after_help = AFTER)]
#[command(group(ArgGroup::new("which").required(true).args(["seed", "seeds"])))]
pub struct Cli {
    /// The seed of one world, run in this process.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Worlds from seed A up to, but not with, seed B: each in a process of its own.
    #[arg(long, value_name = "A..B", conflicts_with = "trace")]
    pub seeds: Option<Seeds>,
    /// How many things people do before all faults end: each is one step, such as a letter, a look
    /// into the box, or a try to register. Faults come and go beside them.
    #[arg(long, value_name = "S", default_value_t = STEPS)]
    pub steps: u64,
    /// A file for every observation, one line each.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Nothing goes wrong in these worlds.
    #[arg(long)]
    pub no_faults: bool,
    /// The kind of all worlds: `one` group on three nodes, or three regions of one node (`3x1`) or of three
    /// (`3x3`). Drawn from the seed if not given: two in three are of one group.
    #[arg(long, value_name = "KIND")]
    pub shape: Option<Shape>,
    /// How many worlds run at a time; as many as there are processors if not given.
    #[arg(long, value_name = "J", conflicts_with = "seed")]
    pub jobs: Option<NonZeroUsize>,
    /// Plants a bug, to see that it is found. Only in builds with the feature planted-bugs.
    #[arg(long, value_name = "BUG", value_parser = bug)]
    pub plant: Option<Bug>,
}

/// Seeds from the first up to, but not with, the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

/// A text that is no range of seeds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seeds are given as A..B, such as 0..20, with A below B")]
pub struct NoSeeds;

impl FromStr for Seeds {
    type Err = NoSeeds;

    fn from_str(text: &str) -> Result<Self, NoSeeds> {
        let (first, end) = text.split_once("..").ok_or(NoSeeds)?;
        let first = first.parse().map_err(|_| NoSeeds)?;
        let end = end.parse().map_err(|_| NoSeeds)?;
        if first < end {
            Ok(Self(first..end))
        } else {
            Err(NoSeeds)
        }
    }
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = Bug::ALL.into_iter().find(|bug| bug.name() == name);
    known.ok_or_else(|| {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("the bugs are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_is_read_and_anything_else_is_refused() {
        assert_eq!("3..7".parse(), Ok(Seeds(3..7)));
        for text in ["", "7", "7..3", "3..3", "a..b", "3..", "..3", "-1..3"] {
            assert_eq!(text.parse::<Seeds>(), Err(NoSeeds), "{text}");
        }
    }

    #[test]
    fn either_one_seed_or_a_range_is_wanted() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        assert!(parse("sim --seed 1").is_ok());
        assert!(parse("sim --seeds 1..2 --jobs 2").is_ok());
        for wrong in [
            "sim",
            "sim --seed 1 --seeds 1..2",
            "sim --seed 1 --jobs 2",
            "sim --seed x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
