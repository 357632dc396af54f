//! LookupKey, Send, Fetch, Acknowledge and Block: what they do and how they refuse.

use std::sync::Arc;

use ed25519_dalek::Signer as _;
use prost::Message as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::chain::KeyRecord;
use rossby_domain::limits::Limits;
use rossby_domain::statement;
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;

use crate::support::{
    self, Refusal, Resident, World, code_of, envelope, phone_of, refusal, sequence,
};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
const CARL: &str = "+491703333333";
const NOBODY: &str = "+491709999999";

async fn anna_and_bert(world: &World) -> (Resident, Resident) {
    (
        world.resident(1, ANNA, true).await,
        world.resident(2, BERT, true).await,
    )
}

async fn look_up(world: &World, who: &Resident, by: By) -> Result<v1::LookupKeyResponse, Refusal> {
    let request = v1::LookupKeyRequest {
        by: Some(by),
        profile_after: None,
    };
    world.signed(who, RpcPath::LookupKey, &request).await
}

fn by_box(of: &Resident) -> By {
    By::BoxId(of.address.box_id.as_bytes().to_vec().into())
}

fn by_device(of: &Resident) -> By {
    By::DeviceId(of.address.device.as_bytes().to_vec().into())
}

async fn acknowledge(world: &World, who: &Resident, upto: u64) -> Result<u64, Refusal> {
    let request = v1::AcknowledgeRequest { upto };
    let response: Result<v1::AcknowledgeResponse, _> =
        world.signed(who, RpcPath::Acknowledge, &request).await;
    response.map(|response| response.cursor)
}

/// A refusal as it goes over the wire.
fn status_bytes(refusal: Refusal) -> (tonic::Code, String, Vec<u8>) {
    let status = tonic::Status::from(refusal);
    (
        status.code(),
        status.message().to_owned(),
        status.details().to_vec(),
    )
}

// Unauthenticated.

#[tokio::test]
async fn lookup_send_fetch_acknowledge_and_block_need_authentication() {
    let world = World::new().await;
    let (_, bert) = anna_and_bert(&world).await;
    let before = world.digests();
    let lookup = v1::LookupKeyRequest {
        by: Some(by_box(&bert)),
        profile_after: None,
    }
    .encode_to_vec();
    let send = v1::SendRequest {
        envelopes: vec![envelope(&bert, 1, b"hello")],
    }
    .encode_to_vec();
    let calls = [
        (RpcPath::LookupKey, lookup),
        (RpcPath::Send, send),
        (RpcPath::Fetch, v1::FetchRequest::default().encode_to_vec()),
        (
            RpcPath::Acknowledge,
            v1::AcknowledgeRequest { upto: 1 }.encode_to_vec(),
        ),
        (RpcPath::Block, v1::BlockRequest::default().encode_to_vec()),
    ];
    for (path, message) in calls {
        let refused = world.call(path, None, message).await;
        assert_eq!(code_of(refused), Code::Unauthenticated, "{path}");
    }
    assert_eq!(world.digests(), before);
}

// LookupKey.

#[tokio::test]
async fn a_box_is_found_by_phone_device_and_box_id() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    for by in [
        By::Identifier(phone_of("0049 170 222-2222")),
        by_device(&bert),
        by_box(&bert),
    ] {
        let found = look_up(&world, &anna, by).await.unwrap();
        assert_eq!(found.box_id, bert.address.box_id.as_bytes().as_slice());
        assert_eq!(
            KeyRecord::decode(&found.key_record).unwrap(),
            bert.device.record
        );
        assert_eq!(found.next_counter, 1);
    }
    world
        .send(&anna, vec![envelope(&bert, 5, b"hello")])
        .await
        .unwrap();
    let found = look_up(&world, &anna, by_box(&bert)).await.unwrap();
    assert_eq!(found.next_counter, 6);
}

#[tokio::test]
async fn nobody_not_discoverable_not_activated_blocked_and_disallowed_look_the_same() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let hidden = world.resident(2, BERT, false).await;
    let blocking = world.resident(3, CARL, true).await;
    world.block(&blocking, &anna).await.unwrap();
    let choosy = world.resident(5, "+491705555555", true).await;
    accept(&world, &choosy, Some(true), &[&hidden])
        .await
        .unwrap();
    let newcomer = support::TestDevice::new(4);
    let request = newcomer.register("+491704444444", true);
    let _: v1::RegisterResponse = world.plain(RpcPath::Register, &request).await.unwrap();

    let nobody = look_up(&world, &anna, By::Identifier(phone_of(NOBODY)))
        .await
        .unwrap_err();
    assert_eq!(nobody.code(), Code::NoUser);
    let nobody = status_bytes(nobody);
    let others = [
        By::Identifier(phone_of(BERT)),
        By::Identifier(phone_of(CARL)),
        By::Identifier(phone_of("+491704444444")),
        by_box(&blocking),
        by_device(&blocking),
        By::Identifier(phone_of("+491705555555")),
        by_box(&choosy),
        by_device(&choosy),
        By::DeviceId(newcomer.id().as_bytes().to_vec().into()),
        By::DeviceId(vec![7; 16].into()),
    ];
    for by in others {
        let shown = format!("{by:?}");
        let refused = look_up(&world, &anna, by).await.unwrap_err();
        assert_eq!(status_bytes(refused), nobody, "{shown}");
    }
    // Hidden from a search by phone only: whoever was given the box id finds the box.
    assert!(look_up(&world, &anna, by_box(&hidden)).await.is_ok());
    assert!(look_up(&world, &hidden, by_box(&choosy)).await.is_ok());
}

async fn accept(
    world: &World,
    who: &Resident,
    contacts_only: Option<bool>,
    contacts: &[&Resident],
) -> Result<bool, Refusal> {
    let contact = |contact: &&Resident| contact.address.box_id.as_bytes().to_vec().into();
    let request = v1::AcceptRequest {
        contacts_only,
        allow: contacts.iter().map(contact).collect(),
        disallow: Vec::new(),
    };
    let accepted = world.signed(who, RpcPath::Accept, &request).await;
    accepted.map(|accepted: v1::AcceptResponse| accepted.contacts_only)
}

// Send, Fetch, Acknowledge.

#[tokio::test]
async fn what_is_sent_is_fetched_in_order_until_it_is_acknowledged() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let bodies: [&[u8]; 3] = [b"one", b"two", b"three"];
    for (counter, body) in (1..).zip(bodies) {
        let outcomes = world
            .send(&anna, vec![envelope(&bert, counter, body)])
            .await
            .unwrap();
        assert_eq!(sequence(&outcomes[0]), counter);
    }
    let page = world.fetch(&bert).await;
    let fetched: Vec<&[u8]> = page.envelopes.iter().map(|e| e.body.as_ref()).collect();
    assert_eq!(fetched, bodies);
    let first = &page.envelopes[0];
    assert_eq!(
        first.sender_box_id,
        anna.address.box_id.as_bytes().as_slice()
    );
    assert_eq!(
        first.sender_device_id,
        anna.address.device.as_bytes().as_slice()
    );
    assert_eq!((first.counter, first.sequence), (1, 1));
    assert!(first.expires_at_ms > first.enqueued_at_ms);
    let status = page.status.unwrap();
    assert_eq!(
        (status.depth, status.bytes, status.cursor, status.last),
        (3, 11, 0, 3)
    );

    assert_eq!(acknowledge(&world, &bert, 2).await.unwrap(), 2);
    assert_eq!(
        acknowledge(&world, &bert, 1).await.unwrap(),
        2,
        "a cursor never goes back"
    );
    let page = world.fetch(&bert).await;
    assert_eq!(page.envelopes.len(), 1);
    assert_eq!(page.envelopes[0].body.as_ref(), b"three");
    assert_eq!(
        code_of(acknowledge(&world, &bert, 4).await),
        Code::BeyondQueue
    );
}

#[tokio::test]
async fn a_page_holds_as_many_as_asked_for_and_says_that_there_are_more() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let envelopes = (1..=5)
        .map(|counter| envelope(&bert, counter, b"text"))
        .collect();
    world.send(&anna, envelopes).await.unwrap();
    let request = v1::FetchRequest {
        after: 1,
        max_envelopes: 2,
    };
    let page: v1::FetchResponse = world.signed(&bert, RpcPath::Fetch, &request).await.unwrap();
    let sequences: Vec<u64> = page.envelopes.iter().map(|e| e.sequence).collect();
    assert_eq!((sequences, page.more), (vec![2, 3], true));
}

#[tokio::test]
async fn one_request_carries_many_envelopes_with_an_outcome_each_in_order() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    let mut stranger = carl.clone();
    stranger.address.box_id = support::TestDevice::new(9).address_in(3).box_id;
    let outcomes = world
        .send(
            &anna,
            vec![
                envelope(&bert, 1, b"to bert"),
                envelope(&stranger, 1, b"to nobody"),
                envelope(&carl, 1, b"to carl"),
                envelope(&bert, 2, b"to bert again"),
                envelope(&bert, 1, b"to bert"),
            ],
        )
        .await
        .unwrap();
    assert_eq!(sequence(&outcomes[0]), 1);
    assert_eq!(refusal(&outcomes[1]).code, "UNKNOWN_RECIPIENT");
    assert_eq!(sequence(&outcomes[2]), 1);
    assert_eq!(sequence(&outcomes[3]), 2);
    assert_eq!(
        sequence(&outcomes[4]),
        1,
        "the same envelope again gets its first outcome"
    );
    let counters: Vec<u64> = outcomes.iter().map(|outcome| outcome.counter).collect();
    assert_eq!(counters, [1, 1, 1, 2, 1]);
    assert_eq!(world.fetch(&bert).await.envelopes.len(), 2);
}

#[tokio::test]
async fn to_a_blocked_or_disallowed_sender_the_box_does_not_exist_byte_for_byte() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    world.block(&bert, &anna).await.unwrap();
    accept(&world, &carl, Some(true), &[&bert]).await.unwrap();
    let mut nobody = bert.clone();
    nobody.address.box_id = support::TestDevice::new(9).address_in(3).box_id;
    // A stale chain version, an oversized body and a used counter change nothing of it.
    let mut variants = Vec::new();
    for recipient in [&bert, &carl, &nobody] {
        let mut stale = envelope(recipient, 2, b"text");
        stale.chain_version = 7;
        let outcomes = world
            .send(&anna, vec![envelope(recipient, 1, b"text"), stale])
            .await
            .unwrap();
        variants.push(
            outcomes
                .iter()
                .map(|o| refusal(o).encode_to_vec())
                .collect::<Vec<_>>(),
        );
        assert_eq!(refusal(&outcomes[0]).code, "UNKNOWN_RECIPIENT");
    }
    assert_eq!(variants[0], variants[2]);
    assert_eq!(variants[1], variants[2]);
    // Whole replies are alike too, but for the recipient that the sender itself named.
    let written = || world.group.status().last_log_index.unwrap();
    world.quiet_digests().await;
    let mut replies = Vec::new();
    for recipient in [&bert, &carl, &nobody] {
        let before = written();
        let outcomes = world
            .send(&anna, vec![envelope(recipient, 3, b"text")])
            .await
            .unwrap();
        let masked = v1::SendOutcome {
            recipient_box_id: vec![0; 16].into(),
            ..outcomes[0].clone()
        };
        replies.push((masked.encode_to_vec(), written() - before));
    }
    assert_eq!(replies[0], replies[2]);
    assert_eq!(replies[1], replies[2]);
    assert!(world.fetch(&bert).await.envelopes.is_empty());
    // Who is a contact is heard, and so is who becomes one.
    let heard = world.send(&bert, vec![envelope(&carl, 1, b"hello")]).await;
    assert_eq!(sequence(&heard.unwrap()[0]), 1);
    accept(&world, &carl, None, &[&anna]).await.unwrap();
    let heard = world.send(&anna, vec![envelope(&carl, 4, b"hello")]).await;
    assert_eq!(sequence(&heard.unwrap()[0]), 2);
}

#[tokio::test]
async fn a_lifted_block_lets_envelopes_through_again() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    world.block(&bert, &anna).await.unwrap();
    let box_id = anna.address.box_id.as_bytes().to_vec().into();
    let request = v1::BlockRequest {
        box_id,
        blocked: false,
    };
    let _: v1::BlockResponse = world.signed(&bert, RpcPath::Block, &request).await.unwrap();
    let outcomes = world
        .send(&anna, vec![envelope(&bert, 1, b"text")])
        .await
        .unwrap();
    assert_eq!(sequence(&outcomes[0]), 1);
}

#[tokio::test]
async fn a_box_blocks_neither_itself_nor_more_than_it_may() {
    let world = World::with_limits(Limits {
        blocked_boxes: 1,
        ..Limits::default()
    })
    .await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    assert_eq!(
        code_of(world.block(&anna, &anna).await),
        Code::InvalidArgument
    );
    world.block(&anna, &bert).await.unwrap();
    assert_eq!(
        code_of(world.block(&anna, &carl).await),
        Code::TooManyBlocked
    );
    let only_bert = accept(&world, &anna, Some(true), &[&bert]).await;
    assert!(only_bert.unwrap());
    // One too many, in one request and in two.
    for contacts in [&[&bert, &carl][..], &[&carl][..]] {
        let refused = accept(&world, &anna, None, contacts).await.unwrap_err();
        assert_eq!(refused.code(), Code::TooManyAllowed);
        assert_eq!(refused.metadata("limit"), Some("1"));
    }
    assert!(!accept(&world, &anna, Some(false), &[]).await.unwrap());
    let bad = v1::AcceptRequest {
        allow: vec![vec![1; 15].into()],
        ..v1::AcceptRequest::default()
    };
    let bad = world.signed::<_, v1::AcceptResponse>(&anna, RpcPath::Accept, &bad);
    assert_eq!(code_of(bad.await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stale_chain_version_is_refused_with_the_record_as_it_is() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let stale = v1::OutgoingEnvelope {
        chain_version: 3,
        ..envelope(&bert, 1, b"text")
    };
    let outcomes = world.send(&anna, vec![stale]).await.unwrap();
    let refused = refusal(&outcomes[0]);
    assert_eq!(refused.code, "STALE_KEY_RECORD");
    assert_eq!(refused.retry(), v1::Retry::Changed);
    let record = KeyRecord::decode(refused.key_record.as_ref().unwrap()).unwrap();
    assert_eq!(record, bert.device.record);
    // The refusal used up no counter.
    let outcomes = world
        .send(&anna, vec![envelope(&bert, 1, b"text")])
        .await
        .unwrap();
    assert_eq!(sequence(&outcomes[0]), 1);
}

#[tokio::test]
async fn a_counter_that_was_used_for_another_text_is_refused_with_the_next_free_one() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    world
        .send(&anna, vec![envelope(&bert, 4, b"text")])
        .await
        .unwrap();
    let again = world
        .send(&anna, vec![envelope(&bert, 4, b"text")])
        .await
        .unwrap();
    assert_eq!(
        sequence(&again[0]),
        1,
        "a retry is answered as the first try was"
    );
    let other = world
        .send(&anna, vec![envelope(&bert, 4, b"other text")])
        .await
        .unwrap();
    assert_eq!(refusal(&other[0]).code, "COUNTER_REUSED");
    assert_eq!(refusal(&other[0]).next_counter, Some(5));
    let passed = world
        .send(&anna, vec![envelope(&bert, 2, b"passed over")])
        .await
        .unwrap();
    assert_eq!(refusal(&passed[0]).code, "NOT_ACCEPTED");
    assert_eq!(world.fetch(&bert).await.envelopes.len(), 1);
}

#[tokio::test]
async fn the_last_tenth_of_a_queue_is_for_those_whom_the_box_has_written_to() {
    let limits = Limits {
        queue_envelopes: 10,
        sender_share_percent: 100,
        ..Limits::default()
    };
    let world = World::with_limits(limits).await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    let ten = (1..=10).map(|counter| envelope(&bert, counter, b"text"));
    let outcomes = world.send(&anna, ten.collect()).await.unwrap();
    assert_eq!(sequence(&outcomes[8]), 9);
    let full = refusal(&outcomes[9]).clone();
    assert_eq!(
        (full.code.as_str(), full.retry()),
        ("QUEUE_FULL", v1::Retry::Same)
    );
    // That he wrote to somebody makes them a contact, and nobody else.
    let heard = world.send(&bert, vec![envelope(&carl, 1, b"hello")]).await;
    assert_eq!(sequence(&heard.unwrap()[0]), 1);
    let tenth = || vec![envelope(&bert, 10, b"text")];
    let outcomes = world.send(&anna, tenth()).await.unwrap();
    assert_eq!(refusal(&outcomes[0]), &full);
    let outcomes = world.send(&carl, tenth()).await.unwrap();
    assert_eq!(sequence(&outcomes[0]), 10);
    // Full is full, in the same words.
    let eleventh = vec![envelope(&bert, 11, b"text")];
    let outcomes = world.send(&carl, eleventh).await.unwrap();
    assert_eq!(refusal(&outcomes[0]), &full);
}

#[tokio::test]
async fn what_stands_before_one_that_was_stored_is_not_asked_for_again_as_a_contact_s() {
    let limits = Limits {
        queue_bytes: 1000,
        sender_share_percent: 100,
        ..Limits::default()
    };
    let world = World::with_limits(limits).await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    let hello = vec![envelope(&carl, 1, b"hello")];
    world.send(&bert, hello).await.unwrap();
    let half = vec![envelope(&bert, 1, &[7; 500])];
    world.send(&anna, half).await.unwrap();
    let two = vec![envelope(&bert, 1, &[7; 450]), envelope(&bert, 2, &[7; 20])];
    let outcomes = world.send(&carl, two).await.unwrap();
    // It did not fit into nine tenths, and the smaller one did: its counter is behind by then.
    assert_eq!(refusal(&outcomes[0]).code, "QUEUE_FULL");
    assert_eq!(sequence(&outcomes[1]), 2);
}

/// A device's statement of how long mail may wait.
fn setting(by: &Resident, ttl_ms: Option<u64>, number: u64) -> v1::SetTtlRequest {
    let (box_id, device) = (&by.address.box_id, &by.address.device);
    let signed = statement::set_ttl(box_id, device, ttl_ms, number);
    let signature = by.device.signing.sign(&signed).to_bytes().to_vec().into();
    v1::SetTtlRequest {
        ttl_ms,
        number,
        signature,
    }
}

#[tokio::test]
async fn a_stolen_token_without_the_device_key_does_not_say_how_long_mail_waits() {
    const HOUR_MS: u64 = 3_600_000;
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let set = async |request: v1::SetTtlRequest| {
        let set = world.signed::<_, v1::SetTtlResponse>(&bert, RpcPath::SetTtl, &request);
        set.await.map(|set| set.ttl_ms)
    };
    let once = setting(&bert, Some(HOUR_MS), 1);
    set(once.clone()).await.unwrap();
    set(setting(&bert, None, 2)).await.unwrap();
    let before = world.quiet_digests().await;
    // Anna's device holds Bert's token, and her own keys.
    let thief = Resident {
        device: Arc::clone(&anna.device),
        ..bert.clone()
    };
    let in_own_name = setting(&thief, Some(HOUR_MS), 3);
    let right = setting(&bert, Some(HOUR_MS), 3);
    let shorter = v1::SetTtlRequest {
        ttl_ms: Some(60_000),
        ..right.clone()
    };
    let later = v1::SetTtlRequest { number: 4, ..right };
    let renumbered = v1::SetTtlRequest {
        number: 3,
        ..once.clone()
    };
    for forged in [in_own_name, shorter, later, renumbered] {
        assert_eq!(code_of(set(forged).await), Code::BadSignature);
    }
    // Nor is what the device once said good again.
    assert_eq!(code_of(set(once).await), Code::TtlNumberUsed);
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn how_long_an_envelope_waits_is_for_its_sender_and_its_recipient_to_say() {
    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let set = async |ttl_ms, number| {
        let request = setting(&bert, ttl_ms, number);
        let set = world.signed::<_, v1::SetTtlResponse>(&bert, RpcPath::SetTtl, &request);
        set.await.map(|set| set.ttl_ms)
    };
    assert_eq!(code_of(set(Some(59_999), 1).await), Code::InvalidArgument);
    // The last one again is the answer to a lost reply.
    for _ in 0..2 {
        assert_eq!(set(Some(DAY_MS), 1).await.unwrap(), DAY_MS);
    }
    assert_eq!(code_of(set(Some(HOUR_MS), 1).await), Code::TtlNumberUsed);
    assert_eq!(code_of(set(Some(HOUR_MS), 3).await), Code::TtlNumberUsed);
    let wanted = [Some(HOUR_MS), Some(2 * DAY_MS), None];
    let envelopes = (1..)
        .zip(wanted)
        .map(|(counter, ttl_ms)| v1::OutgoingEnvelope {
            ttl_ms,
            ..envelope(&bert, counter, b"text")
        });
    world.send(&anna, envelopes.collect()).await.unwrap();
    let page = world.fetch(&bert).await;
    let lives = page.envelopes.iter();
    let lives: Vec<_> = lives
        .map(|it| it.expires_at_ms - it.enqueued_at_ms)
        .collect();
    assert_eq!(lives, [HOUR_MS, DAY_MS, DAY_MS]);
    let status = page.status.unwrap();
    assert_eq!((status.depth, status.bytes, status.ttl_ms), (3, 12, DAY_MS));
    assert_eq!(status.oldest_at_ms, Some(page.envelopes[0].enqueued_at_ms));
    assert_eq!(status.ttl_number, 1);
    assert_eq!(set(None, 2).await.unwrap(), 30 * DAY_MS);
}

#[tokio::test]
async fn a_sender_has_a_share_of_the_queue_and_the_queue_an_end() {
    let limits = Limits {
        queue_envelopes: 4,
        sender_share_percent: 50,
        ..Limits::default()
    };
    let world = World::with_limits(limits).await;
    let (anna, bert) = anna_and_bert(&world).await;
    let carl = world.resident(3, CARL, true).await;
    let three = (1..=3)
        .map(|counter| envelope(&bert, counter, b"text"))
        .collect();
    let outcomes = world.send(&anna, three).await.unwrap();
    assert_eq!((sequence(&outcomes[0]), sequence(&outcomes[1])), (1, 2));
    assert_eq!(refusal(&outcomes[2]).code, "SENDER_SHARE_FULL");
    assert_eq!(refusal(&outcomes[2]).retry(), v1::Retry::Same);

    let two = (1..=2)
        .map(|counter| envelope(&bert, counter, b"text"))
        .collect();
    world.send(&carl, two).await.unwrap();
    let dora = world.resident(4, "+491704444444", true).await;
    let outcomes = world
        .send(&dora, vec![envelope(&bert, 1, b"text")])
        .await
        .unwrap();
    assert_eq!(refusal(&outcomes[0]).code, "QUEUE_FULL");

    // Room again, and the very same envelopes go in.
    acknowledge(&world, &bert, 4).await.unwrap();
    let outcomes = world
        .send(&anna, vec![envelope(&bert, 3, b"text")])
        .await
        .unwrap();
    assert_eq!(sequence(&outcomes[0]), 5);
}

#[tokio::test]
async fn a_request_has_a_most_of_envelopes_and_an_envelope_a_most_of_bytes() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let many = (1..=257)
        .map(|counter| envelope(&bert, counter, b"text"))
        .collect();
    assert_eq!(
        code_of(world.send(&anna, many).await),
        Code::TooManyRecipients
    );
    // They are counted before any is decoded: empty ones, and one that is none.
    let mut message = [0x0a, 0].repeat(257);
    message.extend([0x0a, 1, 0xff]);
    let nonce = world.nonce();
    let signed = world.sign(&anna, RpcPath::Send, &nonce);
    let header = signed.authorization(&message).unwrap();
    let refused = world.call(RpcPath::Send, Some(header), message).await;
    assert_eq!(code_of(refused), Code::TooManyRecipients);
    assert_eq!(
        code_of(world.send(&anna, Vec::new()).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code_of(world.send(&anna, vec![envelope(&bert, 0, b"text")]).await),
        Code::InvalidArgument
    );
    let most = 96 * 1024;
    let outcomes = world
        .send(
            &anna,
            vec![
                envelope(&bert, 1, &vec![0xff; most + 1]),
                envelope(&bert, 2, &vec![0xff; most]),
            ],
        )
        .await
        .unwrap();
    assert_eq!(refusal(&outcomes[0]).code, "ENVELOPE_TOO_LARGE");
    assert_eq!(sequence(&outcomes[1]), 1);
}

#[tokio::test]
async fn an_expired_envelope_is_gone_and_counted() {
    let world = World::new().await;
    let (anna, bert) = anna_and_bert(&world).await;
    let short = v1::OutgoingEnvelope {
        ttl_ms: Some(60_000),
        ..envelope(&bert, 1, b"short")
    };
    world
        .send(&anna, vec![short, envelope(&bert, 2, b"long")])
        .await
        .unwrap();
    world.clock.advance_millis(60_001);
    let page = world.fetch(&bert).await;
    assert_eq!(page.envelopes.len(), 1);
    assert_eq!(page.envelopes[0].body.as_ref(), b"long");
    // Expiry is swept by the day: the worker removes the envelope for good once its day is over.
    world.clock.advance_millis(2 * 24 * 60 * 60_000);
    let home = bert.address.box_id.partition();
    world
        .eventually("the expired envelope is purged", || {
            let query = rossby_domain::Query::Fetch {
                device: bert.address,
                after: rossby_domain::ids::Sequence(0),
                max_envelopes: 1,
                max_bytes: 1,
            };
            match world.group.read_local(home, &query).unwrap() {
                rossby_domain::Answer::Page(Some(page)) => page.status.expired_total == 1,
                other => panic!("unexpected answer {other:?}"),
            }
        })
        .await;
    assert_eq!(world.fetch(&bert).await.status.unwrap().depth, 1);
}
