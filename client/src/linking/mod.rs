//! Linking: what a new device shows to an old one, and what it says to the service until it has its place.
//!
//! ```text
//!   new device                         old device                      service
//!   keys ──► code (QR or text) ──────► same digits? ──► AddDevice ───► link in the box's chain,
//!      │                                                               place offered to the device
//!      └──── JoinBox, again and again until it is linked ────────────► place in the box
//!      same digits? ◄── key record, token sealed to the new KEM key ◄──┘
//! ```
//!
//! No private key moves, and the code holds no secret: who reads it can at most link the device to a box
//! of their own. Twice a person compares digits that both devices show: of the code, before it is approved,
//! lest it be another's; and of the box, before the new device takes its place, lest that be another's.
//!
//! Nothing here sends or stores: [`crate::Device`] and [`crate::device::Linking`] do.

mod challenge;
mod code;
mod joining;
mod name;
mod recovering;

pub use self::challenge::{Challenge, ChallengeError};
pub use self::code::{LinkCode, LinkCodeError};
pub use self::joining::{JoiningError, Newcomer, join_request, joined};
pub(crate) use self::name::is_name;
pub use self::name::{DeviceName, DeviceNameError};
pub use self::recovering::{RecoverBy, RecoveryKey};
