//! Register: a new box, from its keys to its token: Register, the code by the courier, Authorize.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rossby_client::connection::Connection;
use rossby_client::identity::Identity;
use rossby_seams::random::OsRandom;

use crate::BenchError;
use crate::account::{Addresses, NewBox};
use crate::codes::Codes;
use crate::drive::{Client, Fault};

/// What those who register have in common.
#[derive(Debug)]
pub struct Registry {
    codes: Codes,
    addresses: Addresses,
    next: AtomicUsize,
}

impl Registry {
    /// Codes come from here, and addresses that nobody has used from there.
    #[must_use]
    pub fn new(codes: Codes, addresses: Addresses) -> Self {
        Self {
            codes,
            addresses,
            next: AtomicUsize::new(0),
        }
    }

    /// Registers one more box, of these keys.
    ///
    /// # Errors
    /// If the service refuses, or no code comes.
    pub async fn register(
        &self,
        connection: &Connection,
        identity: Identity,
    ) -> Result<NewBox, BenchError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let identifier = self.addresses.nth(number)?;
        NewBox::register(connection, &self.codes, &identifier, identity).await
    }
}

/// A person after the other who registers.
#[derive(Debug)]
pub struct Newcomer {
    connection: Arc<Connection>,
    registry: Arc<Registry>,
}

impl Newcomer {
    /// A client over this connection.
    #[must_use]
    pub fn new(connection: Arc<Connection>, registry: Arc<Registry>) -> Self {
        Self {
            connection,
            registry,
        }
    }
}

impl Newcomer {
    async fn register(&self) -> Result<(), BenchError> {
        let identity = Identity::generate(&OsRandom)?;
        let new = self.registry.register(&self.connection, identity).await?;
        new.open().map(|_| ())
    }
}

impl Client for Newcomer {
    async fn step(&mut self) -> Result<(), Fault> {
        match self.register().await {
            Ok(()) => Ok(()),
            Err(BenchError::Call(error)) => Err(error.into()),
            Err(BenchError::NoCode { .. }) => Err(Fault("NO_CODE".into())),
            Err(_) => Err(Fault("NOT_REGISTERED".into())),
        }
    }
}
