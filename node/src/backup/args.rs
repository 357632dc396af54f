//! The command line of backups.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::SocketArgs;
use crate::config::ConfigArgs;

/// `rossby backup`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A backup holds everything that was acknowledged before it began, in all groups of the cluster, whichever nodes
have them. It does not hold the cluster's secrets
(cluster.keys): keep a copy of that file too, and apart from the backups. Without it a backup is useless;
with it, whoever has both can act as any device (but read no message).

Examples:
  rossby backup --data /var/lib/rossby --out /mnt/backup/rossby
  rossby backup --data /var/lib/rossby --out /mnt/backup/rossby    again: copies only what is new
  rossby backup verify /mnt/backup/rossby
  rossby restore --from /mnt/backup/rossby --data /var/lib/rossby-new --node 1"
)]
pub struct BackupArgs {
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    #[command(flatten)]
    pub socket: SocketArgs,
    /// The folder to put it in, made if missing. One that holds an earlier backup of the same cluster is
    /// brought up to date; until that is done, the earlier one stays as it is.
    #[arg(long, value_name = "DIR", required = true)]
    pub out: Option<PathBuf>,
    /// Take what this node has, without asking the others what was acknowledged: for a node that has
    /// lost its quorum. Mail that only the others have is not in it. A group that this node has no replica
    /// of is taken in the same way from one that has.
    #[arg(long)]
    pub as_it_is: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What else there is to do with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Reads all of a backup and says whether it is whole and right. Needs no node.
    Verify {
        /// The backup's folder.
        #[arg(value_name = "DIR")]
        backup: PathBuf,
        /// Print the figures as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `rossby restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Makes the data directory of one node, which is a new cluster with the old one's name, groups, boxes and secrets. Start
it with `rossby serve` and the same settings; then grow it with `rossby cluster add-node`. Nodes of the
old cluster can not join it, and must be stopped for good: devices would not know the one from the other.

Mail that was acknowledged after the backup began is lost, unless a device of its recipient had
fetched it. Devices go on with what they have. docs/OPERATIONS.md says what else goes back in time.

Example:
  rossby restore --from /mnt/backup/rossby --data /var/lib/rossby-new --secrets /etc/rossby/cluster.keys --node 1")]
pub struct RestoreArgs {
    /// The backup's folder.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Refuse all device tokens that were ever given out: every device must be authorised again with a
    /// code. For when tokens were stolen, or a device was removed after the backup.
    #[arg(long)]
    pub revoke_tokens: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}
