//! AddIdentifier, RemoveIdentifier and ListIdentifiers: more than one phone for a box.

use std::sync::Arc;

use ed25519_dalek::Signer as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::command::{RemoveIdentifier, VerifyClaim};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::PartitionId;
use rossby_domain::{Answer, Command, Query, statement};
use rossby_proto::v1;

use crate::support::{Refusal, Resident, TestDevice, World, code_of, phone_of};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
const NEW: &str = "+491703333333";
const MINUTE_MS: u64 = 60_000;

/// Signed by the device that holds the token, whose address may be another's.
pub fn adding(who: &Resident, phone: &str, discoverable: bool) -> v1::AddIdentifierRequest {
    let (box_id, device) = (&who.address.box_id, &who.address.device);
    let identifier = Identifier::phone(phone).unwrap();
    let signed = statement::add_identifier(box_id, device, &identifier, discoverable);
    v1::AddIdentifierRequest {
        identifier: Some(phone_of(phone)),
        discoverable,
        signature: who.device.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

pub fn removing(who: &Resident, phone: &str, generation: u64) -> v1::RemoveIdentifierRequest {
    let (box_id, device) = (&who.address.box_id, &who.address.device);
    let identifier = Identifier::phone(phone).unwrap();
    let signed = statement::remove_identifier(box_id, device, &identifier, generation);
    v1::RemoveIdentifierRequest {
        identifier: Some(phone_of(phone)),
        generation,
        signature: who.device.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

async fn add(
    world: &World,
    who: &Resident,
    request: &v1::AddIdentifierRequest,
) -> Result<u64, Refusal> {
    let added = world.signed(who, RpcPath::AddIdentifier, request).await;
    added.map(|added: v1::AddIdentifierResponse| added.code_ttl_ms)
}

async fn remove(
    world: &World,
    who: &Resident,
    request: &v1::RemoveIdentifierRequest,
) -> Result<(), Refusal> {
    let removed = world.signed(who, RpcPath::RemoveIdentifier, request).await;
    removed.map(|_: v1::RemoveIdentifierResponse| ())
}

async fn authorize(world: &World, who: &Resident, phone: &str, code: &str) -> Result<(), Refusal> {
    let request = who
        .device
        .authorize(who.address.box_id.as_bytes(), phone, code);
    let proven = world.plain(RpcPath::Authorize, &request).await;
    proven.map(|_: v1::AuthorizeResponse| ())
}

/// Adds a phone, from the request to the code.
async fn prove(world: &World, who: &Resident, phone: &str, discoverable: bool) {
    let ttl = add(world, who, &adding(who, phone, discoverable)).await;
    assert_eq!(ttl.unwrap(), 10 * MINUTE_MS);
    let (sent_to, code) = world.next_code().await;
    assert_eq!(sent_to, Identifier::phone(phone).unwrap());
    authorize(world, who, phone, &code).await.unwrap();
}

fn own(phone: &str, verified: bool, discoverable: bool) -> (v1::Identifier, bool, bool) {
    (phone_of(phone), verified, discoverable)
}

async fn list(world: &World, who: &Resident) -> Vec<v1::OwnIdentifier> {
    let request = v1::ListIdentifiersRequest {};
    let listed = world.signed(who, RpcPath::ListIdentifiers, &request).await;
    let listed: v1::ListIdentifiersResponse = listed.unwrap();
    listed.identifiers
}

async fn listed(world: &World, who: &Resident) -> Vec<(v1::Identifier, bool, bool)> {
    let listed = list(world, who).await.into_iter();
    let fields = |own: v1::OwnIdentifier| (own.identifier.unwrap(), own.verified, own.discoverable);
    listed.map(fields).collect()
}

async fn found(world: &World, by: &Resident, phone: &str) -> Result<Vec<u8>, Refusal> {
    let by_phone = v1::lookup_key_request::By::Identifier(phone_of(phone));
    let request = v1::LookupKeyRequest {
        by: Some(by_phone),
        profile_after: None,
    };
    let found = world.signed(by, RpcPath::LookupKey, &request).await;
    found.map(|found: v1::LookupKeyResponse| found.box_id.to_vec())
}

/// The box that has a phone, as the directory says, and the partition that says so.
fn owner_of(world: &World, phone: &str) -> (PartitionId, Answer) {
    let identifier = Identifier::phone(phone).unwrap();
    let identifier = world.secrets.identifier_hash(&identifier);
    let partition = identifier.partition(world.partitions);
    let query = Query::VerifiedClaim(identifier);
    (
        partition,
        world.group.read_local(partition, &query).unwrap(),
    )
}

async fn propose(world: &World, partition: PartitionId, command: Command) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let proposing = world.group.propose(vec![(partition, command)], deadline);
    assert!(proposing.await.unwrap()[0].is_ok());
}

#[tokio::test]
async fn a_second_phone_is_the_boxs_from_its_code_on_until_it_is_removed() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    prove(&world, &bert, NEW, true).await;
    assert_eq!(
        listed(&world, &bert).await,
        [own(BERT, true, true), own(NEW, true, true)]
    );
    let box_id = bert.address.box_id.as_bytes().to_vec();
    assert_eq!(found(&world, &anna, NEW).await.unwrap(), box_id);
    // The token is what it was.
    assert_eq!(world.fetch(&bert).await.envelopes.len(), 0);

    // The same again, private: from its code on.
    world.clock.advance_millis(5 * MINUTE_MS);
    prove(&world, &bert, NEW, false).await;
    assert_eq!(listed(&world, &bert).await[1], own(NEW, true, false));
    assert_eq!(code_of(found(&world, &anna, NEW).await), Code::NoUser);

    let generation = list(&world, &bert).await[0].generation;
    let old = removing(&bert, BERT, generation + 1);
    assert_eq!(
        code_of(remove(&world, &bert, &old).await),
        Code::IdentifierChanged
    );
    let request = removing(&bert, BERT, generation);
    for _ in 0..2 {
        remove(&world, &bert, &request).await.unwrap();
    }
    assert_eq!(listed(&world, &bert).await, [own(NEW, true, false)]);
    let generation = list(&world, &bert).await[0].generation;
    let last = remove(&world, &bert, &removing(&bert, NEW, generation)).await;
    assert_eq!(code_of(last), Code::LastIdentifier);
    // It is anybody's at once.
    world.clock.advance_millis(5 * MINUTE_MS);
    let carl = world.resident(3, BERT, true).await;
    let box_id = carl.address.box_id.as_bytes().to_vec();
    assert_eq!(found(&world, &anna, BERT).await.unwrap(), box_id);
}

#[tokio::test]
async fn a_stolen_token_without_the_device_key_changes_no_identifiers() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let generation = list(&world, &bert).await[0].generation;
    let before = world.quiet_digests().await;
    // Anna's device holds Bert's token, and her own keys.
    let thief = Resident {
        device: Arc::clone(&anna.device),
        ..bert.clone()
    };
    let forged = add(&world, &thief, &adding(&thief, NEW, true)).await;
    assert_eq!(code_of(forged), Code::BadSignature);
    let forged = remove(&world, &thief, &removing(&thief, BERT, generation)).await;
    assert_eq!(code_of(forged), Code::BadSignature);
    // Nor is what the device has signed good for anything else.
    let right = adding(&bert, NEW, true);
    let private = v1::AddIdentifierRequest {
        discoverable: false,
        ..right.clone()
    };
    let other = v1::AddIdentifierRequest {
        identifier: Some(phone_of("+491704444444")),
        ..right.clone()
    };
    for forged in [private, other] {
        let forged = add(&world, &bert, &forged).await;
        assert_eq!(code_of(forged), Code::BadSignature);
    }
    let foreign = add(&world, &anna, &right).await;
    assert_eq!(code_of(foreign), Code::BadSignature);
    for bad in ["", "0170", "+49x1701234567"] {
        let mut request = right.clone();
        request.identifier = Some(phone_of(bad));
        let refused = add(&world, &bert, &request).await;
        assert_eq!(code_of(refused), Code::InvalidIdentifier, "{bad}");
    }
    let mut short = right;
    short.signature.truncate(63);
    let refused = add(&world, &bert, &short).await;
    assert_eq!(code_of(refused), Code::InvalidArgument);
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn one_that_is_taken_answers_as_at_registration() {
    let world = World::new().await;
    world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let hidden = "+491705555555";
    world.resident(3, hidden, false).await;
    world.clock.advance_millis(5 * MINUTE_MS);
    let taken = add(&world, &bert, &adding(&bert, ANNA, true)).await;
    assert_eq!(code_of(taken), Code::IdentifierTaken);
    assert_eq!(listed(&world, &bert).await, [own(BERT, true, true)]);
    // Whether somebody has one that nobody is found by is told to who can read its codes.
    for phone in [hidden, NEW] {
        add(&world, &bert, &adding(&bert, phone, true))
            .await
            .unwrap();
        let (_, code) = world.next_code().await;
        let wrong = if code == "00000000" { "1" } else { "0" }.repeat(8);
        let guess = authorize(&world, &bert, phone, &wrong).await;
        assert_eq!(code_of(guess), Code::WrongCode);
        let right = authorize(&world, &bert, phone, &code).await;
        assert_eq!(right.is_ok(), phone == NEW);
    }
    let waiting = own(hidden, false, true);
    assert_eq!(listed(&world, &bert).await[1], waiting);
    remove(&world, &bert, &removing(&bert, hidden, 0))
        .await
        .unwrap();
    assert_eq!(listed(&world, &bert).await.len(), 2);
}

#[tokio::test]
async fn what_broke_off_is_finished_by_the_leader() {
    let world = World::new().await;
    let bert = world.resident(2, BERT, true).await;
    add(&world, &bert, &adding(&bert, NEW, true)).await.unwrap();
    let (_, code) = world.next_code().await;
    let (box_id, home) = (bert.address.box_id, bert.address.box_id.partition());
    let identifier = Identifier::phone(NEW).unwrap();
    let identifier = world.secrets.identifier_hash(&identifier);
    // The first half of Authorize alone, as if the node had died before the second.
    let verify = Command::VerifyClaim(VerifyClaim {
        identifier,
        box_id,
        code: world.secrets.code_mac(&identifier, &box_id, &code),
    });
    propose(&world, owner_of(&world, NEW).0, verify).await;
    let listed_as = || {
        let query = Query::Identifiers(box_id);
        let Answer::Identifiers(listed) = world.group.read_local(home, &query).unwrap() else {
            panic!()
        };
        let new = listed.into_iter().find(|known| known.hash == identifier);
        new.map(|new| new.generation)
    };
    let is_told = || listed_as().flatten().is_some();
    world.eventually("the box is told", is_told).await;

    let generation = listed_as().flatten().unwrap();
    let leave = Command::RemoveIdentifier(RemoveIdentifier {
        device: bert.address,
        identifier,
        generation,
    });
    propose(&world, home, leave).await;
    let is_free = || owner_of(&world, NEW).1 == Answer::VerifiedClaim(None);
    world.eventually("it is released", is_free).await;
    let waits = || {
        let query = Query::PendingBoxes {
            partition: home,
            after: None,
            limit: 1,
        };
        world.group.read_local(home, &query).unwrap() != Answer::PendingBoxes(Vec::new())
    };
    world.eventually("nothing is half-done", || !waits()).await;
    // And it can be added again.
    world.clock.advance_millis(5 * MINUTE_MS);
    prove(&world, &bert, NEW, true).await;
}

#[tokio::test]
async fn a_box_has_eight_and_only_its_devices_add_to_them() {
    let world = World::new().await;
    let bert = world.resident(2, BERT, true).await;
    for number in 0..7 {
        let phone = format!("+4917044444{number:02}");
        add(&world, &bert, &adding(&bert, &phone, true))
            .await
            .unwrap();
    }
    let ninth = add(&world, &bert, &adding(&bert, NEW, true))
        .await
        .unwrap_err();
    assert_eq!(ninth.code(), Code::TooManyIdentifiers);
    assert_eq!(ninth.metadata("limit"), Some("8"));
    let nobody = Resident {
        device: Arc::new(TestDevice::new(9)),
        ..bert.clone()
    };
    let stranger = nobody
        .device
        .address_in(bert.address.box_id.partition().number());
    let stranger = Resident {
        address: stranger,
        ..nobody
    };
    let refused = add(&world, &stranger, &adding(&stranger, NEW, true)).await;
    assert_eq!(code_of(refused), Code::Unauthenticated);
}
