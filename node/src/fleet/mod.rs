//! `rossby node` and `rossby group`: what grows, shrinks and empties, by way of the cluster map. Orders to a
//! running node over its admin socket.

mod drain;
mod replace;
mod token;

use std::time::Duration;

use rossby_domain::placement::RegionName;
use rossby_proto::v1;
use serde_json::json;

use crate::cli::{GroupCommand, NodeCommand, PlacementArgs};
use crate::cluster::{connect, order};
use crate::exit::Failure;
use crate::output;
use crate::runtime;

pub use token::duration;

/// How long an order may take that only changes the map.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long until a new group serves.
const BORN_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs `rossby node ...`.
///
/// # Errors
/// If the node that is asked can't be reached, or refuses; or what was ordered can't come to its end.
pub fn run_node(command: &NodeCommand) -> Result<(), Failure> {
    run(async {
        match command {
            NodeCommand::Drain { drain, no_wait } => drain::drain(drain, !no_wait).await,
            NodeCommand::Activate { placement, node } => activate(placement, *node).await,
            NodeCommand::Decommission { drain } => drain::decommission(drain).await,
            NodeCommand::Replace { drain, new } => replace::replace(drain, *new).await,
            NodeCommand::Token(args) => token::token(args).await,
        }
    })
}

/// Runs `rossby group ...`.
///
/// # Errors
/// If the node that is asked can't be reached, or refuses.
pub fn run_group(command: &GroupCommand) -> Result<(), Failure> {
    run(async {
        match command {
            GroupCommand::Add {
                placement,
                region,
                partitions,
            } => add_group(placement, region, *partitions).await,
        }
    })
}

fn run(order: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(order)
}

/// Has a node leave its groups, or takes that back.
///
/// # Errors
/// If the node that is asked can't be reached, or refuses.
pub async fn set_draining(
    args: &crate::cli::SocketArgs,
    node: u64,
    draining: bool,
) -> Result<v1::SetNodeStateResponse, Failure> {
    let mut client = connect(&args.path()).await?;
    let request = v1::SetNodeStateRequest {
        node_id: node,
        draining,
    };
    order(ORDER_TIMEOUT, client.set_node_state(request)).await
}

async fn activate(args: &PlacementArgs, node: u64) -> Result<(), Failure> {
    let set = set_draining(&args.socket, node, false).await?;
    if args.json {
        return output::json(&json!({
            "node": node, "state": "active", "changed": set.changed, "version": set.map_version,
        }));
    }
    output::line(match set.changed {
        true => format!("Node {node} may hold replicas again. They come when they are needed."),
        false => format!("Node {node} was not leaving."),
    });
    Ok(())
}

async fn add_group(
    args: &PlacementArgs,
    region: &RegionName,
    partitions: Option<u16>,
) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let request = v1::AddGroupRequest {
        region: region.to_string(),
        partitions: u32::from(partitions.unwrap_or_default()),
    };
    let added = order(BORN_TIMEOUT, client.add_group(request)).await?;
    let nodes = &added.founder_node_ids;
    if args.json {
        return output::json(&json!({
            "group": added.group_id, "region": region.as_str(), "nodes": nodes,
            "partitions": added.partitions,
        }));
    }
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    output::line(format!(
        "Group {} serves, at home in {region}, with {} partitions, on nodes {}.",
        added.group_id,
        added.partitions,
        nodes.join(", ")
    ));
    Ok(())
}
