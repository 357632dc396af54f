//! The command line.
#![allow(rustdoc::invalid_html_tags)] // What stands at the flags is `--help`, read on a terminal.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rossby_domain::placement::{RegionName, SurvivalGoal};

use crate::backup::{BackupArgs, RestoreArgs};
use crate::bench::BenchCommand;
use crate::boxes::BoxCommand;
use crate::config::ConfigArgs;
use crate::courier::CourierCommand;
use crate::device::DeviceCommand;
use crate::exit::Exit;
use crate::recover::RecoverArgs;

const EXAMPLES: &str = "\
Examples:
  rossby serve                             one node on this machine, data in ./rossby-data
  rossby config check --config rossby.toml
  rossby cluster status
  rossby help cluster init                 how to make a cluster of several nodes";

/// Rossby: a replicated, end-to-end encrypted mailbox.
///
/// The servers are post offices: they carry sealed letters and never see what is in them.
#[derive(Debug, Parser)]
#[command(name = "rossby", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", Exit::HELP))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `rossby` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a node. Without any flag: a single node for this machine only, ready in about a second.
    Serve(ServeArgs),
    /// Looks at the configuration without starting anything.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Makes and looks after a cluster, through a node's admin socket.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Shows and changes where the cluster's data is: regions, groups, and what is to be survived.
    #[command(subcommand)]
    Placement(PlacementCommand),
    /// Takes nodes into the cluster, and has them leave their groups, stay, or leave the cluster for good.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Adds groups of boxes, as a region grows.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Copies a running node's state to a folder: all that was acknowledged, but not the secrets.
    Backup(BackupArgs),
    /// Makes a new node's data directory out of a backup.
    Restore(Box<RestoreArgs>),
    /// Makes certificates: for clients to trust the nodes, and for nodes to trust each other.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Tries out how verification codes reach people.
    #[command(subcommand)]
    Courier(CourierCommand),
    /// Looks over the data directory of a node that does not run: every record, entry, file and row
    /// is read. Says what is wrong, where, and what to do. Changes nothing.
    Check(CheckArgs),
    /// Makes a damaged node a new, empty one that its cluster can take in again. The old data is set
    /// aside, never deleted.
    Rebuild(RebuildArgs),
    /// Has groups that lost the majority of their nodes for good go on from this one, which is stopped. What the lost
    /// nodes alone had is lost.
    Recover(Box<RecoverArgs>),
    /// Puts load on a cluster, and says how fast it is and what that costs.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Prints the version.
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// What holds for a box as a whole.
    #[command(subcommand)]
    Box(BoxCommand),
    #[command(flatten)]
    Device(DeviceCommand),
}

/// `rossby serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rossby serve
  rossby serve --data /var/lib/rossby --listen 127.0.0.1:7470
  rossby serve --config /etc/rossby.toml --node 2 --peer-listen 10.0.0.2:7472
  rossby help node token                   how a new node joins a cluster with --join")]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print the addresses in use as one line of JSON on standard output once they are open. They
    /// are in <data>/addresses.json too.
    #[arg(long)]
    pub print_addresses: bool,
}

/// `rossby check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exits with 0 if the node can start with what is there, and with 10 if it is damaged, in use, or can not
be read. What an interruption left behind is reported and is not damage.

Example:
  rossby check --data /var/lib/rossby")]
pub struct CheckArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR", env = "ROSSBY_DATA", default_value = crate::config::DEFAULT_DATA)]
    pub data: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `rossby rebuild`.
#[derive(Debug, Args)]
#[command(after_help = "\
Refused while nothing is wrong (unless --force), and for the only node of a cluster: what it holds
would be lost, so restore that one from a backup.

Example:
  rossby rebuild --data /var/lib/rossby")]
pub struct RebuildArgs {
    /// The node's data directory.
    #[arg(long, value_name = "DIR", env = "ROSSBY_DATA", default_value = crate::config::DEFAULT_DATA)]
    pub data: PathBuf,
    /// Do it although nothing is wrong with the data, or although it can not be told from what is
    /// left that other nodes hold copies.
    #[arg(long)]
    pub force: bool,
}

/// `rossby config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says whether a node could start with this configuration, and if not, all that is wrong.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Prints every setting, its value, and where the value comes from.
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where a node takes orders.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// The node's admin socket.
    #[arg(long, value_name = "PATH", env = "ROSSBY_ADMIN_SOCKET")]
    pub socket: Option<PathBuf>,
    /// The node's data directory, which holds the admin socket.
    #[arg(long, value_name = "DIR", env = "ROSSBY_DATA", default_value = crate::config::DEFAULT_DATA)]
    pub data: PathBuf,
}

impl SocketArgs {
    /// The socket that these arguments name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.data.join(crate::config::ADMIN_SOCKET))
    }
}

/// `rossby cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Makes a cluster of nodes that run and belong to none yet. Run again after a failure: it goes
    /// on where it stopped.
    #[command(after_help = "\
Start each node with --node N --peer-listen HOST:PORT and its certificates (see rossby cert), then,
on the machine of one of them:
  rossby cluster init --node 1=10.0.0.1:7472 --node 2=10.0.0.2:7472 --node 3=10.0.0.3:7472

Nodes that were started with --region get a group of boxes for each region. Exits with 11 if the cluster
is made but a node had to be left out, whose disk was lost meanwhile, and says how it comes in.")]
    Init {
        #[command(flatten)]
        socket: SocketArgs,
        /// A node and where the others reach it: NUMBER=HOST:PORT. Once for each node.
        #[arg(long = "node", value_name = "NUMBER=HOST:PORT", required = true)]
        nodes: Vec<NodeAddress>,
        /// The cluster's name. Devices sign it into their requests.
        #[arg(long, default_value = "rossby")]
        name: String,
        /// Into how many parts the key space is cut: a power of two, for ever.
        #[arg(long, value_name = "COUNT", default_value_t = 256)]
        partitions: u16,
        /// What shall cost no acknowledged write: the loss of any one region, or of a minority of a group's
        /// nodes [default: region with nodes in three regions or more, else node]
        #[arg(long, value_name = "region|node")]
        survive: Option<SurvivalGoal>,
    },
    /// Shows the node, its groups, who leads them, and how far each copy is.
    Status {
        #[command(flatten)]
        socket: SocketArgs,
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Again every two seconds, until interrupted.
        #[arg(long)]
        watch: bool,
    },
    #[command(flatten)]
    Table(TableCommand),
    /// Moves leadership to another node, for example before maintenance. Ask the node that leads.
    TransferLeader {
        #[command(flatten)]
        socket: SocketArgs,
        /// The node that shall lead. Without it: the one whose copy is furthest.
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
        /// The group; 0 is the placement group.
        #[arg(long, default_value_t = 1)]
        group: u32,
    },
    /// Makes a running node that belongs to no cluster a member with a vote. Ask any member. Given
    /// again, it goes on where it stopped; for a member it corrects the address.
    #[command(after_help = "\
Start the node with an empty directory, --node N --peer-listen HOST:PORT and its certificates (see
rossby cert), then, on the machine of a member:
  rossby cluster add-node 4=10.0.0.4:7472")]
    AddNode {
        #[command(flatten)]
        change: ChangeArgs,
        /// The node and where the others reach it.
        #[arg(value_name = "NUMBER=HOST:PORT")]
        node: NodeAddress,
    },
    /// Takes a node out of the cluster, running or not. Ask any member. It can not come back but as a
    /// new node with an empty directory.
    #[command(after_help = "\
Examples:
  rossby cluster remove-node 4
  rossby cluster remove-node 5 --half-added   take back an add-node that did not finish")]
    RemoveNode {
        #[command(flatten)]
        change: ChangeArgs,
        /// The node.
        #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// Only take back what an add-node or replace-node that was not finished left half done.
        #[arg(long)]
        half_added: bool,
    },
    /// Puts a node in the place of another, which may be dead; or in its own place, after its disk was
    /// lost. Ask any member. Given again, it goes on where it stopped.
    #[command(after_help = "\
Start the new node with an empty directory, then, on the machine of a member:
  rossby cluster replace-node 3 4=10.0.0.4:7472   node 4 comes, node 3 goes
  rossby cluster replace-node 3 3=10.0.0.3:7472   node 3 begins anew with an empty directory")]
    ReplaceNode {
        #[command(flatten)]
        change: ChangeArgs,
        /// The node that goes.
        #[arg(value_name = "OLD", value_parser = clap::value_parser!(u64).range(1..))]
        old: u64,
        /// The node that comes and where the others reach it.
        #[arg(value_name = "NEW=HOST:PORT")]
        new: NodeAddress,
    },
    /// Says that the clock is right. A leader whose clock is more than 7 days beyond the last time in
    /// the log lets no mail expire until then. Ask the node that leads, and look at its clock first:
    /// after this, mail expires by it for good.
    ConfirmTime {
        #[command(flatten)]
        socket: SocketArgs,
        /// The group; 0 is the placement group.
        #[arg(long, default_value_t = 1)]
        group: u32,
    },
}

/// What `rossby cluster` shows of all nodes, as the one that is asked could learn.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Shows all groups: home, leader, members and how far they are, steps under way.
    Groups(ShowArgs),
    /// Shows all partitions: the group that owns each, and since which epoch.
    Partitions(ShowArgs),
    /// Shows all nodes: region, state, groups, which of them they lead, addresses.
    Nodes(ShowArgs),
}

/// What the commands that show something of placement have in common.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub placement: PlacementArgs,
    /// Again every two seconds, until interrupted: in place on a terminal, else below each other.
    #[arg(long)]
    pub watch: bool,
}

/// `rossby placement`.
#[derive(Debug, Subcommand)]
pub enum PlacementCommand {
    /// Shows the cluster map: nodes by region, groups with their members and leaders, partitions.
    Show(ShowArgs),
    /// Shows what changed in the map, version by version.
    History(PlacementArgs),
    /// Says what the loss of a region or node would cost, and why replicas are where they are.
    Explain(PlacementArgs),
    /// Changes what the cluster is to survive. Through the leader of the placement group, from any node.
    #[command(subcommand)]
    Set(SetCommand),
}

/// What can be set.
#[derive(Debug, Subcommand)]
pub enum SetCommand {
    /// What shall cost no acknowledged write. Voters move by themselves until it is so, one step of a group
    /// at a time: `rossby placement explain` says what would be survived meanwhile.
    #[command(after_help = "\
Examples:
  rossby placement set survive region   the loss of any one region; needs nodes in three or more
  rossby placement set survive node     the loss of a minority of a group's nodes")]
    Survive {
        #[command(flatten)]
        placement: PlacementArgs,
        /// region or node.
        #[arg(value_name = "region|node")]
        goal: SurvivalGoal,
    },
}

/// `rossby node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Has all replicas of a node move to others, and waits until none is on it. Ask any node. The node stays
    /// in the cluster, without a vote, until `activate` or `decommission`. What would break the survival goal
    /// stays where it is, and this says why.
    #[command(after_help = "\
Examples:
  rossby node drain 4             waits, and says how far it is
  rossby node drain 4 --no-wait   begins it only")]
    Drain {
        #[command(flatten)]
        drain: DrainArgs,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
    },
    /// Takes a drain back: the node may hold replicas again. They come when they are needed.
    #[command(after_help = "Example:\n  rossby node activate 4")]
    Activate {
        #[command(flatten)]
        placement: PlacementArgs,
        /// The node.
        #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
    /// Drains a node, then takes it out of the cluster for good. Its process says that it was removed, and can
    /// be stopped. Given again, it goes on where it stopped.
    #[command(after_help = "Example:\n  rossby node decommission 4")]
    Decommission {
        #[command(flatten)]
        drain: DrainArgs,
    },
    /// Has another node of the same region take the place of a node in all its groups, then takes that one out of
    /// the cluster for good. It may be dead. Given again, it goes on where it stopped.
    #[command(after_help = "\
The new node joins first (see rossby node token), then, on the machine of any node:
  rossby node replace 3 4    node 4 comes, node 3 goes")]
    Replace {
        #[command(flatten)]
        drain: DrainArgs,
        /// The node that comes: a member already.
        #[arg(value_name = "NEW", value_parser = clap::value_parser!(u64).range(1..))]
        new: u64,
    },
    /// Makes a token by which one new node can join the cluster, once, and gives that node its number. Ask any
    /// node. The cluster keeps a digest of the token only: it can't be shown again.
    #[command(after_help = "\
Examples:
  rossby node token --region eu-west --out join.token
  rossby node token list                                 those that have not expired
  rossby node token revoke 4                             the one for node 4 is good for nobody any more
  rossby cert node --ca certs --node 4 --out certs       the number that it said
  rossby serve --join 10.0.0.1:7472 --region eu-west --join-token-file join.token \\
      --peer-listen 10.0.0.4:7472 --peer-cert node-4.crt --peer-key node-4.key --peer-ca ca.crt")]
    Token(TokenArgs),
}

/// What is done with tokens that were made before.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Shows the tokens that have not expired: the node that each is for, where that may be, until when, and whether
    /// it was used. Ask any node.
    List(PlacementArgs),
    /// Takes a token back that nobody has used: no node takes it from then on, whoever has it. Ask any node. Its
    /// number is not given again.
    #[command(after_help = "Example:\n  rossby node token revoke 4")]
    Revoke {
        #[command(flatten)]
        placement: PlacementArgs,
        /// The number of the node that it is for, as `list` shows it.
        #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
}

/// `rossby node token`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
    #[command(flatten)]
    pub placement: PlacementArgs,
    /// The region that the node may be in [default: any that nodes are in]
    #[arg(long, value_name = "NAME")]
    pub region: Option<RegionName>,
    /// The region is new: the node is its first one.
    #[arg(long, requires = "region")]
    pub new_region: bool,
    /// The node's number, above all that were ever used [default: the next one]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub node: Option<u64>,
    /// For how long it is good: a number with s, m, h or d; 30d at most.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::fleet::duration)]
    pub valid_for: std::time::Duration,
    /// Write it to a new file that nobody else can read, rather than to standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What draining takes.
#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    pub placement: PlacementArgs,
    /// Give up waiting when nothing has moved for so long. The node goes on leaving.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: u64,
    /// The node.
    #[arg(value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub node: u64,
}

/// `rossby group`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Adds a group of boxes at home in a region: new boxes of the region are born in it too, in partitions
    /// that nobody owned. Waits until it serves. Ask any node. Given again after a failure, it goes on with
    /// the group that was begun.
    #[command(after_help = "\
Examples:
  rossby group add --region eu-west
  rossby group add --region eu-west --partitions 8")]
    Add {
        #[command(flatten)]
        placement: PlacementArgs,
        /// Its home.
        #[arg(long, value_name = "NAME")]
        region: RegionName,
        /// How many of the spare partitions it gets [default: half of them]
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
        partitions: Option<u16>,
    },
}

/// What the orders about placement have in common.
#[derive(Debug, Args)]
pub struct PlacementArgs {
    #[command(flatten)]
    pub socket: SocketArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What the orders about members have in common.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Give up when nothing has moved for so long. What was begun can be finished later.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub patience: u64,
    /// Say how far it is as JSON, one line for each step.
    #[arg(long)]
    pub json: bool,
    /// The one group that the order is for; 0 is the placement group. Needed where there are several groups of
    /// boxes. Without it the order is carried out in all groups: that of boxes, then that of placement.
    #[arg(long, value_name = "NUMBER")]
    pub group: Option<u32>,
}

/// A node and its peer address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress {
    /// The node's number.
    pub node: u64,
    /// Where its peers reach it, `host:port`.
    pub address: String,
}

impl std::str::FromStr for NodeAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || "expected NUMBER=HOST:PORT, for example 1=10.0.0.1:7472".to_owned();
        let (node, address) = text.split_once('=').ok_or_else(malformed)?;
        let node = node.parse().map_err(|_| malformed())?;
        if node == 0 {
            return Err("nodes are numbered from 1".to_owned());
        }
        let address: crate::config::HostPort = address.parse().map_err(|_| malformed())?;
        Ok(Self {
            node,
            address: address.to_string(),
        })
    }
}

/// `rossby cert`.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Makes a cluster's own certificate authority. Keep its key off the nodes.
    #[command(after_help = "Example:\n  rossby cert ca --out certs")]
    Ca {
        /// Where to put ca.crt and ca.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days until it expires.
        #[arg(long, default_value_t = 3650)]
        days: u32,
    },
    /// Makes a node's certificate: proves to peers which node it is, and to clients its host names.
    #[command(
        after_help = "Example:\n  rossby cert node --ca certs --node 1 --dns mail.example.org --ip 10.0.0.1 --out certs"
    )]
    Node {
        /// The folder with ca.crt and ca.key.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The node's number.
        #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// A host name that clients use. Any number of times.
        #[arg(long)]
        dns: Vec<String>,
        /// An address that clients use. Any number of times.
        #[arg(long)]
        ip: Vec<IpAddr>,
        /// Where to put node-<NODE>.crt and node-<NODE>.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days until it expires.
        #[arg(long, default_value_t = 398)]
        days: u32,
    },
    /// Makes a certificate that proves who a remote operator or a tool is. Nodes do not take it for
    /// a node's.
    #[command(after_help = "Example:\n  rossby cert client --ca certs --name alice --out certs")]
    Client {
        /// The folder with ca.crt and ca.key.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The name in the certificate.
        #[arg(long)]
        name: String,
        /// Where to put <NAME>.crt and <NAME>.key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days until it expires.
        #[arg(long, default_value_t = 398)]
        days: u32,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_node_address_is_a_number_and_a_host_with_port() {
        let parsed: NodeAddress = "3=node.example:7472".parse().unwrap();
        assert_eq!(
            parsed,
            NodeAddress {
                node: 3,
                address: "node.example:7472".to_owned()
            }
        );
        for bad in [
            "",
            "3",
            "=a:1",
            "x=a:1",
            "0=a:1",
            "1=a",
            "1=a:",
            "1=:7",
            "1=a:70000",
        ] {
            assert!(bad.parse::<NodeAddress>().is_err(), "{bad:?} was taken");
        }
    }
}
