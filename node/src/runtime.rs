//! What the asynchronous part of a command runs on.

use tokio::runtime::{Builder, Runtime};

use crate::exit::{Exit, Failure};

/// One thread is enough for a command that asks somebody and waits.
///
/// # Errors
/// If the system has none left.
pub fn one_thread() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, error))
}
