//! UpdateKey: a device's new KEM key, signed by the device besides the token.

use ed25519_dalek::Signer as _;
use rossby_api::{Code, RpcPath};
use rossby_domain::chain::{KemKey, KeyRecord, SUITE_XWING, XWING_PUBLIC_KEY_BYTES};
use rossby_domain::wire::Writer;
use rossby_proto::v1;

use crate::support::{Refusal, Resident, World, code_of, envelope, refusal, sequence};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

fn key(who: &Resident, counter: u64, fill: u8) -> KemKey {
    let public = vec![fill; XWING_PUBLIC_KEY_BYTES];
    let statement = KemKey::statement(&who.device.id(), SUITE_XWING, counter, &public);
    KemKey {
        suite: SUITE_XWING,
        counter,
        public: public.into(),
        signature: who.device.signing.sign(&statement).to_bytes(),
    }
}

async fn update(world: &World, who: &Resident, kem_key: Vec<u8>) -> Result<u64, Refusal> {
    let request = v1::UpdateKeyRequest {
        kem_key: kem_key.into(),
    };
    let response = world.signed(who, RpcPath::UpdateKey, &request).await;
    response.map(|response: v1::UpdateKeyResponse| response.last)
}

/// A body that says on its outside that it is sealed to one key of a device.
fn sealed_to(who: &Resident, counter: u64) -> Vec<u8> {
    let writer = Writer::default()
        .u8(1)
        .u8(1)
        .fixed(&[0; 32])
        .fixed(&[0; 12]);
    let writer = writer.u8(1).fixed(who.device.id().as_bytes()).u64(counter);
    let writer = writer.fixed(&[0; 1120]).fixed(&[0; 48]);
    writer.bytes(b"sealed").finish()
}

#[tokio::test]
async fn a_new_key_is_published_and_too_old_ones_are_answered_with_the_record() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    let sent = world.send(&anna, vec![envelope(&bert, 1, &sealed_to(&bert, 1))]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 1);
    assert_eq!(
        update(&world, &bert, key(&bert, 2, 2).encode())
            .await
            .unwrap(),
        1
    );
    // The retry of a lost reply.
    assert_eq!(
        update(&world, &bert, key(&bert, 2, 2).encode())
            .await
            .unwrap(),
        1
    );
    let sent = world.send(&anna, vec![envelope(&bert, 2, &sealed_to(&bert, 1))]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 2);
    assert_eq!(
        update(&world, &bert, key(&bert, 3, 3).encode())
            .await
            .unwrap(),
        2
    );

    let outcomes = world
        .send(&anna, vec![envelope(&bert, 3, &sealed_to(&bert, 1))])
        .await
        .unwrap();
    let refused = refusal(&outcomes[0]);
    assert_eq!(refused.code, "STALE_KEY_RECORD");
    let record = KeyRecord::decode(refused.key_record.as_ref().unwrap()).unwrap();
    let keys = record.device(&bert.device.id()).unwrap();
    assert_eq!(keys.kem, key(&bert, 3, 3));
    assert_eq!(keys.previous_kem, Some(key(&bert, 2, 2)));
    // Sealed again, under the same counter.
    let sent = world.send(&anna, vec![envelope(&bert, 3, &sealed_to(&bert, 3))]);
    assert_eq!(sequence(&sent.await.unwrap()[0]), 3);
}

#[tokio::test]
async fn a_key_under_an_old_counter_or_by_another_hand_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let anna = world.resident(1, ANNA, true).await;
    let bert = world.resident(2, BERT, true).await;
    update(&world, &bert, key(&bert, 5, 5).encode())
        .await
        .unwrap();
    let before = world.digests();
    for counter in [5, 4, 1] {
        let refused = update(&world, &bert, key(&bert, counter, 9).encode()).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::KeyCounterUsed);
        assert_eq!(refused.metadata("current_counter"), Some("5"));
    }
    // A token alone is not enough: by another device, and with a signature that was tampered with.
    let by_anna = update(&world, &bert, key(&anna, 6, 6).encode()).await;
    assert_eq!(code_of(by_anna), Code::BadSignature);
    let mut forged = key(&bert, 6, 6);
    forged.signature[0] ^= 1;
    let forged = update(&world, &bert, forged.encode()).await;
    assert_eq!(code_of(forged), Code::BadSignature);
    let mut cut = key(&bert, 6, 6).encode();
    cut.pop();
    for nonsense in [Vec::new(), vec![1; 9], cut] {
        let refused = update(&world, &bert, nonsense).await;
        assert_eq!(code_of(refused), Code::InvalidArgument);
    }
    assert_eq!(world.digests(), before);
}
