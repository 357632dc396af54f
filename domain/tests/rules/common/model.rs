//! What the rules promise, written as plainly as possible and without looking at how they are kept:
//! nothing is ever removed here, and each answer is worked out from the whole history.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::chain::LinkRefusal;
use rossby_domain::command::Enqueue;
use rossby_domain::ids::{Counter, DeviceAddress, DeviceId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Outcome, Rejection, Reply};

/// How many accepted envelopes a box remembers per sender device.
const WINDOW: usize = 32;

/// An envelope that was accepted; its sequence is its place in the log, from 1.
#[derive(Debug, Clone)]
pub struct Letter {
    pub sent: Enqueue,
    pub expires_at: Timestamp,
}

/// A box: all it ever accepted, who may read it, and how far they have.
#[derive(Debug, Clone, Default)]
pub struct ModelBox {
    pub log: Vec<Letter>,
    /// Devices that have their place in the box.
    pub cursors: BTreeMap<DeviceId, u64>,
    /// Devices that a link has added and that have not come yet.
    pub expected: BTreeSet<DeviceId>,
    pub revoked: BTreeSet<DeviceId>,
    pub blocked: BTreeSet<u8>,
    pub contacts_only: bool,
    pub contacts: BTreeSet<u8>,
    pub longest_ttl_ms: Option<u64>,
    /// How often that was said.
    pub ttl_number: u64,
    /// Up to here all devices have acknowledged, and how many of those had expired by then.
    pub left_upto: u64,
    pub expired: u64,
    pub chain_version: u64,
    /// Identifiers that it lists, with the generation of each, or 0.
    pub listed: BTreeMap<u8, u64>,
    /// Those of them that are to be released.
    pub leaving: BTreeSet<u8>,
    /// Until when it has what is not proven.
    pub asked_until: Timestamp,
}

impl ModelBox {
    /// Whether the box `own` takes letters from another, or from itself.
    pub fn hears(&self, from: u8, own: u8) -> bool {
        let is_contact = from == own || self.contacts.contains(&from);
        !self.blocked.contains(&from) && (is_contact || !self.contacts_only)
    }

    /// Which of the two it does from now on.
    pub fn accept(&mut self, contacts_only: Option<bool>, other: u8, allowed: bool) -> Reply {
        self.contacts_only = contacts_only.unwrap_or(self.contacts_only);
        if allowed {
            self.contacts.insert(other);
        } else {
            self.contacts.remove(&other);
        }
        if !self.contacts_only {
            self.contacts.clear();
        }
        let contacts_only = self.contacts_only;
        Ok(Outcome::AcceptChanged { contacts_only })
    }

    /// What is listed and stays.
    pub fn staying(&self) -> BTreeMap<u8, u64> {
        let mut staying = self.listed.clone();
        staying.retain(|number, _| !self.leaving.contains(number));
        staying
    }

    /// What becomes of an identifier that a device adds. `until`: when it is forgotten if it is not proven.
    pub fn add_identifier(&mut self, by: &DeviceId, number: u8, until: Timestamp) -> Reply {
        if !self.cursors.contains_key(by) {
            return Err(Rejection::UnknownDevice);
        }
        if self.leaving.contains(&number) {
            let generation = self.listed[&number];
            return Ok(Outcome::IdentifierLeaving { generation });
        }
        if *self.listed.entry(number).or_default() == 0 {
            self.asked_until = until;
        }
        Ok(Outcome::IdentifierAdded)
    }

    /// What becomes of an identifier that a device removes.
    pub fn remove_identifier(
        &mut self,
        by: &DeviceId,
        number: u8,
        named: u64,
        until: Timestamp,
    ) -> Reply {
        if !self.cursors.contains_key(by) {
            return Err(Rejection::UnknownDevice);
        }
        let Some(generation) = self.listed.get(&number).copied() else {
            return Ok(Outcome::IdentifierRemoved);
        };
        if !self.leaving.contains(&number) {
            if named != generation {
                return Err(Rejection::IdentifierChanged);
            }
            let proven = self.staying().into_values().filter(|other| *other > 0);
            if generation > 0 && proven.count() == 1 {
                return Err(Rejection::LastIdentifier);
            }
            self.leaving.insert(number);
            self.asked_until = until;
        }
        Ok(Outcome::IdentifierLeaving { generation })
    }
}

impl ModelBox {
    /// What waits: not expired, and not acknowledged by every device.
    fn waiting(&self, expired_by: Timestamp) -> impl Iterator<Item = &Letter> {
        let by_all = self.cursors.values().copied().min().unwrap_or(0);
        let numbered = (1..).zip(&self.log);
        let waiting =
            numbered.filter(move |(n, letter)| *n > by_all && letter.expires_at > expired_by);
        waiting.map(|(_, letter)| letter)
    }

    /// Counts what had expired when all devices had acknowledged it.
    pub fn count_expired(&mut self, expired_by: Timestamp) {
        let by_all = self.cursors.values().copied().min().unwrap_or(0);
        let numbered = (1..).zip(&self.log);
        let left = numbered.filter(|(n, _)| (self.left_upto + 1..=by_all).contains(n));
        let expired = left.filter(|(_, letter)| letter.expires_at <= expired_by);
        self.expired += expired.count() as u64;
        self.left_upto = self.left_upto.max(by_all);
    }

    /// What a device must be shown: sequence and envelope; `None` if it may not read.
    pub fn shown_to(
        &self,
        device: &DeviceId,
        expired_by: Timestamp,
    ) -> Option<Vec<(u64, Enqueue)>> {
        let cursor = *self.cursors.get(device)?;
        let numbered = (1..).zip(&self.log);
        let shown = numbered.filter(|(n, letter)| *n > cursor && letter.expires_at > expired_by);
        Some(shown.map(|(n, letter)| (n, letter.sent.clone())).collect())
    }

    /// How many letters some device has not acknowledged: the most that the queue may hold.
    pub fn held(&self) -> u64 {
        let by_all = self.cursors.values().copied().min().unwrap_or(0);
        (self.log.len() as u64).saturating_sub(by_all)
    }

    fn is_live(&self, device: &DeviceId) -> bool {
        self.cursors.contains_key(device) || self.expected.contains(device)
    }

    /// What becomes of a link by `by` that adds a device.
    pub fn add(&mut self, by: &DeviceId, device: DeviceId) -> Reply {
        if !self.is_live(by) {
            return Err(Rejection::LinkRefused(LinkRefusal::SignerNotLive));
        }
        if self.is_live(&device) {
            return Err(Rejection::LinkRefused(LinkRefusal::AlreadyLive));
        }
        if self.revoked.contains(&device) {
            return Err(Rejection::LinkRefused(LinkRefusal::Removed));
        }
        self.expected.insert(device);
        Ok(self.extended())
    }

    /// What becomes of a link by `by` that removes a device.
    pub fn remove(&mut self, by: &DeviceId, device: DeviceId) -> Reply {
        if !self.is_live(by) {
            return Err(Rejection::LinkRefused(LinkRefusal::SignerNotLive));
        }
        if !self.is_live(&device) {
            return Err(Rejection::LinkRefused(LinkRefusal::NotLive));
        }
        if self.cursors.keys().all(|other| *other == device) {
            return Err(Rejection::LinkRefused(LinkRefusal::LastDevice));
        }
        self.cursors.remove(&device);
        self.expected.remove(&device);
        self.revoked.insert(device);
        Ok(self.extended())
    }

    fn extended(&mut self) -> Outcome {
        self.chain_version += 1;
        let version = self.chain_version;
        Outcome::ChainExtended { version }
    }

    /// What becomes of a device that the recovery key lets in, beside the others or in their place.
    pub fn recover(&mut self, device: DeviceId, alone: bool) -> Reply {
        if self.revoked.contains(&device) {
            return Err(Rejection::LinkRefused(LinkRefusal::Removed));
        }
        if !self.is_live(&device) {
            self.chain_version += 1;
            self.expected.insert(device);
        }
        let joined = self.join(device);
        if alone {
            let live = self.cursors.keys().chain(&self.expected);
            let others: Vec<_> = live.filter(|other| **other != device).copied().collect();
            self.chain_version += others.len() as u64;
            self.revoked.extend(others);
            self.cursors.retain(|other, _| *other == device);
            self.expected.clear();
        }
        joined
    }

    /// What becomes of a device that asks for its place: it is to get what comes from now on.
    pub fn join(&mut self, device: DeviceId) -> Reply {
        if self.revoked.contains(&device) {
            return Err(Rejection::DeviceRevoked);
        }
        if self.expected.remove(&device) {
            self.cursors.insert(device, self.log.len() as u64);
        }
        if !self.cursors.contains_key(&device) {
            return Err(Rejection::UnknownDevice);
        }
        let token_generation = 1;
        Ok(Outcome::BoxJoined { token_generation })
    }

    /// What becomes of a counter that was not above all before it.
    fn judge_old(&self, sent: &Enqueue) -> Option<Reply> {
        let from_device = (1..)
            .zip(&self.log)
            .filter(|(_, l)| l.sent.id.sender == sent.id.sender);
        let accepted: Vec<(u64, &Letter)> = from_device.collect();
        let last = accepted
            .last()
            .map_or(0, |(_, letter)| letter.sent.id.counter.0);
        if sent.id.counter.0 > last {
            return None;
        }
        let next = Counter(last + 1);
        let remembered = &accepted[accepted.len().saturating_sub(WINDOW)..];
        let known = remembered
            .iter()
            .find(|(_, l)| l.sent.id.counter == sent.id.counter);
        let is_older_than_all = remembered
            .iter()
            .all(|(_, l)| l.sent.id.counter > sent.id.counter);
        Some(match known {
            Some((n, letter)) if letter.sent == *sent => Ok(Outcome::Enqueued {
                sequence: Sequence(*n),
            }),
            Some(_) => Err(Rejection::CounterReused { next }),
            None if is_older_than_all && accepted.len() > WINDOW => {
                Err(Rejection::CounterForgotten { next })
            }
            None => Err(Rejection::NotAccepted { next }),
        })
    }
}

/// A code that was sent.
#[derive(Debug, Clone, Copy)]
struct Try {
    code: u8,
    discoverable: bool,
    attempts_left: u8,
    expires_at: Timestamp,
}

/// Whose an identifier is.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub seed: u8,
    pub generation: u64,
    code: u8,
    discoverable: bool,
}

impl Owner {
    /// Of a box's first identifier, which its seed names.
    pub fn of_first(seed: u8, generation: u64) -> Self {
        Self {
            seed,
            generation,
            code: seed,
            discoverable: true,
        }
    }
}

/// A partition with boxes, each named by the seed of its first device.
#[derive(Debug, Clone)]
pub struct Model {
    pub limits: Limits,
    pub now: Timestamp,
    /// The last time of a command whose leader trusted its clock: mail has expired up to here.
    pub expired_by: Timestamp,
    pub boxes: BTreeMap<u8, ModelBox>,
    pub owners: BTreeMap<u8, Owner>,
    pub last_generation: u64,
    tries: BTreeMap<(u8, u8), Try>,
}

impl Model {
    pub fn new(limits: Limits, now: Timestamp, last_generation: u64) -> Self {
        let (boxes, owners, tries) = Default::default();
        Self {
            limits,
            now,
            expired_by: now,
            boxes,
            owners,
            last_generation,
            tries,
        }
    }

    pub fn send(&mut self, from: u8, to: u8, sent: &Enqueue, written_to: bool) -> Reply {
        let now = self.now;
        let limits = self.limits;
        let target = match self.boxes.get_mut(&to) {
            Some(target) if target.hears(from, to) => target,
            _ => return Err(Rejection::UnknownBox),
        };
        if let Some(reply) = target.judge_old(sent) {
            return reply;
        }
        if sent.body.len() > limits.envelope_bytes as usize {
            return Err(Rejection::EnvelopeTooLarge {
                limit_bytes: limits.envelope_bytes,
            });
        }
        if sent.chain_version != target.chain_version {
            return Err(Rejection::StaleKeyRecord {
                current: target.chain_version,
            });
        }
        let count = |own: bool| {
            let sender = sent.id.sender.box_id;
            let letters = target
                .waiting(self.expired_by)
                .filter(|l| !own || l.sent.id.sender.box_id == sender);
            letters.fold((1, sent.body.len() as u64), |(count, bytes), letter| {
                (count + 1, bytes + letter.sent.body.len() as u64)
            })
        };
        let (all, all_bytes) = count(false);
        let (own, own_bytes) = count(true);
        let percent = u64::from(limits.sender_share_percent);
        let whole = u64::from(limits.queue_envelopes);
        let over_share =
            own * 100 > whole * percent || own_bytes * 100 > limits.queue_bytes * percent;
        if over_share {
            return Err(Rejection::SenderShareFull);
        }
        let is_contact = written_to || from == to || target.contacts_only;
        let kept = |of: u64| if is_contact { 0 } else { of / 10 };
        let bytes = limits.queue_bytes;
        if all > whole - kept(whole) || all_bytes > bytes - kept(bytes) {
            return Err(Rejection::QueueFull);
        }
        let longest_ms = target.longest_ttl_ms.unwrap_or(u64::MAX);
        let longest_ms = longest_ms.min(limits.envelope_ttl_ms);
        let ttl_ms = sent.ttl_ms.unwrap_or(u64::MAX).min(longest_ms);
        target.log.push(Letter {
            sent: sent.clone(),
            expires_at: now.plus_millis(ttl_ms),
        });
        Ok(Outcome::Enqueued {
            sequence: Sequence(target.log.len() as u64),
        })
    }

    /// The cursor that a device must have after acknowledging.
    pub fn acknowledge(
        &mut self,
        seed: u8,
        device: &DeviceAddress,
        upto: u64,
    ) -> Result<u64, Rejection> {
        let target = self.boxes.get_mut(&seed).ok_or(Rejection::UnknownBox)?;
        let cursor = target
            .cursors
            .get_mut(&device.device)
            .ok_or(Rejection::UnknownDevice)?;
        if upto > target.log.len() as u64 {
            return Err(Rejection::BeyondQueue {
                last: Sequence(target.log.len() as u64),
            });
        }
        *cursor = upto.max(*cursor);
        Ok(*cursor)
    }

    /// Another box may have it now, if this one has it under no later generation.
    pub fn release(&mut self, seed: u8, number: u8, generation: u64) -> Reply {
        self.tries.remove(&(number, seed));
        let held = self.owners.get(&number).filter(|owner| owner.seed == seed);
        let held = held.map(|owner| owner.generation);
        if held.is_some_and(|held| held <= generation) {
            self.owners.remove(&number);
        }
        let held = held.filter(|held| *held > generation);
        Ok(Outcome::ClaimReleased { held })
    }

    pub fn open_claim(&mut self, seed: u8, number: u8, code: u8, discoverable: bool) -> Reply {
        let owner = self.owners.get(&number);
        if owner.is_some_and(|owner| owner.seed != seed && owner.discoverable) {
            return Err(Rejection::IdentifierTaken);
        }
        let expires_at = self.now.plus_millis(self.limits.code_ttl_ms);
        let attempts_left = self.limits.code_attempts;
        self.tries.insert(
            (number, seed),
            Try {
                code,
                discoverable,
                attempts_left,
                expires_at,
            },
        );
        Ok(Outcome::ClaimOpened)
    }

    pub fn verify_claim(&mut self, seed: u8, number: u8, code: u8) -> Reply {
        let owner = self.owners.get(&number).copied();
        if let Some(owner) = owner.filter(|owner| owner.seed == seed && owner.code == code) {
            return Ok(Outcome::ClaimVerified {
                generation: owner.generation,
            });
        }
        let Some(pending) = self.tries.get_mut(&(number, seed)) else {
            return Err(Rejection::NoCodeRequested);
        };
        if pending.expires_at <= self.now {
            return Err(Rejection::CodeExpired);
        }
        if pending.attempts_left == 0 {
            return Err(Rejection::CodeExhausted);
        }
        if pending.code != code {
            pending.attempts_left -= 1;
            return Err(Rejection::WrongCode {
                attempts_left: pending.attempts_left,
            });
        }
        let generation = match owner {
            Some(owner) if owner.seed != seed => return Err(Rejection::IdentifierTaken),
            Some(owner) => owner.generation,
            None => {
                self.last_generation += 1;
                self.last_generation
            }
        };
        let discoverable = pending.discoverable;
        self.owners.insert(
            number,
            Owner {
                seed,
                generation,
                code,
                discoverable,
            },
        );
        self.tries.remove(&(number, seed));
        Ok(Outcome::ClaimVerified { generation })
    }
}
