//! Rows of a partition that commands look at again and again, decoded.
//!
//! A send looks at five rows: the partition's meta, the recipient's profile, key record and queue state, and
//! what its box remembers of the sender. Most of them were looked at or written shortly before.
//!
//! Invariant: what is known of a row is what the layers over the base show of it. Freezing, settling and
//! taking back change where rows are, not what they are.

use std::collections::BTreeMap;

use rossby_domain::chain::KeyRecord;
use rossby_domain::dedupe::SenderRow;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::profile::Profile;
use rossby_domain::tables::{Meta, QueueState};

/// The most boxes that a partition knows, and the most senders over all of them. Then it begins anew.
const MAX_BOXES: usize = 64;
const MAX_SENDERS: usize = 512;

/// The rows that are known; never that there is none.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) meta: Option<Meta>,
    boxes: BTreeMap<BoxId, KnownBox>,
    senders: BTreeMap<(BoxId, DeviceAddress), SenderRow>,
}

/// What is known of a box.
#[derive(Debug, Default)]
pub(crate) struct KnownBox {
    pub(crate) profile: Option<Profile>,
    pub(crate) record: Option<KeyRecord>,
    pub(crate) queue: Option<QueueState>,
}

impl Known {
    pub(crate) fn of_box(&self, box_id: &BoxId) -> Option<&KnownBox> {
        self.boxes.get(box_id)
    }

    pub(crate) fn of_box_mut(&mut self, box_id: &BoxId) -> &mut KnownBox {
        if self.boxes.len() >= MAX_BOXES && !self.boxes.contains_key(box_id) {
            self.boxes.clear();
        }
        self.boxes.entry(*box_id).or_default()
    }

    pub(crate) fn sender(&self, box_id: &BoxId, sender: &DeviceAddress) -> Option<&SenderRow> {
        self.senders.get(&(*box_id, *sender))
    }

    pub(crate) fn set_sender(&mut self, box_id: &BoxId, sender: &DeviceAddress, row: &SenderRow) {
        let key = (*box_id, *sender);
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&key) {
            self.senders.clear();
        }
        self.senders.insert(key, row.clone());
    }
}
