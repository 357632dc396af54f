//! Limits of the doors: what a request may be, whatever it says. The limits of what is stored are
//! replicated (`domain::limits`), since apply must enforce them alike everywhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of the public service. [`DoorLimits::default`] gives the design's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorLimits {
    /// Bytes of a request's message.
    pub request_bytes: u32,
    /// Envelopes in one Send.
    pub send_envelopes: u32,
    /// Bytes of an envelope's body, refused here before it can burden the log. What is stored obeys
    /// the replicated limit (`domain::limits::Limits::envelope_bytes`), which this should not be
    /// below.
    pub envelope_bytes: u32,
    /// Envelopes in one page of Fetch.
    pub page_envelopes: u32,
    /// Bytes of bodies in one page of Fetch (a single larger envelope still fits).
    pub page_bytes: u32,
    /// How long a call may take, in milliseconds; a client may ask for less.
    pub call_timeout_ms: u64,
    /// How old a request may be by its own time, in milliseconds.
    pub hawk_window_ms: u64,
    /// How far ahead of this node's clock a request's time may be, in milliseconds (see
    /// [`crate::hawk::GuardConfig::ahead_ms`]).
    pub hawk_ahead_ms: u64,
    /// Nonces remembered at a time, over all callers.
    pub hawk_nonces: u32,
    /// Envelopes of one box to another at a time; 0 for no limit.
    pub envelopes_burst: u32,
    /// After how long there may be one more, in milliseconds.
    pub envelopes_every_ms: u64,
    /// Envelopes of one device in a minute, to whomever; 0 for no limit.
    pub device_envelopes_per_minute: u32,
    /// Lookups of one box, by anything but a box's id, at a time, and as many reports; 0 for no limit.
    pub lookups_burst: u32,
    /// After how long there may be one more, in milliseconds.
    pub lookups_every_ms: u64,
    /// Codes that a network (24 bits of an IPv4 address, 48 of an IPv6 one) may ask for in a day at this node, by Register
    /// or AddIdentifier; 0 for no limit.
    pub codes_per_network_per_day: u32,
    /// Codes that a box may ask for in a day by AddIdentifier; 0 for no limit.
    pub codes_per_box_per_day: u32,
    /// Subscriptions that a node serves or relays at a time.
    pub subscriptions: u32,
    /// How long a subscription lasts before the device must open it again, in milliseconds. A tenth
    /// less at random, so that those that began together do not end together.
    pub subscription_ms: u64,
    /// After how long without mail a subscription gives a sign of life, in milliseconds. Its
    /// device's right to read is checked again as often.
    pub subscription_keepalive_ms: u64,
    /// How long a subscriber may leave unread what was sent, in milliseconds.
    pub subscription_unread_ms: u64,
    /// Bytes of bodies in one page of a subscription (a single larger envelope still fits): what a
    /// subscriber that does not read holds of the node's memory.
    pub subscription_page_bytes: u32,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            request_bytes: 4 * 1024 * 1024,
            send_envelopes: 256,
            envelope_bytes: 96 * 1024,
            page_envelopes: 256,
            page_bytes: 1024 * 1024,
            call_timeout_ms: 3_000,
            hawk_window_ms: 60_000,
            hawk_ahead_ms: 5_000,
            // Up to 120 bytes each, 240 MB in all, for each group that the node leads: room for 30,000 calls a
            // second over the window. Devices that sign often take 40 bytes a nonce.
            hawk_nonces: 2_000_000,
            envelopes_burst: 60,
            envelopes_every_ms: 1_000,
            device_envelopes_per_minute: 600,
            lookups_burst: 6,
            lookups_every_ms: 10_000,
            codes_per_network_per_day: 200,
            codes_per_box_per_day: 20,
            subscriptions: 20_000,
            subscription_ms: 10 * 60_000,
            subscription_keepalive_ms: 10_000,
            subscription_unread_ms: 30_000,
            subscription_page_bytes: 256 * 1024,
        }
    }
}

impl DoorLimits {
    /// The same, but without rates: for load, and for tests of something else.
    #[must_use]
    pub const fn unrated(self) -> Self {
        Self {
            envelopes_burst: 0,
            device_envelopes_per_minute: 0,
            lookups_burst: 0,
            codes_per_network_per_day: 0,
            codes_per_box_per_day: 0,
            ..self
        }
    }

    /// How long a call may take.
    #[must_use]
    pub const fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }
}
