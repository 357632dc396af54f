//! DeleteAccount: a box goes with all that it has, whatever breaks off.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::Signer as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::command::DeleteBox;
use rossby_domain::identifier::Identifier;
use rossby_domain::{Answer, Command, Query, statement};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;

use crate::support::{Refusal, Resident, TestDevice, World, code_of, envelope, phone_of, refusal};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

pub fn deletion(of: &Resident, by: &TestDevice) -> v1::DeleteAccountRequest {
    let signed = statement::delete_account(&of.address.box_id, &of.address.device);
    v1::DeleteAccountRequest {
        signature: by.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

/// A device's request for its place in its box.
pub fn joining(device: &TestDevice) -> v1::JoinBoxRequest {
    let kem = &device.record.device(&device.id()).unwrap().kem;
    let signed = statement::join_box(&device.id(), &kem.public);
    let key = device.signing.verifying_key();
    v1::JoinBoxRequest {
        signing_key: key.to_bytes().to_vec().into(),
        kem_key: kem.encode().into(),
        signature: device.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

pub async fn delete(world: &World, who: &Resident) -> Result<v1::DeleteAccountResponse, Refusal> {
    let request = deletion(who, &who.device);
    world.signed(who, RpcPath::DeleteAccount, &request).await
}

async fn lookup(world: &World, who: &Resident, phone: &str) -> Code {
    let by = Some(By::Identifier(phone_of(phone)));
    let request = v1::LookupKeyRequest {
        by,
        profile_after: None,
    };
    let found = world.signed::<_, v1::LookupKeyResponse>(who, RpcPath::LookupKey, &request);
    code_of(found.await)
}

#[tokio::test]
async fn a_deleted_box_is_one_that_is_not_there_and_its_phone_is_free() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let nowhere = Resident {
        address: TestDevice::new(9).address_in(bert.address.box_id.partition().number()),
        ..bert.clone()
    };
    let sent = world.send(&anna, vec![envelope(&bert, 1, b"before")]);
    sent.await.unwrap();
    delete(&world, &bert).await.unwrap();

    assert_eq!(code_of(delete(&world, &bert).await), Code::Unauthenticated);
    assert_eq!(lookup(&world, &anna, BERT).await, Code::NoUser);
    let letters = vec![
        envelope(&bert, 2, b"after"),
        envelope(&nowhere, 2, b"after"),
    ];
    let outcomes = world.send(&anna, letters).await.unwrap();
    assert_eq!(refusal(&outcomes[0]), refusal(&outcomes[1]));
    // Its own device is told what became of it; and it makes no such box again.
    let joining = joining(&bert.device);
    let joined = world.plain::<_, v1::JoinBoxResponse>(RpcPath::JoinBox, &joining);
    assert_eq!(code_of(joined.await), Code::BoxDeleted);
    let again = bert.device.register(BERT, true);
    let again = world.plain::<_, v1::RegisterResponse>(RpcPath::Register, &again);
    assert_eq!(code_of(again.await), Code::BoxDeleted);
    assert!(is_gone(&world, &bert));
    // Somebody else can have the phone, once the pause between codes is over.
    world.clock.advance_millis(60_000);
    let third = world.resident(3, BERT, true).await;
    assert_ne!(third.address.box_id, bert.address.box_id);
    assert_eq!(world.fetch(&third).await.envelopes.len(), 0);
}

/// Whether nothing is left to do for a box that was deleted, and its phone has no owner.
fn is_gone(world: &World, who: &Resident) -> bool {
    let identifier = Identifier::phone(BERT).unwrap();
    let identifier = world.secrets.identifier_hash(&identifier);
    let (home, directory) = (
        who.address.box_id.partition(),
        identifier.partition(world.partitions),
    );
    let pending = Query::PendingBoxes {
        partition: home,
        after: None,
        limit: 10,
    };
    [
        (
            home,
            Query::IsDeleted(who.address.box_id),
            Answer::IsDeleted(true),
        ),
        (home, pending, Answer::PendingBoxes(Vec::new())),
        (
            directory,
            Query::VerifiedClaim(identifier),
            Answer::VerifiedClaim(None),
        ),
    ]
    .into_iter()
    .all(|(partition, query, expected)| {
        world.group.read_local(partition, &query).unwrap() == expected
    })
}

#[tokio::test]
async fn what_broke_off_after_the_box_was_deleted_is_finished_by_the_leader() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let sent = world.send(&anna, vec![envelope(&bert, 1, b"before")]);
    sent.await.unwrap();
    // The node that served the call died after the first of its steps.
    let delete = Command::DeleteBox(DeleteBox {
        device: bert.address,
    });
    let partition = bert.address.box_id.partition();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let proposed = world.group.propose(vec![(partition, delete)], deadline);
    proposed.await.unwrap().pop().unwrap().unwrap();
    let rest_goes = || is_gone(&world, &bert);
    world.eventually("the rest goes", rest_goes).await;
    assert_eq!(lookup(&world, &anna, BERT).await, Code::NoUser);
}

#[tokio::test]
async fn a_stolen_token_deletes_nothing() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let before = world.quiet_digests().await;
    let thief = Resident {
        device: Arc::clone(&anna.device),
        ..bert.clone()
    };
    for request in [deletion(&bert, &anna.device), deletion(&anna, &bert.device)] {
        let refused =
            world.signed::<_, v1::DeleteAccountResponse>(&thief, RpcPath::DeleteAccount, &request);
        assert_eq!(code_of(refused.await), Code::BadSignature);
    }
    let unsigned = v1::DeleteAccountRequest::default();
    let refused =
        world.signed::<_, v1::DeleteAccountResponse>(&thief, RpcPath::DeleteAccount, &unsigned);
    assert_eq!(code_of(refused.await), Code::InvalidArgument);
    assert_eq!(world.digests(), before);
}
