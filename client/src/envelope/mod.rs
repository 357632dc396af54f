//! The sealed envelope: from a person's content to the bytes that a server carries, and back.
//!
//! ```text
//!   Content ──► inner (signed, padded) ──► ciphertext ─┐
//!                                    content key ──────┼─► body ──► the server
//!                                       └─ HPKE to each device of the recipient ─┘
//! ```
//!
//! The body, version 1, suite 1. Numbers are big-endian ([`rossby_domain::wire`]):
//!
//! ```text
//!   u8    version = 1
//!   u8    suite = 1: X-Wing HPKE (base mode, HKDF-SHA256, ChaCha20-Poly1305), ChaCha20-Poly1305,
//!                    Ed25519, SHA-256
//!   32    commitment = HMAC-SHA256(content key, "rossby content key v1")
//!   12    nonce
//!   u8    number of wraps, 1 to 8, in rising order of device id; for each:
//!           16    device id
//!           u64   counter of that device's KEM key
//!           1120  encapsulated key
//!           48    content key, sealed: info "rossby envelope v1",
//!                 AAD = label "rossby wrap v1", recipient box, device id, key counter, commitment
//!   u32   length of the ciphertext, then the ciphertext
//!         AAD = label "rossby content v1", then every byte above but the length
//! ```
//!
//! The inner bytes, version 1, padded with zeroes to one of [`layout::BUCKETS`]:
//!
//! ```text
//!   u8    version = 1
//!   16+16 sender box and device
//!   16    recipient box
//!   u64   the sender device's counter for that box
//!   16    conversation
//!   u64   when it was written (sender's clock, Unix milliseconds)
//!   u64+32  version and hash of the sender's chain
//!   u64+32  version and hash of the recipient's chain, as the sender knows it
//!   64    Ed25519 by the sender's device over: label "rossby envelope v1", body version, suite,
//!         all of the above, commitment, SHA-256 of the content
//!   u32   length of the content, then the content:
//!           u16 kind, u8 version of that kind, and the rest as the kind has it
//! ```
//!
//! Invariants: nothing is shown unless all of it verifies. The commitment and the AAD tie each wrap
//! to this ciphertext, so wraps can not be exchanged and one ciphertext can not open to two texts.
//! The signature names recipient and counter, so what Bob received can not be passed to Carol as
//! sent to her, nor be delivered twice under another id.

mod between;
mod content;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod layout;
mod open;
mod seal;
mod statement;

#[cfg(test)]
mod tests;

pub use between::{Between, MAX_COPIED_BYTES, MAX_LABEL_BYTES, Named, SentCopy};
pub use content::{
    Content, ContentError, Control, Edit, File, Location, MAX_RECEIPT_MESSAGES, MessageId,
    PER_DEGREE, Picture, Reaction, Receipt, ReceiptState, Reply, Voice,
};
pub use error::{OpenError, SealError};
pub(crate) use layout::MAX_CONTENT_BYTES;
pub use open::{Arrival, Opened, Recipient, open};
pub use seal::{Letter, Sender, seal};
pub use statement::{ChainPoint, ConversationId};
