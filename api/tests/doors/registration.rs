//! Register and Authorize: how a box comes to be, and every way in which it does not.

use rossby_api::{Code, RpcPath};
use rossby_domain::chain::XWING_PUBLIC_KEY_BYTES;
use rossby_domain::command::VerifyClaim;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::{Answer, Command, Query};
use rossby_proto::v1;

use crate::support::{Refusal, TestDevice, World, code_of, phone_of};

const PHONE: &str = "+491701234567";
const OTHER_PHONE: &str = "+491707654321";
const MINUTE_MS: u64 = 60_000;

async fn register(
    world: &World,
    request: &v1::RegisterRequest,
) -> Result<v1::RegisterResponse, Refusal> {
    world.plain(RpcPath::Register, request).await
}

async fn authorize(
    world: &World,
    request: &v1::AuthorizeRequest,
) -> Result<v1::AuthorizeResponse, Refusal> {
    world.plain(RpcPath::Authorize, request).await
}

/// A device that has registered and was sent a code.
async fn registered(world: &World, number: u8, phone: &str) -> (TestDevice, Vec<u8>, String) {
    let device = TestDevice::new(number);
    let response = register(world, &device.register(phone, true))
        .await
        .unwrap();
    let (identifier, code) = world.next_code().await;
    assert_eq!(identifier, Identifier::phone(phone).unwrap());
    (device, response.box_id.to_vec(), code)
}

/// A code that is not `code`.
fn wrong(code: &str) -> String {
    let first = if code.starts_with('0') { "1" } else { "0" };
    format!("{first}{}", &code[1..])
}

#[tokio::test]
async fn a_device_that_proves_its_phone_gets_a_token_that_is_accepted() {
    let world = World::new().await;
    let resident = world.resident(1, PHONE, true).await;
    let page = world.fetch(&resident).await;
    assert_eq!((page.envelopes.len(), page.more), (0, false));
}

#[tokio::test]
async fn the_code_has_eight_digits_and_a_lifetime() {
    let world = World::new().await;
    let device = TestDevice::new(1);
    let response = register(&world, &device.register(PHONE, true))
        .await
        .unwrap();
    assert_eq!(response.code_ttl_ms, 10 * MINUTE_MS);
    let (_, code) = world.next_code().await;
    assert!(code.len() == 8 && code.bytes().all(|byte| byte.is_ascii_digit()));
}

#[tokio::test]
async fn register_refuses_a_bad_identifier() {
    let world = World::new().await;
    let before = world.digests();
    let device = TestDevice::new(1);
    for bad in [
        "",
        "01701234567",
        "+49",
        "+49170123456789012345",
        "+49x1701234567",
    ] {
        let mut request = device.register(PHONE, true);
        request.identifier = Some(phone_of(bad));
        assert_eq!(
            code_of(register(&world, &request).await),
            Code::InvalidIdentifier,
            "{bad}"
        );
    }
    let mut request = device.register(PHONE, true);
    let kind = v1::identifier::Kind::Email("no at sign".to_owned());
    request.identifier = Some(v1::Identifier { kind: Some(kind) });
    assert_eq!(
        code_of(register(&world, &request).await),
        Code::InvalidIdentifier
    );
    request.identifier = None;
    assert_eq!(
        code_of(register(&world, &request).await),
        Code::InvalidArgument
    );
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn register_refuses_a_bad_signature() {
    let world = World::new().await;
    let before = world.digests();
    let device = TestDevice::new(1);
    // Over another phone, over another choice, by another device, and not of a signature's length.
    let good = device.register(PHONE, true);
    let forged = [
        v1::RegisterRequest {
            identifier: Some(phone_of(OTHER_PHONE)),
            ..good.clone()
        },
        v1::RegisterRequest {
            discoverable: false,
            ..good.clone()
        },
        v1::RegisterRequest {
            signature: TestDevice::new(2).register(PHONE, true).signature,
            ..good.clone()
        },
    ];
    for request in forged {
        assert_eq!(
            code_of(register(&world, &request).await),
            Code::BadSignature
        );
    }
    let short = v1::RegisterRequest {
        signature: vec![1; 63].into(),
        ..good.clone()
    };
    assert_eq!(
        code_of(register(&world, &short).await),
        Code::InvalidArgument
    );
    // A record whose KEM key nobody signed: its signature stands at the end, before "no previous".
    let mut record = good.key_record.to_vec();
    let in_signature = record.len() - 10;
    record[in_signature] ^= 1;
    let unsigned = v1::RegisterRequest {
        key_record: record.into(),
        ..good
    };
    assert_eq!(
        code_of(register(&world, &unsigned).await),
        Code::BadSignature
    );
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn register_tells_that_a_discoverable_identifier_is_taken() {
    let world = World::new().await;
    world.resident(1, PHONE, true).await;
    let refused = register(&world, &TestDevice::new(2).register(PHONE, true))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::IdentifierTaken);
    assert!(refused.code().message().contains("link devices instead"));
}

#[tokio::test]
async fn that_a_hidden_identifier_is_taken_is_told_only_after_the_code() {
    let world = World::new().await;
    world.resident(1, PHONE, false).await;
    world.clock.advance_millis(2 * MINUTE_MS);
    let (device, box_id, code) = registered(&world, 2, PHONE).await;
    let guess = authorize(&world, &device.authorize(&box_id, PHONE, &wrong(&code))).await;
    assert_eq!(code_of(guess), Code::WrongCode);
    let refused = authorize(&world, &device.authorize(&box_id, PHONE, &code)).await;
    assert_eq!(code_of(refused), Code::IdentifierTaken);
}

#[tokio::test]
async fn register_refuses_a_public_key_that_is_present() {
    let world = World::new().await;
    let resident = world.resident(1, PHONE, true).await;
    let again = register(&world, &resident.device.register(OTHER_PHONE, true)).await;
    assert_eq!(code_of(again), Code::KeyAlreadyRegistered);
    // Also under another genesis, from the first registration on.
    let twin = TestDevice::with_nonce(1, [77; 32]);
    assert_eq!(
        code_of(register(&world, &twin.register(OTHER_PHONE, true)).await),
        Code::KeyAlreadyRegistered
    );
}

#[tokio::test]
async fn register_again_sends_another_code_but_not_at_once() {
    let world = World::new().await;
    let (device, box_id, first) = registered(&world, 1, PHONE).await;
    let hasty = register(&world, &device.register(PHONE, true))
        .await
        .unwrap_err();
    assert_eq!(hasty.code(), Code::TooManyCodes);
    let wait = hasty.retry_after().unwrap();
    assert!(wait.as_millis() > 0);
    world
        .clock
        .advance_millis(u64::try_from(wait.as_millis()).unwrap());
    let again = register(&world, &device.register(PHONE, true))
        .await
        .unwrap();
    assert_eq!(again.box_id, box_id);
    let (_, second) = world.next_code().await;
    assert_ne!(first, second);
    let old = authorize(&world, &device.authorize(&box_id, PHONE, &first)).await;
    assert_eq!(code_of(old), Code::WrongCode);
    assert!(
        authorize(&world, &device.authorize(&box_id, PHONE, &second))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn authorize_refuses_a_wrong_code_and_counts_it() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let guess = device.authorize(&box_id, PHONE, &wrong(&code));
    let refused = authorize(&world, &guess).await.unwrap_err();
    assert_eq!(refused.code(), Code::WrongCode);
    assert_eq!(refused.metadata("attempts_left"), Some("4"));
    assert!(
        authorize(&world, &device.authorize(&box_id, PHONE, &code))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn authorize_refuses_an_expired_code() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    world.clock.advance_millis(10 * MINUTE_MS + 1);
    let late = authorize(&world, &device.authorize(&box_id, PHONE, &code)).await;
    assert_eq!(code_of(late), Code::CodeExpired);
}

#[tokio::test]
async fn authorize_refuses_the_right_code_after_too_many_wrong_ones() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    for _ in 0..5 {
        let guess = authorize(&world, &device.authorize(&box_id, PHONE, &wrong(&code))).await;
        assert_eq!(code_of(guess), Code::WrongCode);
    }
    let right = authorize(&world, &device.authorize(&box_id, PHONE, &code)).await;
    assert_eq!(code_of(right), Code::CodeExhausted);
}

#[tokio::test]
async fn authorize_tells_nobody_but_the_device_whether_its_box_is_there() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let before = world.digests();
    let stranger = TestDevice::new(2);
    let mut request = device.authorize(&box_id, PHONE, &code);
    request.signature = stranger
        .authorize_as(&device, &box_id, PHONE, &code)
        .signature;
    assert_eq!(
        code_of(authorize(&world, &request).await),
        Code::NoCodeRequested
    );
    // The code was signed too.
    let mut request = device.authorize(&box_id, PHONE, &wrong(&code));
    request.code = code.clone();
    assert_eq!(
        code_of(authorize(&world, &request).await),
        Code::NoCodeRequested
    );
    // A device that the box does not have.
    let other = stranger.authorize_as(&stranger, &box_id, PHONE, &code);
    assert_eq!(
        code_of(authorize(&world, &other).await),
        Code::NoCodeRequested
    );
    // A box that is not there.
    let nowhere = device.address_in(0).box_id.as_bytes().to_vec();
    let nowhere = match nowhere == box_id {
        true => device.address_in(1).box_id.as_bytes().to_vec(),
        false => nowhere,
    };
    let request = device.authorize(&nowhere, PHONE, &code);
    assert_eq!(
        code_of(authorize(&world, &request).await),
        Code::NoCodeRequested
    );
    assert_eq!(world.digests(), before);
    // Another identifier than the one that was asked for.
    let elsewhere = device.authorize(&box_id, OTHER_PHONE, &code);
    assert_eq!(
        code_of(authorize(&world, &elsewhere).await),
        Code::NoCodeRequested
    );
}

#[tokio::test]
async fn register_refuses_a_kem_key_that_no_token_could_be_sealed_to() {
    let world = World::new().await;
    let before = world.digests();
    let device = TestDevice::with_kem_public(1, vec![0xff; XWING_PUBLIC_KEY_BYTES]);
    let refused = register(&world, &device.register(PHONE, true)).await;
    assert_eq!(code_of(refused), Code::InvalidArgument);
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn authorize_again_with_the_same_code_gives_the_same_token() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let request = device.authorize(&box_id, PHONE, &code);
    let address = device.address(&box_id);
    let first = authorize(&world, &request).await.unwrap();
    let second = authorize(&world, &request).await.unwrap();
    assert_ne!(first.sealed_token, second.sealed_token, "sealed afresh");
    assert_eq!(
        device.open_token(&address, &first),
        device.open_token(&address, &second)
    );
}

#[tokio::test]
async fn a_code_that_could_not_be_delivered_is_tried_again() {
    let world = World::new().await;
    world.fail_deliveries(1);
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    assert_eq!(world.deliveries_to_fail(), 0);
    assert!(
        authorize(&world, &device.authorize(&box_id, PHONE, &code))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_box_that_was_never_authorised_is_removed() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let address = device.address(&box_id);
    let state = || {
        let query = Query::BoxState(address.box_id);
        world
            .group
            .read_local(address.box_id.partition(), &query)
            .unwrap()
    };
    assert_ne!(state(), Answer::BoxState(None));
    world.clock.advance_millis(2 * 24 * 60 * MINUTE_MS);
    world
        .eventually("the box is removed", || state() == Answer::BoxState(None))
        .await;
    let late = authorize(&world, &device.authorize(&box_id, PHONE, &code)).await;
    assert_eq!(code_of(late), Code::NoCodeRequested);
}

/// The first half of Authorize alone, as if the node had died before the second.
async fn verify_only(world: &World, box_id: BoxId, code: &str) {
    let identifier = Identifier::phone(PHONE).unwrap();
    let identifier = world.secrets.identifier_hash(&identifier);
    let command = Command::VerifyClaim(VerifyClaim {
        identifier,
        box_id,
        code: world.secrets.code_mac(&identifier, &box_id, code),
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let partition = identifier.partition(world.partitions);
    let replies = world
        .group
        .propose(vec![(partition, command)], deadline)
        .await
        .unwrap();
    assert!(replies[0].is_ok());
}

async fn eventually_active(world: &World, address: DeviceAddress) {
    let is_active = || {
        let query = Query::DeviceAuth(address);
        let home = address.box_id.partition();
        world.group.read_local(home, &query).unwrap() == Answer::DeviceAuth(Some(1))
    };
    world.eventually("the box is activated", is_active).await;
}

#[tokio::test]
async fn a_half_done_authorize_is_finished_by_the_leader() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let address = device.address(&box_id);
    verify_only(&world, address.box_id, &code).await;
    eventually_active(&world, address).await;
}

#[tokio::test]
async fn a_half_done_authorize_is_finished_also_when_another_identifier_was_asked_for_since() {
    let world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let address = device.address(&box_id);
    let request = device.register(OTHER_PHONE, true);
    register(&world, &request).await.unwrap();
    verify_only(&world, address.box_id, &code).await;
    eventually_active(&world, address).await;
}

#[tokio::test]
async fn a_half_done_authorize_is_finished_after_a_long_outage_and_not_dropped() {
    let mut world = World::new().await;
    let (device, box_id, code) = registered(&world, 1, PHONE).await;
    let address = device.address(&box_id);
    world.stop_workers();
    verify_only(&world, address.box_id, &code).await;
    world.clock.advance_millis(2 * 24 * 60 * MINUTE_MS);
    world.start_workers();
    eventually_active(&world, address).await;
}
