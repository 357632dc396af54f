//! Couriers: who brings a verification code to its person.
//!
//! ```text
//!   workers::courier ──► Courier::deliver ──► Gateways ──► Smtp     emails, through a mail relay
//!                                      │            └────► Webhook  phones, through an SMS gateway
//!                                      └─► ConsoleCourier, OutboxFileCourier: for trials
//! ```
//!
//! No code, no identifier and no secret is ever part of an error's text: errors are logged.

mod console;
mod dial;
mod gateways;
mod outbox_file;
mod secret_file;
mod smtp;
mod text;
mod webhook;

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use rossby_domain::identifier::Identifier;

pub use console::ConsoleCourier;
pub use gateways::Gateways;
pub use outbox_file::OutboxFileCourier;
pub use smtp::{PASSWORD_VARIABLE, Smtp, SmtpSecurity, SmtpSettings};
pub use text::{Text, TextSettings};
pub use webhook::{Webhook, WebhookFormat, WebhookMethod, WebhookSettings};

/// What stood in the way of a code, and at which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reaching the gateway.
    Connect,
    /// Proving who the gateway is.
    Tls,
    /// The gateway's first words.
    Greeting,
    /// Showing who we are.
    Login,
    /// Naming who writes.
    Sender,
    /// Naming whom it is for.
    Recipient,
    /// Handing the message over.
    Message,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Tls => "TLS",
            Self::Greeting => "greeting",
            Self::Login => "login",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Message => "message",
        })
    }
}

/// What went wrong at a step.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The network, or the gateway, went away.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// The gateway said no.
    #[error("refused with code {code}")]
    Refused {
        /// Its reply code, of SMTP or HTTP.
        code: u16,
        /// Its words, for the operator's own trial only: they may repeat what was sent.
        words: String,
    },
    /// The gateway says what it should not.
    #[error("{0}")]
    Unexpected(&'static str),
}

/// Why a code was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The file can't be written.
    #[error("the courier's outbox file: {0}")]
    File(#[from] std::io::Error),
    /// The file may be read or written by others than its owner.
    #[error(
        "the courier's outbox file is open to others than its owner (mode {mode:o}); it must be 600"
    )]
    TooOpen {
        /// The file's permission bits.
        mode: u32,
    },
    /// A gateway did not take it.
    #[error("{step}: {problem}")]
    Gateway {
        /// How far it came.
        step: Step,
        /// What went wrong there.
        problem: Problem,
        /// Whether trying again is useless: the gateway has judged the address, or the message.
        permanent: bool,
    },
    /// No courier serves identifiers of this kind.
    #[error("no courier is configured for identifiers of this kind")]
    NotServed,
}

impl CourierError {
    pub(crate) fn passing(step: Step, problem: impl Into<Problem>) -> Self {
        Self::Gateway {
            step,
            problem: problem.into(),
            permanent: false,
        }
    }

    /// Whether trying again is useless.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Gateway { permanent, .. } => *permanent,
            Self::NotServed => true,
            // Whoever looks after the file can mend it.
            Self::File(_) | Self::TooOpen { .. } => false,
        }
    }
}

/// Why a courier can't be made from its settings. The text begins with the setting's key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A setting is missing.
    #[error("courier.{key}: {why}")]
    Missing {
        /// Its key.
        key: &'static str,
        /// What needs it.
        why: &'static str,
    },
    /// A setting has a value that it can not have.
    #[error("courier.{key}: {why}")]
    Invalid {
        /// Its key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A file can't be used. Nothing of it is repeated.
    #[error("courier.{key}: {}: {why}", path.display())]
    File {
        /// The key of the setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Which kind of identifier: they travel by different couriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A phone number.
    Phone,
    /// An email address.
    Email,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Phone, Self::Email];

    /// The kind of an identifier.
    #[must_use]
    pub fn of(identifier: &Identifier) -> Self {
        match identifier {
            Identifier::Phone(_) => Self::Phone,
            Identifier::Email(_) => Self::Email,
        }
    }
}

/// Brings verification codes to people.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Delivers a code. It may be called twice for one code, after a crash.
    ///
    /// # Errors
    /// [`CourierError`] if it could not be handed over.
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError>;

    /// Its name in metrics for identifiers of a kind; `None` if it can't reach them.
    fn name(&self, kind: Kind) -> Option<&'static str>;
}

/// Is told each step of a delivery that has succeeded. For an operator's trial.
pub type Steps<'a> = &'a mut (dyn FnMut(String) + Send);

/// Words of a gateway, fit for a terminal.
fn printable(words: &str) -> String {
    const MOST: usize = 200;
    let tame = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(MOST).map(tame).collect()
}
