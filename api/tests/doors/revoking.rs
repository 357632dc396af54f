//! What becomes of a device that has lost its place: of the streams it has open, and at a leader that was cut off before.

use rossby_api::admin::suspend;
use rossby_api::{CallError, Code, RpcPath};
use rossby_domain::chain::KeyRecord;
use rossby_proto::v1;

use crate::deleting::delete;
use crate::devices::{adding, extend, join, removing};
use crate::leaders::new_leader;
use crate::recovering::{links, recover, recovery_key};
use crate::subscribe::open;
use crate::support::{Node, Resident, TestDevice, World};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

/// Somebody with two devices, and the chain that says so.
async fn two_devices(world: &World) -> (Resident, Resident, KeyRecord) {
    let first = world.resident(2, BERT, true).await;
    let chain = &first.device.record;
    let added = adding(chain, &TestDevice::new(12), &first.device);
    extend(world, &first, &added).await.unwrap();
    let second = join(world, TestDevice::new(12)).await.unwrap();
    let chain = chain.extend(added).unwrap();
    (first, second, chain)
}

#[tokio::test]
async fn a_stream_on_which_nothing_comes_ends_when_its_device_is_revoked_and_the_others_go_on() {
    let world = World::new().await;
    let (first, second, chain) = two_devices(&world).await;
    let mut kept = open(&world, &first).await;
    let mut stream = open(&world, &second).await;
    kept.page().await;
    stream.page().await;
    let removed = removing(&chain, second.address.device, &first.device);
    extend(&world, &first, &removed).await.unwrap();
    assert_eq!(stream.end().await, "UNAUTHENTICATED");
    let letter = crate::support::envelope(&first, 1, b"still here");
    let letter = v1::OutgoingEnvelope {
        chain_version: 2,
        ..letter
    };
    world.send(&first, vec![letter]).await.unwrap();
    assert_eq!(kept.bodies(1).await, ["still here"]);
}

#[tokio::test]
async fn all_streams_end_when_the_recovery_key_shuts_the_devices_out_or_the_box_is_deleted() {
    for deletes in [false, true] {
        let world = World::new().await;
        let (first, second, chain) = two_devices(&world).await;
        let mut streams = Vec::new();
        for who in [&first, &second] {
            let mut stream = open(&world, who).await;
            stream.page().await;
            streams.push(stream);
        }
        if deletes {
            delete(&world, &first).await.unwrap();
        } else {
            let new = TestDevice::new(21);
            let links = links(&chain, &new, &recovery_key(2), true);
            recover(&world, &first.address, new, &links).await.unwrap();
        }
        for stream in streams {
            assert_eq!(stream.end().await, "UNAUTHENTICATED");
        }
    }
}

/// A signed call to a node that need not be the first; why it is refused.
async fn call_at(
    world: &World,
    node: &Node,
    who: &Resident,
    path: RpcPath,
    message: &impl prost::Message,
) -> Result<(), Code> {
    let nonce = world.nonce();
    let signed = world.sign(who, path, &nonce);
    let message = message.encode_to_vec();
    let header = signed.authorization(&message).unwrap();
    match node.call(path, Some(header), message, false).await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(error)) => Err(error.code()),
        Err(CallError::Elsewhere { .. }) => Err(Code::Unavailable),
    }
}

fn letter(to: &Resident, chain_version: u64) -> v1::SendRequest {
    let letter = crate::support::envelope(to, 1, b"text");
    v1::SendRequest {
        envelopes: vec![v1::OutgoingEnvelope {
            chain_version,
            ..letter
        }],
    }
}

/// The clock of a world whose first node leads by a lease that is good, and is then cut off, goes on until another node leads: which
/// one. Until then the first goes on serving.
async fn cut_off<'a>(world: &'a World, served: &Resident) -> (&'a Node, &'a Node) {
    let old = &world.nodes[0];
    let fetch = v1::FetchRequest::default();
    let fetch_at_old = async || call_at(world, old, served, RpcPath::Fetch, &fetch).await;
    // The first request of a time has the log tell that time.
    fetch_at_old().await.unwrap();
    world
        .eventually("the lease is good", || old.group.leads_by_lease())
        .await;
    world.network.isolate(old.id);
    fetch_at_old()
        .await
        .expect("it knows no better, and nobody else leads yet");
    // Its lease is over, and only then can another lead.
    world.clock.advance_millis(10_000);
    (old, &world.nodes[new_leader(world, old).await])
}

#[tokio::test]
async fn a_leader_that_was_cut_off_serves_a_revoked_device_no_longer_than_its_lease() {
    let world = World::by_lease().await;
    let (first, second, chain) = two_devices(&world).await;
    let mut stream = open(&world, &second).await;
    stream.page().await;
    let (old, new) = cut_off(&world, &second).await;
    let link = removing(&chain, second.address.device, &first.device);
    let request = v1::ExtendChainRequest {
        link: link.encode().into(),
    };
    let revoked = call_at(&world, new, &first, RpcPath::ExtendChain, &request).await;
    assert_eq!(revoked, Ok(()));

    let (fetch, send) = (v1::FetchRequest::default(), letter(&first, 1));
    let refusals = [
        call_at(&world, old, &second, RpcPath::Fetch, &fetch).await,
        call_at(&world, old, &second, RpcPath::Send, &send).await,
    ];
    assert_eq!(
        refusals,
        [Err(Code::Unavailable); 2],
        "a revoked device is served"
    );
    assert_eq!(stream.end().await, "UNAVAILABLE");
    for (path, refused) in [
        (
            RpcPath::Fetch,
            call_at(&world, new, &second, RpcPath::Fetch, &fetch).await,
        ),
        (
            RpcPath::Send,
            call_at(&world, new, &second, RpcPath::Send, &send).await,
        ),
    ] {
        assert_eq!(refused, Err(Code::Unauthenticated), "{path:?}");
    }
}

#[tokio::test]
async fn a_leader_that_was_cut_off_lets_a_suspended_box_send_no_longer_than_its_lease() {
    let world = World::by_lease().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let (old, new) = cut_off(&world, &anna).await;
    let ordered = suspend(world.router_of(new), anna.address.box_id, true).await;
    assert!(ordered.unwrap());
    let letter = letter(&bert, 0);
    let send = async |node| call_at(&world, node, &anna, RpcPath::Send, &letter).await;
    assert_eq!(send(old).await, Err(Code::Unavailable));
    assert_eq!(send(new).await, Err(Code::Suspended));
}
