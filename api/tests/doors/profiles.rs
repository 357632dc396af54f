//! Profiles at the doors: set by who has the device's key, shown to whom the box hears, and to nobody else.

use std::sync::Arc;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use prost::Message as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::profile::MAX_SEALED_PROFILE_BYTES;
use rossby_domain::statement;
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;

use crate::support::{Refusal, Resident, TestDevice, World, code_of};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

pub fn setting(by: &Resident, version: u64, sealed: &[u8]) -> v1::SetProfileRequest {
    let (box_id, device) = (by.address.box_id, by.address.device);
    let signed = statement::set_profile(&box_id, &device, version, sealed);
    v1::SetProfileRequest {
        version,
        sealed_profile: Bytes::copy_from_slice(sealed),
        signature: Bytes::copy_from_slice(&by.device.signing.sign(&signed).to_bytes()),
    }
}

async fn set(world: &World, by: &Resident, request: &v1::SetProfileRequest) -> Result<(), Refusal> {
    let done = world.signed(by, RpcPath::SetProfile, request).await;
    done.map(|_: v1::SetProfileResponse| ())
}

async fn seen(
    world: &World,
    by: &Resident,
    of: &Resident,
    after: Option<u64>,
) -> Result<(u64, Bytes), Refusal> {
    let request = v1::LookupKeyRequest {
        by: Some(By::BoxId(of.address.box_id.as_bytes().to_vec().into())),
        profile_after: after,
    };
    let found: v1::LookupKeyResponse = world.signed(by, RpcPath::LookupKey, &request).await?;
    Ok((found.profile_version, found.sealed_profile))
}

#[tokio::test]
async fn a_box_sets_ten_profiles_at_a_time() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    for version in 1..=10 {
        set(&world, &anna, &setting(&anna, version, b"sealed"))
            .await
            .unwrap();
    }
    let refused = set(&world, &anna, &setting(&anna, 11, b"sealed")).await;
    assert_eq!(code_of(refused), Code::RateLimited);
    assert_eq!(seen(&world, &anna, &anna, Some(0)).await.unwrap().0, 10);
    let bert = world.resident(2, BERT, true).await;
    set(&world, &bert, &setting(&bert, 1, b"sealed"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_profile_comes_with_the_key_record_to_who_asks_for_it() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    assert_eq!(
        seen(&world, &bert, &anna, Some(0)).await.unwrap(),
        (0, Bytes::new())
    );
    for _ in 0..2 {
        set(&world, &anna, &setting(&anna, 3, b"sealed"))
            .await
            .unwrap();
    }
    let sealed = Bytes::from_static(b"sealed");
    assert_eq!(
        seen(&world, &bert, &anna, Some(2)).await.unwrap(),
        (3, sealed)
    );
    assert_eq!(
        seen(&world, &bert, &anna, Some(3)).await.unwrap(),
        (3, Bytes::new())
    );
    assert_eq!(
        seen(&world, &bert, &anna, None).await.unwrap(),
        (0, Bytes::new())
    );

    let used = set(&world, &anna, &setting(&anna, 3, b"other"))
        .await
        .unwrap_err();
    assert_eq!(used.code(), Code::ProfileVersionUsed);
    assert_eq!(used.metadata("current_version"), Some("3"));
    let large = vec![1; MAX_SEALED_PROFILE_BYTES + 1];
    let large = set(&world, &anna, &setting(&anna, 4, &large)).await;
    assert_eq!(code_of(large), Code::ProfileTooLarge);
    for bad in [setting(&anna, 0, b"sealed"), setting(&anna, 4, b"")] {
        assert_eq!(
            code_of(set(&world, &anna, &bad).await),
            Code::InvalidArgument
        );
    }
}

#[tokio::test]
async fn a_stolen_token_without_the_device_key_changes_no_profile() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    set(&world, &bert, &setting(&bert, 1, b"sealed"))
        .await
        .unwrap();
    let before = world.quiet_digests().await;
    let thief = Resident {
        device: Arc::clone(&anna.device),
        ..bert.clone()
    };
    let forged = set(&world, &thief, &setting(&thief, 2, b"forged")).await;
    assert_eq!(code_of(forged), Code::BadSignature);
    // What she signed is for one version, and for these bytes.
    let mut moved = setting(&bert, 2, b"two");
    moved.version = 3;
    assert_eq!(
        code_of(set(&world, &bert, &moved).await),
        Code::BadSignature
    );
    let mut changed = setting(&bert, 2, b"two");
    changed.sealed_profile = Bytes::from_static(b"2");
    assert_eq!(
        code_of(set(&world, &bert, &changed).await),
        Code::BadSignature
    );
    assert_eq!(world.quiet_digests().await, before);
}

#[tokio::test]
async fn to_who_is_blocked_a_box_with_a_profile_is_as_one_that_is_not_there() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    set(&world, &bert, &setting(&bert, 1, b"sealed"))
        .await
        .unwrap();
    world.block(&bert, &anna).await.unwrap();
    let mut nobody = bert.clone();
    nobody.address.box_id = TestDevice::new(9).address_in(3).box_id;
    let mut answers = Vec::new();
    for whom in [&bert, &nobody] {
        let refused = seen(&world, &anna, whom, Some(0)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NoUser);
        let status = tonic::Status::from(refused);
        answers.push((status.message().to_owned(), status.details().to_vec()));
    }
    assert_eq!(answers[0], answers[1]);
    // A signal is answered alike too, whoever it is for.
    let mut replies = Vec::new();
    for whom in [&bert, &nobody] {
        let request = v1::NotifyRequest {
            recipient_box_id: whom.address.box_id.as_bytes().to_vec().into(),
            body: Bytes::from_static(b"sealed"),
        };
        let reply: v1::NotifyResponse = world
            .signed(&anna, RpcPath::Notify, &request)
            .await
            .unwrap();
        replies.push(reply.encode_to_vec());
    }
    assert_eq!(replies[0], replies[1]);
}
