//! A reset: a device that has nothing but the codes which come to an identifier gets it for a new box. Its owner has lost all
//! others; or somebody else reads those codes, and the devices that are left may keep it.

use std::time::Duration;

use rossby_client::DeviceError;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::time::Timestamp;
use rossby_seams::clock::Clock as _;
use tokio::time::sleep;

use super::clock::WorldClock;
use super::courier::Codes;
use super::devices::{Devices, Owned};
use super::dice::Dice;
use super::person::{PersonError, expected};

/// How often one looks for a code before another one is needed.
const LOOKS: u32 = 20;
/// Of 1,000 who have devices left, how many keep their identifier if they are in time.
const KEEP_PERMILLE: u64 = 700;
/// Of 1,000, how many try on though it is not time yet.
const HASTY_PERMILLE: u64 = 400;
/// Who would have to wait for longer begins with another identifier: some clock was ahead, by which the service goes now.
const TOO_LONG: Duration = Duration::from_secs(120);

/// What proving an identifier came to.
pub enum Proven {
    /// It is the box's.
    Had(DeviceAddress),
    /// It is to be had then.
    Waits(Timestamp),
    /// A device of the box that has it keeps it, for so long at least.
    Vetoed(Duration),
    /// No code did it.
    NotYet,
}

impl Owned {
    /// Proves an identifier with a code that is on its way, or was lost.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn prove(
        &self,
        identifier: &Identifier,
        codes: &Codes,
        dice: &Dice,
    ) -> Result<Proven, PersonError> {
        for _ in 0..LOOKS {
            sleep(dice.millis(100, 400)).await;
            let Some(code) = codes.take(identifier) else {
                continue;
            };
            match self.device.authorize(&code).await {
                Ok(address) => {
                    // Nobody but this sets it.
                    let _ = self.wire.address.set(address);
                    return Ok(Proven::Had(address));
                }
                Err(DeviceError::ResetWaits(at)) => return Ok(Proven::Waits(at)),
                // Whatever it was: the same code again, until another one is needed.
                Err(DeviceError::Call(error)) if error.may_pass() => {
                    codes.put_back(identifier, code);
                }
                Err(DeviceError::Call(error)) => match error.refusal() {
                    Some(refusal) if refusal.code == "RESET_VETOED" => {
                        return Ok(Proven::Vetoed(refusal.retry_after.unwrap_or_default()));
                    }
                    _ => break,
                },
                // The code came, but not the answer that says of which box it is: only with another code that comes
                // again.
                Err(DeviceError::NotRegistered) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Proven::NotYet)
    }
}

/// A reset that is under way.
pub struct Reset {
    new: Owned,
    no: No,
    hasty: bool,
}

/// What those who have devices left say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    /// Nothing: they do not look, or it is too late.
    Never,
    /// That their identifier stays, once they are told that it goes.
    Yet,
    /// They have said it.
    Said,
}

/// What a step of a reset came to.
pub enum Came {
    /// There is more to do.
    On,
    /// It waits for its time.
    Waits,
    /// The identifier has come to the new device's box.
    Over(Owned, DeviceAddress),
    /// The identifier can not be had: this device has no box.
    InVain(Owned),
}

impl Reset {
    /// One that this new device begins.
    pub fn new(new: Owned, dice: &Dice) -> Self {
        let keeps = dice.permille(KEEP_PERMILLE);
        let no = if keeps { No::Yet } else { No::Never };
        let hasty = dice.permille(HASTY_PERMILLE);
        Self { new, no, hasty }
    }

    /// Takes the next step; with what comes of it, this again if there is more to do.
    ///
    /// # Errors
    /// [`PersonError`].
    pub async fn step(
        mut self,
        devices: &Devices,
        (identifier, codes): (&Identifier, &Codes),
        (clock, dice): (&WorldClock, &Dice),
    ) -> Result<(Came, Option<Self>), PersonError> {
        let proven = match self.waits(clock)? {
            Some(until) => Proven::Waits(until),
            None => {
                expected_call(self.new.device.register_reset(identifier, true).await)?;
                self.new.prove(identifier, codes, dice).await?
            }
        };
        let longest = clock.now().plus_millis(as_millis(TOO_LONG));
        Ok(match proven {
            Proven::Had(address) => (Came::Over(self.new, address), None),
            Proven::NotYet => (Came::On, Some(self)),
            Proven::Vetoed(wait) if !devices.are_lost() || wait > TOO_LONG => {
                (Came::InVain(self.new), None)
            }
            Proven::Vetoed(_) => (Came::Waits, Some(self)),
            Proven::Waits(at) if at > longest => (Came::InVain(self.new), None),
            Proven::Waits(_) if self.no != No::Never && !devices.are_lost() => {
                self.no = keep(devices, identifier).await?;
                (Came::On, Some(self))
            }
            Proven::Waits(_) => (Came::Waits, Some(self)),
        })
    }

    /// Until when it does nothing. Who was told "no" tries at once, to see what comes of it, and so do some who were told to wait.
    fn waits(&self, clock: &WorldClock) -> Result<Option<Timestamp>, PersonError> {
        let until = self.new.device.waits_until()?;
        let waits = |until: &Timestamp| clock.now() < *until && !self.hasty && self.no != No::Said;
        Ok(until.filter(waits))
    }

    /// Whether nobody has been told yet that it waits.
    ///
    /// # Errors
    /// [`PersonError`].
    pub fn is_young(&self) -> Result<bool, PersonError> {
        Ok(self.new.device.waits_until()?.is_none())
    }

    /// Its device, if it is given up.
    pub fn given_up(self) -> Owned {
        self.new
    }
}

/// A device that is left says no; what has been said then.
async fn keep(devices: &Devices, identifier: &Identifier) -> Result<No, PersonError> {
    match devices.any()?.keep_identifier(identifier).await {
        // An earlier try may have done it.
        Ok(()) | Err(DeviceError::NotContested) => Ok(No::Said),
        // Too late.
        Err(DeviceError::NoSuchIdentifier) => Ok(No::Never),
        Err(error) if is_refused(&error, "IDENTIFIER_CHANGED") => Ok(No::Never),
        other => expected(other).map(|()| No::Yet),
    }
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long somebody does nothing who waits.
pub fn pause(dice: &Dice) -> Duration {
    dice.millis(500, 3_000)
}

/// Whatever the service says, the next try may come further.
pub fn expected_call<T>(result: Result<T, DeviceError>) -> Result<(), PersonError> {
    match result {
        Ok(_) | Err(DeviceError::Call(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the service says no, with this word.
pub fn is_refused(error: &DeviceError, code: &str) -> bool {
    let DeviceError::Call(error) = error else {
        return false;
    };
    error.refusal().is_some_and(|refusal| refusal.code == code)
}
