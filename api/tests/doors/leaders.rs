//! Calls in a cluster of three: who answers them, and what a change of leader means for them.

use std::time::Duration;

use prost::Message as _;
use rossby_api::{CallError, Code, RpcPath};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_raft::Leadership;
use rossby_seams::clock::Clock as _;
use tokio::time::Instant;

use crate::support::{self, Node, Resident, World, envelope};

const ANNA: &str = "+491701111111";

async fn world_of_three() -> (World, Resident) {
    let world = World::of_nodes(3, Limits::default()).await;
    let anna = world.resident(1, ANNA, true).await;
    (world, anna)
}

fn fetch_message() -> Vec<u8> {
    v1::FetchRequest {
        after: 0,
        max_envelopes: 1,
    }
    .encode_to_vec()
}

/// A signed Fetch as it would be sent at `at`.
fn signed_fetch(world: &World, who: &Resident, at: Timestamp) -> (String, Vec<u8>) {
    let nonce = world.nonce();
    let mut signed = world.sign(who, RpcPath::Fetch, &nonce);
    signed.ts_secs = at.as_secs();
    let message = fetch_message();
    (signed.authorization(&message).unwrap(), message)
}

pub async fn new_leader(world: &World, old: &Node) -> usize {
    let leads = |node: &Node| {
        node.id != old.id && matches!(node.group.leadership(), Leadership::Here { .. })
    };
    world
        .eventually("another node leads", || world.nodes.iter().any(leads))
        .await;
    world.nodes.iter().position(leads).unwrap()
}

fn refused(result: Result<rossby_api::CallReply, CallError>) -> rossby_api::ApiError {
    match result.unwrap_err() {
        CallError::Refused(error) => error,
        elsewhere => panic!("{elsewhere:?}"),
    }
}

#[tokio::test]
async fn a_follower_names_the_leader_also_to_who_relays_and_has_registrations_done_there() {
    let (world, anna) = world_of_three().await;
    let register = support::TestDevice::new(7)
        .register("+491707777777", true)
        .encode_to_vec();
    let (header, message) = signed_fetch(&world, &anna, world.clock.now());
    let fetch = || (Some(header.clone()), message.clone());
    for follower in &world.nodes[1..] {
        for relayed in [false, true] {
            let (header, message) = fetch();
            let elsewhere = follower.call(RpcPath::Fetch, header, message, relayed);
            let elsewhere = elsewhere.await;
            let Err(CallError::Elsewhere { leader, .. }) = elsewhere else {
                panic!("{elsewhere:?}")
            };
            assert_eq!(leader.unwrap().node, world.nodes[0].id);
        }
    }
    // No follower has used up the nonce.
    let (header, message) = fetch();
    let fetched = world.nodes[0].call(RpcPath::Fetch, header, message, true);
    assert!(fetched.await.is_ok());
    // It has no caller yet, and runs anywhere.
    let registered = world.nodes[1].call(RpcPath::Register, None, register, false);
    assert!(registered.await.is_ok());
}

#[tokio::test]
async fn by_its_lease_a_leader_answers_lookups_and_fetches_without_the_others() {
    let world = World::by_lease().await;
    let anna = world.resident(1, ANNA, true).await;
    let leader = &world.nodes[0];
    let empty = async || {
        let (header, message) = signed_fetch(&world, &anna, world.clock.now());
        let fetched = leader.call(RpcPath::Fetch, Some(header), message, false);
        let reply = v1::FetchResponse::decode(fetched.await.unwrap().message).unwrap();
        assert!(reply.envelopes.is_empty());
    };
    // The first request of a time has the log tell that time.
    empty().await;
    world
        .eventually("the lease is good", || leader.group.leads_by_lease())
        .await;
    world.network.isolate(leader.id);
    let before = leader.group.read_counts();
    for _ in 0..3 {
        empty().await;
        let of = anna.address.box_id.as_bytes().to_vec().into();
        let by = Some(v1::lookup_key_request::By::BoxId(of));
        let request = v1::LookupKeyRequest {
            by,
            profile_after: None,
        };
        let found: Result<v1::LookupKeyResponse, _> =
            world.signed(&anna, RpcPath::LookupKey, &request).await;
        assert!(found.is_ok(), "{found:?}");
    }
    let after = leader.group.read_counts();
    assert_eq!(after.by_quorum, before.by_quorum);
    assert!(after.by_lease >= before.by_lease + 6);
}

#[tokio::test]
async fn a_new_leader_refuses_what_the_old_one_may_have_seen_and_tells_the_time_to_use() {
    let (world, anna) = world_of_three().await;
    let (captured, message) = signed_fetch(&world, &anna, world.clock.now());
    let old = &world.nodes[0];
    assert!(
        old.call(
            RpcPath::Fetch,
            Some(captured.clone()),
            message.clone(),
            false
        )
        .await
        .is_ok()
    );

    let deadline = Instant::now() + Duration::from_secs(15);
    old.group.transfer_leader(None, deadline).await.unwrap();
    let new = &world.nodes[new_leader(&world, old).await];
    let replay = new
        .call(RpcPath::Fetch, Some(captured.clone()), message, false)
        .await;
    let refusal = refused(replay);
    assert_eq!(refusal.code(), Code::Unauthenticated);
    let told: u64 = refusal.metadata("server_time_ms").unwrap().parse().unwrap();

    world.clock.advance_millis(1_000);
    let (again, message) = signed_fetch(&world, &anna, Timestamp::from_millis(told));
    assert!(
        new.call(RpcPath::Fetch, Some(again), message, false)
            .await
            .is_ok()
    );
    for _ in 0..8 {
        world.clock.advance_millis(9_000);
        let replay = new
            .call(
                RpcPath::Fetch,
                Some(captured.clone()),
                fetch_message(),
                false,
            )
            .await;
        assert_eq!(refused(replay).code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn without_a_quorum_every_call_is_refused_as_safe_to_repeat() {
    let (world, anna) = world_of_three().await;
    let old = &world.nodes[0];
    for follower in &world.nodes[1..] {
        world.network.isolate(follower.id);
    }
    let message = v1::SendRequest {
        envelopes: vec![envelope(&anna, 1, b"to myself")],
    };
    let message = message.encode_to_vec();
    for _ in 0..3 {
        let nonce = world.nonce();
        let header = world
            .sign(&anna, RpcPath::Send, &nonce)
            .authorization(&message)
            .unwrap();
        let refusal = refused(
            old.call(RpcPath::Send, Some(header), message.clone(), false)
                .await,
        );
        assert!(
            matches!(refusal.code(), Code::OutcomeUnknown | Code::Unavailable),
            "{:?}",
            refusal.code()
        );
        assert_eq!(refusal.code().retry(), rossby_api::Retry::Same);
    }
    let (header, message) = signed_fetch(&world, &anna, world.clock.now());
    let refusal = refused(old.call(RpcPath::Fetch, Some(header), message, false).await);
    assert_eq!(refusal.code(), Code::Unavailable);
    let register = support::TestDevice::new(7)
        .register("+491707777777", true)
        .encode_to_vec();
    let refusal = refused(old.call(RpcPath::Register, None, register, false).await);
    assert_eq!(refusal.code().retry(), rossby_api::Retry::Same);
}

#[tokio::test]
async fn a_device_that_lost_its_token_on_the_way_gets_it_from_the_next_leader() {
    let world = World::of_nodes(3, Limits::default()).await;
    let device = support::TestDevice::new(1);
    let request = device.register(ANNA, true);
    let registered: v1::RegisterResponse = world.plain(RpcPath::Register, &request).await.unwrap();
    let (_, code) = world.next_code().await;
    let request = device.authorize(&registered.box_id, ANNA, &code);
    let lost: v1::AuthorizeResponse = world.plain(RpcPath::Authorize, &request).await.unwrap();

    let old = &world.nodes[0];
    let deadline = Instant::now() + Duration::from_secs(15);
    old.group.transfer_leader(None, deadline).await.unwrap();
    let new = &world.nodes[new_leader(&world, old).await];
    let reply = new
        .call(RpcPath::Authorize, None, request.encode_to_vec(), false)
        .await
        .unwrap();
    let again = v1::AuthorizeResponse::decode(reply.message).unwrap();
    let address = device.address(&registered.box_id);
    assert_eq!(
        device.open_token(&address, &again),
        device.open_token(&address, &lost)
    );
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_leader_changes() {
    let (world, anna) = world_of_three().await;
    let bert = world.resident(2, "+491702222222", true).await;
    let outcomes = world
        .send(&anna, vec![envelope(&bert, 1, b"before")])
        .await
        .unwrap();
    assert_eq!(support::sequence(&outcomes[0]), 1);
    let old = &world.nodes[0];
    world.network.isolate(old.id);
    let new = &world.nodes[new_leader(&world, old).await];
    world.clock.advance_millis(10_000);

    let retry = v1::SendRequest {
        envelopes: vec![envelope(&bert, 1, b"before"), envelope(&bert, 2, b"after")],
    };
    let message = retry.encode_to_vec();
    let nonce = world.nonce();
    let header = world
        .sign(&anna, RpcPath::Send, &nonce)
        .authorization(&message)
        .unwrap();
    let reply = new
        .call(RpcPath::Send, Some(header), message, false)
        .await
        .unwrap();
    let outcomes = v1::SendResponse::decode(reply.message).unwrap().outcomes;
    let sequences: Vec<u64> = outcomes.iter().map(support::sequence).collect();
    assert_eq!(sequences, [1, 2]);

    let nonce = world.nonce();
    let message = v1::FetchRequest::default().encode_to_vec();
    let header = world
        .sign(&bert, RpcPath::Fetch, &nonce)
        .authorization(&message)
        .unwrap();
    let reply = new
        .call(RpcPath::Fetch, Some(header), message, false)
        .await
        .unwrap();
    let page = v1::FetchResponse::decode(reply.message).unwrap();
    let bodies: Vec<&[u8]> = page.envelopes.iter().map(|e| e.body.as_ref()).collect();
    assert_eq!(bodies, [b"before".as_slice(), b"after"]);
}
