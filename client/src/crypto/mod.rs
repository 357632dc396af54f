//! The primitives, each behind the one shape that Rossby uses it in.
//!
//! Nothing here is of our own making: HPKE (RFC 9180) with X-Wing, ChaCha20-Poly1305 (RFC 8439),
//! Ed25519 (RFC 8032), Argon2id (RFC 9106). `tests/vectors.rs` holds them to published vectors.

pub mod kem;
pub mod recovery;
pub mod secret;
pub mod token;

mod drawn;
