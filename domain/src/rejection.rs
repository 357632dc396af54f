//! Rejections: the deterministic "no" of apply.
//!
//! A rejection is an outcome, not an error: every replica reaches the same one, it is final for
//! this command, and it changed nothing (but for a wrong code, which uses up an attempt).
//! Variants stand in order of precedence: where several hold, the first is answered.

use serde::{Deserialize, Serialize};

use crate::chain::LinkRefusal;
use crate::ids::{Counter, Epoch, MapVersion, Sequence};
use crate::placement::{AdmissionRefusal, PlacementRefusal};
use crate::time::Timestamp;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// This group does not own the partition at the epoch that the command names.
    #[error("partition is not owned here at that epoch")]
    NotOwner {
        /// The epoch this group last owned the partition at; `None` if never.
        owned: Option<Epoch>,
    },

    // Registration.
    /// The device's public key already belongs to an authorised box.
    #[error("this public key is already registered")]
    KeyAlreadyRegistered,
    /// The identifier is verified for another box. Told at Register only when the identifier is
    /// discoverable, and otherwise after the right code.
    #[error("this identifier already belongs to a box; link devices instead")]
    IdentifierTaken,
    /// Too many codes were asked for; the next may be asked for at this time.
    #[error("too many verification codes were requested")]
    TooManyCodes {
        /// When a code may be requested again.
        retry_at: Timestamp,
    },
    /// The code that was asked for could not be sent, so there is none to wait for.
    #[error("the verification code could not be sent")]
    CodeNotSent {
        /// Whether the courier goes on trying.
        trying: bool,
        /// When another code may be requested, if one was requested too early.
        retry_at: Option<Timestamp>,
    },
    /// No code is waiting for this identifier and box.
    #[error("no verification code was requested")]
    NoCodeRequested,
    /// The code's life is over; ask for another.
    #[error("the verification code has expired")]
    CodeExpired,
    /// All attempts at this code are used up; ask for another.
    #[error("too many wrong verification codes")]
    CodeExhausted,
    /// Not the code. The attempt counts.
    #[error("wrong verification code")]
    WrongCode {
        /// How many attempts are left.
        attempts_left: u8,
    },

    // Boxes and devices.
    /// No such box, or not one that this caller may see. Also the answer to a blocked sender, and to one that is no
    /// contact of a box that takes contacts only.
    #[error("no such box")]
    UnknownBox,
    /// The box has no such device, or it is not authorised.
    #[error("no such device")]
    UnknownDevice,
    /// A KEM key does not come under a counter above the device's current one, or stands for another
    /// key than the one that came under it.
    #[error("this key counter was used before")]
    KeyCounterUsed {
        /// The counter of the device's current key.
        current: u64,
    },
    /// A KEM key is not signed by its device, or a link not by its signer.
    #[error("a key or a link is not signed by its device")]
    BadKeySignature,
    /// The list of blocked boxes is full.
    #[error("too many blocked boxes")]
    TooManyBlocked {
        /// The most that a box may block.
        limit: u32,
    },

    // Envelopes. The counter is judged before the envelope: see `command::Enqueue` for why.
    /// The counter was used for another text. Nothing was stored under it now.
    #[error("this envelope counter was used for another envelope")]
    CounterReused {
        /// The lowest counter that is free.
        next: Counter,
    },
    /// The counter was passed over: its envelope was not and never will be stored.
    #[error("this envelope was not accepted, and its counter has been passed over")]
    NotAccepted {
        /// The lowest counter that is free.
        next: Counter,
    },
    /// The counter is older than what the box remembers: the envelope may have been stored.
    #[error("this envelope counter is too old to tell whether it was stored")]
    CounterForgotten {
        /// The lowest counter that is free.
        next: Counter,
    },
    /// The body is larger than an envelope may be.
    #[error("envelope too large")]
    EnvelopeTooLarge {
        /// The most bytes that a body may have.
        limit_bytes: u32,
    },
    /// The envelope was sealed for another version of the recipient's chain.
    #[error("the recipient's key record has changed")]
    StaleKeyRecord {
        /// The current chain version.
        current: u64,
    },
    /// The sender holds its whole share of the queue.
    #[error("the recipient's queue holds too much from this sender")]
    SenderShareFull,
    /// The queue is full.
    #[error("the recipient's queue is full")]
    QueueFull,
    /// An acknowledgement of what was never enqueued.
    #[error("cannot acknowledge beyond the end of the queue")]
    BeyondQueue {
        /// The highest sequence that can be acknowledged.
        last: Sequence,
    },

    // The cluster map.
    /// The map has changed since whoever asks looked at it. Look again.
    #[error("the cluster map has changed: its version is {current} now")]
    MapChanged {
        /// The version of the map now.
        current: MapVersion,
    },
    /// The change makes no map.
    #[error("the cluster map can't be changed so: {0}")]
    PlacementRefused(PlacementRefusal),
    /// No token is issued, or no node let in.
    #[error("{0}")]
    AdmissionRefused(AdmissionRefusal),

    // The devices of a box.
    /// The chain does not allow the link.
    #[error("the identity chain does not allow this: {0}")]
    LinkRefused(LinkRefusal),
    /// The link was signed over another chain than the box has now.
    #[error("the box's identity chain has changed")]
    ChainChanged {
        /// Its version now.
        current: u64,
    },
    /// A link has removed the device.
    #[error("this device was removed from its box")]
    DeviceRevoked,

    // The identifiers of a box.
    /// The box lists as many identifiers as it may.
    #[error("the box has too many identifiers")]
    TooManyIdentifiers {
        /// The most that a box may list.
        limit: u32,
    },
    /// The only verified identifier of the box.
    #[error("a box keeps one verified identifier")]
    LastIdentifier,
    /// The box lists the identifier under another generation.
    #[error("the identifier was verified or added again meanwhile")]
    IdentifierChanged,

    // From whom a box takes envelopes.
    /// The list of contacts is full.
    #[error("too many contacts")]
    TooManyAllowed {
        /// The most that a box may have.
        limit: u32,
    },

    // Boxes that were.
    /// The device's box was deleted. Only one of its devices is told.
    #[error("this box was deleted")]
    BoxDeleted,

    // Resets. Told only to who has given the right code.
    /// The box that has the identifier does not list it just now, so that it could not be told.
    #[error("the box that has this identifier can not be told of it now")]
    OwnerNotTold,
    /// The leader doubts its clock: what counts time does not begin, and does not end.
    #[error("the service's clock is in doubt")]
    ClockInDoubt,
    /// The box that has the identifier keeps it.
    #[error("the devices of the box that has this identifier keep it")]
    ResetVetoed {
        /// When a reset may begin again.
        retry_at: Timestamp,
    },

    // What a person shows of themselves.
    /// The profile does not come under a version above the current one's, or far above it.
    #[error("this profile version was used before, or is far above the current one")]
    ProfileVersionUsed {
        /// The current version.
        current: u64,
    },
    /// The sealed profile is larger than one may be.
    #[error("profile too large")]
    ProfileTooLarge {
        /// The most bytes that it may have.
        limit_bytes: u32,
    },

    // How long envelopes may wait.
    /// A statement of it does not have the number after the last one's.
    #[error("how long mail may wait was set meanwhile, or this statement was used before")]
    TtlNumberUsed {
        /// The number of the last one.
        current: u64,
    },
}
