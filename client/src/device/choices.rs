//! What the owner has chosen for the box, on this device or on another one ([`crate::owner::Choices`]).

use rossby_domain::time::Timestamp;

use super::receipts::ReceiptChoice;
use super::{Device, DeviceError};
use crate::connection::Signer;
use crate::envelope::{Between, ReceiptState};
use crate::owner::{Choice, Choices, Chosen};
use crate::store::{Batch, ChoicesRow, RepeatRow, StoreError};

impl Device {
    /// Which receipts this box sends: both kinds, if its owner has said nothing else.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn receipt_choice(&self) -> Result<ReceiptChoice, DeviceError> {
        let chosen = self.chosen()?;
        Ok(ReceiptChoice {
            delivered: !chosen.no_delivered,
            read: !chosen.no_read,
        })
    }

    /// Sends receipts of a kind from now on, or none. What was owed, and what was not sent yet, is forgotten with it. The box's other
    /// devices do so once [`Self::tell_own_devices`] or something sent has told them.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn choose_receipts(&self, kind: ReceiptState, sends: bool) -> Result<(), DeviceError> {
        self.choose(match kind {
            ReceiptState::Delivered => Choice::NoDelivered(!sends),
            ReceiptState::Read => Choice::NoRead(!sends),
        })
    }

    /// What is chosen.
    pub(super) fn chosen(&self) -> Result<Chosen, StoreError> {
        let row = self.store.get::<ChoicesRow>(&())?.unwrap_or_default();
        Ok(row.choices.chosen())
    }

    /// Whether messages are to be taken from contacts only, if the owner has ever said.
    pub(super) fn chosen_to_accept(&self) -> Result<Option<bool>, StoreError> {
        let row = self.store.get::<ChoicesRow>(&())?.unwrap_or_default();
        Ok(row.choices.accepts())
    }

    /// Chooses something, and has the box's other devices told.
    pub(super) fn choose(&self, choice: Choice) -> Result<(), DeviceError> {
        // Who has no box yet has nobody to tell.
        let signer = self.signer().ok();
        self.store.write::<_, DeviceError>(|batch| {
            let mut choices = choices_in(batch)?;
            choices.choose(self.said_at(), choice);
            self.follow_choices(batch, choices.chosen())?;
            batch.put(&(), &ChoicesRow { choices })?;
            match &signer {
                Some(signer) => self.tell_choices(batch, signer),
                None => Ok(()),
            }
        })
    }

    /// Has what is chosen go to the own box, if anything ever was.
    pub(super) fn tell_choices(
        &self,
        batch: &mut Batch<'_>,
        signer: &Signer,
    ) -> Result<(), DeviceError> {
        let choices = choices_in(batch)?;
        match choices == Choices::default() {
            true => Ok(()),
            false => self.tell_own(batch, signer, &Between::Choices(choices)),
        }
    }

    /// Takes what another device of this box says was chosen.
    pub(super) fn hear_of_choices(
        &self,
        at: Timestamp,
        mut heard: Choices,
    ) -> Result<(), DeviceError> {
        heard.pull(at);
        Ok(self.store.write::<_, StoreError>(|batch| {
            let mut choices = choices_in(batch)?;
            let before = choices.chosen();
            if !choices.take(heard) {
                return Ok(());
            }
            let chosen = choices.chosen();
            self.follow_choices(batch, chosen)?;
            if chosen.contacts_only != before.contacts_only {
                // The service may have heard the two in another order, and not of all who are contacts here.
                batch.put(&(), &RepeatRow)?;
            }
            batch.put(&(), &ChoicesRow { choices })
        })?)
    }

    /// Forgets receipts that are not to be sent any more.
    fn follow_choices(&self, batch: &mut Batch<'_>, chosen: Chosen) -> Result<(), StoreError> {
        let is_over = |kind| match kind {
            ReceiptState::Delivered => chosen.no_delivered,
            ReceiptState::Read => chosen.no_read,
        };
        self.forget_receipts(batch, |_, kind| is_over(kind))
    }
}

fn choices_in(batch: &Batch<'_>) -> Result<Choices, StoreError> {
    let row = batch.get::<ChoicesRow>(&())?;
    Ok(row.map(|row| row.choices).unwrap_or_default())
}

pub(super) fn chosen_in(batch: &Batch<'_>) -> Result<Chosen, StoreError> {
    Ok(choices_in(batch)?.chosen())
}
