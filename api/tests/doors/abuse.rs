//! What nobody may do too often, and what boxes do that are a nuisance.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rossby_api::admin::{box_view, reported, suspend};
use rossby_api::{Call, CallError, Code, DoorLimits, RpcPath};
use rossby_domain::Command;
use rossby_domain::command::CountReport;
use rossby_domain::limits::Limits;
use rossby_domain::report::ReportMark;
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;
use tokio::time::Instant;

use crate::identifiers::adding;
use crate::subscribe::put_resident;
use crate::support::{Resident, TestDevice, World, code_of, envelope, refusal, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
const CARL: &str = "+491703333333";
const HOUR_MS: u64 = 3_600_000;

/// A node whose doors count what callers do.
async fn rated(doors: DoorLimits) -> World {
    let addresses = vec!["node-1:7000".to_owned()];
    World::at_addresses(addresses, Limits::default(), doors).await
}

/// The default limits, but with all that comes after a burst so late that no test waits for it.
fn hourly() -> DoorLimits {
    DoorLimits {
        envelopes_every_ms: HOUR_MS,
        lookups_every_ms: HOUR_MS,
        ..DoorLimits::default()
    }
}

fn box_bytes(of: &Resident) -> bytes::Bytes {
    of.address.box_id.as_bytes().to_vec().into()
}

#[tokio::test]
async fn envelopes_beyond_the_rate_are_refused_each_by_itself_and_the_same_for_whomever() {
    let world = rated(hourly()).await;
    let anna = world.resident(1, ANNA, true).await;
    let (bert, carl) = (
        world.resident(2, BERT, true).await,
        world.resident(3, CARL, true).await,
    );
    world.block(&carl, &anna).await.unwrap();
    let mut refusals = Vec::new();
    for (to, is_heard) in [(&bert, true), (&carl, false)] {
        let many = (1..=70).map(|counter| envelope(to, counter, b"text"));
        let outcomes = world.send(&anna, many.collect()).await.unwrap();
        let (first, beyond) = outcomes.split_at(60);
        for (number, outcome) in (1..).zip(first) {
            match is_heard {
                true => assert_eq!(sequence(outcome), number),
                false => assert_eq!(refusal(outcome).code, "UNKNOWN_RECIPIENT"),
            }
        }
        for outcome in beyond {
            let refused = refusal(outcome);
            assert_eq!(
                (refused.code.as_str(), refused.retry()),
                ("RATE_LIMITED", v1::Retry::Same)
            );
            assert!((1..=HOUR_MS).contains(&refused.retry_after_ms.unwrap()));
        }
        refusals.push(beyond.len());
    }
    assert_eq!(refusals, [10, 10]);
    // Others may still write to him, and she to others.
    let dora = world.resident(4, "+491704444444", true).await;
    let sent = world.send(&dora, vec![envelope(&bert, 1, b"text")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 61);
    let sent = world.send(&anna, vec![envelope(&dora, 1, b"text")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 1);
}

#[tokio::test]
async fn a_device_sends_so_many_a_minute_and_looks_up_so_many_people() {
    let world = rated(DoorLimits {
        device_envelopes_per_minute: 5,
        ..hourly()
    })
    .await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let six = (1..=6).map(|counter| envelope(&bert, counter, b"text"));
    let outcomes = world.send(&anna, six.collect()).await.unwrap();
    assert_eq!(sequence(&outcomes[4]), 5);
    assert_eq!(refusal(&outcomes[5]).code, "RATE_LIMITED");

    let look_up = async |by| {
        let request = v1::LookupKeyRequest {
            by: Some(by),
            profile_after: None,
        };
        let looked = world.signed::<_, v1::LookupKeyResponse>(&anna, RpcPath::LookupKey, &request);
        looked.await.map(drop)
    };
    // Whether there is anybody makes no difference.
    let mut results = Vec::new();
    for number in 0..7 {
        let by = match number % 2 {
            0 => By::DeviceId(bert.address.device.as_bytes().to_vec().into()),
            _ => By::DeviceId(vec![9; 16].into()),
        };
        results.push(look_up(by).await);
    }
    // A box's id can't be guessed.
    let by_id = async || look_up(By::BoxId(box_bytes(&bert))).await;
    for _ in 0..10 {
        by_id().await.unwrap();
    }
    let seventh = results.pop().unwrap().unwrap_err();
    assert_eq!(seventh.code(), Code::RateLimited);
    assert!(seventh.retry_after().unwrap() <= Duration::from_millis(HOUR_MS));
    let found = |result: &Result<(), _>| result.is_ok();
    assert_eq!(results.iter().filter(|it| found(it)).count(), 3);
}

#[tokio::test]
async fn a_network_asks_for_so_many_codes_a_day() {
    let world = rated(DoorLimits {
        codes_per_network_per_day: 2,
        ..DoorLimits::default()
    })
    .await;
    let ask = async |number: u8, from: Option<&str>| {
        let request = TestDevice::new(number).register(&format!("+4917{number:08}"), true);
        let call = Call {
            path: RpcPath::Register,
            authorization: None,
            message: request.encode_to_vec().into(),
            deadline: Instant::now() + DoorLimits::default().call_timeout(),
            remote: from.map(|from| from.parse::<IpAddr>().unwrap()),
            relayed: false,
        };
        match Box::pin(world.nodes[0].service.handle(&call)).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        }
    };
    ask(11, Some("192.0.2.1")).await.unwrap();
    ask(12, Some("192.0.2.2")).await.unwrap();
    let third = ask(13, Some("192.0.2.3")).await.unwrap_err();
    assert_eq!(third.code(), Code::TooManyCodes);
    assert!(third.retry_after().unwrap() > Duration::from_secs(60 * 60));
    ask(13, Some("198.51.100.1")).await.unwrap();
    // It is not known where every call comes from.
    ask(14, None).await.unwrap();
}

#[tokio::test]
async fn a_suspended_box_sends_nothing_and_does_everything_else() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let router = world.router();
    let own = anna.address.box_id;
    assert!(suspend(router, own, true).await.unwrap());
    assert!(!suspend(router, own, true).await.unwrap());
    let hello = || vec![envelope(&bert, 1, b"text")];
    let refused = world.send(&anna, hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Suspended);
    assert!(world.fetch(&bert).await.envelopes.is_empty());
    // Her own devices go on speaking with each other, and others with her.
    let note = world.send(&anna, vec![envelope(&anna, 1, b"note")]).await;
    assert_eq!(sequence(&note.unwrap()[0]), 1);
    let sent = world.send(&bert, vec![envelope(&anna, 1, b"text")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 2);
    let page = world.fetch(&anna).await;
    assert_eq!(page.envelopes.len(), 2);
    assert!(page.status.unwrap().suspended);
    let upto = v1::AcknowledgeRequest { upto: 2 };
    let acknowledged =
        world.signed::<_, v1::AcknowledgeResponse>(&anna, RpcPath::Acknowledge, &upto);
    acknowledged.await.unwrap();
    assert!(box_view(router, own).await.unwrap().suspended);

    assert!(suspend(router, own, false).await.unwrap());
    let sent = world.send(&anna, hello()).await.unwrap();
    assert_eq!(sequence(&sent[0]), 1);
    let nobody = rossby_domain::ids::BoxId::derive(own.partition(), &[9; 32]);
    assert!(suspend(router, nobody, true).await.is_err());
    assert!(box_view(router, nobody).await.is_err());
}

#[tokio::test]
async fn who_had_mail_of_a_box_can_report_it_once_and_block_it_in_the_same_step() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let (bert, carl) = (
        world.resident(2, BERT, true).await,
        world.resident(3, CARL, true).await,
    );
    let report = async |by: &Resident, other: &Resident, block| {
        let box_id = box_bytes(other);
        let request = v1::ReportRequest { box_id, block };
        let reported = world.signed::<_, v1::ReportResponse>(by, RpcPath::Report, &request);
        reported.await.map(drop)
    };
    let reports = async || {
        let view = box_view(world.router(), anna.address.box_id);
        view.await.unwrap().reports
    };
    let never = report(&bert, &anna, true).await;
    assert_eq!(code_of(never), Code::NeverHeardFrom);
    assert_eq!(
        code_of(report(&bert, &bert, false).await),
        Code::InvalidArgument
    );
    for (to, counter) in [(&bert, 1), (&carl, 1)] {
        let sent = world.send(&anna, vec![envelope(to, counter, b"buy")]).await;
        assert_eq!(sequence(&sent.unwrap()[0]), 1);
    }
    assert_eq!(reports().await, 0);
    report(&bert, &anna, false).await.unwrap();
    report(&bert, &anna, false).await.unwrap();
    assert_eq!(reports().await, 1);
    report(&carl, &anna, true).await.unwrap();
    assert_eq!(reports().await, 2);
    // She is blocked by one of them, and not told of either.
    for (to, code) in [(&bert, None), (&carl, Some("UNKNOWN_RECIPIENT"))] {
        let sent = world
            .send(&anna, vec![envelope(to, 2, b"more")])
            .await
            .unwrap();
        match code {
            None => assert_eq!(sequence(&sent[0]), 2),
            Some(code) => assert_eq!(refusal(&sent[0]).code, code),
        }
    }
}

#[tokio::test]
async fn a_report_counts_though_nobody_more_can_be_blocked_and_so_many_are_taken_of_a_box() {
    let limits = Limits {
        blocked_boxes: 0,
        ..Limits::default()
    };
    let doors = DoorLimits {
        lookups_burst: 3,
        ..hourly()
    };
    let addresses = vec!["node-1:7000".to_owned()];
    let world = World::at_addresses(addresses, limits, doors).await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let sent = world.send(&anna, vec![envelope(&bert, 1, b"buy")]).await;
    assert_eq!(sequence(&sent.unwrap()[0]), 1);
    let report = async |block| {
        let box_id = box_bytes(&anna);
        let request = v1::ReportRequest { box_id, block };
        let reported = world.signed::<_, v1::ReportResponse>(&bert, RpcPath::Report, &request);
        reported.await.map(drop)
    };
    assert_eq!(code_of(report(true).await), Code::TooManyBlocked);
    let view = box_view(world.router(), anna.address.box_id).await;
    assert_eq!(view.unwrap().reports, 1);
    report(false).await.unwrap();
    report(false).await.unwrap();
    assert_eq!(code_of(report(false).await), Code::RateLimited);
}

#[tokio::test]
async fn a_box_asks_for_so_many_codes_a_day_and_its_network_is_counted_besides() {
    let world = rated(DoorLimits {
        codes_per_network_per_day: 2,
        codes_per_box_per_day: 2,
        ..DoorLimits::default()
    })
    .await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let ask = async |number: u8, by: &Resident, from: &str| {
        let request = adding(by, &format!("+4917{number:08}"), true);
        let (path, message, nonce) = (
            RpcPath::AddIdentifier,
            request.encode_to_vec(),
            world.nonce(),
        );
        let signed = world.sign(by, path, &nonce);
        let call = Call {
            path,
            authorization: Some(signed.authorization(&message).unwrap()),
            message: message.into(),
            deadline: Instant::now() + DoorLimits::default().call_timeout(),
            remote: Some(from.parse::<IpAddr>().unwrap()),
            relayed: false,
        };
        match Box::pin(world.nodes[0].service.handle(&call)).await {
            Ok(_) => None,
            Err(CallError::Refused(error)) => Some(error.code()),
            Err(other) => panic!("{other:?}"),
        }
    };
    let too_many = Some(Code::TooManyCodes);
    assert_eq!(ask(11, &anna, "192.0.2.1").await, None);
    assert_eq!(ask(12, &bert, "192.0.2.2").await, None);
    assert_eq!(ask(13, &anna, "192.0.2.3").await, too_many);
    // Another network is no help to a box that has asked as often as it may.
    assert_eq!(ask(14, &anna, "198.51.100.1").await, too_many);
    assert_eq!(ask(15, &bert, "198.51.100.1").await, None);
}

#[tokio::test]
async fn all_reported_boxes_are_listed_however_many_a_partition_has() {
    let world = World::new().await;
    let device = Arc::new(TestDevice::new(1));
    let partitions: Vec<_> = world.partitions.all().collect();
    let mut boxes = Vec::new();
    // More than are asked for at a time, in one of them.
    for number in 0..208 {
        let partition = partitions[usize::from(number >= 205)];
        let resident = put_resident(&world, &device, (partition, number)).await;
        boxes.push(resident.address.box_id);
    }
    // Every tenth is reported by one more.
    let mut reports = Vec::new();
    for (number, box_id) in boxes.iter().enumerate() {
        for reporter in 0..=u8::from(number % 10 == 0) {
            let report = CountReport {
                box_id: *box_id,
                mark: ReportMark([reporter; 16]),
            };
            reports.push((box_id.partition(), Command::CountReport(report)));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let replies = world.group.propose(reports, deadline).await.unwrap();
    assert!(replies.iter().all(Result::is_ok));
    let listed = async |at_least| {
        let found = reported(world.router(), at_least).await.unwrap();
        let found = found.into_iter().map(|found| (found.box_id, found.reports));
        found.collect::<Vec<_>>()
    };
    let most: Vec<_> = boxes
        .iter()
        .step_by(10)
        .map(|box_id| (*box_id, 2))
        .collect();
    let sorted = |mut boxes: Vec<(_, u32)>| {
        boxes.sort_unstable();
        boxes
    };
    assert_eq!(listed(2).await, sorted(most));
    let all = listed(1).await;
    assert!(all.is_sorted_by_key(|(_, reports)| std::cmp::Reverse(*reports)));
    let all = sorted(all.into_iter().map(|(box_id, _)| (box_id, 0)).collect());
    let expected = boxes.iter().map(|box_id| (*box_id, 0)).collect();
    assert_eq!(all, sorted(expected));
    assert!(listed(3).await.is_empty());
}
