//! Clocks that were years ahead together and have been set right, as callers live through it: whoever
//! follows the service's time is served, and no request is admitted twice.

use std::time::Duration;

use prost::Message as _;
use rossby_api::{CallError, CallReply, Code, RpcPath};
use rossby_domain::limits::Limits;
use rossby_domain::time::{DAY_MS, Timestamp};
use rossby_proto::v1;
use rossby_seams::clock::Clock as _;
use tokio::time::Instant;

use crate::support::{Node, Resident, World, envelope, sequence};

const YEARS_MS: u64 = 10 * 365 * DAY_MS;
/// Nothing here takes this long unless it is stuck.
const STUCK: Duration = Duration::from_secs(40);

struct Signed {
    path: RpcPath,
    header: String,
    message: Vec<u8>,
}

fn sign(world: &World, who: &Resident, what: &(RpcPath, Vec<u8>), at: Timestamp) -> Signed {
    let (path, message) = what.clone();
    let nonce = world.nonce();
    let mut signed = world.sign(who, path, &nonce);
    signed.ts_secs = at.as_secs();
    let header = signed.authorization(&message).unwrap();
    Signed {
        path,
        header,
        message,
    }
}

async fn call(node: &Node, signed: &Signed) -> Result<CallReply, CallError> {
    let (header, message) = (signed.header.clone(), signed.message.clone());
    node.call(signed.path, Some(header), message, false).await
}

fn told(error: &CallError) -> Option<Timestamp> {
    let CallError::Refused(error) = error else {
        return None;
    };
    let told = error.metadata("server_time_ms")?;
    Some(Timestamp::from_millis(told.parse().unwrap()))
}

fn fetch() -> (RpcPath, Vec<u8>) {
    let message = v1::FetchRequest {
        after: 0,
        max_envelopes: 1,
    };
    (RpcPath::Fetch, message.encode_to_vec())
}

async fn leader(world: &World, fits: impl Fn(&Node) -> bool) -> &Node {
    let leads = |node: &Node| fits(node) && node.group.leads_surely();
    world
        .eventually("a node leads", || world.nodes.iter().any(leads))
        .await;
    world.nodes.iter().find(|node| leads(node)).unwrap()
}

/// A client's way in: by its own clock, then as it is told, at whoever leads. What was admitted, and the
/// reply. A leader that was refused for its clock is asked again: nodes learn of each other's once a second.
async fn insist(world: &World, who: &Resident, what: (RpcPath, Vec<u8>)) -> (Signed, CallReply) {
    let (mut at, deadline) = (world.clock.now(), Instant::now() + STUCK);
    loop {
        let signed = sign(world, who, &what, at);
        let error = match call(leader(world, |_| true).await, &signed).await {
            Ok(reply) => return (signed, reply),
            Err(error) => error,
        };
        assert!(Instant::now() < deadline, "{error:?}");
        if let Some(time) = told(&error) {
            at = time;
            // It was held back until then.
            world.clock.advance_millis(1_000);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// It is refused at whoever leads, for this and for no passing reason.
async fn assert_refused(world: &World, captured: &Signed) {
    let deadline = Instant::now() + STUCK;
    loop {
        match call(leader(world, |_| true).await, captured).await {
            Ok(_) => panic!("a request was admitted twice"),
            Err(CallError::Refused(error)) if error.code() == Code::Unauthenticated => return,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn hand_over(world: &World) {
    let old = leader(world, |_| true).await;
    let deadline = Instant::now() + STUCK;
    // It may just be doing so by itself.
    let _handed = old.group.transfer_leader(None, deadline).await;
    leader(world, |node| node.id != old.id).await;
}

async fn years_ahead_and_set_right(nodes: u64) {
    let world = World::of_nodes(nodes, Limits::default()).await;
    let anna = world.resident(1, "+491701111111", true).await;
    let bert = world.resident(2, "+491702222222", true).await;
    let right = world.clock.now();

    // Reads, and nothing else: only what the guard has the log say remembers them.
    world.clock.advance_millis(YEARS_MS);
    let mut captured = Vec::new();
    while world.group.reader().times().unwrap().clock < right.plus_millis(YEARS_MS) {
        captured.push(insist(&world, &anna, fetch()).await.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    world.clock.set(right.plus_millis(60_000));
    captured.push(insist(&world, &anna, fetch()).await.0);
    let envelopes = vec![envelope(&bert, 1, b"letter")];
    let send = v1::SendRequest { envelopes }.encode_to_vec();
    let (_, sent) = insist(&world, &anna, (RpcPath::Send, send)).await;
    let sent = v1::SendResponse::decode(sent.message).unwrap();
    assert_eq!(sequence(&sent.outcomes[0]), 1);
    let (_, page) = insist(&world, &bert, fetch()).await;
    let page = v1::FetchResponse::decode(page.message).unwrap();
    assert_eq!(page.envelopes.len(), 1);
    let ahead_ms = leader(&world, |_| true).await.group.status().time_ahead_ms;
    assert!(ahead_ms > YEARS_MS / 2, "{ahead_ms}");
    if nodes == 1 {
        // Codes are brought and taken, too.
        world.resident(3, "+491703333333", true).await;
    } else {
        hand_over(&world).await;
        captured.push(insist(&world, &anna, fetch()).await.0);
    }

    // Ten years later real time comes by, and with it another leader, if there is one.
    world.clock.set(right.plus_millis(YEARS_MS - 2_000));
    for round in 0..12 {
        if nodes > 1 && round == 4 {
            hand_over(&world).await;
        }
        for signed in &captured {
            assert_refused(&world, signed).await;
        }
        insist(&world, &anna, fetch()).await;
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
