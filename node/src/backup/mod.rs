//! `rossby backup` and `rossby restore`.
//!
//! | file | what |
//! |---|---|
//! | `catalogue` | what is in a backup's folder |
//! | `make`, `target` | taking a backup from a running node |
//! | `verify` | reading all of one |
//! | `restore` | making a node's data directory of one |

mod args;
mod catalogue;
mod make;
mod progress;
mod restore;
mod target;
mod verify;

pub use self::args::{BackupArgs, RestoreArgs};

use self::args::BackupCommand;
use crate::exit::{Exit, Failure};
use crate::runtime;

/// Runs `rossby backup ...`.
///
/// # Errors
/// If the node can't be reached, the backup can't be written, or it is not whole.
pub fn run(args: &BackupArgs) -> Result<(), Failure> {
    match (&args.command, &args.out) {
        (Some(BackupCommand::Verify { backup, json }), _) => verify::run(backup, *json),
        (None, Some(out)) => runtime::one_thread()?.block_on(make::run(args, out)),
        (None, None) => Err(Failure::new(Exit::Usage, "--out is missing")),
    }
}

/// Runs `rossby restore`.
///
/// # Errors
/// If the backup is not whole, the secrets are not its own, or the data directory can't be made.
pub fn run_restore(args: &RestoreArgs) -> Result<(), Failure> {
    restore::run(args)
}
