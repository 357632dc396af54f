//! A post office in memory: the real rules (`rossby_domain::apply`) behind the client's wire, with
//! faults on request.

mod caller;
mod calls;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::chain::KeyRecord;
use rossby_domain::command::{self, Command, EnvelopeDigest, Outcome, Routed};
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, Epoch, PartitionId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::profile::SealedProfile;
use rossby_domain::query::{Answer, Query};
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Context, Rejection, answer, apply};
use rossby_proto::v1;
use rossby_seams::clock::{Clock as _, ManualClock};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::connection::{Exchange, Refusal, Retry, Wire, WireError, WireReply, WireStream};

pub use self::calls::RESET_DELAY_MS;
pub use self::streams::Cut;

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

/// A lie about what is in a box.
pub type Tampering = Arc<dyn Fn(&mut v1::FetchResponse) + Send + Sync>;

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
    /// What every lookup shows as a profile instead of the truth.
    profile_shown: Option<SealedProfile>,
    /// What is done to each page before it is shown.
    tampering: Option<Tampering>,
    /// Where a phone or email leads instead of to its owner.
    led: BTreeMap<IdentifierHash, BoxId>,
    streams: streams::Streams,
    rate: Option<Rate>,
}

/// So many envelopes at a time, and one more after each period.
struct Rate {
    most: u32,
    left: u32,
    every: Duration,
    since: Instant,
}

impl Rate {
    /// Counts an envelope; how long to wait if it is too many.
    fn count(&mut self) -> Result<(), Duration> {
        while self.left < self.most && self.since.elapsed() >= self.every {
            self.since += self.every;
            self.left += 1;
        }
        if self.left == self.most {
            self.since = Instant::now();
        }
        let wait = self.every.saturating_sub(self.since.elapsed());
        self.left = self.left.checked_sub(1).ok_or(wait)?;
        Ok(())
    }
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
            profile_shown: None,
            tampering: None,
            led: BTreeMap::new(),
            streams: streams::Streams::default(),
            rate: None,
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

    /// Takes so many envelopes at a time from now on, and one more after each period.
    pub fn limit(&self, most: u32, every: Duration) {
        self.state.lock().rate = Some(Rate {
            most,
            left: most,
            every,
            since: Instant::now(),
        });
    }

    /// Nothing goes wrong any more.
    pub fn forget_faults(&self) {
        self.state.lock().faults.clear();
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

    /// Shows this as everybody's profile from now on; `None` for the truth.
    pub fn show_profile(&self, profile: Option<SealedProfile>) {
        self.state.lock().profile_shown = profile;
    }

    /// The profile of a box, as it is kept.
    pub fn profile(&self, box_id: &BoxId) -> SealedProfile {
        let tables = &self.state.lock().tables;
        tables.sealed_profile(box_id).unwrap().unwrap()
    }

    /// Claims this to be the next free counter, whatever the truth; `None` for the truth.
    pub fn claim_next_counter(&self, counter: Option<u64>) {
        self.state.lock().next_counter = counter;
    }

    /// Has this done to each page before it is shown, from now on; to none any more.
    pub fn tamper(&self, with: Option<Tampering>) {
        self.state.lock().tampering = with;
    }

    /// Leads whoever looks this phone or email up to this box from now on, whosever it is.
    pub fn lead(&self, identifier: &Identifier, box_id: BoxId) {
        let hash = IdentifierHash::of(&calls::PEPPER, identifier);
        self.state.lock().led.insert(hash, box_id);
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
        let record = self.state.lock().tables.key_record(&recipient).unwrap();
        let chain_version = record.unwrap().version();
        let digest = EnvelopeDigest::of(&recipient, chain_version, None, &body);
        let enqueue = command::Enqueue {
            recipient,
            id,
            chain_version,
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

    /// What goes wrong with an exchange on this path, now.
    fn next_fault(&self, path: &'static str) -> Option<Fault> {
        let mut state = self.state.lock();
        state.calls.push(path);
        let mut faults = state.faults.iter();
        let next = faults.position(|(failing, _)| path.ends_with(failing));
        let (_, fault) = state.faults.remove(next?)?;
        Some(fault)
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
                    leader: None,
                    message,
                    server_authorization,
                })
            }
            _ => Ok(WireReply {
                leader: None,
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
