//! Hostile requests: each is refused clearly, nothing panics, and no partition changes.

use prost::Message as _;
use rossby_api::hawk::SignedRequest;
use rossby_api::{Code, RpcPath};
use rossby_domain::ids::DeviceId;
use rossby_proto::v1;
use rossby_seams::clock::Clock as _;
use rossby_seams::random::{Random as _, SeededRandom};

use crate::support::{self, Refusal, Resident, World, code_of, envelope};

const ANNA: &str = "+491701111111";
const BERT: &str = "+491702222222";

/// Two people, a message from one to the other, and the state before any attack.
struct Scene {
    world: World,
    anna: Resident,
    message: Vec<u8>,
    digests: Vec<(rossby_domain::ids::PartitionId, [u8; 32])>,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        // A new leader tells the log the time, on the first partition; without boxes all are alike
        // until then.
        world
            .eventually("the log was told the time", || {
                let digests = world.digests();
                digests[0].1 != digests[1].1
            })
            .await;
        let anna = world.resident(1, ANNA, true).await;
        let bert = world.resident(2, BERT, true).await;
        let envelopes = vec![envelope(&bert, 1, b"hello")];
        let message = v1::SendRequest { envelopes }.encode_to_vec();
        let digests = world.quiet_digests().await;
        Self {
            world,
            anna,
            message,
            digests,
        }
    }

    fn header(&self, change: impl FnOnce(&mut SignedRequest<'_>)) -> String {
        let nonce = self.world.nonce();
        let mut signed = self.world.sign(&self.anna, RpcPath::Send, &nonce);
        change(&mut signed);
        signed.authorization(&self.message).unwrap()
    }

    async fn send(&self, header: String) -> Result<rossby_api::CallReply, Refusal> {
        self.world
            .call(RpcPath::Send, Some(header), self.message.clone())
            .await
    }

    fn assert_unchanged(&self) {
        assert_eq!(self.world.digests(), self.digests);
    }

    /// The attack fails, leaves no trace, and the honest request still goes through.
    async fn assert_refused(&self, header: String) -> Refusal {
        let refused = self.send(header).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        self.assert_unchanged();
        refused
    }
}

fn wire(refusal: Refusal) -> (tonic::Code, String, Vec<u8>) {
    let status = tonic::Status::from(refusal);
    (
        status.code(),
        status.message().to_owned(),
        status.details().to_vec(),
    )
}

#[tokio::test]
async fn the_honest_request_is_accepted_and_changes_something() {
    let scene = Scene::new().await;
    scene.send(scene.header(|_| {})).await.unwrap();
    assert_ne!(
        scene.world.digests(),
        scene.digests,
        "or the other tests here would show nothing"
    );
}

#[tokio::test]
async fn a_tampered_body_is_refused() {
    let scene = Scene::new().await;
    let header = scene.header(|_| {});
    for at in [0, scene.message.len() / 2, scene.message.len() - 1] {
        let mut tampered = scene.message.clone();
        tampered[at] ^= 1;
        let refused = scene
            .world
            .call(RpcPath::Send, Some(header.clone()), tampered)
            .await;
        assert_eq!(code_of(refused), Code::Unauthenticated);
    }
    let empty = scene
        .world
        .call(RpcPath::Send, Some(header.clone()), Vec::new())
        .await;
    assert_eq!(code_of(empty), Code::Unauthenticated);
    let elsewhere = scene
        .world
        .call(RpcPath::Fetch, Some(header.clone()), scene.message.clone());
    assert_eq!(code_of(elsewhere.await), Code::Unauthenticated);
    scene.assert_unchanged();
    // None of it has used up the nonce.
    assert!(scene.send(header).await.is_ok());
}

#[tokio::test]
async fn a_replayed_request_is_refused() {
    let mut scene = Scene::new().await;
    let header = scene.header(|_| {});
    scene.send(header.clone()).await.unwrap();
    scene.digests = scene.world.digests();
    scene.assert_refused(header.clone()).await;
    // As long as its time would still be accepted, and after.
    for _ in 0..8 {
        scene.world.clock.advance_millis(9_000);
        let refused = scene.send(header.clone()).await;
        assert_eq!(code_of(refused), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn a_stale_or_early_time_is_refused_and_the_right_one_told() {
    let scene = Scene::new().await;
    let now = scene.world.clock.now();
    for ts in [now.as_secs() - 61, now.as_secs() + 6, 0, 1, 99_999_999_999] {
        let refused = scene
            .assert_refused(scene.header(|signed| signed.ts_secs = ts))
            .await;
        assert_eq!(
            refused.metadata("server_time_ms"),
            Some(now.as_millis().to_string().as_str())
        );
    }
}

#[tokio::test]
async fn a_time_beyond_all_bounds_is_refused() {
    let scene = Scene::new().await;
    let header = scene.header(|_| {});
    let ts = scene.world.clock.now().as_secs().to_string();
    for huge in [
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
    ] {
        let forged = header.replace(&format!("ts=\"{ts}\""), &format!("ts=\"{huge}\""));
        assert_ne!(forged, header);
        scene.assert_refused(forged).await;
    }
}

#[tokio::test]
async fn a_wrong_token_and_an_unknown_device_get_the_same_bytes() {
    let scene = Scene::new().await;
    let wrong = scene
        .assert_refused(scene.header(|signed| signed.token = &[7; 32]))
        .await;
    let unknown_device = |signed: &mut SignedRequest<'_>| {
        signed.address.device = DeviceId::from_bytes([9; 16]);
    };
    let device = scene.assert_refused(scene.header(unknown_device)).await;
    let unknown_box = |signed: &mut SignedRequest<'_>| {
        signed.address.box_id = support::TestDevice::new(9).address_in(3).box_id;
    };
    let no_box = scene.assert_refused(scene.header(unknown_box)).await;
    let no_partition = |signed: &mut SignedRequest<'_>| {
        signed.address.box_id = support::TestDevice::new(9).address_in(4000).box_id;
    };
    let beyond = scene.assert_refused(scene.header(no_partition)).await;
    let wrong = wire(wrong);
    assert_eq!(wrong, wire(device));
    assert_eq!(wrong, wire(no_box));
    assert_eq!(wrong, wire(beyond));
}

#[tokio::test]
async fn another_devices_token_and_another_clusters_name_are_refused() {
    let scene = Scene::new().await;
    let eve = scene.world.resident(3, "+491703333333", true).await;
    let scene = Scene {
        digests: scene.world.digests(),
        ..scene
    };
    scene
        .assert_refused(scene.header(|signed| signed.token = &[0; 32]))
        .await;
    let nonce = scene.world.nonce();
    let stolen = SignedRequest {
        token: &eve.token,
        ..scene.world.sign(&scene.anna, RpcPath::Send, &nonce)
    };
    scene
        .assert_refused(stolen.authorization(&scene.message).unwrap())
        .await;
    scene
        .assert_refused(scene.header(|signed| signed.host = "other.rossby"))
        .await;
}

#[tokio::test]
async fn an_oversized_message_is_refused_on_every_path() {
    let scene = Scene::new().await;
    let oversized = vec![0; 4 * 1024 * 1024 + 1];
    for path in RpcPath::ALL {
        let nonce = scene.world.nonce();
        let signed = scene.world.sign(&scene.anna, path, &nonce);
        let header = signed.authorization(&oversized).unwrap();
        let refused = scene
            .world
            .call(path, Some(header), oversized.clone())
            .await;
        assert_eq!(code_of(refused), Code::RequestTooLarge, "{path}");
    }
    scene.assert_unchanged();
}

#[tokio::test]
async fn random_messages_are_refused_even_when_they_are_signed() {
    let scene = Scene::new().await;
    let random = SeededRandom::new(5);
    for round in 0..200_usize {
        let mut message = vec![0; round];
        random.fill(&mut message).unwrap();
        // A field number of zero is not protobuf, so that no random message is a valid one.
        message.insert(0, 0);
        for path in RpcPath::ALL {
            let nonce = scene.world.nonce();
            let signed = scene.world.sign(&scene.anna, path, &nonce);
            let header = signed.authorization(&message).unwrap();
            let refused = scene.world.call(path, Some(header), message.clone()).await;
            assert_eq!(code_of(refused), Code::InvalidArgument, "{path}");
        }
    }
    scene.assert_unchanged();
}

#[tokio::test]
async fn random_headers_are_refused() {
    let scene = Scene::new().await;
    let random = SeededRandom::new(6);
    let honest = scene.header(|_| {});
    for round in 0..500_usize {
        let mut noise = [0; 2];
        random.fill(&mut noise).unwrap();
        let mut bytes = honest.clone().into_bytes();
        let at = (round * 7 + usize::from(noise[0])) % bytes.len();
        bytes[at] = match noise[1] & 0x7f {
            same if same == bytes[at] => same ^ 1,
            other => other,
        };
        let forged = String::from_utf8(bytes).unwrap();
        assert_eq!(code_of(scene.send(forged).await), Code::Unauthenticated);
    }
    scene.assert_unchanged();
    assert!(scene.send(honest).await.is_ok());
}
