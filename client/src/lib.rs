//! The device's side of Rossby, and the only home of plaintext and private keys.

pub mod crypto;
