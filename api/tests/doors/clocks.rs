//! Clocks that were years ahead together and have been set right, as callers live through it: whoever
//! follows the service's time is served, and no request is admitted twice.

use std::time::Duration;

use prost::Message as _;
use rossby_api::{CallError, CallReply, Code, RpcPath};
use rossby_domain::limits::Limits;
use rossby_domain::time::{DAY_MS, Timestamp};
use rossby_proto::v1;
use rossby_raft::Leadership;
use rossby_seams::clock::Clock as _;
use tokio::time::Instant;

use crate::support::{Node, Resident, World, envelope, sequence};

const YEARS_MS: u64 = 10 * 365 * DAY_MS;

struct Signed {
    header: String,
    message: Vec<u8>,
}

fn fetch_at(world: &World, who: &Resident, at: Timestamp) -> Signed {
    let message = v1::FetchRequest {
        after: 0,
        max_envelopes: 1,
    };
    let message = message.encode_to_vec();
    let nonce = world.nonce();
    let mut signed = world.sign(who, RpcPath::Fetch, &nonce);
    signed.ts_secs = at.as_secs();
    let header = signed.authorization(&message).unwrap();
    Signed { header, message }
}

async fn fetch(node: &Node, signed: &Signed) -> Result<CallReply, CallError> {
    let (header, message) = (signed.header.clone(), signed.message.clone());
    node.call(RpcPath::Fetch, Some(header), message, false)
        .await
}

fn told(result: Result<CallReply, CallError>) -> Option<Timestamp> {
    let Err(CallError::Refused(error)) = result else {
        panic!("not refused")
    };
    assert_eq!(error.code(), Code::Unauthenticated);
    let told = error.metadata("server_time_ms")?;
    Some(Timestamp::from_millis(told.parse().unwrap()))
}

/// A client's way in: by its own clock, then as it was told. What was admitted.
async fn as_told(world: &World, node: &Node, who: &Resident) -> Signed {
    let first = fetch_at(world, who, world.clock.now());
    let refused = match fetch(node, &first).await {
        Ok(_) => return first,
        refused => refused,
    };
    let time = told(refused).unwrap();
    // The refusal was held back until then.
    world.clock.advance_millis(1_000);
    let second = fetch_at(world, who, time);
    assert!(fetch(node, &second).await.is_ok(), "refused at {time}");
    second
}

async fn hand_over<'a>(world: &'a World, old: &Node) -> &'a Node {
    let deadline = Instant::now() + Duration::from_secs(20);
    old.group.transfer_leader(None, deadline).await.unwrap();
    let leads = |node: &Node| {
        node.id != old.id && matches!(node.group.leadership(), Leadership::Here { .. })
    };
    world
        .eventually("another node leads", || world.nodes.iter().any(leads))
        .await;
    world.nodes.iter().find(|node| leads(node)).unwrap()
}

async fn years_ahead_and_set_right(nodes: u64) {
    let world = World::of_nodes(nodes, Limits::default()).await;
    let anna = world.resident(1, "+491701111111", true).await;
    let bert = world.resident(2, "+491702222222", true).await;
    let right = world.clock.now();
    let mut leader = &world.nodes[0];

    // A read, and nothing else: only what the guard has the log say remembers it.
    world.clock.advance_millis(YEARS_MS);
    let mut captured = vec![as_told(&world, leader, &anna).await];

    world.clock.set(right.plus_millis(60_000));
    let at_once = fetch_at(&world, &anna, world.clock.now());
    let time = told(fetch(leader, &at_once).await).unwrap();
    assert!(time >= right.plus_millis(YEARS_MS));
    captured.push(as_told(&world, leader, &anna).await);
    let sent = world.send(&anna, vec![envelope(&bert, 1, b"letter")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 1);
    assert_eq!(world.fetch(&bert).await.envelopes.len(), 1);
    // Codes are brought and taken, too.
    world.resident(3, "+491703333333", true).await;
    assert!(world.group.status().time_ahead_ms > YEARS_MS / 2);

    if nodes > 1 {
        leader = hand_over(&world, leader).await;
        captured.push(as_told(&world, leader, &anna).await);
    }
    // Ten years later real time comes by; with another leader, if there is one.
    world.clock.set(right.plus_millis(YEARS_MS - 2_000));
    for round in 0..12 {
        if nodes > 1 && round == 4 {
            leader = hand_over(&world, leader).await;
        }
        for signed in &captured {
            told(fetch(leader, signed).await);
        }
        as_told(&world, leader, &anna).await;
        world.clock.advance_millis(7_000);
    }
}

#[tokio::test]
async fn a_lone_node_that_was_years_ahead_serves_who_does_as_told_and_admits_nothing_twice() {
    years_ahead_and_set_right(1).await;
}

#[tokio::test]
async fn three_nodes_that_were_years_ahead_serve_who_does_as_told_and_admit_nothing_twice() {
    years_ahead_and_set_right(3).await;
}
