//! Linking: what a new device shows to an old one, and what it says to the service until it has its place.
//!
//! ```text
//!   new device                         old device                      service
//!   keys ──► code (QR or text) ──────► same digits? ──► AddDevice ───► device bound to the box,
//!      │                                                               link in its chain
//!      └──── JoinBox, again and again until it is linked ────────────► place in the box
//!              key record, token sealed to the new KEM key ◄─────────┘
//! ```
//!
//! No private key moves, and the code holds no secret: who reads it can at most link the device to a box
//! of their own, which the device shows. What it must not be is another's code: hence the digits, which
//! both devices show and a person compares.
//!
//! Nothing here sends or stores: [`crate::Device`] and [`crate::device::Linking`] do.

mod code;
mod joining;
mod name;

pub use self::code::{LinkCode, LinkCodeError};
pub use self::joining::{JoiningError, Newcomer, join_request, joined};
pub use self::name::{DeviceName, DeviceNameError};
