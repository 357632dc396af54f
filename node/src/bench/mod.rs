//! `rossby bench`: load on a cluster, and what it costs.
//!
//! ```text
//!   args.rs ──► target.rs: a cluster that runs, or local.rs: one of our own ──► rossby_bench ──► report.rs
//!              floor.rs: what the machine can do ────┐          ▲                        ▲
//!              prepare.rs: boxes and readers ────────┴─ run.rs ─┘    watch.rs: what each node uses
//! ```

mod args;
mod disk_use;
mod failure;
mod fill;
mod floor;
mod group;
mod http;
mod local;
mod prepare;
mod processes;
mod progress;
mod report;
mod run;
mod signals;
mod spread;
mod target;
mod tries;
mod watch;

pub use args::BenchCommand;

use tokio::runtime::Builder;

use crate::exit::{Exit, Failure};

/// Runs `rossby bench ...`.
///
/// # Errors
/// If there is no service to measure, or it can't be prepared. What it refuses under load is in the
/// report.
pub fn run(command: &BenchCommand) -> Result<(), Failure> {
    let runtime = match command.threads() {
        // The load shares the machine with the nodes: one thread needs no waking of others.
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    runtime.block_on(async {
        // Before any node is started, so that none can outlive us.
        let interrupted = signals::interrupted()?;
        tokio::select! {
            done = carry_out(command) => done,
            () = interrupted => Err(Failure::new(Exit::Failure, "interrupted")),
        }
    })
}

async fn carry_out(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Send(args) => run::send(args).await,
        BenchCommand::Deliver(args) => run::deliver(args).await,
        BenchCommand::Fetch(args) => run::fetch(args).await,
        BenchCommand::Lookup(args) => run::lookup(args).await,
        BenchCommand::Register(args) => run::register(args).await,
        BenchCommand::Idle(args) => run::idle(args).await,
        BenchCommand::Group(args) => group::run(args).await,
        BenchCommand::Fill(args) => fill::run(args).await,
        BenchCommand::Floor(args) => floor::run(args).await,
    }
}
