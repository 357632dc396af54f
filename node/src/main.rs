//! The `rossby` binary: settings, wiring, life cycle, logs and the command line.
//!
//! ```text
//!   cli.rs ──► config/     what a node is told            ──► serve/    a node, from start to stop
//!        ├──► cluster/    orders to a running node, over its admin socket
//!        ├──► placement/  where the data is, shown and explained
//!        ├──► backup/     a cluster's state kept apart, and a cluster made of it again
//!        ├──► inspect/    a stopped node's data, looked over; rebuild.rs: made new
//!        ├──► recover/    groups that go on from what one node has left
//!        ├──► cert/       certificates
//!        ├──► courier/    trying out mail and SMS
//!        ├──► bench/      load on a cluster, and what it costs
//!        ├──► boxes.rs    what holds for a box as a whole
//!        └──► device/     a person's side: keys, contacts, messages
//! ```
//!
//! Nothing here decides what a box may hold: that is `domain`. Every command ends in one of the
//! codes of [`exit::Exit`].

mod backup;
mod bench;
mod boxes;
mod cert;
mod cli;
mod cluster;
mod config;
mod courier;
mod device;
mod exit;
mod fleet;
mod inspect;
mod output;
mod placement;
mod rebuild;
mod recover;
mod room;
mod runtime;
mod serve;
mod table;
mod telemetry;
mod watch;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use crate::cli::{Cli, Command};
use crate::exit::Failure;

/// Nodes and their load allocate from many threads, small and short-lived.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if wants_json(&matches) => {
            output::note(failure.to_json());
            failure.exit.into()
        }
        Err(failure) => {
            output::note(format!("rossby: {failure}"));
            failure.exit.into()
        }
    }
}

/// Whether `--json` was given to the command, wherever it stands in the tree of commands.
fn wants_json(matches: &ArgMatches) -> bool {
    let own = matches.try_get_one::<bool>("json");
    let below = matches.subcommand();
    matches!(own, Ok(Some(true))) || below.is_some_and(|(_, below)| wants_json(below))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Config(command) => config::run(&command),
        Command::Courier(command) => courier::run(&command),
        Command::Cluster(command) => cluster::run(&command),
        Command::Placement(command) => placement::run(&command),
        Command::Node(command) => fleet::run_node(&command),
        Command::Group(command) => fleet::run_group(&command),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => backup::run_restore(&args),
        Command::Cert(command) => cert::run(&command),
        Command::Check(args) => inspect::run(&args),
        Command::Rebuild(args) => rebuild::run(&args),
        Command::Recover(args) => recover::run(&args),
        Command::Version { json } => version(json),
        Command::Bench(command) => bench::run(&command),
        Command::Box(command) => boxes::run(&command),
        Command::Device(command) => device::run(command),
    }
}

fn version(json: bool) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        return output::json(&serde_json::json!({ "version": version }));
    }
    output::line(format!("rossby {version}"));
    Ok(())
}
