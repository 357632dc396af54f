//! Rates at the doors: how often one caller may do what costs others something.
//!
//! ```text
//!   Send:          each envelope ─► its device, then its sender and its recipient ─┬─► to apply
//!   LookupKey:     the caller's box, but for a lookup by box ──────────────────────┤
//!   SetProfile:    the caller's box ───────────────────────────────────────────────┤
//!   Report:        the caller's box ───────────────────────────────────────────────┤
//!   Register:      the caller's network ───────────────────────────────────────────┤
//!   AddIdentifier: the caller's box, then its network ─────────────────────────────┴─► RATE_LIMITED, TOO_MANY_CODES
//! ```
//!
//! Calls run at the leader of the caller's box, so one node counts for it; a new leader begins anew, and what it lets
//! through beyond is one burst. Register runs where it arrives, so each node counts for itself. Nothing here is
//! durable: what must hold whatever happens is counted in apply (`domain::limits`).
//!
//! A device is counted before its pairs: however many recipients it thinks up, no more pairs are remembered of it than it
//! may send envelopes. At a time as many may pass as the rate says, and as many again over its minute or day.
//!
//! Who is refused is told by what they did themselves: whether there is such a recipient, or one who takes their
//! mail, makes no difference.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use rossby_domain::ids::{BoxId, DeviceAddress};
use tokio::time::Instant;

use crate::limits::DoorLimits;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
/// Profiles that a box may set at a time, and one more each minute: each goes through the log, and is of up to 41 KiB.
const PROFILES: u32 = 10;
/// Callers that are counted before those that have not called for long are let go.
const SWEEP_AFTER: usize = 4096;

/// What is limited, as figures name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Envelopes of one box to another.
    Recipient,
    /// Envelopes of one device.
    Device,
    /// Lookups of one box.
    Lookups,
    /// Codes that one network asks for.
    Codes,
    /// Codes that one box asks for.
    BoxCodes,
    /// Reports of one box.
    Reports,
    /// Profiles of one box.
    Profiles,
}

impl Limit {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recipient => "envelopes_to_recipient",
            Self::Device => "envelopes_of_device",
            Self::Lookups => "lookups",
            Self::Codes => "codes_of_network",
            Self::BoxCodes => "codes_of_box",
            Self::Reports => "reports",
            Self::Profiles => "profiles",
        }
    }
}

/// Too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOften {
    /// What was done too often.
    pub limit: Limit,
    /// When it may be done again.
    pub wait: Duration,
}

/// The network of an address: as much of it as one customer usually has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The first 24 bits.
    V4([u8; 3]),
    /// The first 48 bits.
    V6([u8; 6]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// The rates of a node's doors.
#[derive(Debug)]
pub struct Rates {
    recipients: Limiter<(BoxId, BoxId)>,
    devices: Limiter<DeviceAddress>,
    lookups: Limiter<BoxId>,
    reports: Limiter<BoxId>,
    codes: Limiter<Network>,
    box_codes: Limiter<BoxId>,
    profiles: Limiter<BoxId>,
}

impl Rates {
    /// The rates that these limits set. Nobody is counted yet.
    #[must_use]
    pub fn new(limits: &DoorLimits) -> Self {
        let clock = DoorClock(Instant::now());
        let every_ms = Duration::from_millis;
        let of_many = |many: u32, time: Duration| match many {
            0 => (0, time),
            many => (many, time / many),
        };
        Self {
            recipients: Limiter::new(
                (limits.envelopes_burst, every_ms(limits.envelopes_every_ms)),
                clock,
            ),
            devices: Limiter::new(of_many(limits.device_envelopes_per_minute, MINUTE), clock),
            lookups: Limiter::new(
                (limits.lookups_burst, every_ms(limits.lookups_every_ms)),
                clock,
            ),
            reports: Limiter::new(
                (limits.lookups_burst, every_ms(limits.lookups_every_ms)),
                clock,
            ),
            codes: Limiter::new(of_many(limits.codes_per_network_per_day, DAY), clock),
            box_codes: Limiter::new(of_many(limits.codes_per_box_per_day, DAY), clock),
            profiles: Limiter::new((PROFILES, MINUTE), clock),
        }
    }

    /// Counts an envelope. What the devices of a box tell each other is no matter between two boxes.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn envelope(&self, sender: &DeviceAddress, recipient: &BoxId) -> Result<(), TooOften> {
        self.devices.count(sender, Limit::Device)?;
        if sender.box_id == *recipient {
            return Ok(());
        }
        let pair = (sender.box_id, *recipient);
        self.recipients.count(&pair, Limit::Recipient)
    }

    /// Counts a lookup.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn lookup(&self, caller: &BoxId) -> Result<(), TooOften> {
        self.lookups.count(caller, Limit::Lookups)
    }

    /// Counts a report.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn report(&self, caller: &BoxId) -> Result<(), TooOften> {
        self.reports.count(caller, Limit::Reports)
    }

    /// Counts a code that is asked for: by a box, if it is, and from a network, if it is known which. A box that asks too
    /// often takes nothing from its network.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn code(&self, asker: Option<&BoxId>, network: Option<Network>) -> Result<(), TooOften> {
        if let Some(asker) = asker {
            self.box_codes.count(asker, Limit::BoxCodes)?;
        }
        network.map_or(Ok(()), |network| self.codes.count(&network, Limit::Codes))
    }

    /// Counts a profile that is set.
    ///
    /// # Errors
    /// [`TooOften`].
    pub fn profile(&self, caller: &BoxId) -> Result<(), TooOften> {
        self.profiles.count(caller, Limit::Profiles)
    }
}

/// The time since the doors were opened, in simulation too.
#[derive(Debug, Clone, Copy)]
struct DoorClock(Instant);

impl Clock for DoorClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Governor<K> = RateLimiter<K, HashMapStateStore<K>, DoorClock, NoOpMiddleware<Nanos>>;

/// So many at a time, and one more after each period; or as many as may be.
struct Limiter<K: Hash + Eq + Clone> {
    governor: Option<Governor<K>>,
    clock: DoorClock,
    /// Counted since the last sweep, and those that were left by it.
    counted: AtomicUsize,
    kept: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// A burst or a period of nothing is no limit.
    fn new((burst, period): (u32, Duration), clock: DoorClock) -> Self {
        let burst = NonZeroU32::new(burst);
        let quota = burst.and_then(|burst| Some(Quota::with_period(period)?.allow_burst(burst)));
        Self {
            governor: quota.map(|quota| Governor::hashmap_with_clock(quota, clock)),
            clock,
            counted: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
        }
    }

    fn count(&self, key: &K, limit: Limit) -> Result<(), TooOften> {
        let Some(governor) = &self.governor else {
            return Ok(());
        };
        self.sweep_at_times(governor);
        governor.check_key(key).map_err(|until| TooOften {
            limit,
            wait: until.wait_time_from(self.clock.now()),
        })
    }

    /// Lets go of those who may do as much as at first. Each time after as many were counted as there were left, so that
    /// it costs each of them little.
    fn sweep_at_times(&self, governor: &Governor<K>) {
        let counted = self.counted.fetch_add(1, Ordering::Relaxed);
        if counted < SWEEP_AFTER.max(self.kept.load(Ordering::Relaxed)) {
            return;
        }
        self.counted.store(0, Ordering::Relaxed);
        governor.retain_recent();
        governor.shrink_to_fit();
        self.kept.store(governor.len(), Ordering::Relaxed);
    }
}

impl<K: Hash + Eq + Clone> std::fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whom it counts is nobody's business.
        let is_on = self.governor.is_some();
        f.debug_struct("Limiter")
            .field("is_on", &is_on)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{DeviceId, PartitionId};

    use super::*;

    fn box_id(seed: u8) -> BoxId {
        BoxId::derive(PartitionId::new(1).unwrap(), &[seed; 32])
    }

    fn device(seed: u8, device: u8) -> DeviceAddress {
        DeviceAddress {
            box_id: box_id(seed),
            device: DeviceId::from_bytes([device; 16]),
        }
    }

    /// How often it may be done at once.
    fn at_once(mut may: impl FnMut() -> Result<(), TooOften>) -> (u32, TooOften) {
        for count in 0..10_000 {
            if let Err(refused) = may() {
                return (count, refused);
            }
        }
        panic!("as often as one likes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_box_sends_sixty_at_a_time_to_another_and_then_one_a_second_whatever_its_devices() {
        let rates = Rates::new(&DoorLimits::default());
        let mut devices = (0..2).cycle().map(|number| device(1, number));
        let mut send = || rates.envelope(&devices.next().unwrap(), &box_id(2));
        let (sent, refused) = at_once(&mut send);
        assert_eq!((sent, refused.limit), (60, Limit::Recipient));
        assert!(refused.wait <= Duration::from_secs(1));
        tokio::time::advance(refused.wait).await;
        assert_eq!(at_once(&mut send).0, 1);
        // Others are others.
        assert!(rates.envelope(&device(1, 0), &box_id(3)).is_ok());
        assert!(rates.envelope(&device(4, 0), &box_id(2)).is_ok());
        tokio::time::advance(MINUTE).await;
        assert_eq!(at_once(&mut send).0, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_sends_six_hundred_a_minute_to_whomever() {
        let rates = Rates::new(&DoorLimits::default());
        let mut boxes = (0_u8..200).cycle().map(box_id);
        let mut send = || rates.envelope(&device(201, 0), &boxes.next().unwrap());
        let (sent, refused) = at_once(&mut send);
        assert_eq!((sent, refused.limit), (600, Limit::Device));
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(at_once(&mut send).0, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_beyond_its_rate_has_the_node_remember_nobody_and_uses_up_nothing_of_a_pair() {
        let rates = Rates::new(&DoorLimits {
            device_envelopes_per_minute: 60,
            ..DoorLimits::default()
        });
        let send = |to: u8| rates.envelope(&device(201, 0), &box_id(to));
        assert!((0..60).all(|_| send(200).is_ok()));
        for to in 0..200 {
            assert_eq!(send(to).unwrap_err().limit, Limit::Device);
        }
        assert_eq!(rates.recipients.governor.as_ref().unwrap().len(), 1);
        // Another device of the box still has all that the box may send to them.
        let mut other = || rates.envelope(&device(201, 1), &box_id(0));
        assert_eq!(at_once(&mut other).0, 60);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_boxs_devices_tell_each_other_is_limited_for_each_of_them_alone() {
        let rates = Rates::new(&DoorLimits::default());
        let mut note = || rates.envelope(&device(1, 0), &box_id(1));
        let (noted, refused) = at_once(&mut note);
        assert_eq!((noted, refused.limit), (600, Limit::Device));
    }

    #[tokio::test(start_paused = true)]
    async fn lookups_are_six_at_a_time_and_then_one_in_ten_seconds() {
        let rates = Rates::new(&DoorLimits::default());
        let mut look = || rates.lookup(&box_id(1));
        let (looked, refused) = at_once(&mut look);
        assert_eq!((looked, refused.limit), (6, Limit::Lookups));
        // Reports are counted by themselves.
        let mut report = || rates.report(&box_id(1));
        let (reported, refused) = at_once(&mut report);
        assert_eq!((reported, refused.limit), (6, Limit::Reports));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(at_once(&mut look).0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn profiles_are_ten_at_a_time_and_then_one_a_minute() {
        let rates = Rates::new(&DoorLimits::default());
        let mut set = || rates.profile(&box_id(1));
        let (done, refused) = at_once(&mut set);
        assert_eq!((done, refused.limit), (10, Limit::Profiles));
        tokio::time::advance(MINUTE).await;
        assert_eq!(at_once(&mut set).0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn codes_are_so_many_a_day_for_a_network_and_for_a_box() {
        let rates = Rates::new(&DoorLimits {
            codes_per_network_per_day: 3,
            codes_per_box_per_day: 2,
            ..DoorLimits::default()
        });
        let network = |text: &str| -> Network { text.parse::<IpAddr>().unwrap().into() };
        let mut neighbours = ["192.0.2.1", "192.0.2.77", "::ffff:192.0.2.3"]
            .iter()
            .cycle();
        let mut ask = || rates.code(None, Some(network(neighbours.next().unwrap())));
        let (asked, refused) = at_once(&mut ask);
        assert_eq!((asked, refused.limit), (3, Limit::Codes));
        let from = |address| rates.code(None, Some(network(address)));
        assert!(from("192.0.3.1").is_ok());
        let six = ["2001:db8:1::1", "2001:db8:1:ffff::2", "2001:db8:1:2::3"];
        assert!(six.iter().all(|address| from(address).is_ok()));
        assert!(from("2001:db8:1::9").is_err());
        assert!(from("2001:db8:2::1").is_ok());
        // A box has a number of its own, and those of its network besides.
        let by_box = |seed, address| rates.code(Some(&box_id(seed)), Some(network(address)));
        let limit_of = |asked: Result<(), TooOften>| asked.unwrap_err().limit;
        assert_eq!(limit_of(by_box(1, "192.0.2.9")), Limit::Codes);
        assert!(by_box(2, "203.0.113.1").is_ok());
        assert!(by_box(2, "203.0.113.1").is_ok());
        for _ in 0..5 {
            assert_eq!(limit_of(by_box(2, "203.0.113.1")), Limit::BoxCodes);
        }
        assert!(from("203.0.113.2").is_ok());
        assert_eq!(limit_of(by_box(3, "203.0.113.3")), Limit::Codes);
        tokio::time::advance(DAY).await;
        assert_eq!(at_once(&mut ask).0, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_not_called_for_long_takes_no_memory() {
        let rates = Rates::new(&DoorLimits::default());
        let sender = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let device = DeviceId::from_bytes(bytes);
            DeviceAddress {
                box_id: box_id(1),
                device,
            }
        };
        for round in 0..5_u32 {
            for number in 0..5_000 {
                let count = rates
                    .devices
                    .count(&sender(round * 5_000 + number), Limit::Device);
                assert_eq!(count, Ok(()));
            }
            tokio::time::advance(MINUTE).await;
        }
        let known = rates.devices.governor.as_ref().unwrap().len();
        assert!(known <= 10_000, "{known} are remembered");
    }

    #[test]
    fn nothing_is_no_limit() {
        let rates = Rates::new(&DoorLimits {
            envelopes_burst: 0,
            device_envelopes_per_minute: 0,
            ..DoorLimits::default()
        });
        assert!((0..10_000).all(|_| rates.envelope(&device(1, 1), &box_id(2)).is_ok()));
    }
}
