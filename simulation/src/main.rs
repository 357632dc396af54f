//! `rossby-simulation`: runs worlds by their seeds.

mod cli;
mod many;
mod one;

use std::process::ExitCode;

use clap::Parser as _;

use self::cli::Cli;

/// How a run ended, as `--help` lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Held = 0,
    Broken = 1,
    Usage = 2,
    NoWorld = 3,
    ShowsNothing = 4,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_env_filter(log)
        .with_writer(std::io::stderr)
        .init();
    let exit = match &cli.seeds {
        Some(seeds) => many::run(&cli, seeds.0.clone()),
        None => one::run(&cli, cli.seed.unwrap_or_default()),
    };
    ExitCode::from(exit as u8)
}
