//! Register, step 3: a pending claim and its code.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::claim::{CodeBudget, CodeMac, Delivery, PendingClaim};
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::{DueKey, InboxKey, Meta, OutboxRow, Tables};
use crate::time::Timestamp;

/// Opens (or renews, with a new code) a box's pending claim to an identifier. Pending claims are
/// not exclusive: several boxes may try, each with its own code, attempts and expiry.
///
/// A box that already has the identifier gets a code like any other: its device may have lost the
/// first code before the reply to it arrived, and would be locked out otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenClaim {
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The box that claims it.
    pub box_id: BoxId,
    /// Whether others may find the box by it, once verified.
    pub discoverable: bool,
    /// The keyed hash of the code that will be sent.
    pub code: CodeMac,
    /// Identifier and code, sealed under the cluster's seal key, for the courier.
    pub sealed_code: Bytes,
}

impl OpenClaim {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        let claim = tables.claim(&InboxKey::Identifier(self.identifier))?;
        // Telling that a hidden identifier is taken would tell who is here: see VerifyClaim.
        if claim.is_some_and(|claim| claim.box_id != self.box_id && claim.discoverable) {
            return Ok(Err(Rejection::IdentifierTaken));
        }
        self.open(tables, meta)
    }

    /// Opens it, whoever has the identifier.
    pub(super) fn open<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        let earlier = tables.code_budget(&self.identifier)?;
        let budget = match CodeBudget::charge(earlier.as_ref(), meta.clock, &meta.limits) {
            Ok(budget) => budget,
            Err(retry_at) => return self.too_early(tables, retry_at),
        };
        let stale = match self.find_place(tables, meta)? {
            Ok(stale) => stale,
            Err(rejection) => return Ok(Err(rejection)),
        };

        for (box_id, pending) in stale {
            remove_pending(tables, &self.identifier, &box_id, &pending)?;
        }
        let due = DueKey::CodeBudget(self.identifier);
        if let Some(earlier) = earlier {
            tables.remove_due(earlier.ends_at(), &due)?;
        }
        tables.put_code_budget(&self.identifier, &budget)?;
        tables.add_due(budget.ends_at(), &due)?;
        self.put_pending(tables, meta)?;
        Ok(Ok(Outcome::ClaimOpened))
    }

    /// The pause holds even if the last code was never sent, but this box is told that it was not.
    fn too_early<T: Tables>(&self, tables: &T, retry_at: Timestamp) -> Result<Reply, T::Error> {
        let own = tables.pending_claim(&self.identifier, &self.box_id)?;
        let trouble = own.and_then(|own| own.trouble(Some(retry_at)));
        Ok(Err(trouble.unwrap_or(Rejection::TooManyCodes { retry_at })))
    }

    /// Whether one more box may try; if so, the pending claims that must go to make place.
    #[expect(clippy::type_complexity, reason = "read once, in the caller")]
    fn find_place<T: Tables>(
        &self,
        tables: &T,
        meta: &Meta,
    ) -> Result<Result<Vec<(BoxId, PendingClaim)>, Rejection>, T::Error> {
        let limit = meta.limits.pending_per_identifier;
        let mut others = tables.pending_claims(&self.identifier, limit.saturating_add(1))?;
        others.retain(|(box_id, _)| *box_id != self.box_id);
        if (others.len() as u64) < u64::from(limit) {
            return Ok(Ok(Vec::new()));
        }
        let first_expiry = others.iter().map(|(_, pending)| pending.expires_at).min();
        others.retain(|(_, pending)| pending.is_expired(meta.clock));
        Ok(if others.is_empty() {
            let retry_at = first_expiry.unwrap_or(meta.clock);
            Err(Rejection::TooManyCodes { retry_at })
        } else {
            Ok(others)
        })
    }

    fn put_pending<T: Tables>(self, tables: &mut T, meta: &mut Meta) -> Result<(), T::Error> {
        let due = DueKey::PendingClaim(self.identifier, self.box_id);
        if let Some(earlier) = tables.pending_claim(&self.identifier, &self.box_id)? {
            for at in earlier.due_times() {
                tables.remove_due(at, &due)?;
            }
        }
        let serial = meta.next_serial();
        let expires_at = meta.clock.plus_millis(meta.limits.code_ttl_ms);
        let pending = PendingClaim {
            code: self.code,
            serial,
            discoverable: self.discoverable,
            attempts_left: meta.limits.code_attempts,
            expires_at,
            delivery: Delivery::Normal,
        };
        let row = OutboxRow {
            serial,
            sealed: self.sealed_code,
            expires_at,
        };
        tables.put_pending_claim(&self.identifier, &self.box_id, &pending)?;
        tables.put_outbox_row(&self.identifier, &self.box_id, &row)?;
        tables.add_due(expires_at, &due)
    }
}

/// Removes a pending claim with all that belongs to it.
pub(super) fn remove_pending<T: Tables>(
    tables: &mut T,
    identifier: &IdentifierHash,
    box_id: &BoxId,
    pending: &PendingClaim,
) -> Result<(), T::Error> {
    for at in pending.due_times() {
        tables.remove_due(at, &DueKey::PendingClaim(*identifier, *box_id))?;
    }
    tables.delete_outbox_row(identifier, box_id)?;
    tables.delete_pending_claim(identifier, box_id)
}
