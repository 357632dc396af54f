//! Requests that no honest device makes, over real sockets: each is refused in the service's own
//! words, changes nothing, and disturbs nobody.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message as _;
use rossby_api::call::RpcPath;
use rossby_api::hawk::SignedRequest;
use rossby_client::connection::{Exchange, GrpcWire, Refusal, ServerAddress, Wire, WireError};
use rossby_client::store::{AccountRow, Passphrase, Store};
use rossby_domain::ids::{DeviceAddress, DeviceId};
use rossby_proto::v1::{self, send_outcome};
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::random::{OsRandom, Random as _, SeededRandom};
use tokio::runtime::Runtime;

use crate::support::people::{Person, email};
use crate::support::{Cluster, Node, PATIENCE, eventually};

/// Somebody with a right token and bad manners.
struct Abuser {
    runtime: Runtime,
    wire: GrpcWire,
    server: ServerAddress,
    address: DeviceAddress,
    token: [u8; 32],
    host: String,
    nonces: AtomicU64,
    /// The leader wants no earlier time than this: the one before it may have seen such a request.
    not_before_secs: AtomicU64,
    /// The box of somebody else.
    victim: Bytes,
}

impl Abuser {
    fn new(cluster: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let (ada, ben) = runtime.block_on(async {
            let ada = Person::with_box(cluster, email("ada"), 0).await;
            (ada, Person::with_box(cluster, email("ben"), 0).await)
        });
        let device = ada.device.who_am_i().unwrap().device;
        let (box_id, victim) = (ada.box_id(), ben.box_id());
        drop(ada.device);
        let store = Store::open(&ada.home, &Passphrase::none(), Arc::new(OsRandom)).unwrap();
        let account: AccountRow = store.get(&()).unwrap().unwrap();
        let access = account.access.unwrap();
        let node = &cluster.nodes()[0];
        Self {
            runtime,
            wire: GrpcWire::new(None),
            server: format!("http://{}", node.client_address()).parse().unwrap(),
            address: DeviceAddress { box_id, device },
            token: access.token.expose().try_into().unwrap(),
            host: access.hawk_host,
            nonces: AtomicU64::new(1_000_000),
            not_before_secs: AtomicU64::new(0),
            victim: Bytes::copy_from_slice(victim.as_bytes()),
        }
    }

    /// A request signed as it should be.
    fn signed(&self, path: RpcPath) -> SignedRequest<'_> {
        SignedRequest {
            address: self.address,
            token: &self.token,
            host: &self.host,
            path,
            ts_secs: self.now_secs(),
            nonce: "",
        }
    }

    /// The header for a request, under a nonce that was never used.
    fn header(&self, request: SignedRequest<'_>, message: &[u8]) -> String {
        let nonce = format!("nonce-{}", self.nonces.fetch_add(1, Ordering::SeqCst));
        let request = SignedRequest {
            nonce: &nonce,
            ..request
        };
        request.authorization(message).unwrap()
    }

    fn right_header(&self, path: RpcPath, message: &[u8]) -> String {
        self.header(self.signed(path), message)
    }

    fn call(
        &self,
        path: &'static str,
        message: impl Into<Bytes>,
        authorization: Option<String>,
    ) -> Result<Bytes, WireError> {
        let exchange = Exchange {
            server: &self.server,
            path,
            message: message.into(),
            authorization,
            timeout: PATIENCE,
        };
        let reply = self.runtime.block_on(self.wire.exchange(exchange));
        reply.map(|reply| reply.message)
    }

    /// A call with a right header.
    fn call_rightly(&self, path: RpcPath, message: impl Into<Bytes>) -> Result<Bytes, WireError> {
        let message = message.into();
        let header = self.right_header(path, &message);
        self.call(path.as_str(), message, Some(header))
    }

    /// A Fetch with this header must be refused as not authenticated; the refusal.
    fn assert_stranger(&self, what: &str, header: &str) -> Refusal {
        let refused = self.call(RpcPath::Fetch.as_str(), "", Some(header.to_owned()));
        assert_refused(what, "UNAUTHENTICATED", refused)
    }

    fn send(&self, envelopes: Vec<v1::OutgoingEnvelope>) -> Result<v1::SendResponse, WireError> {
        let message = v1::SendRequest { envelopes }.encode_to_vec();
        let reply = self.call_rightly(RpcPath::Send, message)?;
        Ok(v1::SendResponse::decode(reply).unwrap())
    }

    fn envelope(&self, counter: u64, bytes: usize) -> v1::OutgoingEnvelope {
        v1::OutgoingEnvelope {
            recipient_box_id: self.victim.clone(),
            counter,
            chain_version: 0,
            ttl_ms: None,
            body: vec![7; bytes].into(),
        }
    }

    /// The time that honest requests carry.
    fn now_secs(&self) -> u64 {
        let not_before = self.not_before_secs.load(Ordering::SeqCst);
        SystemClock.now().as_secs().max(not_before)
    }

    /// An honest request goes through.
    fn assert_served(&self) {
        let fetch = || self.call_rightly(RpcPath::Fetch, "");
        let reply = match fetch() {
            Err(WireError::Refused(refusal)) => {
                let wanted = refusal.server_time.expect("not a wish for a later time");
                self.not_before_secs
                    .store(wanted.as_secs(), Ordering::SeqCst);
                fetch()
            }
            other => other,
        };
        assert!(reply.is_ok(), "{reply:?}");
    }
}

/// The refusal, which must be one of the service's own with this code.
fn assert_refused<T: std::fmt::Debug>(
    what: &str,
    code: &str,
    result: Result<T, WireError>,
) -> Refusal {
    match result {
        Err(WireError::Refused(refusal)) if refusal.code == code => *refusal,
        other => panic!("{what}: {other:?}"),
    }
}

/// Does something bad to a node, and holds its state against what it was before.
fn assert_harmless(abuse: impl FnOnce(&Node, &Abuser)) {
    let cluster = Cluster::of(1);
    let node = &cluster.nodes()[0];
    // A new leader tells the log the time, once, in the first partition: not before that is the state
    // nobody's but ours to change. Until then, and without boxes, all partitions are alike.
    eventually("the log to be told the time", || {
        let rows = node.digests().1;
        (rows.first()?.1 != rows.get(1)?.1).then_some(())
    });
    let abuser = Abuser::new(&cluster);
    abuser.assert_served();
    node.wait_quiet();
    let before = node.digests().1;
    abuse(node, &abuser);
    let after = node.digests().1;
    let changed: Vec<_> = before
        .iter()
        .zip(&after)
        .filter_map(|(before, after)| (before != after).then_some(before.0))
        .collect();
    assert_eq!(
        (after.len(), changed),
        (before.len(), vec![]),
        "the state of partitions changed"
    );
    node.wait_ready();
    abuser.assert_served();
    assert!(!node.log().contains("panicked"), "the node panicked");
    // The digests tell of what is honest.
    let sent = abuser.send(vec![abuser.envelope(1, 10)]).unwrap();
    let result = sent.outcomes[0].result.clone();
    assert!(
        matches!(result, Some(send_outcome::Result::Sequence(1))),
        "{result:?}"
    );
    assert!(node.digests().1 != before);
}

#[test]
fn what_is_not_signed_rightly_is_refused() {
    assert_harmless(|_, abuser| {
        let fetch = RpcPath::Fetch;
        let right = || abuser.right_header(fetch, b"");
        let signed = || abuser.signed(fetch);
        let unhashed = |header: String| header.split(", hash=").next().unwrap().to_owned();

        let replayed = right();
        assert!(
            abuser
                .call(fetch.as_str(), "", Some(replayed.clone()))
                .is_ok()
        );
        abuser.assert_stranger("played again", &replayed);

        let for_another_body = abuser.right_header(fetch, b"\x10\x01");
        abuser.assert_stranger("another body", &for_another_body);
        abuser.assert_stranger("another method", &abuser.right_header(RpcPath::Send, b""));
        abuser.assert_stranger("no hash", &unhashed(right()));
        for field in [
            "app=\"a\"",
            "dlg=\"d\"",
            "app=\"a\", dlg=\"d\"",
            "ext=\"e\"",
        ] {
            abuser.assert_stranger(field, &format!("{}, {field}", right()));
        }
        for nonsense in [
            "",
            "Hawk",
            "Hawk ",
            "Bearer of news",
            &"Hawk, ".repeat(1000),
        ] {
            abuser.assert_stranger(nonsense, nonsense);
        }
        let bare = abuser.call(fetch.as_str(), "", None);
        assert_refused("no header", "UNAUTHENTICATED", bare);

        let mut token = abuser.token;
        token[31] ^= 1;
        let wrong = SignedRequest {
            token: &token,
            ..signed()
        };
        let refusal = abuser.assert_stranger("wrong token", &abuser.header(wrong, b""));
        assert_eq!(refusal.server_time, None, "strangers are told nothing");
        let device = DeviceId::from_bytes([9; 16]);
        let address = DeviceAddress {
            device,
            ..abuser.address
        };
        let unknown = SignedRequest {
            address,
            ..signed()
        };
        let refusal = abuser.assert_stranger("unknown device", &abuser.header(unknown, b""));
        assert_eq!(refusal.server_time, None, "strangers are told nothing");
        let elsewhere = SignedRequest {
            host: "another.cluster",
            ..signed()
        };
        abuser.assert_stranger("another cluster", &abuser.header(elsewhere, b""));
    });
}

#[test]
fn what_is_signed_for_another_time_is_refused() {
    assert_harmless(|_, abuser| {
        let signed_at = |ts_secs| {
            let request = SignedRequest {
                ts_secs,
                ..abuser.signed(RpcPath::Fetch)
            };
            abuser.header(request, b"")
        };
        for (what, ts_secs) in [
            ("two minutes old", abuser.now_secs() - 120),
            ("an hour early", abuser.now_secs() + 3600),
            ("from 1970", 0),
            ("from the year 5138", 99_999_999_999),
        ] {
            let refusal = abuser.assert_stranger(what, &signed_at(ts_secs));
            // Whoever has the token may learn the time.
            assert!(refusal.server_time.is_some(), "{what}: {refusal:?}");
        }
        let now = abuser.now_secs();
        let header = signed_at(now);
        for ts in [
            "18446744073709551615",
            "9999999999999999999999",
            "-1",
            "",
            "1e9",
            "0x10",
        ] {
            let bent = header.replace(&format!("ts=\"{now}\""), &format!("ts=\"{ts}\""));
            assert_ne!(bent, header);
            abuser.assert_stranger(ts, &bent);
        }
    });
}

#[test]
fn what_is_too_large_is_refused() {
    assert_harmless(|_, abuser| {
        let large = vec![0; 4 * 1024 * 1024 + 1];
        for path in [RpcPath::Send, RpcPath::Fetch, RpcPath::Register] {
            let refused = abuser.call_rightly(path, large.clone());
            assert_refused(path.name(), "REQUEST_TOO_LARGE", refused);
        }
        let crowd = (1..=257)
            .map(|counter| abuser.envelope(counter, 1))
            .collect();
        assert_refused("a crowd", "TOO_MANY_RECIPIENTS", abuser.send(crowd));
        let outcome = abuser
            .send(vec![abuser.envelope(1, 96 * 1024 + 1)])
            .unwrap();
        match outcome.outcomes[0].result.clone() {
            Some(send_outcome::Result::Refusal(refusal)) => {
                assert_eq!(refusal.code, "ENVELOPE_TOO_LARGE");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn what_can_not_be_read_is_refused() {
    assert_harmless(|_, abuser| {
        for path in RpcPath::ALL {
            let refused = abuser.call_rightly(path, vec![0xff; 64]);
            assert_refused(path.name(), "INVALID_ARGUMENT", refused);
        }
        // Nothing but the refusal of what makes no sense, whatever it is.
        let random = SeededRandom::new(17);
        for length in (0..40).chain([100, 1000, 10_000]) {
            let mut noise = vec![0; length];
            random.fill(&mut noise).unwrap();
            // Some noise is an honest request to acknowledge nothing, to be told of what comes, or to go on taking
            // messages as before.
            let honest = |path| match path {
                RpcPath::Acknowledge => v1::AcknowledgeRequest::decode(&noise[..]).is_ok(),
                RpcPath::Subscribe => v1::SubscribeRequest::decode(&noise[..]).is_ok(),
                RpcPath::Accept => v1::AcceptRequest::decode(&noise[..]).is_ok(),
                _ => false,
            };
            let paths = RpcPath::ALL.into_iter();
            for path in paths.filter(|path| !honest(*path)) {
                match abuser.call_rightly(path, noise.clone()) {
                    Ok(_) => {}
                    Err(WireError::Refused(refusal)) => {
                        let expected = ["INVALID_ARGUMENT", "INVALID_IDENTIFIER", "NO_USER"];
                        assert!(expected.contains(&refusal.code.as_str()), "{refusal:?}");
                    }
                    Err(other) => panic!("{}, {length} bytes: {other:?}", path.name()),
                }
            }
        }
        let short = v1::OutgoingEnvelope {
            recipient_box_id: vec![1; 15].into(),
            ..abuser.envelope(1, 1)
        };
        assert_refused(
            "a short box id",
            "INVALID_ARGUMENT",
            abuser.send(vec![short]),
        );
        // Doors for operators and nodes are not here.
        for path in [
            "/rossby.v1.Mailbox/Nothing",
            "/rossby.v1.Admin/Checkpoint",
            "/rossby.v1.Admin/Status",
            "/rossby.v1.Peer/Relay",
            "/rossby.v1.Peer/Describe",
        ] {
            match abuser.call(path, "", None) {
                Err(WireError::NotSent(_) | WireError::NotTheService(_)) => {}
                other => panic!("{path}: {other:?}"),
            }
        }
    });
}

#[test]
fn noise_and_half_open_connections_disturb_nobody() {
    const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_harmless(|node, abuser| {
        let ports = [
            node.client_address(),
            node.http_address(),
            node.peer_address(),
        ];
        let random = SeededRandom::new(19);
        for port in ports {
            for length in [1_usize, 9, 24, 1000, 100_000] {
                let mut noise = vec![0; length];
                random.fill(&mut noise).unwrap();
                throw(port, &noise);
                throw(port, &[OPENING, &noise].concat());
                // As a TLS record of the right length, and one that promises more than comes.
                throw(port, &[&[0x16, 3, 1, 0x40, 0], &noise[..]].concat());
                throw(port, &[b"GET /", &noise[..]].concat());
            }
        }
        // Held open, each having said half of something.
        let halves: [&[u8]; 5] = [b"", b"P", &OPENING[..10], OPENING, b"GET /readyz HT"];
        let mut held = Vec::new();
        for port in ports {
            for half in halves.iter().cycle().take(20) {
                let mut stream = TcpStream::connect(port).unwrap();
                stream.write_all(half).unwrap();
                held.push(stream);
            }
            abuser.assert_served();
            assert_eq!(node.page("/livez").unwrap().0, 200);
        }
        node.wait_ready();
    });
}

/// Sends bytes, and reads whatever comes back until the node hangs up.
fn throw(port: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The node may hang up before it has read all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    if let Err(error) = stream.read_to_end(&mut Vec::new()) {
        let kept = error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!kept, "{port}: the connection stays open");
    }
}
