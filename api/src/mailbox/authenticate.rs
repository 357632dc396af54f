//! Who is asking: Hawk, at the leader of the caller's box.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rossby_domain::ids::{DeviceAddress, GroupId, PartitionId};
use rossby_domain::{Answer, Query};
use tokio::time::Instant;

use super::lead::{Led, unexpected_answer};
use super::{Failure, MailboxService};
use crate::call::Call;
use crate::error::{ApiError, Code};
use crate::hawk::{Caller, Credentials, HawkRefusal, Presented, Reign};

/// A generation that no token ever has: for devices that are not there.
const NO_GENERATION: u64 = u64::MAX;

/// The terms in which this node, as leader, has caught up with all earlier terms. From then on
/// what it has applied is the latest, as long as its lease is good.
#[derive(Debug, Default)]
pub(super) struct Confirmed(Mutex<HashMap<GroupId, u64>>);

impl Confirmed {
    fn contains(&self, led: &Led) -> bool {
        self.0.lock().get(&led.group.id()) == Some(&led.term)
    }

    fn insert(&self, led: &Led) {
        self.0.lock().insert(led.group.id(), led.term);
    }
}

/// A caller's standing at the leader of their box, as it was when they proved who they are.
pub(crate) struct Standing {
    /// The group of their box, and the reign in which this node leads it.
    pub led: Led,
    /// The partition of their box.
    pub partition: PartitionId,
    /// The generation of their token.
    pub generation: u64,
}

impl Standing {
    /// Refuses if the caller's box is suspended, as this node knows it, which led its group a moment ago.
    pub fn check_may_send(&self, caller: &DeviceAddress) -> Result<(), Failure> {
        let query = Query::IsSuspended(caller.box_id);
        match self.led.group.read_local(self.partition, &query) {
            // Who is not known here may be at home elsewhere by now.
            Ok(Answer::IsSuspended(_)) if self.led.group.epoch(self.partition).is_none() => {
                Err(ApiError::unavailable("the box's group has changed meanwhile").into())
            }
            Ok(Answer::IsSuspended(false)) => Ok(()),
            Ok(Answer::IsSuspended(true)) => Err(Code::Suspended.into()),
            Ok(_) => Err(unexpected_answer("IsSuspended").into()),
            Err(error) => Err(Failure::of_read(self.led.group.id(), error)),
        }
    }
}

impl MailboxService {
    /// Proves who makes a call, and says where that was checked.
    pub(super) async fn authenticate_at(&self, call: &Call) -> Result<(Caller, Standing), Failure> {
        let header = call.authorization.as_deref().ok_or(Code::Unauthenticated)?;
        let presented = Presented::parse(header).map_err(|_| Code::Unauthenticated)?;
        let presented = Arc::new(presented);
        let address = *presented.address();
        let home = self.home(&address.box_id)?;
        let (partition, group) = home.ok_or(Code::Unauthenticated)?;
        let led = self.lead(group, call).await?;
        let generation = self
            .token_generation(&led, partition, &address, call.deadline)
            .await?;
        let admit = || self.admit(call, &led, Arc::clone(&presented), generation);
        let admitted = match admit().await {
            Err(HawkRefusal::NotCovered { until }) => {
                let covering = led.group.cover(partition, until, call.deadline);
                let covered = covering.await;
                covered.map_err(|error| Failure::of_propose(group, error))?;
                admit().await
            }
            other => other,
        };
        match admitted {
            Ok(caller) => {
                let standing = Standing {
                    led,
                    partition,
                    generation: generation.unwrap_or(NO_GENERATION),
                };
                Ok((caller, standing))
            }
            Err(refusal) => Err(refused(refusal, call.deadline).await.into()),
        }
    }

    /// Holds a request against the time and what was admitted before.
    async fn admit(
        &self,
        call: &Call,
        led: &Led,
        presented: Arc<Presented>,
        generation: Option<u64>,
    ) -> Result<Caller, HawkRefusal> {
        let credentials = self.credentials(presented.address(), generation);
        let hours = led.group.hours(led.term).ok_or(HawkRefusal::ReignOver)?;
        let reign = Reign {
            group: led.group.id(),
            term: led.term,
            since: hours.since,
            covered: hours.covered,
        };
        let now = led.group.service_time_by(call.deadline).await;
        self.guard
            .admit(presented, call.path, &call.message, credentials, reign, now)
    }

    /// The generation of the tokens that a device may use now; `None` for none.
    async fn token_generation(
        &self,
        led: &Led,
        partition: PartitionId,
        address: &DeviceAddress,
        deadline: Instant,
    ) -> Result<Option<u64>, Failure> {
        // Without a round to the quorum per call: a leader with a good lease that has caught up once in its
        // term has applied all that was ever acknowledged. Whether reads go by leases is a setting; this
        // always does.
        let latest = led.group.leads_surely() && led.group.leads_by_lease();
        if !latest || !self.confirmed.contains(led) {
            let caught_up = led.group.linearize(deadline).await;
            caught_up.map_err(|error| Failure::of_read(led.group.id(), error))?;
            self.confirmed.insert(led);
        }
        let query = Query::DeviceAuth(*address);
        match led.group.read_local(partition, &query) {
            // Who is not known here may be at home elsewhere: the map is old, or the partition not taken over yet.
            Ok(Answer::DeviceAuth(None)) if led.group.epoch(partition).is_none() => {
                Err(ApiError::unavailable("the box's group is not known here yet").into())
            }
            Ok(Answer::DeviceAuth(generation)) => Ok(generation),
            Ok(_) => Err(unexpected_answer("DeviceAuth").into()),
            Err(error) => Err(Failure::of_read(led.group.id(), error)),
        }
    }

    fn credentials(&self, address: &DeviceAddress, generation: Option<u64>) -> Credentials {
        let tokens = self
            .config
            .secrets
            .accepted_tokens(address, generation.unwrap_or(NO_GENERATION));
        Credentials {
            tokens: tokens.collect(),
            known: generation.is_some(),
        }
    }
}

/// What the caller is told. To be told the time means to hold the right token.
async fn refused(refusal: HawkRefusal, deadline: Instant) -> ApiError {
    let error = ApiError::from(Code::Unauthenticated);
    match refusal {
        HawkRefusal::NotAuthenticated => error,
        HawkRefusal::Replayed => error.with_detail("this very request was received before"),
        HawkRefusal::ReignOver | HawkRefusal::NotCovered { .. } => {
            ApiError::unavailable(refusal.to_string())
        }
        HawkRefusal::Overloaded => Code::Overloaded.into(),
        HawkRefusal::WrongTime { server_time, wait } => {
            let error = error
                .with_detail("sign again, with the server's time")
                .with_server_time(server_time);
            // A new leader can't accept anything signed before its reign. Answering only once it
            // will accept the time it names spares the caller a second refusal.
            if Instant::now() + wait < deadline {
                tokio::time::sleep(wait).await;
                error
            } else {
                error.with_retry_after(wait)
            }
        }
    }
}
