//! Signals: that somebody is typing. Sealed and signed as an envelope is, and never stored, neither by the service nor here.
//!
//! ```text
//!   typing ──► sealed under counter 0, which no envelope has ──► Notify: told at once, whatever comes of it
//!   a page of a stream with signals ──► known contact, signed, fresh, not heard before ──► Heard::Typing
//! ```
//!
//! The service can drop signals, and delay them by so much as [`FRESH_MS`]. It can neither make one up, nor repeat one.

use bytes::Bytes;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;

use super::receipts::may_hear;
use super::sending::Draft;
use super::{Device, DeviceError, box_from_wire};
use crate::connection::{Notify, Signer};
use crate::conversation::Conversation;
use crate::envelope::{Arrival, Content, Control, Recipient, open};
use crate::store::ContactRow;

/// How far a signal's time may be off this device's.
const FRESH_MS: u64 = 30_000;
/// The counter of what is no envelope.
const NO_COUNTER: Counter = Counter(0);
/// Devices of others whose last signal is remembered.
const MAX_REMEMBERED: usize = 4096;
/// The version of the word about typing.
const WORD_VERSION: u8 = 1;

/// Somebody has begun to type, or has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Typing {
    /// Who.
    pub by: BoxId,
    /// Whether they type now. It holds for a few seconds, if nothing else comes.
    pub is_typing: bool,
}

impl Device {
    /// Tells a contact that this device's owner is typing to them, or has stopped: if they listen at this moment. Nobody learns
    /// whether they do.
    ///
    /// # Errors
    /// [`DeviceError::NoUser`] if they are not known here; [`DeviceError::NotAContact`] if they were not added, or are blocked;
    /// [`DeviceError::NotConfirmed`]; [`DeviceError::Call`].
    pub async fn typing(&self, to: &BoxId, is_typing: bool) -> Result<(), DeviceError> {
        let signer = self.signer()?;
        self.check_confirmed(to)?;
        let contact = self.store.get::<ContactRow>(to)?;
        if !may_hear(&contact.ok_or(DeviceError::NoUser)?) {
            return Err(DeviceError::NotAContact);
        }
        let record = self.pinned_record(to)?.ok_or(DeviceError::NoUser)?;
        let content = Content::Control(Control {
            topic: Control::TYPING,
            body: vec![WORD_VERSION, u8::from(is_typing)],
        });
        let draft = Draft {
            content: &content,
            written_at: self.environment.clock.now(),
            order: 0,
            group: None,
            ttl_ms: None,
        };
        let body = self.seal(&signer, to, &record, NO_COUNTER, &draft)?;
        let request = v1::NotifyRequest {
            recipient_box_id: Bytes::copy_from_slice(to.as_bytes()),
            body,
        };
        let calling = self.connection.call::<Notify>(&request, Some(&signer));
        calling.await?;
        Ok(())
    }

    /// What a signal says, if it can be believed, and is news. Of the others nothing is kept.
    pub(super) fn hear_signal(
        &self,
        signer: &Signer,
        signal: &v1::Signal,
    ) -> Result<Option<Typing>, DeviceError> {
        let Some(sender) = sender_of(signal) else {
            return Ok(None);
        };
        let contact = self.store.get::<ContactRow>(&sender.box_id)?;
        if !contact.is_some_and(|row| may_hear(&row)) {
            return Ok(None);
        }
        // Nobody is looked up for it.
        let Some(record) = self.pinned_record(&sender.box_id)? else {
            return Ok(None);
        };
        let identity = self.identity();
        let recipient = Recipient {
            address: signer.address,
            keys: identity.kem_keys(),
            record: identity.record(),
            sender_record: &record,
        };
        let arrival = Arrival {
            sender,
            counter: NO_COUNTER,
            body: &signal.body,
        };
        let Ok(opened) = open(&recipient, &arrival) else {
            return Ok(None);
        };
        let (own, by) = (signer.address.box_id, sender.box_id);
        let is_direct = Conversation::of(opened.conversation, &own, &by) == Conversation::With(by);
        let Some(is_typing) = typing_of(&opened.content).filter(|_| is_direct) else {
            return Ok(None);
        };
        let is_news = self.is_news(sender, opened.written_at);
        Ok(is_news.then_some(Typing { by, is_typing }))
    }

    /// Whether a signal is fresh, and later than the last of its device.
    fn is_news(&self, sender: DeviceAddress, written_at: Timestamp) -> bool {
        let now = self.environment.clock.now();
        let off = now
            .millis_since(written_at)
            .max(written_at.millis_since(now));
        let mut last = self.last_signals.lock();
        last.retain(|_, at| now.millis_since(*at) <= 2 * FRESH_MS);
        let is_later = last.get(&sender).is_none_or(|last| *last < written_at);
        let has_room = last.len() < MAX_REMEMBERED || last.contains_key(&sender);
        let is_news = off <= FRESH_MS && is_later && has_room;
        if is_news {
            last.insert(sender, written_at);
        }
        is_news
    }
}

fn sender_of(signal: &v1::Signal) -> Option<DeviceAddress> {
    let device = <[u8; 16]>::try_from(&signal.sender_device_id[..]).ok()?;
    Some(DeviceAddress {
        box_id: box_from_wire(&signal.sender_box_id).ok()?,
        device: DeviceId::from_bytes(device),
    })
}

/// Whether it says that somebody types; `None` if it says something else.
fn typing_of(content: &Content) -> Option<bool> {
    match content {
        Content::Control(Control { topic, body }) if *topic == Control::TYPING => match body[..] {
            [WORD_VERSION, 0] => Some(false),
            [WORD_VERSION, 1] => Some(true),
            _ => None,
        },
        _ => None,
    }
}
