//! `rossby cluster`: orders to a running node over its admin socket.

mod members;
mod status;
mod tables;

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rossby_api::admin::MembersOrder;
use rossby_domain::ids::NodeId;
use rossby_domain::placement::SurvivalGoal;
use rossby_proto::v1;
use rossby_proto::v1::admin_client::AdminClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::cli::{ClusterCommand, NodeAddress};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::runtime;
use crate::watch;

pub use members::in_one_group;

/// An order that takes longer has met a node that hangs. `init` waits for every node in turn.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
const INIT_TIMEOUT: Duration = Duration::from_secs(600);
/// What to do when somebody who is needed does not answer.
const TRY_AGAIN: &str = "nothing was changed: start what is down and try again. If a majority of the nodes is \
                         lost for good: `rossby backup --as-it-is` on one that is left, then `rossby restore`";

/// Runs `rossby cluster ...`.
///
/// # Errors
/// If the node can't be reached, or refuses.
pub fn run(command: &ClusterCommand) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(async {
        match command {
            ClusterCommand::Init {
                socket,
                nodes,
                name,
                partitions,
                survive,
            } => init(&socket.path(), nodes, name, *partitions, *survive).await,
            ClusterCommand::Status {
                socket,
                json,
                watch,
            } => {
                let ask = async || {
                    let mut client = connect(&socket.path()).await?;
                    order(ORDER_TIMEOUT, client.status(v1::StatusRequest {})).await
                };
                watch::show(*watch, ask, |status| status::text(status, *json)).await
            }
            ClusterCommand::Table(table) => tables::run(table).await,
            ClusterCommand::TransferLeader { socket, to, group } => {
                let mut client = connect(&socket.path()).await?;
                let request = v1::TransferLeaderRequest {
                    group_id: *group,
                    to_node_id: to.unwrap_or_default(),
                };
                let done = order(ORDER_TIMEOUT, client.transfer_leader(request)).await?;
                output::line(format!(
                    "Node {} leads group {group} now.",
                    done.leader_node_id
                ));
                Ok(())
            }
            ClusterCommand::AddNode { change, node } => {
                members::change(
                    change,
                    &MembersOrder::Add(NodeId(node.node), node.address.clone()),
                )
                .await
            }
            ClusterCommand::RemoveNode {
                change,
                node,
                half_added,
            } => {
                let order = MembersOrder::Remove {
                    node: NodeId(*node),
                    half_added_only: *half_added,
                };
                members::change(change, &order).await
            }
            ClusterCommand::ReplaceNode { change, old, new } => {
                let order = MembersOrder::Replace {
                    old: NodeId(*old),
                    new: NodeId(new.node),
                    peer_address: new.address.clone(),
                };
                members::change(change, &order).await
            }
            ClusterCommand::ConfirmTime { socket, group } => {
                confirm_time(&socket.path(), *group).await
            }
        }
    })
}

async fn init(
    socket: &Path,
    nodes: &[NodeAddress],
    name: &str,
    partitions: u16,
    survive: Option<SurvivalGoal>,
) -> Result<(), Failure> {
    let mut client = connect(socket).await?;
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| v1::InitNode {
            node_id: node.node,
            peer_address: node.address.clone(),
        })
        .collect();
    let count = nodes.len();
    if count % 2 == 0 {
        output::note(format!(
            "warning: {count} nodes survive the loss of no more nodes than {} do",
            count - 1
        ));
    }
    let request = v1::InitClusterRequest {
        cluster_name: name.to_owned(),
        partition_count: u32::from(partitions),
        nodes,
        survive: survive.map(|goal| goal.to_string()).unwrap_or_default(),
    };
    let made = order(INIT_TIMEOUT, client.init_cluster(request)).await?;
    let left_out = &made.left_out;
    output::line(match left_out.len() {
        0 => format!("Cluster {} is made: {count} nodes.", made.cluster_id),
        out => format!(
            "Cluster {} is made: {} of {count} nodes.",
            made.cluster_id,
            count.saturating_sub(out)
        ),
    });
    match left_out.is_empty() {
        true => Ok(()),
        false => Err(incomplete(left_out)),
    }
}

/// A cluster that was made without some of its nodes, and how they come in.
fn incomplete(left_out: &[v1::InitNode]) -> Failure {
    let nodes = left_out.iter().map(|node| node.node_id.to_string());
    let nodes = nodes.collect::<Vec<_>>().join(", ");
    let orders = left_out.iter().map(|node| {
        let (number, address) = (node.node_id, &node.peer_address);
        format!("rossby cluster replace-node {number} {number}={address}")
    });
    Failure::new(
        Exit::InPart,
        format!(
            "left out: node {nodes}. A data directory that is not the one that the cluster was planned for, as after \
             a lost disk, gets no place by that plan"
        ),
    )
    .help(format!(
        "have each taken in anew, with its empty directory: {}. Or, under a new number: `rossby node token`, and \
         there `rossby serve --join`",
        orders.collect::<Vec<_>>().join("; ")
    ))
}

async fn confirm_time(socket: &Path, group: u32) -> Result<(), Failure> {
    let mut client = connect(socket).await?;
    let request = v1::ConfirmTimeRequest { group_id: group };
    let done = order(ORDER_TIMEOUT, client.confirm_time(request)).await?;
    output::line(match done.jump {
        Some(jump) => format!(
            "It is {}: mail of group {group} expires again.",
            output::utc(jump.now_ms)
        ),
        None => format!("The time of group {group} was not in doubt."),
    });
    Ok(())
}

/// Reaches the node at a socket.
///
/// # Errors
/// If no node answers there.
pub async fn connect(socket: &Path) -> Result<AdminClient<Channel>, Failure> {
    // Tried once here for an error that names the cause; tonic's would not.
    let first = tokio::net::UnixStream::connect(socket).await;
    let first = first.map_err(|error| unreachable(socket, &error))?;
    let mut once = Some(TokioIo::new(first));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        std::future::ready(
            once.take()
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    });
    let channel = Endpoint::from_static("http://node")
        .connect_with_connector(connector)
        .await;
    let channel = channel.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok(AdminClient::new(channel))
}

fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(
        Exit::Unavailable,
        format!("no node answers at {}: {error}", socket.display()),
    );
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.help("run as the user who runs the node"),
        _ => failure.help("start the node, or name its data directory with --data"),
    }
}

/// Gives an order and waits for the answer.
///
/// # Errors
/// What the node said, or that it does not answer.
pub async fn order<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(patience, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failure_of(&status)),
        Err(_) => Err(Failure::new(
            Exit::OutcomeUnknown,
            "the node does not answer",
        )),
    }
}

fn failure_of(status: &Status) -> Failure {
    if went_away(status) {
        return Failure::new(
            Exit::OutcomeUnknown,
            "the node went away before it answered",
        )
        .help("give the same order again: what was done of it is not done twice");
    }
    match exit_of(status) {
        Exit::Unavailable => Failure::new(Exit::Unavailable, status.message()).help(TRY_AGAIN),
        exit => Failure::new(exit, status.message()),
    }
}

/// Whether the connection broke, and it was not the node that said something.
pub fn went_away(status: &Status) -> bool {
    status.source().is_some()
}

/// The exit code for what a node said.
pub fn exit_of(status: &Status) -> Exit {
    match status.code() {
        tonic::Code::InvalidArgument => Exit::Usage,
        tonic::Code::FailedPrecondition => Exit::Refused,
        tonic::Code::Unavailable => Exit::Unavailable,
        tonic::Code::DeadlineExceeded => Exit::OutcomeUnknown,
        _ => Exit::Failure,
    }
}
