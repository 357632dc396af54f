//! The steps of a reset ([`crate::contest`]), each in one partition.
//!
//! ```text
//!   identifier's directory      old box        new box
//!   OpenReset (a code)
//!   ProveReset ───────────────► NoteReset ───► AwaitReset
//!   StartReset ◄────────────────────────────────────┘
//!   ProveReset, after the delay ► LoseIdentifier ► ActivateBox
//!   VetoReset ────────────────► ForgetReset
//! ```

use serde::{Deserialize, Serialize};

use super::open_claim::{OpenClaim, remove_pending};
use super::verify_claim::checked;
use super::{Outcome, Reply, intent};
use crate::claim::{Claim, CodeMac, PendingClaim};
use crate::contest::{Contest, Former, Reset, ResetNote, Veto, lapses_at, longest_ms};
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
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
/// another box only by a reset, which the right code begins, and the same code completes after the delay.
///
/// The time that counts is that by which mail expires: a clock that jumped shortens no delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it.
    pub box_id: BoxId,
    /// The keyed hash of the code that the person typed.
    pub code: CodeMac,
    /// The delay of a reset that begins with this.
    pub delay_ms: u64,
}

impl ProveReset {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
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
        let reset = claim.contest.reset.as_ref();
        let alive = reset.filter(|reset| reset.is_alive(meta.expiry_clock));
        let own = alive.filter(|reset| reset.box_id == self.box_id);
        if let Some(own) = own.filter(|own| own.code == self.code) {
            let is_over = own.completes_at.is_some_and(|at| at <= meta.expiry_clock);
            return if is_over {
                let moved = own.clone();
                self.complete(tables, meta, &claim, moved)
            } else {
                Ok(Ok(waits(&claim, own)))
            };
        }
        let pending = match checked(tables, meta, &self.identifier, &self.box_id, self.code)? {
            Ok(pending) => pending,
            Err(Rejection::NoCodeRequested) => {
                let vetoed = claim.contest.veto;
                let vetoed = vetoed.filter(|veto| veto.box_id == self.box_id);
                return Ok(Err(vetoed.map_or(Rejection::NoCodeRequested, |veto| {
                    Rejection::ResetVetoed {
                        retry_at: veto.until,
                    }
                })));
            }
            Err(rejection) => return Ok(Err(rejection)),
        };
        let own = own.cloned();
        if let Some(other) = alive.filter(|_| own.is_none()) {
            let retry_at = other.lapses_at;
            return Ok(Err(Rejection::ResetUnderWay { retry_at }));
        }
        if let Some(veto) = claim.contest.veto.filter(|veto| meta.clock < veto.until) {
            let retry_at = veto.until;
            return Ok(Err(Rejection::ResetVetoed { retry_at }));
        }
        self.begin(tables, meta, claim, own, &pending)
    }

    /// Begins a reset, or gives the one that the box has begun another code.
    fn begin<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
        mut claim: Claim,
        own: Option<Reset>,
        pending: &PendingClaim,
    ) -> Result<Reply, T::Error> {
        let reset = own.unwrap_or_else(|| Reset {
            box_id: self.box_id,
            serial: meta.next_generation(),
            code: self.code,
            discoverable: pending.discoverable,
            completes_at: None,
            lapses_at: meta.clock.plus_millis(longest_ms(self.delay_ms)),
        });
        let reset = Reset {
            code: self.code,
            discoverable: pending.discoverable,
            ..reset
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
        reset: Reset,
    ) -> Result<Reply, T::Error> {
        let generation = meta.next_generation();
        let moved = Claim {
            box_id: self.box_id,
            generation,
            discoverable: reset.discoverable,
            code: Some(reset.code),
            contest: Contest {
                former: Some(Former {
                    box_id: claim.box_id,
                    generation: claim.generation,
                }),
                ..Contest::default()
            },
        };
        put(tables, &self.identifier, &moved)?;
        Ok(Ok(Outcome::ClaimVerified { generation }))
    }
}

fn waits(claim: &Claim, reset: &Reset) -> Outcome {
    Outcome::ResetWaits {
        owner: claim.box_id,
        serial: reset.serial,
        completes_at: reset.completes_at,
    }
}

/// Puts a claim in the place of the one that is there.
fn put<T: Tables>(
    tables: &mut T,
    identifier: &IdentifierHash,
    claim: &Claim,
) -> Result<(), T::Error> {
    let key = InboxKey::Identifier(*identifier);
    tables.delete_claim(&key)?;
    tables.insert_claim(&key, claim)
}

/// The old box has the word: from now on the delay runs. The same again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that is to get it.
    pub box_id: BoxId,
    /// Names the reset.
    pub serial: u64,
    /// The delay.
    pub delay_ms: u64,
}

impl StartReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let claim = tables.claim(&InboxKey::Identifier(self.identifier))?;
        let Some(mut claim) = claim else {
            return Ok(Err(Rejection::NoCodeRequested));
        };
        let reset = claim.contest.reset.take();
        let meant = |reset: &Reset| {
            (reset.box_id, reset.serial) == (self.box_id, self.serial)
                && reset.is_alive(meta.expiry_clock)
        };
        let Some(mut reset) = reset.filter(meant) else {
            return Ok(Err(Rejection::NoCodeRequested));
        };
        let is_new = reset.completes_at.is_none();
        if is_new {
            let completes_at = meta.clock.plus_millis(self.delay_ms);
            reset.completes_at = Some(completes_at);
            reset.lapses_at = lapses_at(completes_at, self.delay_ms);
        }
        let outcome = waits(&claim, &reset);
        claim.contest.reset = Some(reset);
        if is_new {
            put(tables, &self.identifier, &claim)?;
        }
        Ok(Ok(outcome))
    }
}

/// The owner says no: the reset is over, and none begins for a while. The same again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VetoReset {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that has it, one of whose devices signed the request.
    pub box_id: BoxId,
    /// Names the reset.
    pub serial: u64,
    /// The pause after the first "no".
    pub pause_ms: u64,
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
            let veto = Veto::after(earlier, reset.box_id, meta.clock, self.pause_ms);
            claim.contest.veto = Some(veto);
            claim.contest.reset = None;
            put(tables, &self.identifier, &claim)?;
        }
        Ok(Ok(Outcome::ResetVetoed))
    }
}

/// Tells a box that one of its identifiers is to go. One that is not there has nothing to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteReset {
    /// The box.
    pub box_id: BoxId,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// Names the reset.
    pub serial: u64,
    /// The delay.
    pub delay_ms: u64,
}

impl NoteReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?.filter(|it| it.active);
        let Some(mut profile) = profile else {
            return Ok(Ok(Outcome::ResetNoted));
        };
        let known = profile.resets.get(&self.identifier);
        let is_new = known.is_none_or(|known| known.serial < self.serial);
        if is_new && profile.identifier(&self.identifier).is_some() {
            let completes_at = meta.clock.plus_millis(self.delay_ms);
            let note = ResetNote {
                serial: self.serial,
                completes_at,
                lapses_at: lapses_at(completes_at, self.delay_ms),
            };
            profile.resets.insert(self.identifier, note);
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
        if known.is_some_and(|known| known.serial <= self.serial) {
            profile.resets.remove(&self.identifier);
            tables.put_profile(&self.box_id, &profile)?;
        }
        Ok(Ok(Outcome::ResetNoted))
    }
}

/// Keeps a box that is not authorised yet for as long as it may have to wait for its identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitReset {
    /// The box.
    pub box_id: BoxId,
    /// For how long.
    pub keep_ms: u64,
}

impl AwaitReset {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let Some(known) = tables.intent(&self.box_id)? else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let until: Timestamp = meta.clock.plus_millis(self.keep_ms);
        intent::open_until(tables, &self.box_id, known.device, until)?;
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
