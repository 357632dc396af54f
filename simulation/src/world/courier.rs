//! The courier of the world: brings codes to where its people look.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_api::courier::{Courier, CourierError, Kind};
use rossby_domain::identifier::Identifier;

/// The codes that were brought, the latest for each identifier. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Codes(Arc<Mutex<BTreeMap<String, String>>>);

impl Codes {
    /// Takes the latest code of an identifier.
    #[must_use]
    pub fn take(&self, identifier: &Identifier) -> Option<String> {
        self.0.lock().remove(text(identifier))
    }

    /// Puts a code back that could not be used yet, unless a later one came.
    pub fn put_back(&self, identifier: &Identifier, code: String) {
        let mut codes = self.0.lock();
        codes.entry(text(identifier).to_owned()).or_insert(code);
    }
}

fn text(identifier: &Identifier) -> &str {
    match identifier {
        Identifier::Phone(phone) => phone.as_str(),
        Identifier::Email(email) => email.as_str(),
    }
}

#[async_trait]
impl Courier for Codes {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        let mut codes = self.0.lock();
        codes.insert(text(identifier).to_owned(), code.to_owned());
        Ok(())
    }

    fn name(&self, _: Kind) -> Option<&'static str> {
        Some("simulated")
    }
}
