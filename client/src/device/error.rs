//! What can go wrong for a device.

use rossby_domain::chain::{ChainError, LinkRefusal};
use rossby_domain::ids::BoxId;
use rossby_domain::time::Timestamp;
use rossby_seams::random::RandomError;

use crate::connection::{AddressError, CallError};
use crate::crypto::kem::KemError;
use crate::envelope::{ContentError, SealError};
use crate::group::GroupError;
use crate::identity::IdentityError;
use crate::linking::JoiningError;
use crate::registering::RegisteringError;
use crate::store::{StoreError, WhatChanged};

/// What can go wrong for a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The call did not succeed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A server's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No server is known.
    #[error("no server is known")]
    NoServer,
    /// The device has no box yet.
    #[error("this device is not registered yet")]
    NotRegistered,
    /// The identifier is still to be proven.
    #[error("this device is not authorised yet")]
    NotAuthorised,
    /// The device belongs to no box yet.
    #[error("this device waits to be linked to a box")]
    NotLinked,
    /// There is no such device in this box.
    #[error("this box has no such device")]
    NoSuchDevice,
    /// There is no such identifier in this box.
    #[error("this box has no such phone or email")]
    NoSuchIdentifier,
    /// A device belongs to this box already.
    #[error("this device belongs to this box already")]
    LinkedAlready,
    /// The box's chain does not allow a link.
    #[error("the box's identity chain does not allow this: {0}")]
    LinkRefused(LinkRefusal),
    /// The recovery key is not on this device.
    #[error("the recovery key is not on this device")]
    NoRecoveryKey,
    /// What was given is another box's recovery key.
    #[error("this is not the recovery key of this box")]
    NotTheRecoveryKey,
    /// What only the box's own devices say to each other.
    #[error("this kind of content is for the box's own devices only")]
    NotForOthers,
    /// The service's answer to a device that asks for its place can not be believed.
    #[error(transparent)]
    Joining(#[from] JoiningError),
    /// The device has a box, and it stays the only one.
    #[error("this device is registered already")]
    AlreadyRegistered,
    /// The identifier is proven, and comes to this box at this time, by the service's clock, unless a device of the box
    /// that has it says no.
    #[error("the phone or email is proven, and comes to this box once the delay is over")]
    ResetWaits(Timestamp),
    /// No other box is to get this identifier.
    #[error("nobody else is about to get this phone or email")]
    NotContested,
    /// Nobody can be found there.
    #[error("no such user")]
    NoUser,
    /// A contact's identity is not the one that was known before. Nothing was sent.
    #[error("the identity of box {box_id} is not the one known before: {what}")]
    IdentityChanged {
        /// The contact.
        box_id: BoxId,
        /// What does not fit.
        what: &'static str,
    },
    /// An identifier now leads to another identity than it did.
    #[error("this identifier belonged to box {known} and now belongs to box {found}")]
    IdentifierMoved {
        /// The box it belonged to.
        known: BoxId,
        /// The box it belongs to now.
        found: BoxId,
    },
    /// The identity of a contact who was verified has changed, and this device's owner has not dealt
    /// with that yet ([`super::Device::verify`], [`super::Device::accept_change`]). Nothing was sent.
    #[error(
        "the identity of box {box_id}, which was verified, is not the one known before: {what}"
    )]
    NotConfirmed {
        /// The contact.
        box_id: BoxId,
        /// What has changed.
        what: WhatChanged,
    },
    /// What was given is no safety number.
    #[error("a safety number has 60 digits")]
    NotASafetyNumber,
    /// The safety number is another than that of the contact.
    #[error("this is not the safety number with box {0}")]
    SafetyNumberDiffers(BoxId),
    /// There is no such message on this device.
    #[error("there is no such message")]
    NoMessage,
    /// Only who wrote a message can change it or take it back.
    #[error("only who wrote a message can change it")]
    NotTheAuthor,
    /// They were not added, or are blocked.
    #[error(
        "they are not one of your contacts, or you have blocked them: add them, or lift the block, first"
    )]
    NotAContact,
    /// That can not be done with this message.
    #[error("that can't be done with this message: {0}")]
    Unfit(&'static str),
    /// That can not be done with this group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The service's answer contradicts itself or what was asked.
    #[error("the service's answer can not be true: {0}")]
    Untrue(&'static str),
    /// A key record does not verify.
    #[error("a key record does not verify: {0}")]
    Chain(#[from] ChainError),
    /// The token could not be opened.
    #[error("the token can not be opened: {0}")]
    Token(#[source] KemError),
    /// The content could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The keys could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the store holds makes no sense.
    #[error("the device's {0} is damaged")]
    Damaged(&'static str),
}

impl From<ContentError> for DeviceError {
    fn from(error: ContentError) -> Self {
        Self::Seal(SealError::Content(error))
    }
}

impl From<RegisteringError> for DeviceError {
    fn from(error: RegisteringError) -> Self {
        match error {
            RegisteringError::NotWhole => Self::Damaged("identity"),
            RegisteringError::NotOurBox => Self::Untrue("the box is not of this device's identity"),
            RegisteringError::Token(error) => Self::Token(error),
        }
    }
}

impl From<RandomError> for DeviceError {
    fn from(error: RandomError) -> Self {
        Self::Call(CallError::Random(error))
    }
}

impl DeviceError {
    /// Whether the same, later, may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Call(error) if error.may_pass())
    }

    /// Whether the service could not be reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        let unreachable = |error: &CallError| {
            matches!(
                error,
                CallError::Unavailable(_)
                    | CallError::NotTheService(_)
                    | CallError::OutcomeUnknown(_)
            )
        };
        matches!(self, Self::Call(error) if unreachable(error))
    }
}
