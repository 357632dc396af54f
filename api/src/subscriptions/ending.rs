//! How a subscription ends.

use std::time::Duration;

use rossby_domain::ids::Sequence;
use rossby_raft::ReadError;
use tonic::Status;

use crate::error::{ApiError, Code};

/// Why a subscription ends.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Its time is over. The only end in good order: the device opens it again.
    Over,
    /// The subscriber is gone.
    Gone,
    /// The device has opened a newer one.
    Replaced,
    /// The node is about to stop.
    Stopping,
    /// The device may no longer read, or has another token.
    Revoked,
    /// This node no longer leads, or is not sure to.
    NotLeading(String),
    /// The subscriber does not read what it is sent.
    NotRead,
    /// It was to begin beyond the end of the queue.
    BeyondQueue(Sequence),
    /// It is our fault.
    Failed(String),
}

impl Ending {
    /// For metrics.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Over => "over",
            Self::Gone => "gone",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
            Self::Revoked => "revoked",
            Self::NotLeading(_) => "not_leading",
            Self::NotRead => "not_read",
            Self::BeyondQueue(_) => "beyond_queue",
            Self::Failed(_) => "failed",
        }
    }

    /// What the subscriber is told; `None` for an end in good order.
    pub(crate) fn into_status(self) -> Option<Status> {
        let error = match self {
            Self::Over | Self::Gone => return None,
            Self::Replaced => Code::SubscriptionReplaced.into(),
            Self::Stopping => stopping(),
            Self::Revoked => Code::Unauthenticated.into(),
            Self::NotLeading(log) => ApiError::unavailable(log),
            Self::NotRead => Code::SubscriptionNotRead.into(),
            Self::BeyondQueue(last) => ApiError::from(Code::BeyondQueue)
                .with_detail("the subscription would begin beyond it")
                .with_metadata("last", last),
            Self::Failed(log) => ApiError::internal(log),
        };
        Some(error.into())
    }
}

impl From<ReadError> for Ending {
    fn from(error: ReadError) -> Self {
        Self::NotLeading(error.to_string())
    }
}

/// The word of a node that is about to stop: another one is there at once.
pub(super) fn stopping() -> ApiError {
    ApiError::unavailable("this node is about to stop").with_retry_after(Duration::ZERO)
}
