//! A post office in memory: the real rules (`rossby_domain::apply`) behind the client's wire, with
//! faults on request.

mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hawk::{Header, Key, PayloadHasher, RequestBuilder, ResponseBuilder, SHA256};
use parking_lot::Mutex;
use prost::Message as _;
use rossby_domain::chain::{KemKey, KeyRecord};
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{self, Command, EnvelopeDigest, Outcome, Routed};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, PartitionId, Sequence,
};
use rossby_domain::limits::Limits;
use rossby_domain::query::{Answer, Query};
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Context, Rejection, answer, apply};
use rossby_proto::v1::{self, identifier::Kind, lookup_key_request::By, send_outcome};
use rossby_seams::clock::{Clock as _, ManualClock};
use rossby_seams::random::SeededRandom;
use tokio::sync::watch;
use tokio::task::yield_now;

use crate::connection::{Exchange, Refusal, Retry, Wire, WireError, WireReply, WireStream};
use crate::crypto::kem::seal;
use crate::crypto::token::TOKEN_INFO;

pub use self::streams::Cut;

const HOST: &str = "rossby";
const PEPPER: [u8; 32] = [7; 32];
const WINDOW_MS: u64 = 60_000;

/// What goes wrong with one exchange.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The request never leaves.
    NotSent,
    /// The request is lost, and nobody can tell.
    RequestLost,
    /// The request is done, and its reply is lost.
    ReplyLost,
    /// The service can not serve now.
    Refused(&'static str, Retry),
    /// The service wants another time than the one that was signed.
    WrongTime,
    /// The reply comes from somebody else.
    Forged,
}

struct State {
    tables: rossby_domain::tables::MemoryTables,
    tokens: BTreeMap<DeviceAddress, Vec<u8>>,
    codes: BTreeMap<BoxId, String>,
    faults: VecDeque<(&'static str, Fault)>,
    calls: Vec<&'static str>,
    /// What a lookup of a box shows instead of the truth.
    shown: BTreeMap<BoxId, KeyRecord>,
    page: u32,
    /// What a lookup says of the caller's next counter instead of the truth.
    next_counter: Option<u64>,
    /// What a fetch says of the sender's device from this sequence on, instead of the truth.
    garbled_from: Option<Sequence>,
    streams: streams::Streams,
}

/// The office.
pub struct Office {
    me: Weak<Self>,
    state: Mutex<State>,
    /// Something that a stream waits for has happened.
    changes: watch::Sender<()>,
    pub clock: ManualClock,
}

fn partition() -> PartitionId {
    PartitionId::new(0).unwrap()
}

fn refusal(code: &str, retry: Retry) -> Refusal {
    Refusal {
        code: code.to_owned(),
        message: code.to_lowercase(),
        retry,
        retry_after: None,
        server_time: None,
        figures: BTreeMap::new(),
        key_record: None,
        next_counter: None,
    }
}

fn refused(code: &str, retry: Retry) -> WireError {
    WireError::Refused(Box::new(refusal(code, retry)))
}

fn box_of(bytes: &[u8]) -> BoxId {
    BoxId::from_bytes(bytes.try_into().unwrap()).unwrap()
}

fn identifier_of(identifier: Option<v1::Identifier>) -> Identifier {
    match identifier.unwrap().kind.unwrap() {
        Kind::Phone(text) => Identifier::phone(&text).unwrap(),
        Kind::Email(text) => Identifier::email(&text).unwrap(),
    }
}

impl Office {
    pub fn new() -> Arc<Self> {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let state = State {
            tables: rossby_domain::tables::MemoryTables::default(),
            tokens: BTreeMap::new(),
            codes: BTreeMap::new(),
            faults: VecDeque::new(),
            calls: Vec::new(),
            shown: BTreeMap::new(),
            page: 256,
            next_counter: None,
            garbled_from: None,
            streams: streams::Streams::default(),
        };
        let office = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            state: Mutex::new(state),
            changes: watch::Sender::new(()),
            clock,
        });
        let adopt = Command::Adopt(command::Adopt {
            limits: Limits::default(),
        });
        office.apply_at(adopt, Epoch(1)).unwrap();
        office
    }

    /// The next exchange on this path goes wrong. Faults happen in the order they were asked for.
    pub fn fail_next(&self, path: &'static str, fault: Fault) {
        self.state.lock().faults.push_back((path, fault));
    }

    /// How often a path was called.
    pub fn calls(&self, path: &str) -> usize {
        self.state
            .lock()
            .calls
            .iter()
            .filter(|called| called.ends_with(path))
            .count()
    }

    /// The code that the courier brought for a box.
    pub fn code(&self, box_id: &BoxId) -> String {
        self.state.lock().codes[box_id].clone()
    }

    /// A backup of all that the office holds.
    pub fn back_up(&self) -> impl FnOnce() {
        let (backup, office) = (self.state.lock().tables.clone(), Weak::clone(&self.me));
        move || {
            let office = office.upgrade().unwrap();
            let tables = &mut office.state.lock().tables;
            *tables = backup;
            let mut meta = tables.meta().unwrap();
            let now = office.clock.now();
            meta.restored = meta.restored.again(now, false);
            tables.put_meta(&meta).unwrap();
        }
    }

    /// The office was restored, and takes no token any more that was given out before.
    pub fn restore_and_revoke(&self) {
        let mut state = self.state.lock();
        let mut meta = state.tables.meta().unwrap();
        meta.restored = meta
            .restored
            .again(Timestamp::from_millis(1_800_000_000_000), true);
        state.tables.put_meta(&meta).unwrap();
        state.tokens.clear();
    }

    /// Puts a newer key record in the place of a box's.
    pub fn replace_record(&self, box_id: &BoxId, record: &KeyRecord) {
        self.state
            .lock()
            .tables
            .update_key_record(box_id, record)
            .unwrap();
    }

    /// Shows this record to whoever looks the box up from now on.
    pub fn show(&self, box_id: BoxId, record: KeyRecord) {
        self.state.lock().shown.insert(box_id, record);
    }

    /// Claims this to be the next free counter, whatever the truth; `None` for the truth.
    pub fn claim_next_counter(&self, counter: Option<u64>) {
        self.state.lock().next_counter = counter;
    }

    /// Hands out envelopes from this sequence on with something that is no device id.
    pub fn garble_from(&self, sequence: Option<Sequence>) {
        self.state.lock().garbled_from = sequence;
    }

    /// How many envelopes a page holds.
    pub fn set_page(&self, envelopes: u32) {
        self.state.lock().page = envelopes;
    }

    /// What waits in a box.
    pub fn queue(&self, box_id: &BoxId) -> Vec<rossby_domain::envelope::Envelope> {
        let tables = &self.state.lock().tables;
        tables
            .envelopes(box_id, Sequence(0), u32::MAX, u64::MAX)
            .unwrap()
    }

    /// Puts an envelope into a box as if this device had sent it.
    pub fn inject(&self, sender: DeviceAddress, recipient: BoxId, counter: u64, body: &[u8]) {
        let id = EnvelopeId {
            sender,
            counter: Counter(counter),
        };
        let body = Bytes::copy_from_slice(body);
        let digest = EnvelopeDigest::of(&recipient, 0, None, &body);
        let enqueue = command::Enqueue {
            recipient,
            id,
            chain_version: 0,
            ttl_ms: None,
            digest,
            body,
        };
        self.apply(Command::Enqueue(enqueue)).unwrap();
    }

    fn apply(&self, command: Command) -> Result<Outcome, Rejection> {
        self.apply_at(command, Epoch(1))
    }

    fn apply_at(&self, command: Command, epoch: Epoch) -> Result<Outcome, Rejection> {
        let routed = Routed {
            partition: partition(),
            epoch,
            command,
        };
        let context = Context {
            stamp: self.clock.now(),
            may_expire: true,
        };
        let outcome = apply(&mut self.state.lock().tables, &context, routed).unwrap();
        self.changes.send_replace(());
        outcome
    }

    fn ask(&self, query: &Query) -> Answer {
        answer(&self.state.lock().tables, self.clock.now(), query).unwrap()
    }

    fn register(&self, request: v1::RegisterRequest) -> Result<Vec<u8>, WireError> {
        let record = KeyRecord::decode(&request.key_record).unwrap();
        let identifier = identifier_of(request.identifier);
        let kem = &record.devices().next().unwrap().kem.public;
        let genesis_hash = record.genesis_hash();
        let discoverable = request.discoverable;
        let statement =
            rossby_domain::statement::register(&genesis_hash, &identifier, discoverable, kem);
        let signature = request.signature[..].try_into().unwrap();
        let key = record.genesis().device_key;
        assert!(rossby_domain::chain::verify_signature(
            &key, &statement, &signature
        ));
        let box_id = BoxId::derive(partition(), &genesis_hash);
        let hash = IdentifierHash::of(&PEPPER, &identifier);
        let device = record.genesis().device();
        self.apply(Command::ClaimDevice(command::ClaimDevice {
            device,
            box_id,
        }))
        .unwrap();
        let create = command::CreateBox {
            box_id,
            record,
            identifier: hash,
            sealed_identifier: Bytes::new(),
            discoverable,
        };
        self.apply(Command::CreateBox(create)).unwrap();
        let code = format!("{:08}", 12_345_678);
        let open = command::OpenClaim {
            identifier: hash,
            box_id,
            discoverable,
            code: CodeMac::of(&PEPPER, &hash, &box_id, &code),
            sealed_code: Bytes::new(),
        };
        match self.apply(Command::OpenClaim(open)) {
            Ok(_) => {}
            Err(Rejection::TooManyCodes { .. }) => {
                return Err(refused("TOO_MANY_CODES", Retry::Same));
            }
            Err(_) => return Err(refused("IDENTIFIER_TAKEN", Retry::No)),
        }
        self.state.lock().codes.insert(box_id, code);
        let box_id = Bytes::copy_from_slice(box_id.as_bytes());
        Ok(v1::RegisterResponse {
            box_id,
            code_ttl_ms: 600_000,
        }
        .encode_to_vec())
    }

    fn authorize(&self, request: v1::AuthorizeRequest) -> Result<Vec<u8>, WireError> {
        let box_id = box_of(&request.box_id);
        let device = DeviceId::from_bytes(request.device_id[..].try_into().unwrap());
        let identifier = identifier_of(request.identifier);
        let hash = IdentifierHash::of(&PEPPER, &identifier);
        let code = CodeMac::of(&PEPPER, &hash, &box_id, &request.code);
        let verify = command::VerifyClaim {
            identifier: hash,
            box_id,
            code,
        };
        let generation = match self.apply(Command::VerifyClaim(verify)) {
            Ok(Outcome::ClaimVerified { generation }) => generation,
            _ => return Err(refused("WRONG_CODE", Retry::Changed)),
        };
        let activate = command::ActivateBox {
            box_id,
            device,
            identifier: hash,
            generation,
        };
        self.apply(Command::ActivateBox(activate)).unwrap();
        let address = DeviceAddress { box_id, device };
        let token = vec![device.as_bytes()[0]; 32];
        let mut state = self.state.lock();
        state.tokens.insert(address, token.clone());
        let record = state.tables.key_record(&box_id).unwrap().unwrap();
        let public = record.device(&device).unwrap().kem.public.clone();
        let aad = address.to_string();
        let random = SeededRandom::new(5);
        let sealed = seal(&random, &public, TOKEN_INFO, aad.as_bytes(), &token).unwrap();
        let response = v1::AuthorizeResponse {
            encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
            sealed_token: sealed.ciphertext.into(),
            hawk_host: HOST.to_owned(),
        };
        Ok(response.encode_to_vec())
    }

    fn lookup(
        &self,
        caller: DeviceAddress,
        request: v1::LookupKeyRequest,
    ) -> Result<Vec<u8>, WireError> {
        let box_id = match request.by.unwrap() {
            By::Identifier(identifier) => {
                let hash = IdentifierHash::of(&PEPPER, &identifier_of(Some(identifier)));
                match self.ask(&Query::ResolveIdentifier(hash)) {
                    Answer::ResolvedIdentifier(found) => found,
                    other => panic!("{other:?}"),
                }
            }
            By::DeviceId(device) => {
                let device = DeviceId::from_bytes(device[..].try_into().unwrap());
                match self.ask(&Query::ResolveDevice(device)) {
                    Answer::ResolvedDevice(found) => found,
                    other => panic!("{other:?}"),
                }
            }
            By::BoxId(box_id) => Some(box_of(&box_id)),
        };
        let no_user = || refused("NO_USER", Retry::No);
        let box_id = box_id.ok_or_else(no_user)?;
        let Answer::KeyRecord(found) = self.ask(&Query::KeyRecord {
            box_id,
            sender: caller,
        }) else {
            panic!("not an answer to the query")
        };
        let found = found.ok_or_else(no_user)?;
        let record = self
            .state
            .lock()
            .shown
            .get(&box_id)
            .cloned()
            .unwrap_or(found.record);
        let claimed = self.state.lock().next_counter;
        let response = v1::LookupKeyResponse {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            key_record: record.encode().into(),
            next_counter: claimed.unwrap_or(found.next_counter.0),
        };
        Ok(response.encode_to_vec())
    }

    fn send(&self, caller: DeviceAddress, request: v1::SendRequest) -> Vec<u8> {
        let outcomes = request.envelopes.into_iter().map(|envelope| {
            let recipient = box_of(&envelope.recipient_box_id);
            let chain_version = envelope.chain_version;
            let digest = EnvelopeDigest::of(&recipient, chain_version, None, &envelope.body);
            let counter = Counter(envelope.counter);
            let enqueue = command::Enqueue {
                recipient,
                id: EnvelopeId {
                    sender: caller,
                    counter,
                },
                chain_version,
                ttl_ms: None,
                digest,
                body: envelope.body,
            };
            let result = match self.apply(Command::Enqueue(enqueue)) {
                Ok(Outcome::Enqueued { sequence }) => send_outcome::Result::Sequence(sequence.0),
                Ok(other) => panic!("{other:?}"),
                Err(rejection) => {
                    send_outcome::Result::Refusal(self.outcome(&recipient, &rejection))
                }
            };
            v1::SendOutcome {
                recipient_box_id: envelope.recipient_box_id,
                counter: counter.0,
                result: Some(result),
            }
        });
        v1::SendResponse {
            outcomes: outcomes.collect(),
        }
        .encode_to_vec()
    }

    fn outcome(&self, recipient: &BoxId, rejection: &Rejection) -> v1::Refusal {
        let (code, retry, next) = match rejection {
            Rejection::UnknownBox => ("UNKNOWN_RECIPIENT", v1::Retry::No, None),
            Rejection::StaleKeyRecord { .. } => ("STALE_KEY_RECORD", v1::Retry::Changed, None),
            Rejection::CounterReused { next } => ("COUNTER_REUSED", v1::Retry::Changed, Some(next)),
            Rejection::NotAccepted { next } => ("NOT_ACCEPTED", v1::Retry::Changed, Some(next)),
            Rejection::CounterForgotten { next } => {
                ("COUNTER_FORGOTTEN", v1::Retry::Changed, Some(next))
            }
            Rejection::QueueFull => ("QUEUE_FULL", v1::Retry::Same, None),
            Rejection::SenderShareFull => ("SENDER_SHARE_FULL", v1::Retry::Same, None),
            other => panic!("{other:?}"),
        };
        let record = self.state.lock().tables.key_record(recipient).unwrap();
        let key_record = record.filter(|_| code == "STALE_KEY_RECORD");
        v1::Refusal {
            code: code.to_owned(),
            message: code.to_lowercase(),
            retry: retry.into(),
            retry_after_ms: None,
            key_record: key_record.map(|record| record.encode().into()),
            next_counter: next.map(|counter| counter.0),
        }
    }

    fn fetch(&self, caller: DeviceAddress, request: &v1::FetchRequest) -> Vec<u8> {
        let (max_envelopes, garbled_from) = {
            let state = self.state.lock();
            (state.page, state.garbled_from)
        };
        let after = Sequence(request.after);
        let query = Query::Fetch {
            device: caller,
            after,
            max_envelopes,
            max_bytes: 1 << 20,
        };
        let Answer::Page(Some(page)) = self.ask(&query) else {
            panic!("no page")
        };
        let device_id = |envelope: &rossby_domain::envelope::Envelope| {
            if garbled_from.is_some_and(|from| envelope.sequence >= from) {
                return Bytes::from_static(b"nobody");
            }
            Bytes::copy_from_slice(envelope.id.sender.device.as_bytes())
        };
        let envelopes = page.envelopes.into_iter().map(|envelope| v1::Envelope {
            sequence: envelope.sequence.0,
            sender_box_id: Bytes::copy_from_slice(envelope.id.sender.box_id.as_bytes()),
            sender_device_id: device_id(&envelope),
            counter: envelope.id.counter.0,
            enqueued_at_ms: envelope.enqueued_at.as_millis(),
            expires_at_ms: envelope.expires_at.as_millis(),
            body: envelope.body,
        });
        let status = v1::QueueStatus {
            depth: page.status.depth,
            last: page.status.last.0,
            cursor: page.status.cursor.0,
            ..v1::QueueStatus::default()
        };
        let envelopes = envelopes.collect();
        v1::FetchResponse {
            envelopes,
            more: page.more,
            status: Some(status),
        }
        .encode_to_vec()
    }

    fn dispatch(&self, call: &Caller, exchange: &Exchange<'_>) -> Result<Vec<u8>, WireError> {
        let message = exchange.message.clone();
        let name = exchange.path.rsplit('/').next().unwrap();
        let caller = || {
            call.address
                .ok_or_else(|| refused("UNAUTHENTICATED", Retry::Changed))
        };
        Ok(match name {
            "Register" => self.register(v1::RegisterRequest::decode(message).unwrap())?,
            "Authorize" => self.authorize(v1::AuthorizeRequest::decode(message).unwrap())?,
            "LookupKey" => {
                self.lookup(caller()?, v1::LookupKeyRequest::decode(message).unwrap())?
            }
            "Send" => self.send(caller()?, v1::SendRequest::decode(message).unwrap()),
            "Fetch" => self.fetch(caller()?, &v1::FetchRequest::decode(message).unwrap()),
            "Acknowledge" => {
                let upto = Sequence(v1::AcknowledgeRequest::decode(message).unwrap().upto);
                let acknowledge = command::Acknowledge {
                    device: caller()?,
                    upto,
                };
                match self.apply(Command::Acknowledge(acknowledge)) {
                    Ok(Outcome::Acknowledged { cursor, .. }) => {
                        v1::AcknowledgeResponse { cursor: cursor.0 }.encode_to_vec()
                    }
                    _ => return Err(refused("BEYOND_QUEUE", Retry::No)),
                }
            }
            "UpdateKey" => {
                let request = v1::UpdateKeyRequest::decode(message).unwrap();
                let update = command::UpdateKey {
                    device: caller()?,
                    kem: KemKey::decode(&request.kem_key).unwrap(),
                };
                match self.apply(Command::UpdateKey(update)) {
                    Ok(Outcome::KeyUpdated { last }) => {
                        v1::UpdateKeyResponse { last: last.0 }.encode_to_vec()
                    }
                    Err(Rejection::KeyCounterUsed { .. }) => {
                        return Err(refused("KEY_COUNTER_USED", Retry::Changed));
                    }
                    other => panic!("{other:?}"),
                }
            }
            "Block" => {
                let request = v1::BlockRequest::decode(message).unwrap();
                let (box_id, other) = (caller()?.box_id, box_of(&request.box_id));
                let block = command::Block {
                    box_id,
                    other,
                    blocked: request.blocked,
                };
                self.apply(Command::Block(block)).unwrap();
                v1::BlockResponse {}.encode_to_vec()
            }
            other => panic!("{other}"),
        })
    }

    fn wrong_time(&self) -> WireError {
        WireError::Refused(Box::new(Refusal {
            server_time: Some(self.clock.now()),
            ..refusal("UNAUTHENTICATED", Retry::Changed)
        }))
    }

    /// What goes wrong with an exchange on this path, now.
    fn next_fault(&self, path: &'static str) -> Option<Fault> {
        let mut state = self.state.lock();
        state.calls.push(path);
        let mut faults = state.faults.iter();
        let next = faults.position(|(failing, _)| path.ends_with(failing));
        let (_, fault) = state.faults.remove(next?)?;
        Some(fault)
    }

    /// Who calls, by their Hawk header, held against the office's own clock.
    fn admit(&self, exchange: &Exchange<'_>) -> Result<Caller, WireError> {
        let unauthenticated = || refused("UNAUTHENTICATED", Retry::Changed);
        let Some(text) = &exchange.authorization else {
            return Ok(Caller {
                address: None,
                header: None,
                token: Vec::new(),
            });
        };
        let header: Header = text.strip_prefix("Hawk ").unwrap().parse().unwrap();
        let address: DeviceAddress = header.id.clone().unwrap().parse().unwrap();
        let token = self
            .state
            .lock()
            .tokens
            .get(&address)
            .cloned()
            .ok_or_else(unauthenticated)?;
        let hash = PayloadHasher::hash("application/grpc", SHA256, &exchange.message).unwrap();
        let request = RequestBuilder::new("POST", HOST, 443, exchange.path)
            .hash(&hash[..])
            .request();
        let key = Key::new(&token, SHA256).unwrap();
        if !request.validate_header(&header, &key, Duration::MAX) {
            return Err(unauthenticated());
        }
        let signed_at = header
            .ts
            .unwrap()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let now = self.clock.now();
        let off_by = now
            .as_millis()
            .abs_diff(u64::try_from(signed_at.as_millis()).unwrap());
        if off_by > WINDOW_MS {
            return Err(self.wrong_time());
        }
        Ok(Caller {
            address: Some(address),
            header: Some(header),
            token,
        })
    }
}

#[derive(Debug)]
struct Caller {
    address: Option<DeviceAddress>,
    header: Option<Header>,
    token: Vec<u8>,
}

impl Caller {
    fn vouch(&self, path: &str, reply: &[u8], number: Option<u64>) -> Option<String> {
        let header = self.header.as_ref()?;
        let hash = PayloadHasher::hash("application/grpc", SHA256, reply).unwrap();
        let number = number.map(|number| number.to_string());
        let response = ResponseBuilder::from_request_header(header, "POST", HOST, 443, path)
            .hash(&hash[..])
            .ext(number.as_deref())
            .response();
        let key = Key::new(&self.token, SHA256).unwrap();
        Some(format!("Hawk {}", response.make_header(&key).unwrap()))
    }
}

#[async_trait]
impl Wire for Office {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        // On its way, where whoever waits may lose patience.
        yield_now().await;
        let fault = self.next_fault(exchange.path);
        match &fault {
            Some(Fault::NotSent) => return Err(WireError::NotSent("no route".to_owned())),
            Some(Fault::RequestLost) => return Err(WireError::Lost("silence".to_owned())),
            Some(Fault::Refused(code, retry)) => return Err(refused(code, *retry)),
            Some(Fault::WrongTime) => return Err(self.wrong_time()),
            _ => {}
        }
        let caller = self.admit(&exchange)?;
        let message = Bytes::from(self.dispatch(&caller, &exchange)?);
        let server_authorization = caller.vouch(exchange.path, &message, None);
        yield_now().await;
        match fault {
            Some(Fault::ReplyLost) => Err(WireError::Lost("silence".to_owned())),
            Some(Fault::Forged) => {
                let server_authorization = Some("Hawk mac=\"AAAA\"".to_owned());
                Ok(WireReply {
                    message,
                    server_authorization,
                })
            }
            _ => Ok(WireReply {
                message,
                server_authorization,
            }),
        }
    }

    async fn open(&self, exchange: Exchange<'_>) -> Result<Box<dyn WireStream>, WireError> {
        yield_now().await;
        match self.next_fault(exchange.path) {
            None => {}
            Some(Fault::NotSent) => return Err(WireError::NotSent("no route".to_owned())),
            Some(Fault::Refused(code, retry)) => return Err(refused(code, retry)),
            Some(Fault::WrongTime) => return Err(self.wrong_time()),
            Some(_) => return Err(WireError::Lost("silence".to_owned())),
        }
        let caller = self.admit(&exchange)?;
        Ok(Box::new(self.stream(caller, &exchange)))
    }
}
