//! Reports, suspension, blocks and profiles between boxes of different groups.

use bytes::Bytes;
use prost::Message;
use rossby_api::admin::{box_view, suspend};
use rossby_api::{Code, RpcPath};
use rossby_domain::ids::{GroupId, NodeId};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;
use tonic::Status;

use super::losing::{as_devices_do, may_pass};
use super::three;
use super::world::{NODES, ONE, World, code};
use crate::profiles::setting;
use crate::support::{Resident, TestDevice, envelope, refusal, sequence};

fn id_of(who: &Resident) -> Bytes {
    Bytes::copy_from_slice(who.address.box_id.as_bytes())
}

async fn report(
    world: &World,
    at: u64,
    by: &Resident,
    other: &Resident,
    block: bool,
) -> Result<(), Status> {
    let box_id = id_of(other);
    let request = v1::ReportRequest { box_id, block };
    let reported = world.signed(at, by, RpcPath::Report, &request).await;
    reported.map(|_: v1::ReportResponse| ())
}

async fn see(
    world: &World,
    at: u64,
    by: &Resident,
    of: &Resident,
) -> Result<v1::LookupKeyResponse, Status> {
    let request = v1::LookupKeyRequest {
        by: Some(By::BoxId(id_of(of))),
        profile_after: Some(0),
    };
    world.signed(at, by, RpcPath::LookupKey, &request).await
}

#[tokio::test]
async fn a_report_to_another_group_counts_once_wherever_it_breaks_off() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    // Node 4 has no replica of the reported box's group.
    let reports = async || {
        let view = box_view(world.router(4), anna.address.box_id).await;
        view.unwrap().reports
    };
    let never = report(&world, 1, &bert, &anna, true).await.unwrap_err();
    assert_eq!(code(&never), Code::NeverHeardFrom.as_str());
    for who in [&bert, &carl] {
        let sent = world.send(3, &anna, vec![envelope(who, 1, b"buy")]).await;
        assert_eq!(sequence(&sent.unwrap()[0]), 1);
    }
    // Node 2 leads the reporter's group, and asks node 1.
    let mut counted = Vec::new();
    for after in 0.. {
        world.break_off(2, after);
        let reported = report(&world, 4, &bert, &anna, false).await;
        let is_broken = world.mend(2);
        counted.push(reports().await);
        match reported {
            Ok(()) => break,
            Err(refused) => assert!(
                is_broken && may_pass(&refused),
                "after {after}: {refused:?}"
            ),
        }
    }
    // It asks first; then a report is counted, and only the answer is lost.
    assert_eq!(counted, [0, 0, 1, 1]);
    report(&world, 4, &carl, &anna, true).await.unwrap();
    assert_eq!(reports().await, 2);
    let letters = [&bert, &carl].map(|who| envelope(who, 2, b"buy")).to_vec();
    let sent = world.send(2, &anna, letters).await.unwrap();
    assert_eq!(sequence(&sent[0]), 2);
    assert_eq!(refusal(&sent[1]).code, Code::UnknownRecipient.as_str());

    suspend(world.router(4), anna.address.box_id, true)
        .await
        .unwrap();
    for at in 1..=NODES {
        let refused = world
            .send(at, &anna, vec![envelope(&bert, 3, b"buy")])
            .await;
        assert_eq!(code(&refused.unwrap_err()), Code::Suspended.as_str());
    }
    suspend(world.router(3), anna.address.box_id, false)
        .await
        .unwrap();
    let sent = world.send(4, &anna, vec![envelope(&bert, 3, b"buy")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 3);
}

#[tokio::test]
async fn who_is_reported_is_blocked_though_their_group_can_not_count_it_now() {
    let world = World::new().await;
    let [anna, bert, _] = three(&world).await;
    let sent = world.send(3, &anna, vec![envelope(&bert, 1, b"buy")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 1);
    world.silence(ONE).await;
    let refused = report(&world, 4, &bert, &anna, true).await.unwrap_err();
    assert!(may_pass(&refused), "{refused:?}");
    world.heal(ONE).await;
    let letter = vec![envelope(&bert, 2, b"buy")];
    let sent = as_devices_do(async || world.send(3, &anna, letter.clone()).await);
    let refused = sent.await.unwrap();
    assert_eq!(refusal(&refused[0]).code, Code::UnknownRecipient.as_str());
    report(&world, 4, &bert, &anna, true).await.unwrap();
    let view = box_view(world.router(4), anna.address.box_id).await;
    assert_eq!(view.unwrap().reports, 1);
}

/// All that a person is told of a box, and what the node that leads their group had others do for it.
#[derive(Debug, PartialEq)]
struct Told {
    looked: (String, Vec<u8>),
    sent: Vec<u8>,
    signalled: Vec<u8>,
    dispatched: Vec<(GroupId, NodeId)>,
}

async fn tell(world: &World, at: u64, (by, leads): (&Resident, u64), of: &Resident) -> Told {
    world.dispatched(leads);
    let looked = see(world, at, by, of).await.unwrap_err();
    assert_eq!(code(&looked), Code::NoUser.as_str());
    let letters = vec![envelope(of, 1, b"hello?")];
    let sent = world.send(at, by, letters).await.unwrap();
    assert_eq!(refusal(&sent[0]).code, Code::UnknownRecipient.as_str());
    let request = v1::NotifyRequest {
        recipient_box_id: id_of(of),
        body: Bytes::from_static(b"sealed"),
    };
    let signalled = world.signed(at, by, RpcPath::Notify, &request).await;
    let signalled: v1::NotifyResponse = signalled.unwrap();
    // What follows a signal is done when its sender has long been answered.
    let mut dispatched = Vec::new();
    let all_went_out = || {
        dispatched.extend(world.dispatched(leads));
        dispatched.len() >= 3
    };
    world.eventually("the signal goes out", all_went_out).await;
    Told {
        looked: (looked.message().to_owned(), looked.details().to_vec()),
        sent: refusal(&sent[0]).encode_to_vec(),
        signalled: signalled.encode_to_vec(),
        dispatched,
    }
}

#[tokio::test]
async fn who_is_blocked_or_no_contact_is_told_from_every_node_what_is_told_of_nobody() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    let profile = setting(&carl, 7, b"sealed");
    let set = world.signed(4, &carl, RpcPath::SetProfile, &profile).await;
    let _: v1::SetProfileResponse = set.unwrap();
    for at in 1..=NODES {
        for by in [&anna, &bert] {
            let seen = see(&world, at, by, &carl).await.unwrap();
            let shown = (seen.profile_version, &seen.sealed_profile[..]);
            assert_eq!(shown, (7, &b"sealed"[..]));
        }
    }
    let home = carl.address.box_id.partition().number();
    let nobody = Resident {
        address: TestDevice::new(9).address_in(home),
        ..carl.clone()
    };
    let block = v1::BlockRequest {
        box_id: id_of(&anna),
        blocked: true,
    };
    let blocked = world.signed(1, &carl, RpcPath::Block, &block).await;
    let _: v1::BlockResponse = blocked.unwrap();
    let accept = v1::AcceptRequest {
        contacts_only: Some(true),
        ..v1::AcceptRequest::default()
    };
    for (by, leads) in [(&anna, 1), (&bert, 2)] {
        for at in 1..=NODES {
            let told = tell(&world, at, (by, leads), &carl).await;
            assert_eq!(told, tell(&world, at, (by, leads), &nobody).await);
        }
        // Bert was heard so far. From now on contacts only are.
        let accepted = world.signed(2, &carl, RpcPath::Accept, &accept).await;
        let _: v1::AcceptResponse = accepted.unwrap();
    }
    let accept = v1::AcceptRequest {
        allow: vec![id_of(&bert)],
        ..accept
    };
    let accepted = world.signed(4, &carl, RpcPath::Accept, &accept).await;
    let _: v1::AcceptResponse = accepted.unwrap();
    let sent = world.send(1, &bert, vec![envelope(&carl, 1, b"it is me")]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 1);
    assert_eq!(
        see(&world, 1, &bert, &carl).await.unwrap().profile_version,
        7
    );
    assert_eq!(world.fetch(2, &carl, 0).await, ["it is me"]);
}
