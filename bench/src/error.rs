//! Why load could not be made. What the service refuses under load is counted, and no error.

use std::path::PathBuf;

use rossby_client::DeviceError;
use rossby_client::connection::CallError;
use rossby_client::identity::IdentityError;
use rossby_client::linking::DeviceNameError;
use rossby_client::registering::RegisteringError;
use rossby_domain::chain::ChainError;
use rossby_domain::identifier::IdentifierError;

/// Why load could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A call that everything else needs, for example a registration.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Keys could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The service's answer to a registration is not to be used.
    #[error(transparent)]
    Registering(#[from] RegisteringError),
    /// A made-up name of a device is none.
    #[error(transparent)]
    Name(#[from] DeviceNameError),
    /// A device can not be linked to a box of the load.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The device that speaks to the group can not.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A made-up address is none.
    #[error(transparent)]
    Identifier(#[from] IdentifierError),
    /// A file could not be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No code came.
    #[error("no code for {identifier} has appeared in the courier's file")]
    NoCode {
        /// For whom.
        identifier: String,
    },
    /// A text is too long to be sealed.
    #[error("a text of {bytes} bytes fits into no envelope once it is sealed")]
    TooLarge {
        /// Of the text.
        bytes: usize,
    },
    /// The echo on this machine is no measure.
    #[error("calls to this machine's own echo failed: {faults}")]
    Echo {
        /// Which, and how many.
        faults: String,
    },
    /// A client stopped where it never should.
    #[error("a client of the load broke off")]
    BrokeOff,
}
