//! The courier of a lone developer: the code appears on the node's own console.

use async_trait::async_trait;
use parking_lot::Mutex;
use rossby_domain::identifier::Identifier;

use super::{Courier, CourierError, Kind};

/// Prints codes to the node's standard error, for whoever watches it. Not the log: logs are kept
/// and shipped, and must hold no codes. Only ever used when the operator chose it.
pub struct ConsoleCourier {
    out: Mutex<Box<dyn std::io::Write + Send>>,
}

impl ConsoleCourier {
    /// Prints to standard error.
    #[must_use]
    pub fn new() -> Self {
        Self::to(Box::new(std::io::stderr()))
    }

    /// Prints to `out`.
    #[must_use]
    pub fn to(out: Box<dyn std::io::Write + Send>) -> Self {
        Self {
            out: Mutex::new(out),
        }
    }
}

impl Default for ConsoleCourier {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Courier for ConsoleCourier {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        let mut out = self.out.lock();
        writeln!(out, "verification code for {}: {code}", identifier.as_str())?;
        out.flush()?;
        Ok(())
    }

    fn name(&self, _: Kind) -> Option<&'static str> {
        Some("console")
    }
}
