//! The device side: a person's keys, contacts and messages on this machine.

use clap::Subcommand;

use crate::exit::Failure;

/// What a person does with their box.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {}

/// Runs a command of the device side.
///
/// # Errors
/// Whatever went wrong, with the exit code for it.
pub fn run(command: DeviceCommand) -> Result<(), Failure> {
    match command {}
}
