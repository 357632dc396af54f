//! What becomes of a device that has lost its place: of the streams it has open, and at a leader that was cut off before.

use rossby_api::{CallError, Code, RpcPath};
use rossby_domain::chain::KeyRecord;
use rossby_proto::v1;

use crate::deleting::delete;
use crate::devices::{adding, extend, join, removing};
use crate::leaders::new_leader;
use crate::recovering::{links, recover, recovery_key};
use crate::subscribe::open;
use crate::support::{Node, Resident, TestDevice, World};

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

/// A signed call to a node that is not the first.
async fn call_at(
    world: &World,
    node: &Node,
    who: &Resident,
    path: RpcPath,
    message: &impl prost::Message,
) -> Result<rossby_api::CallReply, CallError> {
    let nonce = world.nonce();
    let signed = world.sign(who, path, &nonce);
    let message = message.encode_to_vec();
    let header = signed.authorization(&message).unwrap();
    node.call(path, Some(header), message, false).await
}

#[tokio::test]
async fn a_leader_that_was_cut_off_serves_a_revoked_device_no_longer_than_its_lease() {
    let world = World::by_lease().await;
    let (first, second, chain) = two_devices(&world).await;
    let old = &world.nodes[0];
    let fetch = v1::FetchRequest::default();
    let fetch_at_old = async || call_at(&world, old, &second, RpcPath::Fetch, &fetch).await;
    // The first request of a time has the log tell that time.
    fetch_at_old().await.unwrap();
    world
        .eventually("the lease is good", || old.group.leads_by_lease())
        .await;
    world.network.isolate(old.id);
    fetch_at_old()
        .await
        .expect("it knows no better, and nobody else leads yet");

    // Its lease is over, and only then can another lead and revoke the device.
    world.clock.advance_millis(10_000);
    let new = &world.nodes[new_leader(&world, old).await];
    let link = removing(&chain, second.address.device, &first.device);
    let request = v1::ExtendChainRequest {
        link: link.encode().into(),
    };
    let revoked = call_at(&world, new, &first, RpcPath::ExtendChain, &request).await;
    assert!(revoked.is_ok(), "{revoked:?}");
    let refused = fetch_at_old().await;
    assert!(refused.is_err(), "a revoked device is served: {refused:?}");
    let at_new = call_at(&world, new, &second, RpcPath::Fetch, &fetch).await;
    let refused = match at_new {
        Err(CallError::Refused(error)) => error.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused, Code::Unauthenticated);
}
