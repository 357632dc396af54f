//! The command line of a recovery.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::path::PathBuf;

use clap::Args;

use crate::config::ConfigArgs;

/// `rossby recover`.
#[derive(Debug, Args)]
#[command(after_help = "\
For when a majority of a group's nodes is gone for good, disks and all. What they alone had is lost: mail that was
acknowledged may be missing afterwards. If one of them can be brought back, bring it back instead: then nothing is lost.

Give it on a node that is left, stopped, with the settings that it serves with. Without --data-loss nothing is changed:
it says what is left here, how far it reaches, what is in doubt, and what it would do. Of several nodes that are left
it must be the one that reaches furthest: take the reports of the others there.

Examples:
  rossby recover --config /etc/rossby.toml --lost 2,3                what is known, and what would be done
  rossby recover --config /etc/rossby.toml --lost 2,3 --data-loss    do it
  rossby recover --config /etc/rossby.toml --lost 4,5 --json --dry-run > node-2.json
  rossby recover --config /etc/rossby.toml --lost 4,5 --report node-2.json --data-loss

Afterwards the groups have this node alone. Start it, and let new nodes join (rossby help node token): the cluster
brings its groups back to what they are to survive by itself. docs/OPERATIONS.md says what devices notice.")]
pub struct RecoverArgs {
    /// The nodes that are gone for good. They leave the cluster, and what is left of their replicas is void, should they
    /// ever come back.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub lost: Vec<u64>,
    /// Only this group; 0 is the placement group. Without it: all groups that have lost their quorum and a replica here.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub group: Vec<u32>,
    /// What this command said with --json on another node that is left and has replicas of the same groups. Once for
    /// each of them.
    #[arg(long, value_name = "FILE")]
    pub report: Vec<PathBuf>,
    /// Do it, and lose what the lost nodes alone had.
    #[arg(long, conflicts_with = "dry_run")]
    pub data_loss: bool,
    /// Only say what is known and what would be done; that is no failure then.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}
