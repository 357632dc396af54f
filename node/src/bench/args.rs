//! The command line of `rossby bench`.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send: from the client's call to the answer that the envelope is stored.
    #[command(after_help = "\
Examples:
  rossby bench send --local 3 --clients 64
  rossby bench send --server 10.0.0.1:7470 --ca ca.crt --codes codes.tsv --clients 256 --json")]
    Send(SendArgs),
}

/// `rossby bench send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub body: BodyArgs,
}

/// Which service.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which service")]
pub struct TargetArgs {
    /// Start so many nodes on this machine, each a process with a disk of its own folder, and stop
    /// them at the end.
    #[arg(
        long,
        value_name = "NODES",
        conflicts_with = "servers",
        required_unless_present = "servers",
        value_parser = clap::value_parser!(u64).range(1..=15)
    )]
    pub local: Option<u64>,
    /// Where the nodes of --local keep their data: a new folder is made in this one [default: the system's folder for
    /// temporary files]
    #[arg(long, value_name = "DIR", requires = "local")]
    pub data: Option<PathBuf>,
    /// Leave the folder of --local where it is.
    #[arg(long, requires = "local")]
    pub keep: bool,
    /// A node of a cluster that runs already. Any number of times; the load goes to the one that leads, if
    /// that is known by --http, otherwise to the first.
    #[arg(long = "server", value_name = "ADDRESS", requires = "codes")]
    pub servers: Vec<String>,
    /// The certificate authority of those nodes, PEM.
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub ca: Option<PathBuf>,
    /// Where the codes of that cluster appear: the file of its courier (serve --courier file).
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub codes: Option<PathBuf>,
    /// Metrics of those nodes, in the order of --server: tells who leads and when checkpoints were written.
    #[arg(long, value_name = "IP:PORT", requires = "servers")]
    pub http: Vec<SocketAddr>,
    /// Processes of those nodes on this machine, in the order of --server, for their use of processor and memory.
    #[arg(long, value_name = "PID", requires = "servers")]
    pub pid: Vec<u32>,
}

/// How much load, and for how long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Clients, each a device of its own with one request under way at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections that the clients share, to each node that is spoken to.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Spread the clients over all nodes, which hand on to the one that leads.
    #[arg(long)]
    pub every_node: bool,
    /// Boxes that are written to.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub boxes: u32,
    /// Seconds that are measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of the same load before that.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub warm_up: u64,
    /// Do not measure what this machine can do at best.
    #[arg(long)]
    pub no_floor: bool,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What is in an envelope.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Envelopes")]
pub struct BodyArgs {
    /// Bytes of each envelope's body.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub bytes: u32,
}
