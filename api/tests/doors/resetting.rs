//! Resets: a phone whose owner has lost all devices comes to a new box, unless a device of the old one says no.

use ed25519_dalek::Signer as _;
use rossby_api::{Code, DoorLimits, RpcPath};
use rossby_domain::command::ProveReset;
use rossby_domain::identifier::Identifier;
use rossby_domain::limits::Limits;
use rossby_domain::time::DAY_MS;
use rossby_domain::{Answer, Command, Outcome, Query, Reply, statement};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;
use rossby_seams::clock::Clock as _;

use crate::support::{Refusal, Resident, TestDevice, World, code_of, phone_of};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
/// Less than by how much a clock can jump before it is doubted.
const DELAY_MS: u64 = 3 * DAY_MS;

/// And the time for telling the old box.
pub const ALL_MS: u64 = DELAY_MS + 10 * 60_000;

pub fn hasty() -> Limits {
    Limits {
        reset_delay_ms: DELAY_MS,
        ..Limits::default()
    }
}

async fn hasty_world() -> World {
    let limits = hasty();
    let doors = DoorLimits::default();
    World::at_addresses(vec!["node-1:7000".to_owned()], limits, doors).await
}

/// The request of a new device.
pub fn asking(device: &TestDevice, phone: &str) -> v1::RegisterRequest {
    v1::RegisterRequest {
        reset: true,
        ..device.register(phone, true)
    }
}

/// Asks for the phone; the new device's box, and the code that came.
async fn ask(world: &World, device: &TestDevice) -> (Vec<u8>, String) {
    let request = asking(device, BERT);
    let registered: v1::RegisterResponse = world.plain(RpcPath::Register, &request).await.unwrap();
    let (_, code) = world.next_code().await;
    (registered.box_id.to_vec(), code)
}

pub fn proof(device: &TestDevice, phone: &str, box_id: &[u8], code: &str) -> v1::AuthorizeRequest {
    let address = device.address(box_id);
    let identifier = Identifier::phone(phone).unwrap();
    let signed = statement::reset(&address.box_id, &address.device, &identifier, code);
    v1::AuthorizeRequest {
        signature: device.signing.sign(&signed).to_bytes().to_vec().into(),
        reset: true,
        ..device.authorize(box_id, phone, code)
    }
}

/// A "no" to a reset, in the name of a device, signed by another or the same.
pub fn keeping(
    who: &Resident,
    by: &TestDevice,
    phone: &str,
    serial: u64,
) -> v1::KeepIdentifierRequest {
    let (box_id, device) = (&who.address.box_id, &who.address.device);
    let identifier = Identifier::phone(phone).unwrap();
    let signed = statement::keep_identifier(box_id, device, &identifier, serial);
    v1::KeepIdentifierRequest {
        identifier: Some(phone_of(phone)),
        reset_serial: serial,
        signature: by.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

async fn prove(
    world: &World,
    device: &TestDevice,
    box_id: &[u8],
    code: &str,
) -> Result<v1::AuthorizeResponse, Refusal> {
    let request = proof(device, BERT, box_id, code);
    world.plain(RpcPath::Authorize, &request).await
}

async fn listed(world: &World, who: &Resident) -> Vec<v1::OwnIdentifier> {
    let request = v1::ListIdentifiersRequest {};
    let listed = world.signed(who, RpcPath::ListIdentifiers, &request).await;
    let listed: v1::ListIdentifiersResponse = listed.unwrap();
    listed.identifiers
}

async fn found(world: &World, by: &Resident) -> Vec<u8> {
    let by_phone = Some(By::Identifier(phone_of(BERT)));
    let request = v1::LookupKeyRequest {
        by: by_phone,
        profile_after: None,
    };
    let found = world.signed(by, RpcPath::LookupKey, &request).await;
    let found: v1::LookupKeyResponse = found.unwrap();
    found.box_id.to_vec()
}

#[tokio::test]
async fn a_phone_comes_to_a_new_box_after_the_delay_and_the_old_one_was_told() {
    let world = hasty_world().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    world.clock.advance_millis(60_000);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let waits = prove(&world, &new, &box_id, &code).await.unwrap_err();
    assert_eq!(waits.code(), Code::ResetWaits);
    let at: u64 = waits.metadata("completes_at_ms").unwrap().parse().unwrap();

    // Both ways in which the old box's devices are told.
    let page = world.fetch(&bert).await;
    let told = page.status.unwrap().reset_at_ms.unwrap();
    assert_eq!(told, at);
    let own = listed(&world, &bert).await;
    assert_eq!(own[0].reset_at_ms, Some(told));
    assert_eq!(found(&world, &anna).await, bert.address.box_id.as_bytes());
    let again = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(again), Code::ResetWaits);

    world.clock.advance_millis(ALL_MS);
    let old = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(old), Code::NoCodeRequested, "it was read once");
    let (_, code) = ask(&world, &new).await;
    prove(&world, &new, &box_id, &code).await.unwrap();
    prove(&world, &new, &box_id, &code).await.unwrap();
    assert_eq!(found(&world, &anna).await, box_id);
    assert_eq!(listed(&world, &bert).await, []);
    assert_eq!(world.fetch(&bert).await.status.unwrap().reset_at_ms, None);
}

#[tokio::test]
async fn clocks_that_were_ahead_and_have_been_set_right_hold_up_no_reset() {
    let world = hasty_world().await;
    world.resident(2, BERT, true).await;
    let right = world.clock.now();
    // Something is written meanwhile: the service's time goes on from there.
    world.clock.advance_millis(3_600_000);
    world.resident(1, ANNA, true).await;
    world.clock.set(right.plus_millis(120_000));
    assert!(world.group.status().time_ahead_ms > 0);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let waits = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(waits), Code::ResetWaits);
}

#[tokio::test]
async fn a_device_of_the_old_box_says_no_and_nobody_else_can() {
    let world = hasty_world().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    world.clock.advance_millis(60_000);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let waits = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(waits), Code::ResetWaits);
    let serial = listed(&world, &bert).await[0].reset_serial;
    let keeping = |who: &Resident, by: &TestDevice| keeping(who, by, BERT, serial);
    let path = RpcPath::KeepIdentifier;
    // With a stolen token, and for a phone of somebody else.
    let request = keeping(&bert, &anna.device);
    let refused = world.signed::<_, v1::KeepIdentifierResponse>(&bert, path, &request);
    assert_eq!(code_of(refused.await), Code::BadSignature);
    let request = keeping(&anna, &anna.device);
    let refused = world.signed::<_, v1::KeepIdentifierResponse>(&anna, path, &request);
    assert_eq!(code_of(refused.await), Code::IdentifierChanged);

    let request = keeping(&bert, &bert.device);
    for _ in 0..2 {
        let kept = world.signed::<_, v1::KeepIdentifierResponse>(&bert, path, &request);
        kept.await.unwrap();
    }
    assert_eq!(listed(&world, &bert).await[0].reset_at_ms, None);
    let refused = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(refused), Code::ResetVetoed);
    world.clock.advance_millis(DELAY_MS / 2);
    let (_, code) = ask(&world, &new).await;
    let refused = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(refused), Code::ResetVetoed);
    assert_eq!(found(&world, &anna).await, bert.address.box_id.as_bytes());
}

/// Has the directory take a code, and no more: the node that served the call died then.
async fn prove_only(world: &World, new: &TestDevice, box_id: &[u8], code: &str) -> Reply {
    let phone = Identifier::phone(BERT).unwrap();
    let identifier = world.secrets.identifier_hash(&phone);
    let id = new.address(box_id).box_id;
    let proving = Command::ProveReset(ProveReset {
        identifier,
        box_id: id,
        code: world.secrets.code_mac(&identifier, &id, code),
    });
    let directory = identifier.partition(world.partitions);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let proposed = world.group.propose(vec![(directory, proving)], deadline);
    proposed.await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn a_reset_that_broke_off_before_the_old_box_was_told_is_taken_up_or_begun_anew() {
    let world = hasty_world().await;
    let bert = world.resident(2, BERT, true).await;
    world.clock.advance_millis(60_000);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let reply = prove_only(&world, &new, &box_id, &code).await;
    assert!(matches!(
        reply,
        Ok(Outcome::ResetWaits { started: false, .. })
    ));
    assert_eq!(listed(&world, &bert).await[0].reset_at_ms, None);
    // Too late: nobody was told, so nothing has begun.
    world.clock.advance_millis(10 * 60_000);
    let late = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(late), Code::NoCodeRequested);
    let (_, code) = ask(&world, &new).await;
    prove_only(&world, &new, &box_id, &code).await.unwrap();
    world.clock.advance_millis(60_000);
    let waits = prove(&world, &new, &box_id, &code).await.unwrap_err();
    assert_eq!(waits.code(), Code::ResetWaits);
    let at = waits.metadata("completes_at_ms").unwrap().parse().unwrap();
    assert_eq!(listed(&world, &bert).await[0].reset_at_ms, Some(at));
}

#[tokio::test]
async fn a_box_that_has_come_to_life_by_another_phone_gets_none_by_a_reset() {
    const OWN: &str = "+491703333333";
    let world = hasty_world().await;
    let bert = world.resident(2, BERT, true).await;
    world.clock.advance_millis(60_000);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let request = new.register(OWN, true);
    let registered: v1::RegisterResponse = world.plain(RpcPath::Register, &request).await.unwrap();
    assert_eq!(registered.box_id, box_id);
    let (_, own) = world.next_code().await;
    let request = new.authorize(&box_id, OWN, &own);
    let authorized: Result<v1::AuthorizeResponse, _> =
        world.plain(RpcPath::Authorize, &request).await;
    authorized.unwrap();
    let refused = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(refused), Code::IdentifierTaken);
    assert_eq!(listed(&world, &bert).await[0].reset_at_ms, None);
}

#[tokio::test]
async fn what_broke_off_once_the_phone_has_moved_is_finished_by_the_leader() {
    let world = hasty_world().await;
    let bert = world.resident(2, BERT, true).await;
    world.clock.advance_millis(60_000);
    let new = TestDevice::new(12);
    let (box_id, code) = ask(&world, &new).await;
    let waits = prove(&world, &new, &box_id, &code).await;
    assert_eq!(code_of(waits), Code::ResetWaits);
    world.clock.advance_millis(ALL_MS);
    let (_, code) = ask(&world, &new).await;
    let reply = prove_only(&world, &new, &box_id, &code).await;
    let id = new.address(&box_id).box_id;
    assert!(
        matches!(reply, Ok(Outcome::ClaimVerified { .. })),
        "{reply:?}"
    );
    let is_alive = || {
        let query = Query::BoxState(id);
        match world.group.read_local(id.partition(), &query).unwrap() {
            Answer::BoxState(state) => state.is_some_and(|state| state.active),
            other => panic!("{other:?}"),
        }
    };
    world
        .eventually("the new box comes to life", is_alive)
        .await;
    prove(&world, &new, &box_id, &code).await.unwrap();
    assert_eq!(listed(&world, &bert).await, []);
}
