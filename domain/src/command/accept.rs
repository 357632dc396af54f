//! From whom a box takes envelopes.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Takes envelopes from anyone, or from the box's contacts only, and changes who those are. To everybody
/// else the box does not exist. The box's own devices are always heard.
///
/// Who its contacts are is kept only while it matters: nothing of it is left once anyone may send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The box.
    pub box_id: BoxId,
    /// Contacts only from now on, or anyone; `None` as before.
    pub contacts_only: Option<bool>,
    /// Boxes that are contacts.
    pub allow: Vec<BoxId>,
    /// Boxes that are no contacts any more.
    pub disallow: Vec<BoxId>,
}

impl Accept {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        let Some(mut profile) = profile.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let mut allowed = profile.allowed.clone();
        match self.contacts_only {
            Some(true) => allowed = Some(allowed.unwrap_or_default()),
            Some(false) => allowed = None,
            None => {}
        }
        if let Some(allowed) = &mut allowed {
            for box_id in &self.disallow {
                allowed.remove(box_id);
            }
            allowed.extend(self.allow);
            let limit = meta.limits.blocked_boxes;
            if allowed.len() as u64 > u64::from(limit) {
                return Ok(Err(Rejection::TooManyAllowed { limit }));
            }
        }
        let contacts_only = allowed.is_some();
        if allowed != profile.allowed {
            profile.allowed = allowed;
            tables.put_profile(&self.box_id, &profile)?;
        }
        Ok(Ok(Outcome::AcceptChanged { contacts_only }))
    }
}
