//! Claims: which box an identifier, or a device, belongs to.

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::contest::Contest;
use crate::identifier::IdentifierHash;
use crate::ids::BoxId;
use crate::limits::Limits;
use crate::mac::hmac_sha256;
use crate::rejection::Rejection;
use crate::time::{DAY_MS, Timestamp};
use crate::wire::Writer;

/// The keyed hash of a verification code: HMAC-SHA256 under the cluster's pepper of the labelled
/// identifier hash, box and code. The code itself is never stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeMac(pub [u8; 32]);

impl CodeMac {
    /// The keyed hash of a code under the cluster's pepper. It holds for one identifier and one box
    /// only, so that a code can not serve another box's try.
    #[must_use]
    pub fn of(pepper: &[u8; 32], identifier: &IdentifierHash, box_id: &BoxId, code: &str) -> Self {
        let message = Writer::labelled("rossby code v1")
            .fixed(identifier.as_bytes())
            .fixed(box_id.as_bytes())
            .bytes(code.as_bytes())
            .finish();
        Self(hmac_sha256(pepper, &message))
    }
}

impl PartialEq for CodeMac {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CodeMac {}

impl std::fmt::Debug for CodeMac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CodeMac(..)")
    }
}

/// A verified entry of the directory (the `inbox` table): identifier or device -> box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The owner.
    pub box_id: BoxId,
    /// Names this ownership for ever: a later claim of the same identifier has a higher one.
    pub generation: u64,
    /// Whether others may find the box by it.
    pub discoverable: bool,
    /// The code it was verified with, so that a retry gets the same answer. `None` for devices.
    pub code: Option<CodeMac>,
    /// Who else wants the identifier. Nothing for devices.
    pub contest: Contest,
}

impl Claim {
    /// A place in a box that is offered to a device. Others do not find the device by it.
    pub(crate) fn offer(box_id: BoxId, generation: u64) -> Self {
        Self {
            box_id,
            generation,
            discoverable: false,
            code: None,
            contest: Contest::default(),
        }
    }

    /// Whether this is only an offer to a device, which has not bound itself yet.
    #[must_use]
    pub fn is_offer(&self) -> bool {
        !self.discoverable && self.code.is_none()
    }
}

/// How far a code has come, as its courier tells. Nothing is told while all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Delivery {
    /// It waits for its courier, or was handed over.
    #[default]
    Normal,
    /// It could not be handed over yet; the courier goes on trying while the code lives.
    Delayed,
    /// It could not be handed over and never will be.
    Failed,
}

/// A pending claim: one box's try at one identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingClaim {
    /// The code that was sent last.
    pub code: CodeMac,
    /// Names that sending.
    pub serial: u64,
    /// Whether others may find the box by the identifier, once verified.
    pub discoverable: bool,
    /// Wrong codes that may still be tried.
    pub attempts_left: u8,
    /// When the code stops being accepted.
    pub expires_at: Timestamp,
    /// Whether its code is on the way as it should be.
    pub delivery: Delivery,
}

impl PendingClaim {
    /// Whether the code's time is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at <= now
    }

    /// What whoever waits for the code is told, so that nobody waits in vain.
    pub(crate) fn trouble(&self, retry_at: Option<Timestamp>) -> Option<Rejection> {
        let trying = match self.delivery {
            Delivery::Normal => return None,
            Delivery::Delayed => true,
            Delivery::Failed => false,
        };
        Some(Rejection::CodeNotSent { trying, retry_at })
    }

    /// When an expired code is no longer remembered as such.
    pub(crate) fn forgotten_at(&self) -> Timestamp {
        self.expires_at.plus_millis(DAY_MS)
    }

    /// When something about it may be due.
    pub(crate) fn due_times(&self) -> [Timestamp; 2] {
        [self.expires_at, self.forgotten_at()]
    }
}

/// How many codes were sent to an identifier, over all boxes that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeBudget {
    /// When the current day of counting began.
    pub day_start: Timestamp,
    /// Codes sent since then.
    pub sent_today: u32,
    /// No code before this time.
    pub next_at: Timestamp,
}

impl CodeBudget {
    /// The budget after one more code at `now`.
    ///
    /// # Errors
    /// When the next code may be sent, if it may not be now.
    pub(crate) fn charge(
        earlier: Option<&Self>,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Self, Timestamp> {
        let next_at = earlier.map_or(now, |earlier| earlier.next_at);
        let mut budget = match earlier {
            Some(earlier) if now < earlier.day_end() => earlier.clone(),
            // The pause outlives the day of counting.
            _ => Self {
                day_start: now,
                sent_today: 0,
                next_at,
            },
        };
        let retry_at = if budget.sent_today >= limits.codes_per_day {
            budget.ends_at()
        } else {
            budget.next_at
        };
        if now < retry_at {
            return Err(retry_at);
        }
        let doublings = 1_u64.checked_shl(budget.sent_today).unwrap_or(u64::MAX);
        budget.next_at = now.plus_millis(limits.code_pause_ms.saturating_mul(doublings));
        budget.sent_today = budget.sent_today.saturating_add(1);
        Ok(budget)
    }

    /// When the row can be forgotten.
    pub(crate) fn ends_at(&self) -> Timestamp {
        self.day_end().max(self.next_at)
    }

    fn day_end(&self) -> Timestamp {
        self.day_start.plus_millis(DAY_MS)
    }
}
