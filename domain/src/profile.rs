//! Profiles: the state of messaging of a box.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::contest::ResetNote;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceId, Sequence};
use crate::limits::Limits;
use crate::planted::{Bug, planted};
use crate::tables::Meta;
use crate::time::Timestamp;

/// The most bytes of a sealed profile.
pub const MAX_SEALED_PROFILE_BYTES: usize = 41 * 1024;
/// How far above the last the version of a profile may be.
pub const MAX_PROFILE_STEP: u64 = 1 << 20;

/// What a person shows of themselves to those whom they have given the key. The service can't read it. It stands in a row of its
/// own: no send reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedProfile {
    /// Its version, which rises.
    pub version: u64,
    /// The ciphertext.
    pub sealed: Bytes,
}

/// Identifiers that a profile may list.
pub const MAX_IDENTIFIERS: usize = 8;

/// A device of a box, as the server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Whether it may use the box.
    pub authorised: bool,
    /// The last sequence that it acknowledged. Never goes back.
    pub cursor: Sequence,
    /// The generation of its token; the token itself is derived, never stored.
    pub token_generation: u64,
}

impl DeviceState {
    /// This device with a token that is accepted: the one it has, or the next, if that was refused for
    /// good when the state was restored.
    pub(crate) fn let_in(self, meta: &Meta) -> Self {
        let is_refused = self.token_generation <= meta.restored.refused_tokens;
        Self {
            token_generation: if is_refused {
                meta.token_after(self.token_generation)
            } else {
                self.token_generation
            },
            ..self
        }
    }
}

/// An identifier of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileIdentifier {
    /// Its keyed hash.
    pub hash: IdentifierHash,
    /// The generation of the verified claim; `None` while it is pending.
    pub generation: Option<u64>,
    /// The identifier, sealed under the cluster's seal key.
    pub sealed: Bytes,
    /// Whether others may find the box by it.
    pub discoverable: bool,
}

impl ProfileIdentifier {
    /// The generation of the verified claim, and 0, which none has, while it is pending.
    #[must_use]
    pub fn named_generation(&self) -> u64 {
        self.generation.unwrap_or_default()
    }
}

/// The state of messaging of a box.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Whether the box is authorised; until then only its registration may touch it.
    pub active: bool,
    /// Its identifiers.
    pub identifiers: Vec<ProfileIdentifier>,
    /// Its devices.
    pub devices: BTreeMap<DeviceId, DeviceState>,
    /// Boxes that can't send to it, nor see it.
    pub blocked: BTreeSet<BoxId>,
    /// Those of its identifiers that are on their way out: to be released in the directory, then dropped here.
    pub leaving: BTreeSet<IdentifierHash>,
    /// Its contacts, if only they may send to it and see it; `None` for anyone.
    pub allowed: Option<BTreeSet<BoxId>>,
    /// The longest that an envelope may wait in it, in milliseconds, if its owner wants it shorter than the cluster does.
    pub longest_ttl_ms: Option<u64>,
    /// Whether the operator lets it send nothing.
    pub suspended: bool,
    /// The number of the last statement of how long envelopes may wait; 0 if there was none.
    pub ttl_number: u64,
    /// Whether it was deleted. Nothing of it is left then but identifiers that are not released yet, and no other
    /// box of its id ever comes.
    pub deleted: bool,
    /// Those of its identifiers that are to go to another box, unless one of its devices says no.
    pub resets: BTreeMap<IdentifierHash, ResetNote>,
}

impl Profile {
    /// A device that may use the box now: the box is active and the device authorised.
    #[must_use]
    pub fn authorised_device(&self, device: &DeviceId) -> Option<&DeviceState> {
        let device = self.devices.get(device)?;
        (self.active && device.authorised).then_some(device)
    }

    /// Whether this is the only device that may use the box.
    pub(crate) fn is_last_device(&self, device: &DeviceId) -> bool {
        let mut others = self.devices.iter();
        !others.any(|(other, state)| other != device && state.authorised)
    }

    /// Whether the box, which is `own`, takes envelopes from that one.
    #[must_use]
    pub fn receives_from(&self, own: &BoxId, sender: &BoxId) -> bool {
        let is_heard = |contacts: &BTreeSet<BoxId>| sender == own || contacts.contains(sender);
        let is_blocked = self.blocked.contains(sender) && !planted(Bug::BlockIgnored);
        self.active && !is_blocked && self.allowed.as_ref().is_none_or(is_heard)
    }

    /// How long an envelope may wait in the box, in milliseconds.
    #[must_use]
    pub fn ttl_ms(&self, limits: &Limits) -> u64 {
        let wanted = self.longest_ttl_ms.unwrap_or(u64::MAX);
        wanted.min(limits.envelope_ttl_ms)
    }

    /// An identifier that the box lists.
    #[must_use]
    pub fn identifier(&self, hash: &IdentifierHash) -> Option<&ProfileIdentifier> {
        self.identifiers.iter().find(|known| known.hash == *hash)
    }

    /// When the first of its identifiers goes to another box, unless one of its devices says no.
    #[must_use]
    pub fn first_reset(&self, now: Timestamp) -> Option<Timestamp> {
        let resets = self.resets.values().filter(|note| note.stands(now));
        resets.map(|note| note.completes_at).min()
    }

    /// Identifiers that are not verified yet.
    pub(crate) fn unverified(&self) -> impl Iterator<Item = IdentifierHash> + '_ {
        let unverified = self.identifiers.iter();
        let unverified = unverified.filter(|known| known.generation.is_none());
        unverified
            .map(|known| known.hash)
            .filter(|hash| !self.leaving.contains(hash))
    }

    /// Whether no identifier is on its way in or out.
    pub(crate) fn is_settled(&self) -> bool {
        self.leaving.is_empty() && self.unverified().next().is_none()
    }

    /// Lets go of what is not verified; whether there is any.
    pub(crate) fn leave_unverified(&mut self) -> bool {
        let unverified: Vec<_> = self.unverified().collect();
        let found = !unverified.is_empty();
        self.leaving.extend(unverified);
        found
    }

    /// Whether this is the only verified identifier that stays.
    pub(crate) fn is_last_identifier(&self, hash: &IdentifierHash) -> bool {
        let stays = |known: &&ProfileIdentifier| {
            known.generation.is_some() && !self.leaving.contains(&known.hash)
        };
        let mut staying = self.identifiers.iter().filter(stays);
        staying.next().is_some_and(|known| known.hash == *hash) && staying.next().is_none()
    }

    /// Lists an identifier that is to be verified. An earlier try at the same one is replaced, but
    /// never the generation of a verified one. When the list is full, the oldest unverified one
    /// goes; listing it again brings it back.
    pub(crate) fn put_pending_identifier(&mut self, mut identifier: ProfileIdentifier) {
        let mut known = self.identifiers.iter();
        if let Some(index) = known.position(|known| known.hash == identifier.hash) {
            identifier.generation = self.identifiers.remove(index).generation;
        } else if self.identifiers.len() >= MAX_IDENTIFIERS {
            let oldest = self.unverified().next();
            self.identifiers.retain(|known| Some(known.hash) != oldest);
        }
        self.identifiers.push(identifier);
    }

    /// The sequence up to which every authorised device has acknowledged; `None` without devices.
    #[must_use]
    pub fn acknowledged_by_all(&self) -> Option<Sequence> {
        self.devices
            .values()
            .filter(|device| device.authorised)
            .map(|device| device.cursor)
            .min()
    }
}

/// The intent row of a half-done registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The device that registers.
    pub device: DeviceId,
    /// When the box is dropped if it is still not authorised.
    pub expires_at: Timestamp,
}
