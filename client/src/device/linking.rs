//! A further device of a box, from its first start until it has its place.
//!
//! ```text
//!   create ──► code: shown ──► ask, again and again ──► accept ──► Device
//!      └────────── cut off and opened again: the same keys, the same code ──────┘
//! ```

use std::path::Path;
use std::sync::Arc;

use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::DeviceAddress;

use super::devices::is_refused;
use super::{Device, DeviceError, Environment, Servers, connect, identity_row};
use crate::connection::{Connection, JoinBox, ServerAddress, Signer};
use crate::identity::Identity;
use crate::linking::{DeviceName, LinkCode, Newcomer};
use crate::store::{
    Access, AccountRow, IdentityRow, KdfCost, LinkingRow, Passphrase, Store, StoreError,
};

/// A device that belongs to no box yet.
pub struct Linking {
    pub(super) store: Store,
    pub(super) newcomer: Newcomer,
    pub(super) name: DeviceName,
    account: AccountRow,
    pub(super) connection: Connection,
    pub(super) environment: Environment,
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking")
            .field("device", &self.newcomer.device())
            .finish_non_exhaustive()
    }
}

/// A place in a box, as the service offers it.
#[derive(Debug)]
pub struct Welcome {
    pub(super) identity: Identity,
    pub(super) signer: Signer,
}

impl Welcome {
    /// The device in the box: whose that is, is for its owner to see before they accept it
    /// ([`LinkCode::box_comparison`]).
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        self.signer.address
    }

    /// The box's key record, which names the device.
    #[must_use]
    pub fn record(&self) -> &KeyRecord {
        self.identity.record()
    }
}

impl Linking {
    /// Makes a new device in `home`: keys, and no box yet.
    ///
    /// # Errors
    /// [`DeviceError::Store`] (for example if there is a device already), [`DeviceError::NoServer`].
    pub fn create(
        home: &Path,
        passphrase: &Passphrase,
        cost: KdfCost,
        servers: &Servers,
        name: DeviceName,
        environment: Environment,
    ) -> Result<Self, DeviceError> {
        if servers.addresses.is_empty() {
            return Err(DeviceError::NoServer);
        }
        let newcomer = Newcomer::generate(environment.random.as_ref())?;
        let account = AccountRow {
            servers: servers
                .addresses
                .iter()
                .map(ServerAddress::to_string)
                .collect(),
            ca_pem: servers.ca_pem.clone(),
            identifier: None,
            discoverable: false,
            box_id: None,
            access: None,
        };
        let (signing_seed, kem_seed) = newcomer.seeds();
        let row = LinkingRow {
            signing_seed,
            kem_seed,
            name: name.clone(),
        };
        let random = Arc::clone(&environment.random);
        let store = Store::create(home, passphrase, cost, random, |batch| {
            batch.put(&(), &row)?;
            batch.put(&(), &account)
        })?;
        let connection = connect(&account, &environment)?;
        Ok(Self {
            store,
            newcomer,
            name,
            account,
            connection,
            environment,
        })
    }

    /// Opens the device in `home`, with the keys that it has.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyRegistered`] if it belongs to a box; [`DeviceError::Store`].
    pub fn open(
        home: &Path,
        passphrase: &Passphrase,
        environment: Environment,
    ) -> Result<Self, DeviceError> {
        let store = Store::open(home, passphrase, Arc::clone(&environment.random))?;
        if store.get::<IdentityRow>(&())?.is_some() {
            return Err(DeviceError::AlreadyRegistered);
        }
        let damaged = DeviceError::Damaged;
        let row: LinkingRow = store.get(&())?.ok_or(damaged("linking"))?;
        let account: AccountRow = store.get(&())?.ok_or(damaged("account"))?;
        let connection = connect(&account, &environment)?;
        Ok(Self {
            store,
            newcomer: Newcomer::from_seeds(&row.signing_seed, row.kem_seed),
            name: row.name,
            account,
            connection,
            environment,
        })
    }

    /// The code that this device shows.
    #[must_use]
    pub fn code(&self) -> LinkCode {
        self.newcomer.code(self.name.clone())
    }

    /// Asks for its place once; `None` while no box has linked it.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `DEVICE_REVOKED` if it was linked and removed again;
    /// [`DeviceError::Joining`] if the answer can not be believed.
    pub async fn ask(&self) -> Result<Option<Welcome>, DeviceError> {
        let request = self.newcomer.request()?;
        let call = self.connection.call::<JoinBox>(&request, None);
        let response = match call.await.map_err(DeviceError::from) {
            Ok(response) => response,
            Err(error) if is_refused(&error, "NOT_LINKED") => return Ok(None),
            Err(error) => return Err(error),
        };
        let (identity, signer) = self.newcomer.joined(response)?;
        Ok(Some(Welcome { identity, signer }))
    }

    /// Takes the place, and tells the box's other devices what this one is called, if they can be told
    /// now.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub async fn accept(self, welcome: Welcome) -> Result<Device, DeviceError> {
        let Welcome { identity, signer } = welcome;
        let account = AccountRow {
            box_id: Some(signer.address.box_id),
            access: Some(Access {
                token: signer.token,
                hawk_host: signer.host,
            }),
            ..self.account
        };
        self.store.write::<_, StoreError>(|batch| {
            batch.put(&(), &identity_row(&identity))?;
            batch.put(&(), &account)?;
            batch.remove::<LinkingRow>(&())
        })?;
        let device = Device::assemble(self.store, identity, &account, self.environment)?;
        let own = device.identity().device();
        device
            .store
            .write(|batch| device.name_device(batch, &own, &self.name))?;
        // The next time makes up for it.
        let _ = device.greet().await;
        Ok(device)
    }
}
