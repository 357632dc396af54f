//! The steps of a reset ([`crate::contest`]), each in one partition.
//!
//! ```text
//!   identifier's directory      old box        new box
//!   OpenReset (a code)
//!   ProveReset ───────────────► NoteReset ───► AwaitReset
//!   StartReset ◄────────────────────────────────────┘
//!   OpenReset, ProveReset, after the delay ──► ActivateBox
//!        └────────────────────► LoseIdentifier
//!   VetoReset ────────────────► ForgetReset
//! ```

use serde::{Deserialize, Serialize};

use super::open_claim::{OpenClaim, remove_pending};
use super::verify_claim::checked;
use super::{Outcome, Reply, intent};
use crate::claim::{Claim, CodeMac, PendingClaim};
use crate::contest::{Contest, Former, Reset, ResetNote, Veto};
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::planted::{Bug, planted};
use crate::profile::Profile;
use crate::rejection::Rejection;
use crate::tables::{InboxKey, Meta, Tables};
use crate::time::Timestamp;

/// A pending claim like any other, but for an identifier that may be another box's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReset(
    /// The claim.
    pub OpenClaim,
);

impl OpenReset {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        self.0.open(tables, meta)
    }
}

/// Checks a code, as [`super::VerifyClaim`] does. An identifier that is free, or the box's own, is given to it; that of
/// another box only by a reset: the right code begins it, and ends that of any other box; another right code after
/// the delay completes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it, which is not active yet.
    pub box_id: BoxId,
    /// The keyed hash of the code that the person typed.
    pub code: CodeMac,
}

impl ProveReset {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
        may_expire: bool,
    ) -> Result<Reply, T::Error> {
        let key = InboxKey::Identifier(self.identifier);
        let Some(claim) = tables.claim(&key)?.filter(|it| it.box_id != self.box_id) else {
            let verify = super::VerifyClaim {
                identifier: self.identifier,
                box_id: self.box_id,
                code: self.code,
            };
            return verify.execute(tables, meta);
        };
        let now = meta.expiry_clock;
        let reset = claim.contest.reset.clone();
        let own = reset.filter(|reset| reset.is_alive(now) && reset.box_id == self.box_id);
        let is_retry = |own: &&Reset| own.code == self.code && !own.is_over(now);
        if let Some(own) = own.as_ref().filter(is_retry) {
            return Ok(Ok(waits(&claim, own)));
        }
        let pending = match checked(tables, meta, &self.identifier, &self.box_id, self.code)? {
            Ok(pending) => pending,
            Err(rejection) => return Ok(Err(self.refusal(&claim, rejection))),
        };
        // The code stays good for a later try.
        if !may_expire {
            return Ok(Err(Rejection::ClockInDoubt));
        }
        if let Some(veto) = claim.contest.veto.filter(|veto| now < veto.until) {
            let retry_at = veto.until;
            return Ok(Err(Rejection::ResetVetoed { retry_at }));
        }
        match own {
            Some(own) if own.is_over(now) => self.complete(tables, meta, &claim, &pending),
            own => self.begin(tables, meta, claim, own, &pending),
        }
    }

    /// Why the code counts for nothing; who was refused for the owner's "no" is told so.
    fn refusal(&self, claim: &Claim, rejection: Rejection) -> Rejection {
        let vetoed = claim.contest.veto;
        let vetoed = vetoed.filter(|veto| veto.box_id == self.box_id);
        match (rejection, vetoed) {
            (Rejection::NoCodeRequested, Some(veto)) => Rejection::ResetVetoed {
                retry_at: veto.until,
            },
            (rejection, _) => rejection,
        }
    }

    /// Begins a reset, in the place of another box's, or gives the one that the box has begun another code.
    fn begin<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
        mut claim: Claim,
        own: Option<Reset>,
        pending: &PendingClaim,
    ) -> Result<Reply, T::Error> {
        let (code, discoverable) = (self.code, pending.discoverable);
        let reset = match own {
            Some(own) => Reset {
                code,
                discoverable,
                ..own
            },
            None => Reset::proven(
                (self.box_id, meta.next_generation()),
                (code, discoverable),
                meta.expiry_clock,
                meta.limits.reset_delay_ms,
            ),
        };
        let outcome = waits(&claim, &reset);
        claim.contest.reset = Some(reset);
        put(tables, &self.identifier, &claim)?;
        remove_pending(tables, &self.identifier, &self.box_id, pending)?;
        Ok(Ok(outcome))
    }

    /// Moves the identifier.
    fn complete<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
        claim: &Claim,
        pending: &PendingClaim,
    ) -> Result<Reply, T::Error> {
        let generation = meta.next_generation();
        let moved = Claim {
            box_id: self.box_id,
            generation,
            discoverable: pending.discoverable,
            code: Some(self.code),
            contest: Contest {
                former: Some(Former {
                    box_id: claim.box_id,
                    generation: claim.generation,
                }),
                ..Contest::default()
            },
        };
        put(tables, &self.identifier, &moved)?;
        remove_pending(tables, &self.identifier, &self.box_id, pending)?;
        // It will not list the identifier any more: a code that it has still is for nothing.
        if let Some(former) = tables.pending_claim(&self.identifier, &claim.box_id)? {
            remove_pending(tables, &self.identifier, &claim.box_id, &former)?;
        }
        Ok(Ok(Outcome::ClaimVerified { generation }))
    }
}

fn waits(claim: &Claim, reset: &Reset) -> Outcome {
    Outcome::ResetWaits {
        owner: claim.box_id,
        note: reset.note(),
        started: reset.started,
    }
}

/// Puts a claim in the place of the one that is there.
pub(super) fn put<T: Tables>(
    tables: &mut T,
    identifier: &IdentifierHash,
    claim: &Claim,
) -> Result<(), T::Error> {
    let key = InboxKey::Identifier(*identifier);
    tables.delete_claim(&key)?;
    tables.insert_claim(&key, claim)
}

/// The old box has the word: from now on it can be completed, once its delay is over. The same again changes nothing. One
/// whose owner was told too late, or which another has taken the place of, is refused, and proven anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that is to get it.
    pub box_id: BoxId,
    /// Names the reset.
    pub serial: u64,
}

impl StartReset {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &Meta,
        may_expire: bool,
    ) -> Result<Reply, T::Error> {
        let claim = tables.claim(&InboxKey::Identifier(self.identifier))?;
        let Some(mut claim) = claim else {
            return Ok(Err(Rejection::NoCodeRequested));
        };
        let meant = |reset: &Reset| {
            (reset.box_id, reset.serial) == (self.box_id, self.serial)
                && reset.is_alive(meta.expiry_clock)
        };
        let Some(mut reset) = claim.contest.reset.take().filter(meant) else {
            return Ok(Err(Rejection::NoCodeRequested));
        };
        if reset.started {
            return Ok(Ok(waits(&claim, &reset)));
        }
        if !may_expire {
            return Ok(Err(Rejection::ClockInDoubt));
        }
        reset.started = true;
        let outcome = waits(&claim, &reset);
        claim.contest.reset = Some(reset);
        put(tables, &self.identifier, &claim)?;
        Ok(Ok(outcome))
    }
}

/// The owner says no: the reset is over, and none begins for a while. The same again changes nothing. It counts also
/// while the clock is in doubt; the pause is shorter then by as much as that lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VetoReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that has it, one of whose devices signed the request.
    pub box_id: BoxId,
    /// Names the reset.
    pub serial: u64,
}

impl VetoReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let claim = tables.claim(&InboxKey::Identifier(self.identifier))?;
        let Some(mut claim) = claim.filter(|claim| claim.box_id == self.box_id) else {
            // Too late, or given up since.
            return Ok(Err(Rejection::IdentifierChanged));
        };
        let reset = claim.contest.reset.as_ref();
        if let Some(reset) = reset.filter(|reset| reset.serial == self.serial) {
            let earlier = claim.contest.veto.as_ref();
            let (now, pause_ms) = (meta.expiry_clock, meta.limits.reset_delay_ms);
            let veto = Veto::after(earlier, reset.box_id, now, pause_ms);
            claim.contest.veto = Some(veto);
            claim.contest.reset = None;
            put(tables, &self.identifier, &claim)?;
        }
        Ok(Ok(Outcome::ResetVetoed))
    }
}

/// Tells a box that one of its identifiers is to go, whether it is active yet or not. One that does not list it can
/// not be told, and then it does not go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteReset {
    /// The box.
    pub box_id: BoxId,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// What it is told.
    pub note: ResetNote,
}

impl NoteReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        let is_there =
            |profile: &Profile| !profile.deleted && profile.identifier(&self.identifier).is_some();
        let Some(mut profile) = profile.filter(is_there) else {
            return Ok(Err(Rejection::OwnerNotTold));
        };
        let known = profile.resets.get(&self.identifier);
        let is_later = known.is_none_or(|known| known.serial < self.note.serial);
        if is_later && !planted(Bug::ResetUntold) {
            profile.resets.insert(self.identifier, self.note);
            tables.put_profile(&self.box_id, &profile)?;
        }
        Ok(Ok(Outcome::ResetNoted))
    }
}

/// Takes back what a box was told of a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetReset {
    /// The box.
    pub box_id: BoxId,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// Names the reset.
    pub serial: u64,
}

impl ForgetReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let Some(mut profile) = tables.profile(&self.box_id)? else {
            return Ok(Ok(Outcome::ResetNoted));
        };
        let known = profile.resets.get(&self.identifier);
        if known.is_some_and(|known| known.serial == self.serial) {
            profile.resets.remove(&self.identifier);
            tables.put_profile(&self.box_id, &profile)?;
        }
        Ok(Ok(Outcome::ResetNoted))
    }
}

/// Keeps a box that is not authorised yet for as long as it may have to wait for its identifier. One that is gets
/// nothing by a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitReset {
    /// The box.
    pub box_id: BoxId,
    /// Until then.
    pub until: Timestamp,
}

impl AwaitReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?.filter(|it| !it.deleted);
        let Some(profile) = profile else {
            return Ok(Err(Rejection::UnknownBox));
        };
        if profile.active {
            return Ok(Err(Rejection::IdentifierTaken));
        }
        let Some(device) = profile.devices.keys().next() else {
            return Ok(Err(Rejection::UnknownBox));
        };
        intent::open_until(tables, &self.box_id, *device, self.until)?;
        Ok(Ok(Outcome::ResetNoted))
    }
}

/// Takes from a box's list what the directory has given to another box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoseIdentifier {
    /// The box.
    pub box_id: BoxId,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The generation of the claim that it had.
    pub generation: u64,
}

impl LoseIdentifier {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let before = tables.profile(&self.box_id)?;
        let Some(before) = before.filter(|profile| !profile.deleted) else {
            return Ok(Ok(Outcome::IdentifierRemoved));
        };
        let mut profile = before.clone();
        let listed = profile.identifier(&self.identifier);
        let named = listed.and_then(|listed| listed.generation);
        if named.is_some_and(|named| named <= self.generation) {
            let identifiers = &mut profile.identifiers;
            identifiers.retain(|known| known.hash != self.identifier);
            profile.leaving.remove(&self.identifier);
            profile.resets.remove(&self.identifier);
        }
        if profile != before {
            tables.put_profile(&self.box_id, &profile)?;
            if profile.is_settled() {
                intent::close(tables, &self.box_id)?;
            }
        }
        Ok(Ok(Outcome::IdentifierRemoved))
    }
}
