//! Hawk: what a device signs, and which replies it believes.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rossby_client::connection::{
    CallError, Connection, Exchange, Fetch, Patience, Rpc, SendRpc, Signer, Wire, WireError,
    WireReply,
};
use rossby_client::crypto::secret::SecretBytes;
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_seams::clock::ManualClock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

use crate::people::People;
use crate::{Stream, hex, seed};

const HOST: &str = "rossby-1";
const AT_MS: u64 = 1_700_000_000_750;

/// A reply, and what is wrong with it.
struct Answer {
    what: &'static str,
    /// Makes the header of the reply to a request with this `ts` and `nonce`.
    header: fn(&Request<'_>) -> Option<String>,
    good: bool,
}

struct Request<'a> {
    path: &'a str,
    ts: String,
    nonce: String,
    reply: &'a [u8],
}

impl Request<'_> {
    /// By the words of docs/PROTOCOL.md, and not by the library that the client uses.
    fn vouch(&self, token: &[u8; 32], nonce: &str, reply: &[u8]) -> String {
        let hash = payload_hash(reply);
        let Self { path, ts, .. } = self;
        let text = normalised("response", ts, nonce, path, &hash);
        let mac = STANDARD.encode(rossby_domain::mac::hmac_sha256(token, text.as_bytes()));
        format!(r#"Hawk mac="{mac}", hash="{hash}""#)
    }
}

fn payload_hash(message: &[u8]) -> String {
    let hasher = Sha256::new().chain_update(b"hawk.1.payload\napplication/grpc\n");
    STANDARD.encode(hasher.chain_update(message).chain_update(b"\n").finalize())
}

fn normalised(what: &str, ts: &str, nonce: &str, path: &str, hash: &str) -> String {
    format!("hawk.1.{what}\n{ts}\n{nonce}\nPOST\n{path}\n{HOST}\n443\n{hash}\n\n")
}

const ANSWERS: [Answer; 6] = [
    Answer {
        what: "the service's reply",
        header: |request| Some(request.vouch(&seed("hawk token"), &request.nonce, request.reply)),
        good: true,
    },
    Answer {
        what: "no server-authorization",
        header: |_| None,
        good: false,
    },
    Answer {
        what: "a reply made with another token",
        header: |request| Some(request.vouch(&seed("other"), &request.nonce, request.reply)),
        good: false,
    },
    Answer {
        what: "a header made for another message",
        header: |request| Some(request.vouch(&seed("hawk token"), &request.nonce, b"other")),
        good: false,
    },
    Answer {
        what: "a reply to another request",
        header: |request| Some(request.vouch(&seed("hawk token"), "another-nonce", request.reply)),
        good: false,
    },
    Answer {
        what: "a header without a hash",
        header: |request| {
            let whole = request.vouch(&seed("hawk token"), &request.nonce, request.reply);
            whole.split(", ").next().map(str::to_owned)
        },
        good: false,
    },
];

/// A wire that keeps what was sent and gives one fixed answer.
struct Recorder {
    answer: &'static Answer,
    reply: Vec<u8>,
    seen: Mutex<Option<Value>>,
}

fn field<'a>(header: &'a str, name: &str) -> &'a str {
    let (_, rest) = header.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

#[async_trait]
impl Wire for Recorder {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let header = exchange.authorization.clone().unwrap();
        let (ts, nonce) = (field(&header, "ts"), field(&header, "nonce"));
        let hash = payload_hash(&exchange.message);
        assert_eq!(field(&header, "hash"), hash);
        let text = normalised("header", ts, nonce, exchange.path, &hash);
        let mac = rossby_domain::mac::hmac_sha256(&seed("hawk token"), text.as_bytes());
        assert_eq!(field(&header, "mac"), STANDARD.encode(mac));
        let request = Request {
            path: exchange.path,
            ts: ts.to_owned(),
            nonce: nonce.to_owned(),
            reply: &self.reply,
        };
        let vouched = (self.answer.header)(&request);
        *self.seen.lock() = Some(json!({
            "what": self.answer.what,
            "id": field(&header, "id"),
            "token": hex(seed("hawk token")),
            "host": HOST,
            "path": exchange.path,
            "message": hex(&exchange.message),
            "ts": ts,
            "nonce": nonce,
            "hash": hash,
            "normalised": text,
            "mac": field(&header, "mac"),
            "reply": hex(&self.reply),
            "server_authorization": vouched,
            "good": self.answer.good,
        }));
        Ok(WireReply {
            leader: None,
            message: self.reply.clone().into(),
            server_authorization: vouched,
        })
    }
}

async fn call<R: Rpc>(
    people: &People,
    answer: &'static Answer,
    request: &R::Request,
    reply: &R::Response,
) -> Value {
    let recorder = Arc::new(Recorder {
        answer,
        reply: reply.encode_to_vec(),
        seen: Mutex::default(),
    });
    let patience = Patience {
        call: Duration::from_secs(60),
        attempt: Duration::from_secs(60),
        ..Patience::default()
    };
    let connection = Connection::new(
        Arc::clone(&recorder) as Arc<dyn Wire>,
        vec!["http://127.0.0.1:1".parse().unwrap()],
        Arc::new(ManualClock::new(Timestamp::from_millis(AT_MS))),
        Arc::new(Stream::new(&format!("hawk {}", answer.what))),
        patience,
    );
    let signer = Signer {
        address: people.alice.address(0),
        token: SecretBytes::new(seed("hawk token").to_vec()),
        host: HOST.to_owned(),
    };
    match connection.call::<R>(request, Some(&signer)).await {
        Ok(_) => assert!(answer.good, "{}", answer.what),
        Err(CallError::BadReply(_)) => assert!(!answer.good, "{}", answer.what),
        Err(other) => panic!("{}: {other}", answer.what),
    }
    recorder.seen.lock().take().unwrap()
}

pub async fn vectors(people: &People) -> Value {
    let mut vectors = Vec::new();
    let fetch = v1::FetchRequest {
        after: 7,
        max_envelopes: 10,
    };
    let page = v1::FetchResponse {
        more: true,
        ..v1::FetchResponse::default()
    };
    for answer in &ANSWERS {
        vectors.push(call::<Fetch>(people, answer, &fetch, &page).await);
    }
    let letter = v1::OutgoingEnvelope {
        recipient_box_id: Bytes::copy_from_slice(people.bob.box_id().as_bytes()),
        counter: 1,
        body: Bytes::from_static(b"opaque"),
        ..v1::OutgoingEnvelope::default()
    };
    let send = v1::SendRequest {
        envelopes: vec![letter],
    };
    // An empty message has a hash like any other.
    vectors.push(call::<SendRpc>(people, &ANSWERS[0], &send, &v1::SendResponse::default()).await);
    json!(vectors)
}
