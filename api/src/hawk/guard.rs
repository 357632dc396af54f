//! The guard: from a presented header to a proven caller.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::{DeviceAddress, GroupId};
use rossby_domain::time::Timestamp;

use super::nonces::{Nonces, Recorded};
use super::{METHOD, PORT, Presented, payload_hash};
use crate::call::RpcPath;
use crate::secrets::Token;

/// What the guard holds requests against.
#[derive(Debug, Clone)]
pub struct GuardConfig {
    /// The host in the MAC: the cluster's name.
    pub host: String,
    /// How old a request may be, in milliseconds.
    pub window_ms: u64,
    /// How far ahead of the service's time a request may be, in milliseconds.
    ///
    /// Small on purpose: what an earlier leader accepted lies at most this far ahead of the log's time,
    /// so this is also how long a new leader has to refuse what it can't know to be new.
    pub ahead_ms: u64,
    /// Nonces remembered at a time.
    pub nonces: u32,
}

/// The leadership under which a call is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// The group that this node leads.
    pub group: GroupId,
    /// In this term.
    pub term: u64,
    /// What an earlier leader may have admitted was signed for this and [`GuardConfig::ahead_ms`] more, or
    /// before.
    pub since: Timestamp,
    /// Later leaders will know that this one may have admitted what was signed up to this and
    /// [`GuardConfig::ahead_ms`] more.
    pub covered: Timestamp,
}

/// The tokens that a device may use.
#[derive(Debug)]
pub struct Credentials {
    /// The accepted tokens. For a device that does not exist: tokens that nobody has, so that the
    /// same work is done for it as for a wrong token.
    pub tokens: Vec<Token>,
    /// Whether the device is there and authorised.
    pub known: bool,
}

/// Why a call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HawkRefusal {
    /// No header, a malformed one, an unknown device, a wrong token, or a body that was changed:
    /// one answer for all, so that nobody can probe for devices.
    #[error("not authenticated")]
    NotAuthenticated,
    /// Signed by the right token, but outside of the time window, or at a time of which this leader
    /// does not know the nonces.
    #[error("signed for another time")]
    WrongTime {
        /// What the next request should carry.
        server_time: Timestamp,
        /// From when on that will be accepted.
        wait: Duration,
    },
    /// All is well, but later leaders would not know that it was admitted: the log has to show this
    /// time first.
    #[error("signed for a time that the log does not cover yet")]
    NotCovered {
        /// What [`Reign::covered`] must be.
        until: Timestamp,
    },
    /// The very same request was admitted before.
    #[error("a request was played again")]
    Replayed,
    /// The leadership that the call was to be checked under has ended, and a later one has begun:
    /// its nonces are what counts now.
    #[error("leadership changed meanwhile")]
    ReignOver,
    /// There is no room for another nonce.
    #[error("too many requests to remember")]
    Overloaded,
}

/// A proven caller.
#[derive(Debug)]
pub struct Caller {
    presented: Arc<Presented>,
    path: RpcPath,
    token: Token,
}

impl Caller {
    /// Which device it is.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        *self.presented.address()
    }
}

/// Admits requests. One per node.
pub struct Guard {
    config: GuardConfig,
    reigns: Mutex<HashMap<GroupId, (u64, Nonces)>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard that has seen nothing.
    #[must_use]
    pub fn new(config: GuardConfig) -> Self {
        Self {
            config,
            reigns: Mutex::new(HashMap::new()),
        }
    }

    /// Admits a request once: by its MAC, its payload, its time and its nonce, in this order. Only a
    /// request with the right MAC leaves a trace here. `now` is the service's time.
    ///
    /// # Errors
    /// [`HawkRefusal`].
    pub fn admit(
        &self,
        presented: impl Into<Arc<Presented>>,
        path: RpcPath,
        message: &[u8],
        credentials: Credentials,
        reign: Reign,
        now: Timestamp,
    ) -> Result<Caller, HawkRefusal> {
        let presented = presented.into();
        let token = self.matching_token(&presented, path, message, credentials)?;
        self.check_time(presented.ts_secs(), reign, now)?;
        self.record(&presented, reign)?;
        Ok(Caller {
            presented,
            path,
            token,
        })
    }

    /// The `server-authorization` header for a reply to an admitted request.
    ///
    /// # Errors
    /// [`hawk::Error`] if the cryptography underneath fails.
    pub fn vouch(&self, caller: &Caller, reply: &Bytes) -> Result<String, hawk::Error> {
        self.vouch_as(caller, reply, None)
    }

    /// The same for one message of a stream, which is bound to its place in it.
    ///
    /// # Errors
    /// [`hawk::Error`] if the cryptography underneath fails.
    pub fn vouch_nth(
        &self,
        caller: &Caller,
        message: &Bytes,
        number: u64,
    ) -> Result<String, hawk::Error> {
        self.vouch_as(caller, message, Some(&number.to_string()))
    }

    fn vouch_as(
        &self,
        caller: &Caller,
        reply: &Bytes,
        ext: Option<&str>,
    ) -> Result<String, hawk::Error> {
        let hash = payload_hash(reply)?;
        let key = hawk::Key::new(caller.token.as_bytes(), hawk::SHA256)?;
        let header = hawk::ResponseBuilder::from_request_header(
            caller.presented.header(),
            METHOD,
            &self.config.host,
            PORT,
            caller.path.as_str(),
        )
        .hash(&hash[..])
        .ext(ext)
        .response()
        .make_header(&key)?;
        Ok(format!("Hawk {header}"))
    }

    /// Nonces remembered over all groups.
    #[must_use]
    pub fn nonces(&self) -> u64 {
        self.reigns
            .lock()
            .values()
            .map(|(_, nonces)| nonces.len())
            .sum()
    }

    fn matching_token(
        &self,
        presented: &Presented,
        path: RpcPath,
        message: &[u8],
        credentials: Credentials,
    ) -> Result<Token, HawkRefusal> {
        let hash = payload_hash(message).map_err(|_| HawkRefusal::NotAuthenticated)?;
        let request = hawk::RequestBuilder::new(METHOD, &self.config.host, PORT, path.as_str())
            .hash(&hash[..])
            .request();
        let mut matching = None;
        for token in credentials.tokens {
            let Ok(key) = hawk::Key::new(token.as_bytes(), hawk::SHA256) else {
                continue;
            };
            // The crate would ask the wall clock; the time is checked below, against ours.
            if request.validate_header(presented.header(), &key, Duration::MAX) {
                matching = Some(token);
            }
        }
        matching
            .filter(|_| credentials.known)
            .ok_or(HawkRefusal::NotAuthenticated)
    }

    fn check_time(&self, ts_secs: u64, reign: Reign, now: Timestamp) -> Result<(), HawkRefusal> {
        let signed = Timestamp::from_millis(ts_secs.saturating_mul(1000));
        let too_old = signed.plus_millis(self.config.window_ms) < now;
        let too_new = signed > now.plus_millis(self.config.ahead_ms);
        let before_reign = signed <= reign.since.plus_millis(self.config.ahead_ms);
        if !too_old && !too_new && !before_reign {
            let until = signed.as_millis().saturating_sub(self.config.ahead_ms);
            let until = Timestamp::from_millis(until);
            if until <= reign.covered {
                return Ok(());
            }
            return Err(HawkRefusal::NotCovered { until });
        }
        let first_of_reign = reign.since.plus_millis(self.config.ahead_ms).as_secs() + 1;
        let server_time = now.max(Timestamp::from_millis(first_of_reign.saturating_mul(1000)));
        let wait_ms = server_time.millis_since(now.plus_millis(self.config.ahead_ms));
        Err(HawkRefusal::WrongTime {
            server_time,
            wait: Duration::from_millis(wait_ms),
        })
    }

    fn record(&self, presented: &Presented, reign: Reign) -> Result<(), HawkRefusal> {
        // Nothing is forgotten by a time that may be taken back, as long as the log does not show it.
        let floor = reign
            .covered
            .as_millis()
            .saturating_sub(self.config.window_ms)
            / 1000;
        let mut reigns = self.reigns.lock();
        let fresh = || (reign.term, Nonces::new(self.config.nonces));
        let (term, nonces) = reigns.entry(reign.group).or_insert_with(fresh);
        if reign.term < *term {
            return Err(HawkRefusal::ReignOver);
        }
        if reign.term > *term {
            // What was signed for an earlier reign is refused by its time.
            (*term, *nonces) = fresh();
        }
        match nonces.record(
            presented.address(),
            presented.nonce(),
            presented.ts_secs(),
            floor,
        ) {
            Recorded::New => Ok(()),
            Recorded::Replayed => Err(HawkRefusal::Replayed),
            Recorded::Full => Err(HawkRefusal::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests;
