//! What befalls a person's box: it is lost, contested, deleted, suspended, and blocks others.

use std::sync::Arc;

use rossby_client::DeviceError;
use rossby_domain::identifier::Identifier;
use tokio::time::sleep;

use super::person::{Person, PersonError, SETTLE_AGAIN, expected};
use super::reset::{Came, Reset};
use crate::observe::ClientId;

/// How often the operator suspends people, of 1,000 things that they do, and how often lets them send again after that.
const SUSPEND_PERMILLE: u64 = 3;
const UNSUSPEND_PERMILLE: u64 = 200;

impl Person {
    /// Begins to lose the identifier's box, or to be tried for the identifier by others.
    pub(super) fn begin_reset(&mut self) -> Result<(), PersonError> {
        if self.dice.permille(500) {
            self.devices.lose_all();
        }
        let new = self.devices.new_one()?;
        self.reset = Some(Reset::new(new, &self.dice));
        Ok(())
    }

    /// Goes on with the reset that is under way; whether it waits.
    pub(super) async fn go_on_with_reset(&mut self) -> Result<bool, PersonError> {
        self.does("begins anew");
        let Some(reset) = self.reset.take() else {
            return Ok(false);
        };
        let whose = (&self.identifier, &self.common.codes);
        let step = reset.step(&self.devices, whose, (&self.clock, &self.dice));
        let (came, rest) = step.await?;
        self.reset = rest;
        match came {
            Came::On => Ok(false),
            Came::Waits => Ok(true),
            Came::Over(new, address) => {
                self.devices.begin_anew(new);
                self.has(address.box_id);
                Ok(false)
            }
            Came::InVain(new) => {
                new.wire.unplug();
                if self.devices.are_lost() {
                    self.begin_with_another_identifier().await?;
                }
                Ok(false)
            }
        }
    }

    /// Deletes the account, and begins again with the same identifier.
    pub(super) async fn delete_account(&mut self) -> Result<(), PersonError> {
        self.does("deletes the account");
        self.devices.delete_account().await?;
        let new = self.devices.new_one()?;
        self.devices.begin_anew(new);
        self.register().await
    }

    async fn begin_with_another_identifier(&mut self) -> Result<(), PersonError> {
        self.given_up += 1;
        self.identifier = identifier(self.id, self.given_up)?;
        let new = self.devices.new_one()?;
        self.devices.begin_anew(new);
        self.register().await
    }

    pub(super) async fn block(&mut self) -> Result<(), PersonError> {
        self.does("blocks somebody");
        let Some((box_id, _)) = self.somebody() else {
            return Ok(());
        };
        self.blocked.push(box_id);
        expected(self.devices.any()?.block(&box_id, true).await)
    }

    pub(super) async fn unblock(&mut self) -> Result<(), PersonError> {
        self.does("lifts a block");
        let Some(box_id) = self.blocked.pop() else {
            return Ok(());
        };
        let lifting = self.devices.any()?.block(&box_id, false).await;
        if lifting.is_err() {
            self.blocked.push(box_id);
        }
        expected(lifting)
    }

    /// The operator suspends this person's box, or lets it send again.
    pub(super) async fn meet_operator(&mut self) -> Result<(), PersonError> {
        match self.suspended {
            None if self.dice.permille(SUSPEND_PERMILLE) => {
                let wire = Arc::clone(&self.devices.eldest()?.wire);
                let address = wire.address.get();
                let box_id = address.ok_or(DeviceError::NotRegistered)?.box_id;
                self.suspended = Some(box_id);
                wire.suspend(box_id, true).await;
                Ok(())
            }
            Some(_) if self.dice.permille(UNSUSPEND_PERMILLE) => self.may_send_again().await,
            _ => Ok(()),
        }
    }

    pub(super) async fn may_send_again(&mut self) -> Result<(), PersonError> {
        let wire = Arc::clone(&self.devices.eldest()?.wire);
        if let Some(box_id) = self.suspended
            && wire.suspend(box_id, false).await
        {
            self.suspended = None;
        }
        Ok(())
    }

    /// Goes on until there is a box. Others who try for the identifier and have not come far let it be.
    pub(super) async fn settle_reset(&mut self) -> Result<(), PersonError> {
        while let Some(reset) = self.reset.take() {
            if !self.devices.are_lost() && reset.is_young()? {
                reset.given_up().wire.unplug();
                break;
            }
            self.reset = Some(reset);
            self.go_on_with_reset().await?;
            sleep(SETTLE_AGAIN).await;
        }
        Ok(())
    }
}

/// An identifier of a person, after so many others.
pub(super) fn identifier(id: ClientId, given_up: u32) -> Result<Identifier, PersonError> {
    let text = match given_up {
        0 => format!("person{}@example.org", id.0),
        later => format!("person{}-{later}@example.org", id.0),
    };
    Identifier::email(&text).map_err(|_| DeviceError::Damaged("identifier"))
}
