//! The device's side of Rossby, and the only home of plaintext and private keys.

pub mod connection;
pub mod crypto;
pub mod device;
pub mod envelope;
pub mod identity;
pub mod store;
