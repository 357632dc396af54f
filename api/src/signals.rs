//! Signals: what is for who listens at this moment, and is never stored. That somebody is typing, for example.
//!
//! ```text
//!   rpc::notify ──► answered at once, whatever comes of it
//!        └──► a task, if there is room for one ──► Router: the leader of the recipient's group
//!                                                     └──► Signals::deliver ──► the open subscriptions of the box
//! ```
//!
//! Invariants. A signal touches neither log nor tables. Whoever sends one learns nothing: not whether anybody listens, nor whether
//! the box is there, or hears them. It is the first thing that is dropped: where there is no room, where mail waits, and where the
//! recipient's group has too much to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::{BoxId, DeviceAddress};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

/// The most bytes of a signal: a short content, sealed to all devices of a box.
pub(crate) const MAX_BYTES: usize = 16 * 1024;
/// Signals that a subscription has not sent yet. Those behind are dropped.
const WAITING: usize = 4;
/// Signals of this node's callers that are on their way to other groups at a time.
const ON_THEIR_WAY: usize = 64;
/// How many signals a device may send within [`SPAN`].
const PER_SPAN: u32 = 10;
/// How many signals a box is given within [`SPAN`], from whomever: boxes are free, and each wakes all of its devices.
const PER_BOX: u32 = 20;
/// See [`PER_SPAN`] and [`PER_BOX`].
const SPAN: Duration = Duration::from_secs(10);
/// Devices whose signals are counted at a time.
const COUNTED: usize = 20_000;

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Somebody who listens was given it.
    Delivered,
    /// Nobody listened, or the box does not hear who sent it, or is not there.
    Unheard,
    /// Its sender sent too many, or its box was given too many.
    TooMany,
    /// Too many were on their way, or whoever listens was behind.
    NoRoom,
    /// The box's group had too much to do.
    Busy,
    /// It did not come to the box's group in time, or nobody knows whether it did.
    Lost,
}

impl Fate {
    const ALL: [Self; 6] = [
        Self::Delivered,
        Self::Unheard,
        Self::TooMany,
        Self::NoRoom,
        Self::Busy,
        Self::Lost,
    ];

    /// The label.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Unheard => "unheard",
            Self::TooMany => "too_many",
            Self::NoRoom => "no_room",
            Self::Busy => "busy",
            Self::Lost => "lost",
        }
    }
}

/// A signal on its way to a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signal {
    /// The box.
    pub recipient: BoxId,
    /// The device that sends it.
    pub sender: DeviceAddress,
    /// What it says, sealed.
    pub body: Bytes,
}

/// Who listens on this node, how many signals are on their way, and what became of others. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Signals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listening: Mutex<Listening>,
    room: Arc<Semaphore>,
    sent: Mutex<Sent>,
    fates: [AtomicU64; Fate::ALL.len()],
}

#[derive(Debug, Default)]
struct Listening {
    last_serial: u64,
    by_box: HashMap<BoxId, OfBox>,
}

/// Who listens to a box, and what it was given.
#[derive(Debug)]
struct OfBox {
    hearing: Vec<(u64, mpsc::Sender<Signal>)>,
    given: Count,
}

/// Signals of a device, or to a box, since an instant.
#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    signals: u32,
}

impl Count {
    fn new(since: Instant) -> Self {
        Self { since, signals: 0 }
    }

    /// Counts one more, if it is not one too many.
    fn take(&mut self, now: Instant, limit: u32) -> bool {
        if now >= self.since + SPAN {
            *self = Self::new(now);
        }
        let has_room = self.signals < limit;
        self.signals += u32::from(has_room);
        has_room
    }
}

/// What devices have sent of late.
#[derive(Debug, Default)]
struct Sent {
    by_device: HashMap<DeviceAddress, Count>,
    /// When those whose time is over were last forgotten.
    swept: Option<Instant>,
}

impl Sent {
    /// Counts one more of a device, if it is not one too many.
    fn take(&mut self, device: DeviceAddress, now: Instant) -> bool {
        let is_new = !self.by_device.contains_key(&device);
        if is_new && self.by_device.len() >= COUNTED && !self.sweep(now) {
            return false;
        }
        let count = self.by_device.entry(device);
        let count = count.or_insert_with(|| Count::new(now));
        count.take(now, PER_SPAN)
    }

    /// Forgets those whose time is over, so that there is room; not again within [`SPAN`], since all are looked at.
    fn sweep(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|swept| now < swept + SPAN) {
            return false;
        }
        self.swept = Some(now);
        self.by_device.retain(|_, count| now < count.since + SPAN);
        self.by_device.len() < COUNTED
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self(Arc::new(Inner {
            listening: Mutex::default(),
            room: Arc::new(Semaphore::new(ON_THEIR_WAY)),
            sent: Mutex::default(),
            fates: Default::default(),
        }))
    }
}

impl Signals {
    /// Hears the signals for a box from now on.
    pub(crate) fn listen(&self, box_id: BoxId) -> Hearing {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut listening = self.0.listening.lock();
        listening.last_serial += 1;
        let serial = listening.last_serial;
        let nobody = || OfBox {
            hearing: Vec::new(),
            given: Count::new(Instant::now()),
        };
        let of_box = listening.by_box.entry(box_id).or_insert_with(nobody);
        of_box.hearing.push((serial, sender));
        Hearing {
            signals: self.clone(),
            box_id,
            serial,
            receiver,
        }
    }

    /// Gives a signal to whoever listens here, as far as they have room, and the box was not given too many.
    pub(crate) fn deliver(&self, signal: &Signal) {
        self.count(self.give(signal));
    }

    fn give(&self, signal: &Signal) -> Fate {
        let mut listening = self.0.listening.lock();
        let Some(of_box) = listening.by_box.get_mut(&signal.recipient) else {
            return Fate::Unheard;
        };
        if !of_box.given.take(Instant::now(), PER_BOX) {
            return Fate::TooMany;
        }
        let mut fate = Fate::NoRoom;
        for (_, sender) in &of_box.hearing {
            // One that is behind with its mail can do without.
            if sender.try_send(signal.clone()).is_ok() {
                fate = Fate::Delivered;
            }
        }
        fate
    }

    /// Room for a signal of a device on its way, if there is any, and the device has not sent too many.
    pub(crate) fn admit(&self, device: DeviceAddress) -> Option<OwnedSemaphorePermit> {
        if !self.0.sent.lock().take(device, Instant::now()) {
            self.count(Fate::TooMany);
            return None;
        }
        let room = Arc::clone(&self.0.room).try_acquire_owned().ok();
        if room.is_none() {
            self.count(Fate::NoRoom);
        }
        room
    }

    /// Counts what became of a signal.
    pub(crate) fn count(&self, fate: Fate) {
        if let Some(count) = self.0.fates.get(fate as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many signals came to which end at this node.
    pub(crate) fn fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.0.fates.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        Fate::ALL.iter().map(|fate| fate.as_str()).zip(counts)
    }
}

/// The signals for a box, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hearing {
    signals: Signals,
    box_id: BoxId,
    serial: u64,
    receiver: mpsc::Receiver<Signal>,
}

impl Hearing {
    /// Waits for a signal. Nothing is lost if it is dropped before it returns.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.receiver.recv().await {
            Some(signal) => signal,
            // Its sender is dropped with this, and not before.
            None => std::future::pending().await,
        }
    }

    /// The signals that wait.
    pub(crate) fn waiting(&mut self) -> Vec<Signal> {
        std::iter::from_fn(|| self.receiver.try_recv().ok()).collect()
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let mut listening = self.signals.0.listening.lock();
        if let Some(of_box) = listening.by_box.get_mut(&self.box_id) {
            of_box.hearing.retain(|(serial, _)| *serial != self.serial);
            if of_box.hearing.is_empty() {
                listening.by_box.remove(&self.box_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{DeviceId, PartitionId};

    use super::*;

    fn device(number: u8) -> DeviceAddress {
        DeviceAddress {
            box_id: BoxId::derive(PartitionId::new(0).unwrap(), &[number; 32]),
            device: DeviceId::from_bytes([number; 16]),
        }
    }

    fn signal(to: u8, body: u8) -> Signal {
        Signal {
            recipient: device(to).box_id,
            sender: device(9),
            body: Bytes::copy_from_slice(&[body]),
        }
    }

    /// How many came to some end that is not zero.
    fn fates(signals: &Signals) -> Vec<(&'static str, u64)> {
        signals.fates().filter(|(_, count)| *count > 0).collect()
    }

    #[tokio::test]
    async fn all_who_listen_to_a_box_hear_it_and_nobody_else_does() {
        let signals = Signals::default();
        let [mut one, mut other] = [1, 1].map(|number| signals.listen(device(number).box_id));
        let mut stranger = signals.listen(device(2).box_id);
        signals.deliver(&signal(1, 7));
        assert_eq!(one.next().await, signal(1, 7));
        assert_eq!(other.waiting(), [signal(1, 7)]);
        assert!(stranger.waiting().is_empty());
        drop(one);
        signals.deliver(&signal(1, 8));
        assert_eq!(other.next().await, signal(1, 8));
        drop((other, stranger));
        assert!(signals.0.listening.lock().by_box.is_empty());
        signals.deliver(&signal(1, 9));
        assert_eq!(fates(&signals), [("delivered", 2), ("unheard", 1)]);
    }

    #[tokio::test]
    async fn who_does_not_keep_up_misses_some_and_holds_up_nobody() {
        let signals = Signals::default();
        let mut hearing = signals.listen(device(1).box_id);
        (0..100).for_each(|body| signals.deliver(&signal(1, body)));
        let heard = hearing.waiting();
        let first: Vec<_> = (0..WAITING as u8).map(|body| signal(1, body)).collect();
        assert_eq!(heard, first);
        let expected = [
            ("delivered", WAITING as u64),
            ("too_many", u64::from(100 - PER_BOX)),
            ("no_room", u64::from(PER_BOX) - WAITING as u64),
        ];
        assert_eq!(fates(&signals), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_box_is_given_so_many_however_many_send_them() {
        let signals = Signals::default();
        let mut hearing = signals.listen(device(1).box_id);
        let mut heard = || {
            let each = (0..100).map(|body| {
                signals.deliver(&signal(1, body));
                hearing.waiting().len()
            });
            each.sum::<usize>()
        };
        assert_eq!((heard(), heard()), (PER_BOX as usize, 0));
        let mut other = signals.listen(device(2).box_id);
        signals.deliver(&signal(2, 1));
        assert_eq!(other.waiting().len(), 1, "another box has its own");
        tokio::time::advance(SPAN).await;
        assert_eq!(heard(), PER_BOX as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_may_send_so_many_and_a_node_has_so_many_on_their_way() {
        let signals = Signals::default();
        let count = |number| {
            let tries = (0..50).filter_map(|_| signals.admit(device(number)));
            tries.collect::<Vec<_>>().len()
        };
        assert_eq!(count(1), PER_SPAN as usize);
        assert_eq!(count(1), 0);
        assert_eq!(count(2), PER_SPAN as usize, "another device has its own");
        tokio::time::advance(SPAN).await;
        assert_eq!(count(1), PER_SPAN as usize);
        let held: Vec<_> = (10..200)
            .filter_map(|number| signals.admit(device(number)))
            .collect();
        assert_eq!(held.len(), ON_THEIR_WAY);
        drop(held);
        assert!(signals.admit(device(250)).is_some());
        let (too_many, no_room) = (40 + 50 + 40 + 40, 190 - ON_THEIR_WAY as u64);
        assert_eq!(
            fates(&signals),
            [("too_many", too_many), ("no_room", no_room)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_devices_are_counted_and_those_whose_time_is_over_make_room() {
        let mut sent = Sent::default();
        let numbered = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            DeviceAddress {
                device: DeviceId::from_bytes(bytes),
                ..device(1)
            }
        };
        let many = u32::try_from(COUNTED).unwrap();
        let now = Instant::now();
        assert!((0..many).all(|number| sent.take(numbered(number), now)));
        assert!(!sent.take(numbered(many), now));
        assert!(sent.take(numbered(0), now), "who is counted goes on");
        let later = now + SPAN;
        // They were looked at a moment ago.
        let soon = later - Duration::from_millis(1);
        assert!(!sent.take(numbered(many), soon));
        assert!(sent.take(numbered(many), later));
        assert_eq!(sent.by_device.len(), 1);
    }
}
