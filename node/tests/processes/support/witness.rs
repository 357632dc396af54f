//! Writes down what the nodes really answer to one device.
//!
//! A device recognises an envelope that comes twice, and so would hide a node's mistake. The witness
//! sits below it, between the SDK and the network, and sees every try.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use rossby_client::connection::{Exchange, GrpcWire, Wire, WireError, WireReply, WireStream};
use rossby_proto::v1::{self, send_outcome};

/// How one try at one server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With a reply.
    Answered,
    /// With one of the service's own codes.
    Refused(String),
    /// The server was not reached.
    NotSent,
    /// No answer within the device's own deadline, or a broken connection.
    Lost(String),
}

/// An envelope's name within one recipient's box: sender box, sender device, counter.
pub type Name = (Bytes, Bytes, u64);

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Every try: the method, and how it ended.
    pub tries: Vec<(&'static str, Ending)>,
    /// What was fetched: the sequence, whose envelopes were seen there, with their bodies.
    pub fetched: BTreeMap<u64, BTreeSet<(Name, Bytes)>>,
    /// What was answered to sends: recipient box and counter, the sequences that were named.
    pub stored: BTreeMap<(Bytes, u64), BTreeSet<u64>>,
    /// The last request of each method that was answered.
    pub answered: BTreeMap<&'static str, Captured>,
}

/// A request as it went over the wire, for whoever plays it again.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The method's path.
    pub path: &'static str,
    message: Bytes,
    authorization: Option<String>,
}

impl Captured {
    /// Sends the very same to a server.
    pub async fn play_at(&self, server: &str) -> Result<WireReply, WireError> {
        let exchange = Exchange {
            server: &server.parse().expect("not an address"),
            path: self.path,
            message: self.message.clone(),
            authorization: self.authorization.clone(),
            timeout: super::PATIENCE,
        };
        GrpcWire::new(None).exchange(exchange).await
    }
}

/// The witness of one device. Clones see the same.
#[derive(Clone)]
pub struct Witness {
    wire: Arc<dyn Wire>,
    seen: Arc<Mutex<Seen>>,
}

impl Witness {
    /// A witness of a device that speaks plain text on loopback.
    pub fn new() -> Self {
        Self::over(Arc::new(GrpcWire::new(None)))
    }

    /// A witness of a device whose network is this.
    pub fn over(wire: Arc<dyn Wire>) -> Self {
        Self {
            wire,
            seen: Arc::default(),
        }
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("a witness failed").clone()
    }

    /// The last request to a method that was answered.
    pub fn captured(&self, method: &str) -> Captured {
        let seen = self.seen();
        seen.answered.get(method).expect("nothing to play").clone()
    }

    /// Forgets the tries so far.
    pub fn forget_tries(&self) {
        self.seen.lock().expect("a witness failed").tries.clear();
    }

    fn note(&self, exchange: &Exchange<'_>, result: &Result<WireReply, WireError>) {
        let mut seen = self.seen.lock().expect("a witness failed");
        let ending = match result {
            Ok(_) => Ending::Answered,
            Err(WireError::Refused(refusal)) => Ending::Refused(refusal.code.clone()),
            Err(WireError::NotSent(_) | WireError::NotTheService(_)) => Ending::NotSent,
            Err(WireError::Lost(why)) => Ending::Lost(why.clone()),
        };
        let method = exchange.path.rsplit('/').next().unwrap_or_default();
        seen.tries.push((method, ending));
        let Ok(reply) = result else { return };
        let captured = Captured {
            path: exchange.path,
            message: exchange.message.clone(),
            authorization: exchange.authorization.clone(),
        };
        seen.answered.insert(method, captured);
        match method {
            "Fetch" => seen.note_fetched(&reply.message),
            "Send" => seen.note_stored(&reply.message),
            _ => {}
        }
    }
}

impl Seen {
    fn note_fetched(&mut self, reply: &Bytes) {
        let reply = v1::FetchResponse::decode(reply.clone()).expect("not a reply of Fetch");
        for envelope in reply.envelopes {
            let name = (
                envelope.sender_box_id,
                envelope.sender_device_id,
                envelope.counter,
            );
            let at = self.fetched.entry(envelope.sequence).or_default();
            at.insert((name, envelope.body));
        }
    }

    fn note_stored(&mut self, reply: &Bytes) {
        let reply = v1::SendResponse::decode(reply.clone()).expect("not a reply of Send");
        for outcome in reply.outcomes {
            if let Some(send_outcome::Result::Sequence(sequence)) = outcome.result {
                let key = (outcome.recipient_box_id, outcome.counter);
                self.stored.entry(key).or_default().insert(sequence);
            }
        }
    }
}

#[async_trait]
impl Wire for Witness {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let copy = Exchange {
            message: exchange.message.clone(),
            authorization: exchange.authorization.clone(),
            ..exchange
        };
        let result = self.wire.exchange(exchange).await;
        self.note(&copy, &result);
        result
    }

    /// Streams go by unseen.
    async fn open(&self, exchange: Exchange<'_>) -> Result<Box<dyn WireStream>, WireError> {
        self.wire.open(exchange).await
    }
}

/// What the witnesses of all senders to a box and of its only reader say together: every envelope
/// has one place, the places have no gap, and what was answered to a sender is what the reader got.
///
/// # Panics
/// If the service contradicted itself.
pub fn assert_one_history(box_id: &[u8], reader: &Seen, senders: &[(&[u8], &Seen)]) {
    let mut places: BTreeMap<&Name, u64> = BTreeMap::new();
    for (sequence, envelopes) in &reader.fetched {
        assert_eq!(
            envelopes.len(),
            1,
            "two envelopes were shown at place {sequence}"
        );
        for (name, _) in envelopes {
            let twice = places.insert(name, *sequence);
            assert_eq!(twice, None, "one envelope was stored twice: {name:?}");
        }
    }
    let sequences: Vec<u64> = reader.fetched.keys().copied().collect();
    let expected: Vec<u64> = (1..=sequences.len() as u64).collect();
    assert_eq!(sequences, expected, "the queue has gaps");
    for (sender, seen) in senders {
        for ((recipient, counter), named) in &seen.stored {
            if recipient != box_id {
                continue;
            }
            assert_eq!(
                named.len(),
                1,
                "counter {counter} was given several places: {named:?}"
            );
            let place = places
                .iter()
                .find(|((from, _, of), _)| from == sender && of == counter)
                .map(|(_, place)| *place);
            assert_eq!(
                place,
                named.first().copied(),
                "counter {counter} was acknowledged and is not where it was said to be"
            );
        }
    }
}
