//! Calls between people whose boxes are in different groups, led by different nodes.

mod abuse;
mod breaking;
mod losing;
mod recovering;
mod world;

use std::time::Duration;

use futures_util::StreamExt as _;
use prost::Message as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::command::VerifyClaim;
use rossby_domain::ids::{BoxId, NodeId, PartitionId};
use rossby_domain::{Answer, Command, Query};
use rossby_proto::v1;
use rossby_proto::v1::send_outcome::Result as Outcome;
use tokio::time::{Instant, timeout};

use crate::identifiers;
use crate::support::{Resident, TestDevice, envelope, phone_of, refusal, sequence};
use world::{NODES, ONE, STUCK, THREE, TWO, World, code, owner};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
const CARL: &str = "+491703333333";

/// People in groups 1, 2 and 3.
async fn three(world: &World) -> [Resident; 3] {
    let anna = world.resident(1, 4, 1, ANNA).await;
    let bert = world.resident(2, 1, 2, BERT).await;
    let carl = world.resident(3, 2, 3, CARL).await;
    let groups = [&anna, &bert, &carl].map(|who| owner(who.address.box_id.partition()));
    assert_eq!(groups, [Some(ONE), Some(TWO), Some(THREE)]);
    [anna, bert, carl]
}

async fn lookup(world: &World, at: u64, who: &Resident, phone: &str) -> v1::LookupKeyResponse {
    let by = Some(v1::lookup_key_request::By::Identifier(phone_of(phone)));
    let request = v1::LookupKeyRequest {
        by,
        profile_after: None,
    };
    world
        .signed(at, who, RpcPath::LookupKey, &request)
        .await
        .unwrap()
}

#[tokio::test]
async fn people_in_different_groups_reach_each_other_from_every_node() {
    let world = World::new().await;
    let people = three(&world).await;
    let phones = [ANNA, BERT, CARL];
    let mut read = [0; 3];
    for at in 1..=NODES {
        for (sender, from) in people.iter().enumerate() {
            let others = || (0..3).filter(|other| *other != sender);
            for other in others() {
                let found = lookup(&world, at, from, phones[other]).await;
                assert_eq!(&found.box_id[..], people[other].address.box_id.as_bytes());
                assert_eq!(found.next_counter, at);
            }
            let words = format!("{sender} at {at}");
            let envelopes = others().map(|other| envelope(&people[other], at, words.as_bytes()));
            let outcomes = world.send(at, from, envelopes.collect()).await.unwrap();
            assert_eq!(outcomes.len(), 2);
            assert!(outcomes.iter().all(|outcome| sequence(outcome) > 0));
        }
        for (reader, who) in people.iter().enumerate() {
            let expected: Vec<_> = (0..3)
                .filter(|other| *other != reader)
                .map(|other| format!("{other} at {at}"))
                .collect();
            assert_eq!(world.fetch(at, who, read[reader]).await, expected);
            let mut stream = world.subscribe(at, who, read[reader]).await.unwrap();
            let first = timeout(STUCK, stream.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            let first = v1::SubscribeResponse::decode(first).unwrap();
            let page = v1::FetchResponse::decode(first.page).unwrap();
            assert_eq!(page.envelopes.len(), 2);
            read[reader] += 2;
            let request = v1::AcknowledgeRequest { upto: read[reader] };
            let acknowledging = world.signed(at, who, RpcPath::Acknowledge, &request);
            let acknowledged: v1::AcknowledgeResponse = acknowledging.await.unwrap();
            assert_eq!(acknowledged.cursor, read[reader]);
        }
    }
}

#[tokio::test]
async fn a_send_to_three_groups_is_one_dispatch_to_each_of_the_others_and_one_outcome_each() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    let spare = BoxId::derive(PartitionId::new(7).unwrap(), &[5; 32]);
    let nobody = BoxId::derive(bert.address.box_id.partition(), &[5; 32]);
    let to = |box_id: BoxId| v1::OutgoingEnvelope {
        recipient_box_id: box_id.as_bytes().to_vec().into(),
        ..envelope(&bert, 1, b"for nobody")
    };
    world.dispatched(1);
    let envelopes = vec![
        envelope(&bert, 1, b"first"),
        envelope(&carl, 1, b"for carl"),
        to(spare),
        envelope(&bert, 2, b"second"),
        envelope(&anna, 1, b"for myself"),
        to(nobody),
    ];
    let outcomes = world.send(1, &anna, envelopes).await.unwrap();
    let dispatched = world.dispatched(1);
    assert_eq!(dispatched.len(), 2, "{dispatched:?}");
    for expected in [(TWO, NodeId(2)), (THREE, NodeId(3))] {
        assert!(dispatched.contains(&expected), "{dispatched:?}");
    }
    let stored: Vec<u64> = [0, 1, 3, 4].map(|at| sequence(&outcomes[at])).to_vec();
    assert_eq!(stored, [1, 1, 2, 1]);
    assert_eq!(refusal(&outcomes[5]).code, "UNKNOWN_RECIPIENT");
    // Who owns that partition may stand in a map that is not here yet: nothing final is said.
    assert_eq!(refusal(&outcomes[2]).code, "UNAVAILABLE");
    assert_eq!(refusal(&outcomes[2]).retry(), v1::Retry::Same);
    assert_eq!(world.fetch(4, &bert, 0).await, ["first", "second"]);
    assert_eq!(world.fetch(4, &carl, 0).await, ["for carl"]);
    assert_eq!(world.fetch(4, &anna, 0).await, ["for myself"]);
}

#[tokio::test]
async fn a_sender_with_an_old_key_record_is_told_the_new_one_by_the_owning_group() {
    let world = World::new().await;
    let [anna, bert, _] = three(&world).await;
    let stale = v1::OutgoingEnvelope {
        chain_version: 7,
        ..envelope(&bert, 1, b"for other keys")
    };
    let outcomes = world.send(1, &anna, vec![stale]).await.unwrap();
    let refusal = refusal(&outcomes[0]);
    assert_eq!(refusal.code, "STALE_KEY_RECORD");
    let record = refusal.key_record.as_ref().unwrap();
    assert_eq!(record[..], bert.device.record.encode());
}

#[tokio::test]
async fn a_rejection_of_another_group_tells_the_time_to_wait_by_its_clock() {
    let world = World::new().await;
    let device = TestDevice::new(7);
    // Wherever its claim is, some of these nodes do not lead it.
    for at in 1..=NODES {
        let asked = world
            .plain(at, RpcPath::Register, &device.register(CARL, true))
            .await;
        if at == 1 {
            let _: v1::RegisterResponse = asked.unwrap();
            continue;
        }
        let refused: Result<v1::RegisterResponse, _> = asked;
        let refused = refused.unwrap_err();
        assert_eq!(code(&refused), Code::TooManyCodes.as_str());
        let details = tonic_types::StatusExt::get_details_retry_info(&refused).unwrap();
        let wait = details.retry_delay.unwrap();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(3600),
            "{wait:?}"
        );
    }
}

#[tokio::test]
async fn a_group_without_a_quorum_fails_its_own_recipients_only() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    world.silence(TWO).await;
    let envelopes = vec![envelope(&bert, 1, b"in vain"), envelope(&carl, 1, b"comes")];
    let outcomes = world.send(1, &anna, envelopes).await.unwrap();
    assert_eq!(refusal(&outcomes[0]).code, "UNAVAILABLE");
    assert_eq!(sequence(&outcomes[1]), 1);
    assert_eq!(world.fetch(3, &carl, 0).await, ["comes"]);
    // Nothing was done: the same again is the same envelope.
    world.heal(TWO).await;
    let again = vec![envelope(&bert, 1, b"in vain")];
    let outcomes = world.send(1, &anna, again).await.unwrap();
    assert_eq!(sequence(&outcomes[0]), 1);
}

#[tokio::test]
async fn a_map_that_names_the_wrong_group_stores_nothing_there_and_fails_its_own_recipients_only() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    let home = bert.address.box_id.partition();
    let before = vec![envelope(&bert, 1, b"before")];
    world.send(1, &anna, before).await.unwrap();
    // The wrong one is led elsewhere, and here.
    for wrong in [THREE, ONE] {
        world.mislead(1, home, Some(wrong));
        let (astray, comes) = (envelope(&bert, 2, b"astray"), envelope(&carl, 1, b"comes"));
        let outcomes = world.send(1, &anna, vec![astray, comes]).await.unwrap();
        let refused = refusal(&outcomes[0]);
        assert_eq!(
            (refused.code.as_str(), refused.retry()),
            ("UNAVAILABLE", v1::Retry::Same)
        );
        assert_eq!(sequence(&outcomes[1]), 1);
        assert_eq!(world.fetch(3, &bert, 0).await, ["before"]);
    }
    // Bert himself is refused where the wrong group is led, and brought home by who knows better.
    let request = v1::FetchRequest::default();
    let fetched: Result<v1::FetchResponse, _> =
        world.signed(1, &bert, RpcPath::Fetch, &request).await;
    assert_eq!(code(&fetched.unwrap_err()), "UNAVAILABLE");
    world.mislead(1, home, Some(THREE));
    assert_eq!(world.fetch(1, &bert, 0).await, ["before"]);
    world.mislead(1, home, None);
    let again = vec![envelope(&bert, 2, b"astray")];
    let outcomes = world.send(1, &anna, again).await.unwrap();
    assert_eq!(sequence(&outcomes[0]), 2);
    assert_eq!(world.fetch(1, &bert, 0).await, ["before", "astray"]);
}

#[tokio::test]
async fn a_change_of_leader_in_another_group_heals_in_time_and_doubles_nothing() {
    const LETTERS: u64 = 30;
    let world = World::new().await;
    let [anna, bert, _] = three(&world).await;
    // The node of the sender has no replica of the recipient's group.
    world.lead(TWO, 4).await;
    let changes = async {
        for node in [2, 3, 1, 3, 2, 1] {
            world.lead(ONE, node).await;
        }
    };
    let letters = async {
        for counter in 1..=LETTERS {
            let words = counter.to_string();
            let began = Instant::now();
            loop {
                assert!(
                    began.elapsed() < STUCK,
                    "letter {counter} never comes through"
                );
                let letter = vec![envelope(&anna, counter, words.as_bytes())];
                match world.send(4, &bert, letter).await {
                    Ok(outcomes) => match outcomes[0].result.as_ref().unwrap() {
                        Outcome::Sequence(_) => break,
                        Outcome::Refusal(refusal) => assert_eq!(refusal.code, "OUTCOME_UNKNOWN"),
                    },
                    Err(status) => assert_eq!(code(&status), "OUTCOME_UNKNOWN"),
                }
            }
        }
    };
    tokio::join!(changes, letters);
    let expected: Vec<String> = (1..=LETTERS).map(|counter| counter.to_string()).collect();
    assert_eq!(world.fetch(4, &anna, 0).await, expected);
}

#[tokio::test]
async fn a_node_without_a_replica_relays_and_follows_who_is_named() {
    let world = World::new().await;
    let [anna, bert, _] = three(&world).await;
    let letter = vec![envelope(&anna, 1, b"hello")];
    world.send(1, &bert, letter).await.unwrap();
    // Node 4 has none of group 1, and knows the old leader.
    assert_eq!(world.fetch(4, &anna, 0).await, ["hello"]);
    for node in [3, 2, 1] {
        world.lead(ONE, node).await;
        let mut stream = world.subscribe(4, &anna, 0).await.unwrap();
        let first = timeout(STUCK, stream.next()).await.unwrap().unwrap();
        assert!(first.is_ok(), "{first:?}");
        assert_eq!(world.fetch(4, &anna, 0).await, ["hello"]);
    }
}

#[tokio::test]
async fn a_half_done_authorize_over_two_groups_is_finished() {
    let world = World::new().await;
    let phone = world.phones(THREE).next().unwrap();
    let (identifier, directory) = world.directory(&phone);
    let device = TestDevice::new(5);
    let request = device.register(&phone, true);
    let registering = world.plain(1, RpcPath::Register, &request);
    let registered: v1::RegisterResponse = registering.await.unwrap();
    let code = world.next_code().await;
    let address = device.address(&registered.box_id);
    // The first half alone, as if the node had died before the second.
    let command = Command::VerifyClaim(VerifyClaim {
        identifier,
        box_id: address.box_id,
        code: world.secrets.code_mac(&identifier, &address.box_id, &code),
    });
    let deadline = Instant::now() + STUCK;
    let group = world.replica(3, THREE);
    let replies = group
        .propose(vec![(directory, command)], deadline)
        .await
        .unwrap();
    assert!(replies[0].is_ok(), "{replies:?}");
    let home = world.replica(1, ONE);
    let is_active = || {
        let query = Query::DeviceAuth(address);
        let answer = home.read_local(address.box_id.partition(), &query).unwrap();
        answer == Answer::DeviceAuth(Some(1))
    };
    world.eventually("the box is activated", is_active).await;
}

#[tokio::test]
async fn a_phone_whose_directory_is_in_another_group_is_added_and_removed_from_every_node() {
    let world = World::new().await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let phone = world.phones(THREE).next().unwrap();
    let (adding, removing) = (identifiers::adding, identifiers::removing);
    let added: v1::AddIdentifierResponse = world
        .signed(
            2,
            &anna,
            RpcPath::AddIdentifier,
            &adding(&anna, &phone, true),
        )
        .await
        .unwrap();
    assert!(added.code_ttl_ms > 0);
    let sent = world.next_code().await;
    let box_id = anna.address.box_id;
    let request = anna.device.authorize(box_id.as_bytes(), &phone, &sent);
    let proving = world.plain(4, RpcPath::Authorize, &request);
    let _: v1::AuthorizeResponse = proving.await.unwrap();
    for at in 1..=NODES {
        let found = lookup(&world, at, &anna, &phone).await;
        assert_eq!(&found.box_id[..], box_id.as_bytes());
        let request = v1::ListIdentifiersRequest {};
        let listing = world.signed(at, &anna, RpcPath::ListIdentifiers, &request);
        let listed: v1::ListIdentifiersResponse = listing.await.unwrap();
        let phones = listed.identifiers.iter();
        let phones: Vec<_> = phones.map(|own| own.identifier.clone().unwrap()).collect();
        assert_eq!(phones, [phone_of(ANNA), phone_of(&phone)]);
        assert!(listed.identifiers.iter().all(|own| own.verified));
        if at == NODES {
            let generation = listed.identifiers[1].generation;
            let request = removing(&anna, &phone, generation);
            let removal = world.signed(3, &anna, RpcPath::RemoveIdentifier, &request);
            let _: v1::RemoveIdentifierResponse = removal.await.unwrap();
        }
    }
    let by = Some(v1::lookup_key_request::By::Identifier(phone_of(&phone)));
    let request = v1::LookupKeyRequest {
        by,
        profile_after: None,
    };
    let gone: Result<v1::LookupKeyResponse, _> =
        world.signed(2, &anna, RpcPath::LookupKey, &request).await;
    assert_eq!(code(&gone.unwrap_err()), Code::NoUser.as_str());
}

#[tokio::test]
async fn groups_take_over_what_the_map_gives_them_and_nothing_else() {
    let world = World::new().await;
    for (group, node) in [(ONE, 1), (TWO, 2), (THREE, 3)] {
        let replica = world.replica(node, group);
        for partition in world.partitions.all() {
            let is_owned = replica.epoch(partition).is_some();
            assert_eq!(
                is_owned,
                owner(partition) == Some(group),
                "{group} {partition}"
            );
        }
    }
}

/// The next page of a stream.
async fn next_page(stream: &mut rossby_api::CallStream) -> v1::FetchResponse {
    let message = timeout(STUCK, stream.next()).await.unwrap();
    let message = v1::SubscribeResponse::decode(message.unwrap().unwrap()).unwrap();
    v1::FetchResponse::decode(message.page).unwrap()
}

#[tokio::test]
async fn a_signal_reaches_all_who_listen_in_another_group_and_leaves_no_trace() {
    let world = World::new().await;
    let [anna, bert, carl] = three(&world).await;
    // Through a relay: the streams are at the leader all the same.
    let mut carls = world.subscribe(4, &carl, 0).await.unwrap();
    let mut berts = world.subscribe(2, &bert, 0).await.unwrap();
    for stream in [&mut carls, &mut berts] {
        assert!(next_page(stream).await.signals.is_empty());
    }
    let signal = |to: &Resident, body: &'static [u8]| v1::NotifyRequest {
        recipient_box_id: to.address.box_id.as_bytes().to_vec().into(),
        body: body.into(),
    };
    let written = || {
        let groups = [(1, ONE), (2, TWO), (3, THREE)].into_iter();
        let status = groups.map(|(node, group)| world.replica(node, group).status());
        status
            .filter_map(|status| status.last_log_index)
            .sum::<u64>()
    };
    let before = written();
    for _ in 0..4 {
        let both = [
            (&carl, &mut carls, &b"for carl"[..]),
            (&bert, &mut berts, b"for bert"),
        ];
        for (to, stream, body) in both {
            let _: v1::NotifyResponse = world
                .signed(1, &anna, RpcPath::Notify, &signal(to, body))
                .await
                .unwrap();
            let page = next_page(stream).await;
            assert!(page.envelopes.is_empty());
            let [signal] = &page.signals[..] else {
                panic!("{page:?}")
            };
            assert_eq!(&signal.body[..], body);
            let sender = (&signal.sender_box_id[..], &signal.sender_device_id[..]);
            let by = anna.address;
            assert_eq!(
                sender,
                (&by.box_id.as_bytes()[..], &by.device.as_bytes()[..])
            );
        }
    }
    // Of eight signals none is in a log: that the couriers are done with three codes may be.
    assert!(written() - before <= 3);

    // Who is blocked is told the same, and is not heard.
    let block = v1::BlockRequest {
        box_id: anna.address.box_id.as_bytes().to_vec().into(),
        blocked: true,
    };
    let _: v1::BlockResponse = world
        .signed(2, &bert, RpcPath::Block, &block)
        .await
        .unwrap();
    let _: v1::NotifyResponse = world
        .signed(1, &anna, RpcPath::Notify, &signal(&bert, b"blocked"))
        .await
        .unwrap();
    let _: v1::NotifyResponse = world
        .signed(3, &carl, RpcPath::Notify, &signal(&bert, b"heard"))
        .await
        .unwrap();
    let heard = next_page(&mut berts).await.signals;
    let bodies: Vec<_> = heard.iter().map(|signal| &signal.body[..]).collect();
    assert_eq!(bodies, [b"heard"]);
    assert!(world.fetch(4, &bert, 0).await.is_empty());
    let large = vec![0; 16 * 1024 + 1];
    let large = v1::NotifyRequest {
        body: large.into(),
        ..signal(&bert, b"")
    };
    let refused: Result<v1::NotifyResponse, _> =
        world.signed(1, &anna, RpcPath::Notify, &large).await;
    assert_eq!(code(&refused.unwrap_err()), "ENVELOPE_TOO_LARGE");
}
