//! What holds for what comes through the doors, whatever it is. For the fuzzer (`fuzz/targets/`) and
//! for the tests that replay its corpus; never in a release.
//!
//! Each function panics if something that must hold does not, and says whether the input was
//! accepted.

use bytes::Bytes;
use prost::Message;
use rossby_domain::chain::{ChainError, KemKey, Link};
use rossby_domain::command::Expire;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, GroupId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::wire::WireError;
use rossby_domain::{Command, Query};
use rossby_proto::v1;
use rossby_seams::random::SeededRandom;

use crate::call::RpcPath;
use crate::hawk::{
    Credentials, Guard, GuardConfig, HawkRefusal, MAX_HEADER_BYTES, Presented, Reign, SignedRequest,
};
use crate::router::{Done, Work};
use crate::rpc::{
    SealedCode, parse_acceptance, parse_contacts, parse_joining, parse_profile, parse_recovery,
    parse_recovery_lookup, parse_registration, parse_signal,
};
use crate::secrets::{ClusterSecrets, KEY_BYTES, SealPurpose, Token};
use crate::{admin, convert, peer};

mod placement;

pub use placement::placement;

const HOST: &str = "rossby";
const MESSAGE: &[u8] = b"message";

fn secrets() -> Option<ClusterSecrets> {
    ClusterSecrets::generate(&SeededRandom::new(1)).ok()
}

fn address() -> Option<DeviceAddress> {
    Some(DeviceAddress {
        box_id: BoxId::derive(PartitionId::new(3).ok()?, &[0xab; 32]),
        device: DeviceId::from_bytes([0xcd; 16]),
    })
}

/// An `authorization` header. After a first byte that is even, the rest is one: whatever it is, it
/// does not get past the guard. After one that is odd, the rest is three times, for which a right one
/// is made: it gets past once at most.
pub fn hawk_header(data: &[u8]) -> bool {
    let (Some((mode, rest)), Some(secrets), Some(address)) =
        (data.split_first(), secrets(), address())
    else {
        return false;
    };
    let token = secrets.token(&address, 1);
    if mode % 2 == 1 {
        return signed_at(rest, address, &token);
    }
    let Ok(text) = std::str::from_utf8(rest) else {
        return false;
    };
    let Ok(presented) = Presented::parse(text) else {
        return false;
    };
    assert!(text.len() <= MAX_HEADER_BYTES);
    assert!(text.contains(&format!("id=\"{}\"", presented.address())));
    assert!(text.contains(&format!("ts=\"{}\"", presented.ts_secs())));
    let now = Timestamp::from_millis(presented.ts_secs().saturating_mul(1000));
    let admitted = admit(
        &guard(),
        text,
        &token,
        reign(Timestamp::default(), now),
        now,
    );
    assert!(matches!(admitted, Err(HawkRefusal::NotAuthenticated)));
    true
}

fn guard() -> Guard {
    Guard::new(GuardConfig {
        host: HOST.to_owned(),
        window_ms: 60_000,
        ahead_ms: 2_000,
        nonces: 100,
    })
}

fn reign(since: Timestamp, covered: Timestamp) -> Reign {
    Reign {
        group: GroupId(1),
        term: 1,
        since,
        covered,
    }
}

fn admit(
    guard: &Guard,
    text: &str,
    token: &Token,
    reign: Reign,
    now: Timestamp,
) -> Result<(), HawkRefusal> {
    let presented = Presented::parse(text).map_err(|_| HawkRefusal::NotAuthenticated)?;
    let credentials = Credentials {
        tokens: vec![token.clone()],
        known: true,
    };
    guard
        .admit(presented, RpcPath::Send, MESSAGE, credentials, reign, now)
        .map(drop)
}

fn signed_at(times: &[u8], address: DeviceAddress, token: &Token) -> bool {
    let (times, _) = times.as_chunks::<8>();
    let [ts, now, since] = times else {
        return false;
    };
    let millis = |bytes: &[u8; 8]| Timestamp::from_millis(u64::from_be_bytes(*bytes));
    let signed = SignedRequest {
        address,
        token: token.as_bytes(),
        host: HOST,
        path: RpcPath::Send,
        // As many digits as the reader takes.
        ts_secs: u64::from_be_bytes(*ts) % 100_000_000_000,
        nonce: "abcdefgh",
    };
    let Ok(text) = signed.authorization(MESSAGE) else {
        return false;
    };
    let (guard, now) = (guard(), millis(now));
    let reign = reign(millis(since), now);
    let first = admit(&guard, &text, token, reign, now);
    assert!(!matches!(first, Err(HawkRefusal::NotAuthenticated)));
    if first.is_ok() {
        let again = admit(&guard, &text, token, reign, now);
        assert!(matches!(again, Err(HawkRefusal::Replayed)));
    }
    first.is_ok()
}

/// A message of a device, an operator or a peer, or a text that the service itself sealed: the first
/// byte says which.
pub fn request(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else {
        return false;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 35 {
        0 => message(&bytes, parse_registration),
        1 => message(&bytes, |request: v1::AuthorizeRequest| {
            convert::box_id(&request.box_id)?;
            convert::device_id(&request.device_id)?;
            convert::fixed::<64>(&request.signature, "signature")?;
            convert::identifier(request.identifier.as_ref())
        }),
        2 => message(&bytes, |request: v1::LookupKeyRequest| request.by.ok_or(())),
        3 => {
            let counted = convert::count_fields(&bytes, 1);
            message(&bytes, |request: v1::SendRequest| {
                counted.inspect(|counted| assert_eq!(*counted, request.envelopes.len()))
            })
        }
        4 => message(&bytes, |request: v1::FetchRequest| {
            Ok::<_, ()>(request.after)
        }),
        5 => message(&bytes, |request: v1::AcknowledgeRequest| {
            Ok::<_, ()>(request.upto)
        }),
        6 => message(&bytes, |request: v1::BlockRequest| {
            convert::box_id(&request.box_id)
        }),
        18 => message(&bytes, |request: v1::GetMapRequest| {
            Ok::<_, ()>(request.known_version)
        }),
        7 => message(&bytes, admin::plan),
        8 => message(&bytes, peer::placement),
        9 => message(&bytes, |request: v1::RelayRequest| {
            request.path.parse::<RpcPath>()
        }),
        10 => sealed_code(&bytes),
        11 => sealed(&bytes),
        12 => message(&bytes, |request| {
            let (group, order) = admin::members_order(request)?;
            let again = admin::members_order(admin::members_request(group, &order));
            assert!(again.is_ok_and(|again| again == (group, order)));
            Ok::<_, admin::OperatorError>(())
        }),
        13 => message(&bytes, |request: v1::UpdateKeyRequest| {
            let kem = KemKey::decode(&request.kem_key)?;
            assert_eq!(kem.encode(), request.kem_key);
            Ok::<_, ChainError>(())
        }),
        21 => message(&bytes, |request: v1::ExtendChainRequest| {
            let link = Link::decode(&request.link)?;
            assert_eq!(link.encode(), request.link);
            Ok::<_, WireError>(())
        }),
        22 => message(&bytes, parse_joining),
        23 => message(&bytes, |request: v1::AddIdentifierRequest| {
            convert::fixed::<64>(&request.signature, "signature")?;
            convert::identifier(request.identifier.as_ref())
        }),
        24 => message(&bytes, |request: v1::RemoveIdentifierRequest| {
            convert::fixed::<64>(&request.signature, "signature")?;
            convert::identifier(request.identifier.as_ref())
        }),
        26 => {
            let parsed = parse_acceptance(&bytes, 3);
            message(&bytes, |_: v1::AcceptRequest| {
                let request = parsed?;
                assert!(request.allow.len() <= 3 && request.disallow.len() <= 3);
                parse_contacts(&request.allow)
            })
        }
        25 => message(&bytes, |_: v1::ListIdentifiersRequest| Ok::<_, ()>(())),
        28 => message(&bytes, |request: v1::ReportRequest| {
            convert::box_id(&request.box_id)
        }),
        27 => message(&bytes, |request: v1::SetTtlRequest| {
            convert::fixed::<64>(&request.signature, "signature")
        }),
        31 => message(&bytes, |request: v1::DeleteAccountRequest| {
            convert::fixed::<64>(&request.signature, "signature")
        }),
        32 => message(&bytes, |request: v1::KeepIdentifierRequest| {
            convert::fixed::<64>(&request.signature, "signature")?;
            convert::identifier(request.identifier.as_ref())
        }),
        29 => message(&bytes, parse_recovery_lookup),
        30 => {
            let parsed = parse_recovery(&bytes);
            message(&bytes, |_: v1::RecoverRequest| parsed)
        }
        34 => {
            let parsed = parse_signal(&bytes);
            message(&bytes, |_: v1::NotifyRequest| parsed)
        }
        33 => {
            let parsed = parse_profile(&bytes);
            message(&bytes, |_: v1::SetProfileRequest| {
                let request = parsed?;
                convert::fixed::<64>(&request.signature, "signature")
            })
        }
        14 => message(&bytes, |request: v1::SubscribeRequest| {
            Ok::<_, ()>(request.after)
        }),
        15 => work(&bytes),
        16 => done(&bytes),
        17 => message(&bytes, peer::executed),
        19 => message(&bytes, |request| {
            peer::newcomer(rossby_domain::ids::NodeId(4), request)
        }),
        _ => message(&bytes, |response: v1::JoinResponse| {
            peer::Welcome::try_from(response)
        }),
    }
}

/// A message that can be read is written so that it reads back; then it is judged.
fn message<M: Message + Default + Clone + PartialEq, T, E>(
    bytes: &Bytes,
    judge: impl FnOnce(M) -> Result<T, E>,
) -> bool {
    let Ok(found) = convert::decode::<M>(bytes) else {
        return false;
    };
    let again = convert::decode::<M>(&convert::encode(&found));
    assert!(again.is_ok_and(|again| again == found));
    judge(found).is_ok()
}

/// Work that a peer sends.
fn work(bytes: &[u8]) -> bool {
    let Ok(work) = Work::decode(bytes) else {
        return false;
    };
    // Integers may be told in several ways; they are written in one.
    let written = work.encode();
    assert!(written.is_ok_and(|bytes| Work::decode(&bytes).is_ok_and(|again| again == work)));
    true
}

/// What a peer says came of a query, or of one command.
fn done(bytes: &[u8]) -> bool {
    let Ok(partition) = PartitionId::new(7) else {
        return false;
    };
    let command = Command::Expire(Expire { limit: 1 });
    [
        Work::Queries(vec![(partition, Query::Ownership(partition))]),
        Work::Commands(vec![(partition, command)]),
    ]
    .iter()
    .any(|asked| {
        let Ok(done) = Done::decode(bytes, asked) else {
            return false;
        };
        let written = done.encode();
        assert!(
            written.is_ok_and(|bytes| Done::decode(&bytes, asked).is_ok_and(|again| again == done))
        );
        true
    })
}

fn sealed_code(bytes: &[u8]) -> bool {
    let Ok(code) = SealedCode::decode(bytes) else {
        return false;
    };
    let again = SealedCode::decode(&code.encode());
    assert!(
        again.is_ok_and(|again| again.identifier == code.identifier && again.code == code.code)
    );
    true
}

/// Nobody seals without the key: what opens was sealed with it.
fn sealed(bytes: &[u8]) -> bool {
    let Some(secrets) = secrets() else {
        return false;
    };
    let opened = secrets.open(SealPurpose::Code, b"row", bytes);
    assert!(
        opened
            .as_ref()
            .map_or(true, |text| text.as_slice() == MESSAGE)
    );
    opened.is_ok()
}

/// The content of `cluster.keys`. Nothing of it is repeated in an error.
pub fn cluster_keys(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    match ClusterSecrets::decode(text) {
        Ok(found) => {
            let written = found.encode();
            let again = ClusterSecrets::decode(&written);
            assert!(again.is_ok_and(|again| *again.encode() == *written));
            true
        }
        Err(error) => {
            let told = error.to_string();
            let secret = |word: &str| word.len() >= KEY_BYTES;
            assert!(
                text.split_whitespace()
                    .filter(|word| secret(word))
                    .all(|word| !told.contains(word))
            );
            false
        }
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};
    use rossby_domain::chain::{Change, Genesis, KeyRecord, SUITE_XWING, Signer};
    use rossby_domain::command::{Enqueue, EnvelopeDigest};
    use rossby_domain::identifier::Identifier;
    use rossby_domain::ids::{Counter, EnvelopeId, NodeId};
    use rossby_domain::placement::ClusterMap;
    use rossby_domain::query::KeyRecordAnswer;
    use rossby_domain::{Answer, Rejection, statement};
    use zeroize::Zeroizing;

    use super::replay::{replay, seed, with};
    use super::*;

    #[test]
    fn the_corpus_of_hawk_headers_holds() {
        replay("hawk_header", hawk_header);
    }

    #[test]
    fn the_corpus_of_requests_holds() {
        replay("request", request);
    }

    #[test]
    fn the_corpus_of_cluster_keys_holds() {
        replay("cluster_keys", cluster_keys);
    }

    #[test]
    fn real_headers_are_accepted() {
        let secrets = secrets().unwrap();
        let other = secrets.token(&address().unwrap(), 2);
        let signed = SignedRequest {
            address: address().unwrap(),
            token: other.as_bytes(),
            host: HOST,
            path: RpcPath::Send,
            ts_secs: 1_700_000_000,
            nonce: "abcdefgh",
        };
        let text = signed.authorization(MESSAGE).unwrap();
        seed(
            "hawk_header",
            "seed-header",
            &with(0, text.as_bytes()),
            hawk_header,
        );
        let times = [1_700_000_000_u64, 1_700_000_000_500, 1_600_000_000_000];
        let times: Vec<u8> = times.iter().flat_map(|time| time.to_be_bytes()).collect();
        seed("hawk_header", "seed-times", &with(1, &times), hawk_header);
    }

    /// Of the device whose signing key is made from ones. Any bytes below the modulus are an ML-KEM
    /// key; zeroes are.
    fn kem_key(device: &DeviceId, counter: u64) -> KemKey {
        let public = Bytes::from(vec![0; 1216]);
        let signed = KemKey::statement(device, SUITE_XWING, counter, &public);
        KemKey {
            suite: SUITE_XWING,
            counter,
            public,
            signature: SigningKey::from_bytes(&[1; 32]).sign(&signed).to_bytes(),
        }
    }

    fn registration() -> v1::RegisterRequest {
        let key = SigningKey::from_bytes(&[1; 32]);
        let public = |seed| {
            SigningKey::from_bytes(&[seed; 32])
                .verifying_key()
                .to_bytes()
        };
        let genesis = Genesis {
            device_key: public(1),
            recovery_key: public(2),
            nonce: [3; 32],
        };
        let kem = kem_key(&genesis.device(), 1);
        let kem_public = kem.public.clone();
        let record = KeyRecord::new(genesis, kem).unwrap();
        let phone = Identifier::phone("+491701234567").unwrap();
        let signed = statement::register(&record.genesis_hash(), &phone, true, &kem_public);
        v1::RegisterRequest {
            key_record: record.encode().into(),
            identifier: Some(wire_phone()),
            discoverable: true,
            signature: key.sign(&signed).to_bytes().to_vec().into(),
            reset: false,
        }
    }

    fn wire_phone() -> v1::Identifier {
        v1::Identifier {
            kind: Some(v1::identifier::Kind::Phone("+491701234567".to_owned())),
        }
    }

    fn check_devices() {
        let key = SigningKey::from_bytes(&[1; 32]);
        let record = KeyRecord::decode(&registration().key_record).unwrap();
        let signer = Signer::Device(record.genesis().device());
        let change = Change::AddDevice { key: [4; 32] };
        let signed = Link::signed_bytes(1, &record.head(), &change, &signer);
        let link = Link {
            version: 1,
            previous: record.head(),
            change,
            signer,
            signature: key.sign(&signed).to_bytes(),
        };
        let link = link.encode().into();
        check(21, "extend-chain", &v1::ExtendChainRequest { link });
        let device = record.genesis().device();
        let kem = kem_key(&device, 1);
        let signed = statement::join_box(&device, &kem.public);
        let join = v1::JoinBoxRequest {
            signing_key: key.verifying_key().to_bytes().to_vec().into(),
            kem_key: kem.encode().into(),
            signature: key.sign(&signed).to_bytes().to_vec().into(),
        };
        check(22, "join-box", &join);
    }

    fn check_recovery(address: DeviceAddress) {
        let (device, recovery) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
        );
        let box_id = convert::id_bytes(address.box_id.as_bytes());
        let signed = statement::lookup_recovery(statement::Recoverable::Box(&address.box_id));
        let lookup = v1::LookupRecoveryRequest {
            by: Some(v1::lookup_recovery_request::By::BoxId(box_id.clone())),
            recovery_key: recovery.verifying_key().to_bytes().to_vec().into(),
            signature: recovery.sign(&signed).to_bytes().to_vec().into(),
        };
        check(29, "lookup-recovery", &lookup);
        let key = device.verifying_key().to_bytes();
        let (change, signer) = (Change::AddDevice { key }, Signer::Recovery);
        let signed = Link::signed_bytes(1, &[3; 32], &change, &signer);
        let link = Link {
            version: 1,
            previous: [3; 32],
            change,
            signer,
            signature: recovery.sign(&signed).to_bytes(),
        };
        let id = DeviceId::of_key(&key);
        let kem = kem_key(&id, 1);
        let signed = statement::recover(&address.box_id, &id, &kem.public);
        let recover = v1::RecoverRequest {
            box_id,
            links: vec![link.encode().into()],
            signing_key: key.to_vec().into(),
            kem_key: kem.encode().into(),
            signature: device.sign(&signed).to_bytes().to_vec().into(),
        };
        check(30, "recover", &recover);
        let signature = Bytes::from(vec![1; 64]);
        let delete = v1::DeleteAccountRequest {
            signature: signature.clone(),
        };
        check(31, "delete-account", &delete);
        let keep = v1::KeepIdentifierRequest {
            identifier: Some(wire_phone()),
            reset_serial: 7,
            signature,
        };
        check(32, "keep-identifier", &keep);
    }

    fn check(kind: u8, name: &str, message: &impl Message) {
        let bytes = with(kind, &convert::encode(message));
        seed("request", &format!("seed-{name}"), &bytes, request);
    }

    fn check_work(address: DeviceAddress) {
        let partition = address.box_id.partition();
        let enqueue = Enqueue {
            recipient: address.box_id,
            id: EnvelopeId {
                sender: address,
                counter: Counter(1),
            },
            chain_version: 2,
            ttl_ms: Some(3),
            digest: EnvelopeDigest([4; 16]),
            body: Bytes::from_static(b"sealed"),
        };
        let query = Query::KeyRecord {
            box_id: address.box_id,
            sender: address,
        };
        let works = [
            Work::Commands(vec![(partition, Command::Enqueue(enqueue))]),
            Work::Queries(vec![(partition, query)]),
        ];
        for (name, work) in ["commands", "query"].into_iter().zip(works) {
            let bytes = with(15, &work.encode().unwrap());
            seed("request", &format!("seed-work-{name}"), &bytes, request);
        }
        let record = KeyRecord::decode(&registration().key_record).unwrap();
        let answer = KeyRecordAnswer {
            record,
            next_counter: Counter(5),
        };
        let dones = [
            Done::Replies(vec![Err(Rejection::StaleKeyRecord { current: 6 })]),
            Done::Answers(vec![Answer::KeyRecord(Some(answer))]),
        ];
        for (name, done) in ["replies", "answer"].into_iter().zip(dones) {
            let bytes = with(16, &done.encode().unwrap());
            seed("request", &format!("seed-done-{name}"), &bytes, request);
        }
    }

    #[test]
    fn real_requests_are_accepted() {
        let address = address().unwrap();
        let box_id = convert::id_bytes(address.box_id.as_bytes());
        let device_id = convert::id_bytes(address.device.as_bytes());
        check(0, "register", &registration());
        let authorize = v1::AuthorizeRequest {
            box_id: box_id.clone(),
            device_id: device_id.clone(),
            identifier: Some(wire_phone()),
            code: "12345678".to_owned(),
            signature: vec![1; 64].into(),
            reset: false,
        };
        check(1, "authorize", &authorize);
        let (identifier, signature) = (Some(wire_phone()), Bytes::from(vec![1; 64]));
        let add = v1::AddIdentifierRequest {
            identifier: identifier.clone(),
            discoverable: true,
            signature: signature.clone(),
        };
        check(23, "add-identifier", &add);
        let remove = v1::RemoveIdentifierRequest {
            identifier,
            generation: 7,
            signature,
        };
        check(24, "remove-identifier", &remove);
        check(25, "list-identifiers", &v1::ListIdentifiersRequest {});
        let by = Some(v1::lookup_key_request::By::Identifier(wire_phone()));
        check(
            2,
            "lookup",
            &v1::LookupKeyRequest {
                by,
                profile_after: None,
            },
        );
        let envelope = v1::OutgoingEnvelope {
            recipient_box_id: box_id.clone(),
            counter: 1,
            chain_version: 2,
            ttl_ms: Some(3),
            body: Bytes::from_static(b"sealed"),
        };
        let envelopes = vec![envelope.clone(), envelope];
        check(3, "send", &v1::SendRequest { envelopes });
        check(
            4,
            "fetch",
            &v1::FetchRequest {
                after: 5,
                ..Default::default()
            },
        );
        check(5, "acknowledge", &v1::AcknowledgeRequest { upto: 6 });
        check(
            6,
            "block",
            &v1::BlockRequest {
                box_id,
                blocked: true,
            },
        );
        let accept = v1::AcceptRequest {
            contacts_only: Some(true),
            allow: vec![convert::id_bytes(address.box_id.as_bytes())],
            disallow: Vec::new(),
        };
        check(26, "accept", &accept);
        let set_ttl = v1::SetTtlRequest {
            ttl_ms: Some(86_400_000),
            number: 1,
            signature: Bytes::from_static(&[7; 64]),
        };
        check(27, "set-ttl", &set_ttl);
        let report = v1::ReportRequest {
            box_id: convert::id_bytes(address.box_id.as_bytes()),
            block: true,
        };
        check(28, "report", &report);
        let profile = v1::SetProfileRequest {
            version: 3,
            sealed_profile: Bytes::from_static(b"sealed"),
            signature: Bytes::from(vec![1; 64]),
        };
        check(33, "set-profile", &profile);
        let signal = v1::NotifyRequest {
            recipient_box_id: convert::id_bytes(address.box_id.as_bytes()),
            body: Bytes::from_static(b"sealed"),
        };
        check(34, "notify", &signal);
        let init = v1::InitClusterRequest {
            cluster_name: "rossby".to_owned(),
            partition_count: 256,
            ..Default::default()
        };
        check(7, "init", &init);
        let create = v1::CreateReplicaRequest {
            cluster_id: "7b2f9d1c-55e0-4c2d-9f6a-0d1e2f3a4b5c".to_owned(),
            cluster_name: "rossby".to_owned(),
            partition_count: 256,
            group_id: 1,
            replica_id: 2,
            map: serde_json::to_vec(&ClusterMap::default()).unwrap().into(),
            ..Default::default()
        };
        let new = "10.0.0.4:7472".to_owned();
        let orders = [
            admin::MembersOrder::Add(NodeId(4), new.clone()),
            admin::MembersOrder::Remove {
                node: NodeId(2),
                half_added_only: true,
            },
            admin::MembersOrder::Replace {
                old: NodeId(2),
                new: NodeId(4),
                peer_address: new,
            },
        ];
        for (name, order) in ["add", "remove", "replace"].into_iter().zip(&orders) {
            let request = admin::members_request(GroupId(1), order);
            check(12, &format!("members-{name}"), &request);
        }
        let kem_key = kem_key(&address.device, 2).encode().into();
        check(13, "update-key", &v1::UpdateKeyRequest { kem_key });
        check_devices();
        check_recovery(address);
        let subscribe = v1::SubscribeRequest {
            after: 7,
            max_envelopes: 16,
        };
        check(14, "subscribe", &subscribe);
        check(8, "create-replica", &create);
        let founder = v1::CreateReplicaRequest {
            group_id: 0,
            replica_id: 0,
            map: Bytes::new(),
            founding: Bytes::from_static(b"{}"),
            ..create
        };
        check(8, "create-founder", &founder);
        let join = v1::JoinRequest {
            secret: Bytes::from(vec![1; 32]),
            attempt: Bytes::from(vec![2; 16]),
            region: "eu".to_owned(),
            peer_address: "10.0.0.4:7472".to_owned(),
            client_address: "10.0.0.4:7470".to_owned(),
            secrets_check: String::new(),
        };
        check(19, "join", &join);
        check(18, "get-map", &v1::GetMapRequest { known_version: 3 });
        let welcome = v1::JoinResponse {
            cluster_id: "7b2f9d1c-55e0-4c2d-9f6a-0d1e2f3a4b5c".to_owned(),
            cluster_name: "rossby".to_owned(),
            partition_count: 256,
            cluster_keys: Bytes::from_static(b"keys"),
            map: serde_json::to_vec(&ClusterMap::default()).unwrap().into(),
        };
        check(20, "welcome", &welcome);
        check_work(address);
        let executed = v1::ExecuteResponse {
            done: Bytes::from_static(b"done"),
            service_time_ms: 8,
            ..Default::default()
        };
        check(17, "executed", &executed);
        let relay = v1::RelayRequest {
            path: RpcPath::Send.as_str().to_owned(),
            authorization: "Hawk".to_owned(),
            ..Default::default()
        };
        check(9, "relay", &relay);
        let code = SealedCode {
            identifier: Identifier::email("a@b.example").unwrap(),
            code: Zeroizing::new("00012345".to_owned()),
        };
        seed("request", "seed-code", &with(10, &code.encode()), request);
        let sealed = secrets().unwrap();
        let sealed = sealed.seal(&SeededRandom::new(2), SealPurpose::Code, b"row", MESSAGE);
        seed(
            "request",
            "seed-sealed",
            &with(11, &sealed.unwrap()),
            request,
        );
    }

    #[test]
    fn real_cluster_keys_are_accepted() {
        let mut secrets = secrets().unwrap();
        seed(
            "cluster_keys",
            "seed-new",
            secrets.encode().as_bytes(),
            cluster_keys,
        );
        let random = SeededRandom::new(3);
        secrets
            .rotate(crate::secrets::KeyPurpose::Token, &random)
            .unwrap();
        seed(
            "cluster_keys",
            "seed-rotated",
            secrets.encode().as_bytes(),
            cluster_keys,
        );
    }
}
