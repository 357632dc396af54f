//! Authorize, step 1: the code.

use serde::{Deserialize, Serialize};

use super::open_claim::remove_pending;
use super::{Outcome, Reply};
use crate::claim::{Claim, CodeMac, PendingClaim};
use crate::contest::Contest;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::{InboxKey, Meta, Tables};

/// Checks a code and, in the same step, gives the identifier to the box if nobody has it.
/// The same right code again gets the same outcome. Only a wrong code uses up an attempt: an expired
/// or exhausted one takes nothing, and so does the right one for an identifier that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyClaim {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it.
    pub box_id: BoxId,
    /// The keyed hash of the code that the person typed.
    pub code: CodeMac,
}

impl VerifyClaim {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        let claim = tables.claim(&InboxKey::Identifier(self.identifier))?;
        let own = claim.as_ref().filter(|claim| claim.box_id == self.box_id);
        if let Some(own) = own.filter(|own| own.code == Some(self.code)) {
            return Ok(Ok(Outcome::ClaimVerified {
                generation: own.generation,
            }));
        }
        let checked = checked(tables, meta, &self.identifier, &self.box_id, self.code)?;
        let pending = match checked {
            Ok(pending) => pending,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if claim.is_some() && own.is_none() {
            return Ok(Err(Rejection::IdentifierTaken));
        }
        let generation = self.give(tables, meta, own.cloned(), &pending)?;
        Ok(Ok(Outcome::ClaimVerified { generation }))
    }

    /// Gives the identifier to the box. If it has it already, only the code is renewed, by which a
    /// retry is known, and whether others find it; what is contested stays so.
    fn give<T: Tables>(
        &self,
        tables: &mut T,
        meta: &mut Meta,
        own: Option<Claim>,
        pending: &PendingClaim,
    ) -> Result<u64, T::Error> {
        let key = InboxKey::Identifier(self.identifier);
        let (generation, contest) = match own {
            Some(own) => {
                tables.delete_claim(&key)?;
                (own.generation, own.contest)
            }
            None => (meta.next_generation(), Contest::default()),
        };
        let claim = Claim {
            box_id: self.box_id,
            generation,
            discoverable: pending.discoverable,
            code: Some(self.code),
            contest,
        };
        tables.insert_claim(&key, &claim)?;
        remove_pending(tables, &self.identifier, &self.box_id, pending)?;
        Ok(generation)
    }
}

/// The pending claim of a box, if this is its code. Only a wrong code uses up an attempt.
pub(super) fn checked<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    identifier: &IdentifierHash,
    box_id: &BoxId,
    code: CodeMac,
) -> Result<Result<PendingClaim, Rejection>, T::Error> {
    let Some(mut pending) = tables.pending_claim(identifier, box_id)? else {
        return Ok(Err(Rejection::NoCodeRequested));
    };
    if pending.is_expired(meta.clock) {
        return Ok(Err(pending.trouble(None).unwrap_or(Rejection::CodeExpired)));
    }
    if pending.attempts_left == 0 {
        return Ok(Err(Rejection::CodeExhausted));
    }
    if pending.code != code {
        pending.attempts_left = pending.attempts_left.saturating_sub(1);
        tables.put_pending_claim(identifier, box_id, &pending)?;
        let attempts_left = pending.attempts_left;
        let wrong = Rejection::WrongCode { attempts_left };
        return Ok(Err(pending.trouble(None).unwrap_or(wrong)));
    }
    Ok(Ok(pending))
}
