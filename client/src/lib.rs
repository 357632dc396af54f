//! The device's side of Rossby, and the only home of plaintext and private keys.
//!
//! ```text
//!   Device (device/) ─── what a person does: register, add contacts, send, receive
//!      │      │    └──── envelope/    content in, sealed bytes out, and back
//!      │      └───────── connection/  signed calls, tried until their outcome is known
//!      └──────────────── store/       everything kept, encrypted, in one directory
//!                        crypto/, identity.rs: keys and the primitives under all of it
//!                        registering.rs: what a new identity says and is told
//!                        profile.rs: what a person shows of themselves, sealed
//!                        owner/: what the owner says on one device, the same on all
//!                        group/: who is in a group, by a rule that all devices share
//!                        linking/: what a further device of a box shows, says and is told
//! ```
//!
//! Nothing here knows a server crate: what a device and a service agree on is in `domain` and
//! `proto`, and in `docs/PROTOCOL.md`.

pub mod connection;
pub mod conversation;
pub mod crypto;
pub mod device;
pub mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod group;
pub mod identity;
pub mod linking;
pub mod owner;
pub mod profile;
pub mod registering;
pub mod safety_number;
pub mod store;

pub use device::{Device, DeviceError, Environment};
