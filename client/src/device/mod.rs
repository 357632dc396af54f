//! A device: a person's keys, contacts and messages, and what they can do with them.
//!
//! ```text
//!   create ──► register ──► authorize(code) ──► lookup, send, receive      (registration.rs)
//!                                                 │      │       │
//!                       contacts.rs: pinned chains┘      │       └ receiving.rs: verify, store,
//!                                                        │         and only then acknowledge;
//!                                                        │         listening.rs: as it comes
//!                       sending.rs: count and store, then send; the same bytes until it is known;
//!                                    requests.rs: many in one request; settling.rs: what came of them
//!                                    resealing.rs: anew, where those can never be stored
//!                       acting.rs: answers, edits and the like; acts.rs: what they do to a message;
//!                                  erasing.rs: what was taken back
//!                       withdrawing.rs: not sending what waits
//!                       instants.rs: what orders a conversation    messages.rs: how it is shown
//!                       safety.rs: who is verified, and what stops when their identity changes
//!
//!   accepting.rs: from whom messages are taken    waiting.rs: for how long they may wait
//!   linking.rs: a further device, until it has its place    devices.rs: add, name and revoke devices
//!   own_box.rs: the box's own chain, as this device knows it    identifiers.rs: its phones and emails
//!   words.rs: what the box's devices tell each other: copies of what they send, names, groups
//!   groups.rs: making and changing groups, and what others say of them
//!   profiles.rs: what this box shows of itself, and what contacts show
//!   signals.rs: that somebody is typing
//!   receipts.rs: telling contacts how far their messages have come, and hearing it of them
//! ```
//!
//! Invariants. A counter is stored before anything is sent under it, so no two texts of this home
//! share one. A message is acknowledged only after it is stored here. A contact's chain only ever
//! grows from what was pinned, or the error is loud.
//!
//! An older copy of the whole home may be put back (a restored backup). It can not lose mail: its
//! counters are compared with the service's before they are used, and the service refuses a counter
//! that stands for another text ([`rossby_domain::dedupe`]).
//!
//! Store calls block for the time of a disk write.

mod accepting;
mod acting;
mod acts;
mod address_book;
mod choices;
mod contacts;
mod deleting;
mod devices;
mod erasing;
mod error;
mod groups;
mod identifiers;
mod instants;
mod key_times;
mod linking;
mod listening;
mod messages;
mod news;
mod own_box;
mod profiles;
mod receipts;
mod receiving;
mod recovering;
mod registration;
mod requests;
mod resealing;
mod rotating;
mod safety;
mod sending;
mod settling;
mod signals;
#[cfg(test)]
mod tests;
mod waiting;
mod withdrawing;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::RwLock;

use rossby_domain::chain::KeyRecord;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_seams::clock::{Clock, SystemClock};
use rossby_seams::random::{OsRandom, Random};

pub use self::accepting::{AcceptFrom, Accepting};
pub use self::acts::Acts;
pub use self::contacts::{Contact, Found, LookupBy};
pub use self::devices::{OwnDevice, Standing};
pub use self::error::DeviceError;
pub use self::groups::GroupInfo;
pub use self::identifiers::OwnIdentifier;
pub use self::key_times::{KeyState, PastKey};
pub use self::linking::{Linking, Welcome};
pub use self::listening::{Heard, Listener};
pub use self::messages::{Direction, Message, Status};
pub use self::news::DeviceNews;
pub use self::profiles::{Claimed, Shown};
pub use self::receipts::{Progress, ReceiptChoice};
pub use self::receiving::{QueueStatus, Received};
pub use self::registration::Registered;
pub use self::rotating::Rotated;
pub use self::sending::{Delivery, Sent};
pub use self::signals::Typing;
use crate::connection::{Connection, GrpcWire, Patience, ServerAddress, Signer, Wire};
use crate::crypto::secret::Secret;
use crate::identity::Identity;
use crate::registering;
use crate::store::{
    AccountRow, IdentityRow, KdfCost, LinkingRow, MapRow, Passphrase, Store, StoreError,
};

/// What a device takes from the outside.
#[derive(Clone)]
pub struct Environment {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness for keys, nonces and pauses.
    pub random: Arc<dyn Random>,
    /// The network; `None` for the real one.
    pub wire: Option<Arc<dyn Wire>>,
    /// How calls are tried.
    pub patience: Patience,
    /// Whether it learns which servers lead which boxes, and goes there ([`Connection::learning`]).
    pub learns_map: bool,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            wire: None,
            patience: Patience::default(),
            learns_map: true,
        }
    }
}

/// Where a device finds its service.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Addresses of nodes; any of them will do.
    pub addresses: Vec<ServerAddress>,
    /// The certificate authority of the service, in PEM.
    pub ca_pem: Option<String>,
}

/// Who this device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhoAmI {
    /// The device.
    pub device: DeviceId,
    /// Its box, once registered.
    pub box_id: Option<BoxId>,
    /// Whether the box may be used.
    pub authorised: bool,
    /// The identifier that the box is registered for.
    pub identifier: Option<Identifier>,
    /// Whether others may find the box by it.
    pub discoverable: bool,
    /// The servers it knows.
    pub servers: Vec<String>,
    /// The version of its identity chain.
    pub chain_version: u64,
}

/// A device.
pub struct Device {
    store: Store,
    /// Changes with each rotation of the device's keys, and with the box's chain.
    identity: RwLock<Arc<Identity>>,
    /// Two that change it at once would undo one another.
    changing: parking_lot::Mutex<()>,
    environment: Environment,
    connection: Connection,
    /// One request in flight per box is what keeps a sender's envelopes in order.
    sending: tokio::sync::Mutex<()>,
    /// Held while the service is asked whom it is to let in, and that is noted. Before `sending`, after `receiving`.
    policy: tokio::sync::Mutex<()>,
    /// Two that receive at once would both find the same envelope new.
    receiving: tokio::sync::Mutex<()>,
    /// Two that rotate at once would both store a new key.
    rotating: tokio::sync::Mutex<()>,
    /// Something was heard of groups, or may have been before this start, that is still to be acted on.
    unsettled: AtomicBool,
    /// Receipts may be waiting to be sent.
    owing: AtomicBool,
    /// There is word of profiles, or may be, that are still to be looked up.
    unsettled_profiles: AtomicBool,
    /// How far looking for them has come.
    looking: parking_lot::Mutex<profiles::Looking>,
    /// The time of the last signal of each device of others: what is not later is a repetition.
    last_signals: parking_lot::Mutex<BTreeMap<DeviceAddress, Timestamp>>,
    /// When what the service refused as too much at a time may be sent, if there is such.
    rated_until: parking_lot::Mutex<Option<tokio::time::Instant>>,
}

impl Device {
    /// Makes a new device in `home`: keys, and no box yet.
    ///
    /// # Errors
    /// [`DeviceError::Store`] (for example if there is a device already), [`DeviceError::NoServer`].
    pub fn create(
        home: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        servers: &Servers,
        environment: Environment,
    ) -> Result<Self, DeviceError> {
        if servers.addresses.is_empty() {
            return Err(DeviceError::NoServer);
        }
        let identity = Identity::generate(environment.random.as_ref())?;
        let account = AccountRow {
            servers: servers.addresses.iter().map(ToString::to_string).collect(),
            ca_pem: servers.ca_pem.clone(),
            identifier: None,
            discoverable: false,
            box_id: None,
            access: None,
        };
        let random = Arc::clone(&environment.random);
        let store = Store::create(home, passphrase, cost, random, |batch| {
            batch.put(&(), &identity_row(&identity))?;
            batch.put(&(), &account)
        })?;
        Self::assemble(store, identity, &account, environment)
    }

    /// Whether there is a device in `home`.
    #[must_use]
    pub fn is_in(home: &Path) -> bool {
        Store::is_in(home)
    }

    /// Opens the device in `home`.
    ///
    /// # Errors
    /// [`DeviceError::Store`], for example for a wrong passphrase.
    pub fn open(
        home: &Path,
        passphrase: &Passphrase,
        environment: Environment,
    ) -> Result<Self, DeviceError> {
        let store = Store::open(home, passphrase, Arc::clone(&environment.random))?;
        let Some(row) = store.get::<IdentityRow>(&())? else {
            return Err(match store.get::<LinkingRow>(&())? {
                Some(_) => DeviceError::NotLinked,
                None => DeviceError::Damaged("identity"),
            });
        };
        let account: AccountRow = store.get(&())?.ok_or(DeviceError::Damaged("account"))?;
        let record = KeyRecord::decode(&row.record)?;
        let identity =
            Identity::from_parts(&row.signing_seed, row.recovery_seed, row.kem_seeds, record);
        Self::assemble(store, identity, &account, environment)
    }

    fn assemble(
        store: Store,
        identity: Identity,
        account: &AccountRow,
        environment: Environment,
    ) -> Result<Self, DeviceError> {
        let connection = connect(account, &environment)?;
        let connection = if environment.learns_map {
            let kept = store.get::<MapRow>(&());
            // Who can't read it learns it again.
            let kept = kept.ok().flatten();
            connection.learning(kept.map(|row| row.map.into()))
        } else {
            connection
        };
        Ok(Self {
            store,
            identity: RwLock::new(Arc::new(identity)),
            changing: parking_lot::Mutex::new(()),
            environment,
            connection,
            sending: tokio::sync::Mutex::new(()),
            policy: tokio::sync::Mutex::new(()),
            receiving: tokio::sync::Mutex::new(()),
            rotating: tokio::sync::Mutex::new(()),
            unsettled: AtomicBool::new(true),
            owing: AtomicBool::new(true),
            unsettled_profiles: AtomicBool::new(true),
            looking: parking_lot::Mutex::default(),
            last_signals: parking_lot::Mutex::default(),
            rated_until: parking_lot::Mutex::default(),
        })
    }

    /// Speaks to these servers from now on.
    ///
    /// # Errors
    /// [`DeviceError::NoServer`], [`DeviceError::Store`].
    pub fn use_servers(&mut self, servers: &Servers) -> Result<(), DeviceError> {
        if servers.addresses.is_empty() {
            return Err(DeviceError::NoServer);
        }
        let mut account = self.account()?;
        account.servers = servers.addresses.iter().map(ToString::to_string).collect();
        account.ca_pem.clone_from(&servers.ca_pem);
        // What others said of where boxes are led goes with them.
        self.store.write::<_, StoreError>(|batch| {
            batch.remove::<MapRow>(&())?;
            batch.put(&(), &account)
        })?;
        let connection = connect(&account, &self.environment)?;
        self.connection = if self.environment.learns_map {
            connection.learning(None)
        } else {
            connection
        };
        Ok(())
    }

    /// Who this device is.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn who_am_i(&self) -> Result<WhoAmI, DeviceError> {
        let account = self.account()?;
        Ok(WhoAmI {
            device: self.identity().device(),
            box_id: account.box_id,
            authorised: account.access.is_some(),
            identifier: account
                .identifier
                .and_then(|identifier| identifier.to_identifier()),
            discoverable: account.discoverable,
            servers: account.servers,
            chain_version: self.identity().record().version(),
        })
    }

    /// The seed of the recovery key, for its owner to write down
    /// ([`crate::crypto::recovery::to_text`]); `None` on a device that was linked.
    #[must_use]
    pub fn recovery_seed(&self) -> Option<Secret<32>> {
        self.identity().recovery_seed().cloned()
    }

    /// Keeps what was learned of where boxes are led, for the next start.
    fn keep_map(&self) -> Result<(), DeviceError> {
        let Some(map) = self.connection.map() else {
            return Ok(());
        };
        let row = MapRow { map: map.to_vec() };
        if self.store.get::<MapRow>(&())?.as_ref() != Some(&row) {
            self.store
                .write::<_, StoreError>(|batch| batch.put(&(), &row))?;
        }
        Ok(())
    }

    /// The device's keys as they are now.
    fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read())
    }

    fn account(&self) -> Result<AccountRow, DeviceError> {
        self.store.get(&())?.ok_or(DeviceError::Damaged("account"))
    }

    /// This device's address and what it signs requests with.
    fn signer(&self) -> Result<Signer, DeviceError> {
        let account = self.account()?;
        let box_id = account.box_id.ok_or(DeviceError::NotRegistered)?;
        let access = account.access.ok_or(DeviceError::NotAuthorised)?;
        let address = DeviceAddress {
            box_id,
            device: self.identity().device(),
        };
        Ok(Signer {
            address,
            token: access.token,
            host: access.hawk_host,
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It is learned again if it can't be kept.
        let _ = self.keep_map();
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

fn identity_row(identity: &Identity) -> IdentityRow {
    IdentityRow {
        signing_seed: Secret::new(identity.signing_key().to_bytes()),
        recovery_seed: identity.recovery_seed().cloned(),
        kem_seeds: identity
            .kem_keys()
            .iter()
            .map(|(counter, key)| (*counter, key.seed().clone()))
            .collect(),
        record: identity.record().encode(),
    }
}

fn connect(account: &AccountRow, environment: &Environment) -> Result<Connection, DeviceError> {
    let servers: Vec<ServerAddress> = account
        .servers
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    let wire = match &environment.wire {
        Some(wire) => Arc::clone(wire),
        None => Arc::new(GrpcWire::new(account.ca_pem.clone())),
    };
    Ok(Connection::new(
        wire,
        servers,
        Arc::clone(&environment.clock),
        Arc::clone(&environment.random),
        environment.patience,
    ))
}

/// The box id in bytes from the wire.
fn box_from_wire(bytes: &[u8]) -> Result<BoxId, DeviceError> {
    registering::box_from_wire(bytes).ok_or(DeviceError::Untrue("not a box id"))
}
