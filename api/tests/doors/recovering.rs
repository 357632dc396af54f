//! LookupRecovery and Recover: a box whose devices are lost or stolen, and its recovery key.

use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use rossby_api::{Code, RpcPath};
use rossby_domain::chain::{Change, KeyRecord, Link, Signer};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::statement::{self, Recoverable};
use rossby_proto::v1;
use rossby_proto::v1::lookup_recovery_request::By;

use crate::support::{Refusal, Resident, TestDevice, World, code_of, envelope, phone_of, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";
const NOBODY: &str = "+491709999999";

/// The recovery key of the device's own box.
pub fn recovery_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number ^ 0x80; 32])
}

pub fn lookup(key: &SigningKey, phone: &str) -> v1::LookupRecoveryRequest {
    let identifier = Identifier::phone(phone).unwrap();
    let signed = statement::lookup_recovery(Recoverable::Identifier(&identifier));
    v1::LookupRecoveryRequest {
        by: Some(By::Identifier(phone_of(phone))),
        recovery_key: key.verifying_key().to_bytes().to_vec().into(),
        signature: key.sign(&signed).to_bytes().to_vec().into(),
    }
}

async fn look(world: &World, request: &v1::LookupRecoveryRequest) -> Result<KeyRecord, Refusal> {
    let found = world.plain(RpcPath::LookupRecovery, request).await;
    found.map(|found: v1::LookupRecoveryResponse| KeyRecord::decode(&found.key_record).unwrap())
}

/// Links by a recovery key that let a device in and, if it is to be alone, all others out.
pub fn links(record: &KeyRecord, new: &TestDevice, key: &SigningKey, alone: bool) -> Vec<Link> {
    let added = Change::AddDevice {
        key: new.signing.verifying_key().to_bytes(),
    };
    let others = record.live_devices().filter(|_| alone);
    let removed = others.map(|device| Change::RemoveDevice { device: *device });
    let (mut links, mut longer) = (Vec::new(), record.clone());
    for change in [added].into_iter().chain(removed) {
        let (version, previous) = (longer.version() + 1, longer.head());
        let signer = Signer::Recovery;
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        let link = Link {
            version,
            previous,
            change,
            signer,
            signature: key.sign(&signed).to_bytes(),
        };
        links.push(link);
        longer = longer.extend(link).unwrap_or(longer);
    }
    links
}

pub fn request(to: &DeviceAddress, new: &TestDevice, links: &[Link]) -> v1::RecoverRequest {
    let kem = &new.record.device(&new.id()).unwrap().kem;
    let signed = statement::recover(&to.box_id, &new.id(), &kem.public);
    v1::RecoverRequest {
        box_id: to.box_id.as_bytes().to_vec().into(),
        links: links.iter().map(|link| link.encode().into()).collect(),
        signing_key: new.signing.verifying_key().to_bytes().to_vec().into(),
        kem_key: kem.encode().into(),
        signature: new.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

/// The new device as one of the box that it has recovered.
pub async fn recover(
    world: &World,
    to: &DeviceAddress,
    new: TestDevice,
    links: &[Link],
) -> Result<Resident, Refusal> {
    let request = request(to, &new, links);
    let response = world.plain(RpcPath::Recover, &request).await?;
    Ok(taken(to, new, response))
}

/// The same, as it is answered.
pub fn taken(to: &DeviceAddress, new: TestDevice, response: v1::JoinBoxResponse) -> Resident {
    let address = DeviceAddress {
        box_id: to.box_id,
        device: new.id(),
    };
    let sealed = v1::AuthorizeResponse {
        encapsulated_key: response.encapsulated_key,
        sealed_token: response.sealed_token,
        hawk_host: response.hawk_host,
    };
    let token = new.open_token(&address, &sealed);
    Resident {
        device: Arc::new(new),
        address,
        token,
    }
}

#[tokio::test]
async fn a_stolen_last_device_is_shut_out_by_the_recovery_key_and_the_new_one_reads_and_sends() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let stolen = world.resident(2, BERT, false).await;
    let key = recovery_key(2);
    let record = look(&world, &lookup(&key, BERT)).await.unwrap();
    let links = links(&record, &TestDevice::new(12), &key, true);
    let new = recover(&world, &stolen.address, TestDevice::new(12), &links);
    let new = new.await.unwrap();
    let again = recover(&world, &stolen.address, TestDevice::new(12), &links);
    assert_eq!(again.await.unwrap().token, new.token, "a lost reply");

    let fetch = v1::FetchRequest::default();
    let fetched = world.signed::<_, v1::FetchResponse>(&stolen, RpcPath::Fetch, &fetch);
    assert_eq!(code_of(fetched.await), Code::Unauthenticated);
    let mut letter = envelope(&new, 1, b"for the new one");
    letter.chain_version = 2;
    let sent = world.send(&anna, vec![letter]).await.unwrap();
    assert_eq!(sequence(&sent[0]), 1);
    assert_eq!(world.fetch(&new).await.envelopes.len(), 1);
    let sent = world.send(&new, vec![envelope(&anna, 1, b"from the new one")]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 1);
    // The stolen one recovers nothing, though it is of the box that has this key.
    let theirs = request(&stolen.address, &TestDevice::new(2), &links);
    let theirs = world.plain::<_, v1::JoinBoxResponse>(RpcPath::Recover, &theirs);
    assert_eq!(code_of(theirs.await), Code::DeviceRevoked);
}

#[tokio::test]
async fn nobody_without_the_key_learns_whether_a_box_is_there_or_writes_anything() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let before = world.quiet_digests().await;
    let (key, other) = (recovery_key(2), recovery_key(1));
    for phone in [BERT, NOBODY] {
        let refused = look(&world, &lookup(&other, phone)).await;
        assert_eq!(code_of(refused), Code::NotRecoverable, "{phone}");
    }
    let mut forged = lookup(&other, BERT);
    forged.recovery_key = lookup(&key, BERT).recovery_key;
    assert_eq!(code_of(look(&world, &forged).await), Code::BadSignature);
    let nothing = v1::LookupRecoveryRequest::default();
    assert_eq!(code_of(look(&world, &nothing).await), Code::InvalidArgument);

    let record = &bert.device.record;
    let nowhere = TestDevice::new(9).address_in(3);
    let new = || TestDevice::new(12);
    for (to, links) in [
        (&bert.address, links(record, &new(), &other, true)),
        (&bert.address, Vec::new()),
        (&nowhere, links(record, &new(), &key, true)),
        // Another box has the same key as this one by no chance.
        (&anna.address, links(record, &new(), &key, true)),
    ] {
        let refused = recover(&world, to, new(), &links).await.map(drop);
        assert_eq!(code_of(refused), Code::NotRecoverable);
    }
    let good = links(record, &new(), &key, true);
    let mut swapped = request(&bert.address, &new(), &good);
    swapped.signature = request(&anna.address, &new(), &good).signature;
    let refused = world.plain::<_, v1::JoinBoxResponse>(RpcPath::Recover, &swapped);
    assert_eq!(code_of(refused.await), Code::BadSignature);
    let mut many = request(&bert.address, &new(), &good);
    many.links = vec![many.links[0].clone(); 10];
    let refused = world.plain::<_, v1::JoinBoxResponse>(RpcPath::Recover, &many);
    assert_eq!(code_of(refused.await), Code::InvalidArgument);
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn who_was_outrun_by_another_device_is_told_and_signs_anew() {
    let world = World::new().await;
    let bert = world.resident(2, BERT, true).await;
    let key = recovery_key(2);
    let record = &bert.device.record;
    let stale = links(record, &TestDevice::new(12), &key, true);
    let quicker = links(record, &TestDevice::new(13), &key, false);
    recover(&world, &bert.address, TestDevice::new(13), &quicker)
        .await
        .unwrap();
    let refused = recover(&world, &bert.address, TestDevice::new(12), &stale);
    assert_eq!(code_of(refused.await.map(drop)), Code::ChainChanged);
    let record = look(&world, &lookup(&key, BERT)).await.unwrap();
    let fresh = links(&record, &TestDevice::new(12), &key, true);
    let new = recover(&world, &bert.address, TestDevice::new(12), &fresh);
    let new = new.await.unwrap();
    assert_eq!(world.fetch(&new).await.envelopes.len(), 0);
    let record = look(&world, &lookup(&key, BERT)).await.unwrap();
    assert_eq!(record.live_devices().count(), 1);
}
