//! The command line of `rossby bench`.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use rossby_client::connection::ServerAddress;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Send: from the client's call to the answer that the envelope is stored.
    #[command(after_help = "\
Examples:
  rossby bench send --local 3
  rossby bench send --local 3 --boxes 1 --read      a single hot box
  rossby bench send --local 3 --groups 3            the boxes in three groups rather than one
  rossby bench send --local 1 --boxes 100000 --waiting 10
                                                    to boxes in which mail waits already
  rossby bench send --server 10.0.0.1:7470 --ca ca.crt --codes codes.tsv --clients 256 --json
  rossby bench send --server 10.0.0.1:7470 --ca ca.crt --codes codes.tsv --clients 1 --born-at 10.1.0.1:7470
                                                    from one region to another")]
    Send(SendArgs),
    /// Deliver: from the sender's call until the recipient has the envelope from its open stream and its
    /// acknowledgement is answered.
    #[command(after_help = "Example:\n  rossby bench deliver --local 3 --clients 64")]
    Deliver(DeliverArgs),
    /// Fetch: a page of envelopes that wait, each client from its own box.
    #[command(after_help = "Example:\n  rossby bench fetch --local 3 --waiting 100")]
    Fetch(FetchArgs),
    /// Lookup: the key record of a box.
    #[command(after_help = "Example:\n  rossby bench lookup --local 3")]
    Lookup(LookupArgs),
    /// Register: a new box, from its keys to its token, with the code that the courier brings.
    #[command(after_help = "Example:\n  rossby bench register --local 3 --clients 64")]
    Register(RegisterArgs),
    /// Nothing happens: the memory and the processor time that subscribers cost which wait for mail, or groups of
    /// which nothing is asked.
    #[command(after_help = "\
Examples:
  rossby bench idle --local 1 --subscribers 10000
  rossby bench idle --local 3 --groups 64             what many groups at rest cost
  rossby bench idle --local 3 --groups 64 --awake     and what they would cost if none rested")]
    Idle(IdleArgs),
    /// Group: a device says something to a large group, an envelope for each other member.
    #[command(after_help = "Example:\n  rossby bench group --local 3 --members 256 --devices 3")]
    Group(GroupArgs),
    /// Fills boxes with envelopes that wait, and says what that takes of memory and how fast it went.
    #[command(after_help = "Example:\n  rossby bench fill --local 3 --boxes 1000000 --waiting 10")]
    Fill(FillArgs),
    /// What this machine can do at best: gRPC calls that are only echoed, and writes that are synced to disk.
    #[command(after_help = "Example:\n  rossby bench floor --clients 64")]
    Floor(FloorArgs),
}

/// `rossby bench send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub boxes: BoxesArgs,
    #[command(flatten)]
    pub born: BornArgs,
    #[command(flatten)]
    pub body: BodyArgs,
    #[command(flatten)]
    pub groups: GroupsArgs,
    /// Have every box read and acknowledged meanwhile, by a subscriber, so that none runs full.
    #[arg(long, conflicts_with = "born_at")]
    pub read: bool,
    /// Envelopes of others that wait in each box before.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=2500))]
    pub waiting: u32,
}

/// `rossby bench deliver`.
#[derive(Debug, Args)]
pub struct DeliverArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub boxes: BoxesArgs,
    #[command(flatten)]
    pub groups: GroupsArgs,
    #[command(flatten)]
    pub body: BodyArgs,
}

/// `rossby bench fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub body: BodyArgs,
    /// Envelopes that wait in each box, and are fetched with one call.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub waiting: u32,
}

/// `rossby bench lookup`.
#[derive(Debug, Args)]
pub struct LookupArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub boxes: BoxesArgs,
    #[command(flatten)]
    pub groups: GroupsArgs,
    #[command(flatten)]
    pub born: BornArgs,
}

/// `rossby bench register`.
#[derive(Debug, Args)]
pub struct RegisterArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// `rossby bench idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Devices that subscribe, all to the node that is asked first [default: 10000, none with --groups]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub subscribers: Option<u32>,
    /// So many groups of boxes on the nodes of --local, three or more, each with a replica on three of them. It
    /// is measured once they all rest.
    #[arg(long, value_name = "NUMBER", requires = "local", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub groups: Option<u16>,
    /// Have no group rest (raft.rest = false).
    #[arg(long, requires = "groups")]
    pub awake: bool,
    #[command(flatten)]
    pub time: TimeArgs,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `rossby bench group`.
#[derive(Debug, Args)]
pub struct GroupArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Members of the group, the one who speaks among them.
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = clap::value_parser!(u16).range(2..=256))]
    pub members: u16,
    /// Devices of each member: each envelope is sealed for all of the recipient's, and what is said is copied to the speaker's own.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub devices: u8,
    /// Texts that are said to the group, one after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub texts: u16,
    /// Bytes of each text.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub bytes: u32,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `rossby bench fill`.
#[derive(Debug, Args)]
pub struct FillArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub boxes: BoxesArgs,
    #[command(flatten)]
    pub body: BodyArgs,
    /// Envelopes that are put into each box.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=2500))]
    pub waiting: u32,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `rossby bench floor`.
#[derive(Debug, Args)]
pub struct FloorArgs {
    /// Clients of the echo.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections that they share.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Bytes of each message that is echoed.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub bytes: u32,
    /// A folder on the disk that is measured [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Which service.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which service")]
pub struct TargetArgs {
    /// Start so many nodes on this machine, each a process with a folder of its own, and stop them at the
    /// end.
    #[arg(
        long,
        value_name = "NODES",
        conflicts_with = "servers",
        required_unless_present = "servers",
        value_parser = clap::value_parser!(u64).range(1..=15)
    )]
    pub local: Option<u64>,
    /// Where the nodes of --local keep their data, in a new folder; and whose disk is measured for the floor
    /// [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Leave the folder of --local where it is.
    #[arg(long, requires = "local")]
    pub keep: bool,
    /// A node of a cluster that runs already. Any number of times; the load goes to the one that leads, if
    /// --http tells, otherwise to the first.
    #[arg(long = "server", value_name = "ADDRESS", requires = "codes")]
    pub servers: Vec<String>,
    /// The certificate authority of those nodes, PEM.
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub ca: Option<PathBuf>,
    /// Where the codes of that cluster appear: the file of its courier (serve --courier file).
    #[arg(long, value_name = "FILE", requires = "servers")]
    pub codes: Option<PathBuf>,
    /// Metrics of those nodes, in the order of --server: tell who leads and when checkpoints are written.
    #[arg(long, value_name = "IP:PORT", requires = "servers")]
    pub http: Vec<SocketAddr>,
    /// Processes of those nodes on this machine, in the order of --server, for what they use of processor
    /// and memory.
    #[arg(long, value_name = "PID", requires = "servers")]
    pub pid: Vec<u32>,
}

/// How much load.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// Clients, each a device of its own with one operation under way at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections that the clients share, to each node that is spoken to.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Threads that the clients share. One needs no waking of others, and is enough unless it is busy all the
    /// time (see what the client used), as it may be with --sealed.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Spread the clients over all nodes, which hand on to the one that leads.
    #[arg(long)]
    pub every_node: bool,
    /// Do not measure what this machine can do at best.
    #[arg(long)]
    pub no_floor: bool,
    #[command(flatten)]
    pub time: TimeArgs,
    /// The report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// For how long.
#[derive(Debug, Clone, Copy, Args)]
pub struct TimeArgs {
    /// Seconds that are measured. Long enough for several checkpoints, if the figure is to last.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of the same load before that.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub warm_up: u64,
}

/// How many boxes.
#[derive(Debug, Clone, Copy, Args)]
pub struct BoxesArgs {
    /// Boxes that the clients choose from by chance, all registered before.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub boxes: u32,
}

/// In how many groups the boxes are.
#[derive(Debug, Clone, Copy, Args)]
pub struct GroupsArgs {
    /// So many groups of boxes on the nodes of --local, three or more, each with a replica on three of them. As many
    /// boxes, and clients' own boxes, are in each; the report says how they were spread and who led.
    #[arg(long, value_name = "NUMBER", requires = "local", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub groups: Option<u16>,
}

/// Where the boxes are at home.
#[derive(Debug, Clone, Args)]
pub struct BornArgs {
    /// Register the boxes at this node: they are born in its region, while the clients' own are born where the
    /// first --server is. It tells what the way between two regions costs.
    #[arg(long, value_name = "ADDRESS", requires = "servers")]
    pub born_at: Option<ServerAddress>,
}

/// What is in an envelope.
#[derive(Debug, Clone, Copy, Args)]
pub struct BodyArgs {
    /// Bytes of each envelope's body; with --sealed, of the text in it.
    #[arg(long, value_name = "BYTES", default_value_t = Self::USUAL_BYTES, value_parser = clap::value_parser!(u32).range(1..=98_304))]
    pub bytes: u32,
    /// Seal each envelope as a device does, while the load runs. Otherwise the bodies mean nothing, and the
    /// client has more of the processor left to ask with.
    #[arg(long)]
    pub sealed: bool,
}

impl BenchCommand {
    /// Threads that the load is made with.
    pub(super) fn threads(&self) -> usize {
        let load = match self {
            Self::Send(args) => &args.load,
            Self::Deliver(args) => &args.load,
            Self::Fetch(args) => &args.load,
            Self::Lookup(args) => &args.load,
            Self::Register(args) => &args.load,
            Self::Idle(_) | Self::Group(_) | Self::Fill(_) | Self::Floor(_) => return 1,
        };
        load.threads.into()
    }
}

impl BodyArgs {
    /// The size that everything else is compared by.
    pub(super) const USUAL_BYTES: u32 = 1024;
}
