//! Hawk: who is asking, proven over the very bytes of the request.
//!
//! ```text
//!   authorization ──► Presented::parse   strict, bounded; nothing else reaches the crate `hawk`
//!                         │ address
//!                         ▼
//!        tokens of the device (leader of the caller's box)
//!                         │
//!                         ▼
//!   Guard::admit:  MAC and payload hash ──► time window ──► this leader's reign ──► nonce, once
//!                         │
//!                         ▼
//!   Caller: who it is, and the key that signs the reply
//! ```
//!
//! Why a guard around the crate (5.0.1): its parser panics on a huge `ts`, it accepts any body when no
//! hash is demanded, leaves `app` and `dlg` out of the MAC, keeps no nonces and reads the wall clock.
//!
//! What is fixed: method `POST`, the gRPC path, the cluster's name as host, port 443, SHA-256, payload
//! hash over the protobuf message with content type `application/grpc`, no `ext`, `app` or `dlg`.

mod guard;
mod nonces;
mod presented;
mod sign;

pub use guard::{Caller, Credentials, Guard, GuardConfig, HawkRefusal, Reign};
pub use presented::{MAX_HEADER_BYTES, MAX_TS_DIGITS, Malformed, Presented};
pub use sign::{SignError, SignedRequest};

/// The method of every gRPC request.
const METHOD: &str = "POST";
/// The logical port: calls are signed for the cluster, not for the socket they happen to use.
const PORT: u16 = 443;
/// The content type in payload hashes.
const CONTENT_TYPE: &str = "application/grpc";

/// The Hawk payload hash of a protobuf message.
fn payload_hash(message: &[u8]) -> Result<Vec<u8>, hawk::Error> {
    hawk::PayloadHasher::hash(CONTENT_TYPE, hawk::SHA256, message)
}
