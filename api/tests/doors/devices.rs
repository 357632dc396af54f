//! ExtendChain and JoinBox: a second device, from its link to its revocation.

use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use rossby_api::{Code, RpcPath};
use rossby_domain::chain::{Change, KeyRecord, Link, Signer};
use rossby_domain::ids::{DeviceAddress, DeviceId};
use rossby_domain::statement;
use rossby_proto::v1;

use crate::support::{Refusal, Resident, TestDevice, World, code_of, envelope, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

fn public(device: &TestDevice) -> [u8; 32] {
    device.signing.verifying_key().to_bytes()
}

/// The next link of a chain, in the name of `signer`, signed with `key`.
fn link(record: &KeyRecord, change: Change, signer: DeviceId, key: &SigningKey) -> Link {
    let (version, previous) = (record.version() + 1, record.head());
    let signer = Signer::Device(signer);
    let signed = Link::signed_bytes(version, &previous, &change, &signer);
    Link {
        version,
        previous,
        change,
        signer,
        signature: key.sign(&signed).to_bytes(),
    }
}

pub fn adding(record: &KeyRecord, added: &TestDevice, by: &TestDevice) -> Link {
    let change = Change::AddDevice { key: public(added) };
    link(record, change, by.id(), &by.signing)
}

pub fn removing(record: &KeyRecord, removed: DeviceId, by: &TestDevice) -> Link {
    let change = Change::RemoveDevice { device: removed };
    link(record, change, by.id(), &by.signing)
}

pub async fn extend(world: &World, who: &Resident, link: &Link) -> Result<u64, Refusal> {
    let link = link.encode().into();
    let request = v1::ExtendChainRequest { link };
    let response = world.signed(who, RpcPath::ExtendChain, &request).await;
    response.map(|response: v1::ExtendChainResponse| response.version)
}

fn joining(device: &TestDevice) -> v1::JoinBoxRequest {
    let kem = &device.record.device(&device.id()).unwrap().kem;
    let signed = statement::join_box(&device.id(), &kem.public);
    v1::JoinBoxRequest {
        signing_key: public(device).to_vec().into(),
        kem_key: kem.encode().into(),
        signature: device.signing.sign(&signed).to_bytes().to_vec().into(),
    }
}

/// The device as one of the box that took it in.
pub async fn join(world: &World, device: TestDevice) -> Result<Resident, Refusal> {
    let response: v1::JoinBoxResponse = world.plain(RpcPath::JoinBox, &joining(&device)).await?;
    let record = KeyRecord::decode(&response.key_record).unwrap();
    assert!(record.device(&device.id()).is_some());
    let box_id = response.box_id[..].try_into().unwrap();
    let box_id = rossby_domain::ids::BoxId::from_bytes(box_id).unwrap();
    assert!(box_id.is_of_genesis(&record.genesis_hash()));
    let address = DeviceAddress {
        box_id,
        device: device.id(),
    };
    let sealed = v1::AuthorizeResponse {
        encapsulated_key: response.encapsulated_key,
        sealed_token: response.sealed_token,
        hawk_host: response.hawk_host,
    };
    let token = device.open_token(&address, &sealed);
    let device = Arc::new(device);
    Ok(Resident {
        device,
        address,
        token,
    })
}

fn at_version(mut envelope: v1::OutgoingEnvelope, version: u64) -> v1::OutgoingEnvelope {
    envelope.chain_version = version;
    envelope
}

async fn lookup(world: &World, who: &Resident, device: DeviceId) -> Result<Vec<u8>, Refusal> {
    let by = v1::lookup_key_request::By::DeviceId(device.as_bytes().to_vec().into());
    let request = v1::LookupKeyRequest {
        by: Some(by),
        profile_after: None,
    };
    let found = world.signed(who, RpcPath::LookupKey, &request).await;
    found.map(|found: v1::LookupKeyResponse| found.box_id.to_vec())
}

#[tokio::test]
async fn a_linked_device_reads_sends_and_is_found_until_it_is_revoked() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    assert_eq!(
        code_of(join(&world, TestDevice::new(12)).await.map(drop)),
        Code::NotLinked
    );

    let chain = &bert.device.record;
    let added = adding(chain, &TestDevice::new(12), &bert.device);
    assert_eq!(extend(&world, &bert, &added).await.unwrap(), 1);
    assert_eq!(
        extend(&world, &bert, &added).await.unwrap(),
        1,
        "the same again"
    );
    let chain = chain.extend(added).unwrap();
    let second = join(&world, TestDevice::new(12)).await.unwrap();
    let again = join(&world, TestDevice::new(12)).await.unwrap();
    assert_eq!(second.address.box_id, bert.address.box_id);
    assert_eq!(second.token, again.token);
    assert_ne!(second.token, bert.token);

    let letter = at_version(envelope(&bert, 1, b"for both"), 1);
    let sent = world.send(&anna, vec![letter]).await.unwrap();
    assert_eq!(sequence(&sent[0]), 1);
    for device in [&bert, &second] {
        assert_eq!(world.fetch(device).await.envelopes.len(), 1);
    }
    let sent = world.send(&second, vec![envelope(&anna, 1, b"from the second")]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 1);
    let found = lookup(&world, &anna, second.address.device).await.unwrap();
    assert_eq!(found, bert.address.box_id.as_bytes());

    let removed = removing(&chain, second.address.device, &bert.device);
    assert_eq!(extend(&world, &bert, &removed).await.unwrap(), 2);
    let request = v1::FetchRequest::default();
    let fetched = world.signed::<_, v1::FetchResponse>(&second, RpcPath::Fetch, &request);
    assert_eq!(code_of(fetched.await), Code::Unauthenticated);
    let joined = join(&world, TestDevice::new(12)).await;
    assert_eq!(code_of(joined.map(drop)), Code::DeviceRevoked);
    let found = lookup(&world, &anna, second.address.device).await;
    assert_eq!(code_of(found), Code::NoUser);
    assert_eq!(world.fetch(&bert).await.envelopes.len(), 1);
}

#[tokio::test]
async fn asking_for_a_place_again_writes_nothing_whoever_asks() {
    let world = World::new().await;
    let bert = world.resident(2, BERT, true).await;
    let chain = &bert.device.record;
    let added = adding(chain, &TestDevice::new(12), &bert.device);
    extend(&world, &bert, &added).await.unwrap();
    let second = join(&world, TestDevice::new(12)).await.unwrap();
    writes_nothing(&world, async || {
        let again = join(&world, TestDevice::new(12)).await.unwrap();
        assert_eq!(again.token, second.token);
    })
    .await;
    let chain = chain.extend(added).unwrap();
    let removed = removing(&chain, second.address.device, &bert.device);
    extend(&world, &bert, &removed).await.unwrap();
    writes_nothing(&world, async || {
        let refused = join(&world, TestDevice::new(12)).await.map(drop);
        assert_eq!(code_of(refused), Code::DeviceRevoked);
    })
    .await;
}

/// Holds that a call has nothing written, however often it is made. The workers write at times, too: but not every time.
async fn writes_nothing(world: &World, call: impl AsyncFn()) {
    let written = || world.group.status().last_log_index.unwrap();
    for _ in 0..10 {
        world.quiet_digests().await;
        let before = written();
        for _ in 0..5 {
            call().await;
        }
        if written() == before {
            return;
        }
    }
    panic!("each time something was written");
}

#[tokio::test]
async fn a_stolen_token_without_a_device_key_changes_no_devices() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let before = world.quiet_digests().await;
    // Anna's device holds Bert's token, and her own keys.
    let thief = Resident {
        device: Arc::clone(&anna.device),
        ..bert.clone()
    };
    let chain = &bert.device.record;
    let (theirs, change) = (TestDevice::new(66), |key| Change::AddDevice { key });
    let in_own_name = adding(chain, &theirs, &anna.device);
    let in_berts_name = link(
        chain,
        change(public(&theirs)),
        bert.device.id(),
        &anna.device.signing,
    );
    let removal = {
        let device = bert.device.id();
        link(
            chain,
            Change::RemoveDevice { device },
            device,
            &anna.device.signing,
        )
    };
    let refused = extend(&world, &thief, &in_own_name).await;
    assert_eq!(code_of(refused), Code::LinkNotAllowed);
    for forged in [in_berts_name, removal] {
        assert_eq!(
            code_of(extend(&world, &thief, &forged).await),
            Code::BadSignature
        );
    }
    // Nor does it bind a device that is somebody else's to come.
    assert_eq!(world.digests(), before);
}

#[tokio::test]
async fn nobody_takes_another_boxs_device_and_a_link_over_an_old_chain_is_told() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let takeover = adding(&bert.device.record, &anna.device, &bert.device);
    let refused = extend(&world, &bert, &takeover).await;
    assert_eq!(code_of(refused), Code::KeyAlreadyRegistered);
    let link = adding(&bert.device.record, &TestDevice::new(12), &bert.device);
    extend(&world, &bert, &link).await.unwrap();
    let stale = adding(&bert.device.record, &TestDevice::new(13), &bert.device);
    let refused = extend(&world, &bert, &stale).await.unwrap_err();
    assert_eq!(refused.code(), Code::ChainChanged);
    assert_eq!(refused.metadata("current_version"), Some("1"));
    // A device that has its place in a box begins none of its own.
    join(&world, TestDevice::new(12)).await.unwrap();
    let own = TestDevice::new(12).register("+491703333333", true);
    let registered = world.plain::<_, v1::RegisterResponse>(RpcPath::Register, &own);
    assert_eq!(code_of(registered.await), Code::KeyAlreadyRegistered);
    let last = removing(&bert.device.record, bert.device.id(), &bert.device);
    assert_eq!(
        code_of(extend(&world, &bert, &last).await),
        Code::ChainChanged
    );
}

#[tokio::test]
async fn who_has_seen_a_code_does_not_keep_the_device_from_its_owner() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    // Anna links Bert's new device, and unlinks it.
    let theirs = adding(&anna.device.record, &TestDevice::new(12), &anna.device);
    extend(&world, &anna, &theirs).await.unwrap();
    let chain = anna.device.record.extend(theirs).unwrap();
    let undone = removing(&chain, TestDevice::new(12).id(), &anna.device);
    extend(&world, &anna, &undone).await.unwrap();
    let joined = join(&world, TestDevice::new(12)).await.map(drop);
    assert_eq!(code_of(joined), Code::DeviceRevoked);
    let link = adding(&bert.device.record, &TestDevice::new(12), &bert.device);
    extend(&world, &bert, &link).await.unwrap();
    let second = join(&world, TestDevice::new(12)).await.unwrap();
    assert_eq!(second.address.box_id, bert.address.box_id);
    // The link that Anna's chain still has takes nothing away.
    let again = extend(&world, &anna, &theirs).await;
    assert_eq!(code_of(again), Code::KeyAlreadyRegistered);
    let again = join(&world, TestDevice::new(12)).await.unwrap();
    assert_eq!(again.address, second.address);
}

#[tokio::test]
async fn a_request_to_join_that_is_not_the_devices_own_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let bert = world.resident(2, BERT, true).await;
    let link = adding(&bert.device.record, &TestDevice::new(12), &bert.device);
    extend(&world, &bert, &link).await.unwrap();
    let before = world.quiet_digests().await;
    let (ours, other) = (joining(&TestDevice::new(12)), joining(&TestDevice::new(13)));
    let bad = |request: v1::JoinBoxRequest| {
        let world = &world;
        async move {
            let answer = world.plain::<_, v1::JoinBoxResponse>(RpcPath::JoinBox, &request);
            code_of(answer.await)
        }
    };
    let mut forged = ours.clone();
    forged.signature = other.signature.clone();
    assert_eq!(bad(forged).await, Code::BadSignature);
    let mut swapped = ours.clone();
    swapped.kem_key = other.kem_key.clone();
    assert_eq!(bad(swapped).await, Code::BadSignature);
    let mut cut = ours.clone();
    cut.kem_key.truncate(100);
    assert_eq!(bad(cut).await, Code::InvalidArgument);
    assert_eq!(
        bad(v1::JoinBoxRequest::default()).await,
        Code::InvalidArgument
    );
    assert_eq!(bad(other).await, Code::NotLinked);
    assert_eq!(world.digests(), before);
}
