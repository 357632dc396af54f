//! `rossby box`: what holds for a box as a whole.

use clap::Subcommand;

use crate::device::{self, TtlArgs};
use crate::exit::Failure;
use crate::runtime;

/// `rossby box`.
#[derive(Debug, Subcommand)]
pub enum BoxCommand {
    /// Shows or sets how long messages may wait in the box of this device.
    Ttl(TtlArgs),
}

/// Runs `rossby box ...`.
///
/// # Errors
/// If the service can't be reached, or refuses.
pub fn run(command: &BoxCommand) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(async {
        match command {
            BoxCommand::Ttl(args) => device::ttl(args).await,
        }
    })
}
