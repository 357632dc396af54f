//! The service's "no", read from where it stands: in a gRPC status or in an outcome of Send.

use std::collections::BTreeMap;
use std::time::Duration;

use rossby_domain::ids::Counter;
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use tonic_types::StatusExt as _;

/// The domain of our codes.
const DOMAIN: &str = "rossby";

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No.
    No,
    /// The very same request may pass later.
    Same,
    /// Another request may pass.
    Changed,
}

/// What the service answered instead of doing what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code, for example `WRONG_CODE`.
    pub code: String,
    /// The service's words.
    pub message: String,
    /// Whether trying again can help.
    pub retry: Retry,
    /// How long to wait before that.
    pub retry_after: Option<Duration>,
    /// The service's time, where ours was refused.
    pub server_time: Option<Timestamp>,
    /// Figures, for example `attempts_left`.
    pub figures: BTreeMap<String, String>,
    /// With `STALE_KEY_RECORD`: the record as it is now.
    pub key_record: Option<Vec<u8>>,
    /// With refusals of a counter: the lowest free one.
    pub next_counter: Option<Counter>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    /// The refusal in a gRPC status; `None` if the status is not one of the service's.
    #[must_use]
    pub fn of_status(status: &tonic::Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let figures: BTreeMap<_, _> = info.metadata.clone().into_iter().collect();
        let retry = match figures.get("retry").map(String::as_str) {
            Some("same") => Retry::Same,
            Some("changed") => Retry::Changed,
            _ => Retry::No,
        };
        let server_time = figures
            .get("server_time_ms")
            .and_then(|millis| millis.parse().ok())
            .map(Timestamp::from_millis);
        Some(Self {
            code: info.reason.clone(),
            message: status.message().to_owned(),
            retry,
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            server_time,
            figures,
            key_record: None,
            next_counter: None,
        })
    }

    /// The refusal of one envelope.
    #[must_use]
    pub fn of_outcome(refusal: v1::Refusal) -> Self {
        let retry = match refusal.retry() {
            v1::Retry::Same => Retry::Same,
            v1::Retry::Changed => Retry::Changed,
            v1::Retry::No | v1::Retry::Unspecified => Retry::No,
        };
        Self {
            code: refusal.code,
            message: refusal.message,
            retry,
            retry_after: refusal.retry_after_ms.map(Duration::from_millis),
            server_time: None,
            figures: BTreeMap::new(),
            key_record: refusal.key_record.map(|record| record.to_vec()),
            next_counter: refusal.next_counter.map(Counter),
        }
    }

    /// Whether the refusal is about the state of the service and not about the request.
    #[must_use]
    pub fn is_about_the_service(&self) -> bool {
        let stateful = matches!(
            self.code.as_str(),
            "UNAVAILABLE"
                | "OUTCOME_UNKNOWN"
                | "CLOCK_UNSAFE"
                | "OVERLOADED"
                | "DISK_FULL"
                | "TOO_MANY_SUBSCRIPTIONS"
                | "SUBSCRIPTION_NOT_READ"
                | "NOT_IN_CLUSTER"
                | "INTERNAL"
        );
        stateful || self.is_about_time()
    }

    /// Whether nothing was done because nobody could.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        let away = matches!(
            self.code.as_str(),
            "UNAVAILABLE" | "CLOCK_UNSAFE" | "NOT_IN_CLUSTER"
        );
        away || self.is_about_time()
    }

    /// Whether only the time of the signature was wrong: the token was right, and nothing was done.
    /// While leaders change, one after the other may want a later time.
    #[must_use]
    pub fn is_about_time(&self) -> bool {
        self.server_time.is_some()
    }

    /// Whether the request may have taken effect all the same.
    #[must_use]
    pub fn leaves_outcome_unknown(&self) -> bool {
        matches!(self.code.as_str(), "OUTCOME_UNKNOWN" | "INTERNAL")
    }

    /// Whether another server, or the same one in a moment, may answer otherwise.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.retry == Retry::Same && self.is_about_the_service()
    }
}
