//! Errors as clients see them: one table of stable codes.
//!
//! A client tells errors apart by the code (`google.rpc.ErrorInfo.reason`, domain `rossby`), knows
//! from `retry` whether trying again can help, and waits `google.rpc.RetryInfo` where it is given. The
//! gRPC code is for tools that know no better, the message is for people, and what only an operator
//! should read goes to the log and never onto the wire.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use rossby_domain::Rejection;
use rossby_domain::ids::Counter;
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_raft::{ProposeError, ReadError};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of our `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "rossby";
/// With [`Code::Unauthenticated`]: the time that the next request should carry, in milliseconds
/// since the Unix epoch. Given only to who holds the right token.
pub const SERVER_TIME_KEY: &str = "server_time_ms";
/// Whether trying again can help: see [`Retry::as_str`].
pub const RETRY_KEY: &str = "retry";

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: the same request gets the same answer.
    No,
    /// Yes, the very same request, under the same envelope ids.
    Same,
    /// Yes, after changing something: another code, the new key record, fewer envelopes.
    Changed,
}

impl Retry {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Same => "same",
            Self::Changed => "changed",
        }
    }
}

impl From<Retry> for v1::Retry {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::No => Self::No,
            Retry::Same => Self::Same,
            Retry::Changed => Self::Changed,
        }
    }
}

/// One row of the table.
struct Row {
    name: &'static str,
    grpc: tonic::Code,
    retry: Retry,
    message: &'static str,
}

/// Declares [`Code`] and its table from rows of `Variant, NAME, gRPC code, retry, message`.
macro_rules! codes {
    ($($variant:ident, $name:literal, $grpc:ident, $retry:ident, $message:literal;)*) => {
        /// A stable error code. The words never change meaning; new ones may be added.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $message] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        name: $name,
                        grpc: tonic::Code::$grpc,
                        retry: Retry::$retry,
                        message: $message,
                    },)*
                }
            }
        }
    };
}

codes! {
    // What was asked is not well formed.
    InvalidIdentifier, "INVALID_IDENTIFIER", InvalidArgument, Changed,
        "not a valid phone number (E.164) or email address";
    InvalidArgument, "INVALID_ARGUMENT", InvalidArgument, Changed,
        "the request is not well formed";
    BadSignature, "BAD_SIGNATURE", InvalidArgument, No,
        "a signature does not verify";
    RequestTooLarge, "REQUEST_TOO_LARGE", ResourceExhausted, Changed,
        "the request is larger than a request may be";
    TooManyRecipients, "TOO_MANY_RECIPIENTS", ResourceExhausted, Changed,
        "too many envelopes in one request";

    // Registration.
    KeyAlreadyRegistered, "KEY_ALREADY_REGISTERED", AlreadyExists, No,
        "this public key is already registered";
    IdentifierTaken, "IDENTIFIER_TAKEN", AlreadyExists, No,
        "this identifier already belongs to a box; link devices instead";
    TooManyCodes, "TOO_MANY_CODES", ResourceExhausted, Same,
        "too many verification codes were requested";
    NoCourier, "NO_COURIER", FailedPrecondition, Changed,
        "a code can't be sent there";
    CodeDelayed, "CODE_DELAYED", FailedPrecondition, Same,
        "the verification code has not been sent yet; the service goes on trying";
    CodeNotSent, "CODE_NOT_SENT", FailedPrecondition, Changed,
        "the verification code could not be sent to this identifier; check it, and register again";
    NoCodeRequested, "NO_CODE_REQUESTED", FailedPrecondition, Changed,
        "no verification code was requested for this identifier and box";
    CodeExpired, "CODE_EXPIRED", FailedPrecondition, Changed,
        "the verification code has expired; register again for another";
    CodeExhausted, "CODE_EXHAUSTED", FailedPrecondition, Changed,
        "too many wrong verification codes; register again for another";
    WrongCode, "WRONG_CODE", PermissionDenied, Changed,
        "wrong verification code";
    ResetWaits, "RESET_WAITS", FailedPrecondition, Changed,
        "the identifier is proven; once the delay is over, another code brings it to this box";
    OwnerNotTold, "OWNER_NOT_TOLD", FailedPrecondition, Changed,
        "the box that has this identifier can not be told now; register again for another code";
    ResetVetoed, "RESET_VETOED", PermissionDenied, Changed,
        "a device of the box that has this identifier keeps it";

    // Who is asking.
    Unauthenticated, "UNAUTHENTICATED", Unauthenticated, Changed,
        "not authenticated";

    // Keys.
    KeyCounterUsed, "KEY_COUNTER_USED", AlreadyExists, Changed,
        "this key counter was used for another key, or is below the current one";

    // The devices of a box.
    LinkNotAllowed, "LINK_NOT_ALLOWED", FailedPrecondition, No,
        "the box's identity chain does not allow this";
    ChainChanged, "CHAIN_CHANGED", FailedPrecondition, Changed,
        "the box's identity chain has changed; sign over it as it is now";
    NotLinked, "NOT_LINKED", FailedPrecondition, Same,
        "no box has linked this device yet";
    DeviceRevoked, "DEVICE_REVOKED", PermissionDenied, No,
        "this device was removed from its box";
    NotRecoverable, "NOT_RECOVERABLE", PermissionDenied, No,
        "no box with this recovery key is found there";
    BoxDeleted, "BOX_DELETED", PermissionDenied, No,
        "this device's box was deleted";

    // The identifiers of a box.
    TooManyIdentifiers, "TOO_MANY_IDENTIFIERS", ResourceExhausted, No,
        "the box has too many identifiers; remove one first";
    LastIdentifier, "LAST_IDENTIFIER", FailedPrecondition, No,
        "a box keeps one verified identifier; add another first";
    TtlNumberUsed, "TTL_NUMBER_USED", Aborted, Changed,
        "how long mail may wait was set meanwhile, or this statement was used before";
    IdentifierChanged, "IDENTIFIER_CHANGED", Aborted, Changed,
        "the identifier was verified or added again meanwhile; look at the list again";

    // Finding and sending.
    NoUser, "NO_USER", NotFound, No,
        "no such user";
    UnknownRecipient, "UNKNOWN_RECIPIENT", NotFound, No,
        "no such recipient";
    EnvelopeTooLarge, "ENVELOPE_TOO_LARGE", ResourceExhausted, Changed,
        "the envelope is larger than an envelope may be";
    StaleKeyRecord, "STALE_KEY_RECORD", FailedPrecondition, Changed,
        "the recipient's key record has changed; seal for the new one";
    CounterReused, "COUNTER_REUSED", AlreadyExists, Changed,
        "this envelope counter was used for another envelope";
    NotAccepted, "NOT_ACCEPTED", FailedPrecondition, Changed,
        "this envelope was not accepted, and its counter has been passed over";
    CounterForgotten, "COUNTER_FORGOTTEN", FailedPrecondition, Changed,
        "this envelope counter is too old to tell whether it was stored";
    SenderShareFull, "SENDER_SHARE_FULL", ResourceExhausted, Same,
        "the recipient's queue holds too much from this sender";
    QueueFull, "QUEUE_FULL", ResourceExhausted, Same,
        "the recipient's queue is full";
    BeyondQueue, "BEYOND_QUEUE", OutOfRange, No,
        "cannot acknowledge beyond the end of the queue";
    TooManyBlocked, "TOO_MANY_BLOCKED", ResourceExhausted, No,
        "too many blocked boxes";
    RateLimited, "RATE_LIMITED", ResourceExhausted, Same,
        "too often; try again later";
    Suspended, "SUSPENDED", PermissionDenied, Same,
        "the operator of the service has suspended this box: it can read, but not send";
    NeverHeardFrom, "NEVER_HEARD_FROM", FailedPrecondition, No,
        "that box has never written to this one";
    TooManyAllowed, "TOO_MANY_ALLOWED", ResourceExhausted, No,
        "too many contacts to accept from";

    // What a person shows of themselves.
    ProfileVersionUsed, "PROFILE_VERSION_USED", AlreadyExists, Changed,
        "this profile version was used for another profile, is below the current one, or is far above it";
    ProfileTooLarge, "PROFILE_TOO_LARGE", ResourceExhausted, Changed,
        "the profile is larger than a profile may be";

    // Subscriptions.
    SubscriptionReplaced, "SUBSCRIPTION_REPLACED", Aborted, No,
        "another subscription of this device has taken the place of this one";
    SubscriptionNotRead, "SUBSCRIPTION_NOT_READ", Aborted, Same,
        "the subscription was not read for too long; open it again";
    TooManySubscriptions, "TOO_MANY_SUBSCRIPTIONS", ResourceExhausted, Same,
        "the node serves as many subscriptions as it can";

    // The state of the service.
    Unavailable, "UNAVAILABLE", Unavailable, Same,
        "no leader or no quorum; nothing was done";
    OutcomeUnknown, "OUTCOME_UNKNOWN", DeadlineExceeded, Same,
        "the outcome is not known; try the same again";
    ClockUnsafe, "CLOCK_UNSAFE", Unavailable, Same,
        "the node's clock is not in step with its peers; nothing was done";
    Overloaded, "OVERLOADED", ResourceExhausted, Same,
        "the service is overloaded; nothing was done";
    DiskFull, "DISK_FULL", ResourceExhausted, Same,
        "the service's disk is full; nothing was done";
    NotInCluster, "NOT_IN_CLUSTER", Unavailable, Same,
        "this node belongs to no cluster yet";
    Internal, "INTERNAL", Internal, Same,
        "the service failed; its log says why";
}

impl Code {
    /// The code's word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The gRPC code that it goes with.
    #[must_use]
    pub const fn grpc(self) -> tonic::Code {
        self.row().grpc
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn retry(self) -> Retry {
        self.row().retry
    }

    /// What a person is told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.row().message
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal of a call, or of one envelope of a Send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: Code,
    /// Boxed, since most refusals are bare and every result has room for one.
    more: Option<Box<More>>,
}

/// What goes with a code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct More {
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    metadata: Vec<(&'static str, String)>,
    next_counter: Option<Counter>,
    key_record: Option<Bytes>,
    log: Option<String>,
}

impl From<Code> for ApiError {
    fn from(code: Code) -> Self {
        Self { code, more: None }
    }
}

impl ApiError {
    /// The request has a field that can't be read. `detail` names it for the developer of a client
    /// and never repeats what was sent.
    #[must_use]
    pub fn invalid(detail: &'static str) -> Self {
        Self::from(Code::InvalidArgument).with_detail(detail)
    }

    /// Nobody can serve this now; `log` says why to the operator.
    #[must_use]
    pub fn unavailable(log: impl Into<String>) -> Self {
        Self::from(Code::Unavailable)
            .with_retry_after(Duration::from_millis(250))
            .with_log(log)
    }

    /// The service is at fault; `log` says how to the operator.
    #[must_use]
    pub fn internal(log: impl Into<String>) -> Self {
        Self::from(Code::Internal).with_log(log)
    }

    /// Adds what a developer of a client may read.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.more_mut().detail = Some(detail.into());
        self
    }

    /// Adds how long to wait before trying again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.more_mut().retry_after = Some(wait);
        self
    }

    /// Adds a figure for programs, for example `attempts_left`.
    #[must_use]
    pub fn with_metadata(mut self, key: &'static str, value: impl ToString) -> Self {
        self.more_mut().metadata.push((key, value.to_string()));
        self
    }

    /// Adds the time that the next request should carry.
    #[must_use]
    pub fn with_server_time(self, time: Timestamp) -> Self {
        self.with_metadata(SERVER_TIME_KEY, time.as_millis())
    }

    /// Adds the recipient's key record as it is now (canonical bytes).
    #[must_use]
    pub fn with_key_record(mut self, record: Bytes) -> Self {
        self.more_mut().key_record = Some(record);
        self
    }

    /// Adds what only the operator should read. Never user data.
    #[must_use]
    pub fn with_log(mut self, log: impl Into<String>) -> Self {
        self.more_mut().log = Some(log.into());
        self
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// How long to wait before trying again, where known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.more.as_ref()?.retry_after
    }

    /// A figure for programs.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let mut figures = self.more.as_ref()?.metadata.iter();
        figures
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value.as_str())
    }

    /// What only the operator should read.
    #[must_use]
    pub fn log(&self) -> Option<&str> {
        self.more.as_ref()?.log.as_deref()
    }

    /// What a client is told of a rejection. `unknown` is the code for a box or device that is not
    /// there, which has another name in each call; `now` turns an instant into a time to wait.
    #[must_use]
    pub fn of_rejection(rejection: &Rejection, unknown: Code, now: Timestamp) -> Self {
        let mut error = Self::from(code_of(rejection, unknown));
        match *rejection {
            Rejection::TooManyCodes { retry_at }
            | Rejection::ResetVetoed { retry_at }
            | Rejection::CodeNotSent {
                retry_at: Some(retry_at),
                ..
            } => {
                let wait = Duration::from_millis(retry_at.millis_since(now));
                error = error.with_retry_after(wait);
            }
            Rejection::WrongCode { attempts_left } => {
                error = error.with_metadata("attempts_left", attempts_left);
            }
            Rejection::TooManyBlocked { limit }
            | Rejection::TooManyAllowed { limit }
            | Rejection::TooManyIdentifiers { limit } => {
                error = error.with_metadata("limit", limit);
            }
            Rejection::EnvelopeTooLarge { limit_bytes }
            | Rejection::ProfileTooLarge { limit_bytes } => {
                error = error.with_metadata("limit_bytes", limit_bytes);
            }
            Rejection::CounterReused { next }
            | Rejection::NotAccepted { next }
            | Rejection::CounterForgotten { next } => error.more_mut().next_counter = Some(next),
            Rejection::KeyCounterUsed { current } => {
                error = error.with_metadata("current_counter", current);
            }
            Rejection::TtlNumberUsed { current } => {
                error = error.with_metadata("current_number", current);
            }
            Rejection::LinkRefused(why) => error = error.with_detail(why.to_string()),
            Rejection::ChainChanged { current } | Rejection::ProfileVersionUsed { current } => {
                error = error.with_metadata("current_version", current);
            }
            Rejection::BeyondQueue { last } => error = error.with_metadata("last", last),
            Rejection::NotOwner { .. } => {
                error = Self::unavailable("the partition is not owned at the proposed epoch");
            }
            _ => {}
        }
        error
    }

    /// The refusal of one envelope, as an outcome of Send carries it.
    #[must_use]
    pub fn to_refusal(&self) -> v1::Refusal {
        let more = self.more.as_deref();
        v1::Refusal {
            code: self.code.as_str().to_owned(),
            message: self.code.message().to_owned(),
            retry: v1::Retry::from(self.code.retry()).into(),
            retry_after_ms: more.and_then(|more| more.retry_after).map(whole_millis),
            key_record: more.and_then(|more| more.key_record.clone()),
            next_counter: more
                .and_then(|more| more.next_counter)
                .map(|counter| counter.0),
        }
    }
}

fn whole_millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn code_of(rejection: &Rejection, unknown: Code) -> Code {
    match rejection {
        Rejection::NotOwner { .. } => Code::Unavailable,
        Rejection::KeyAlreadyRegistered => Code::KeyAlreadyRegistered,
        Rejection::IdentifierTaken => Code::IdentifierTaken,
        Rejection::TooManyCodes { .. } => Code::TooManyCodes,
        Rejection::CodeNotSent { trying: true, .. } => Code::CodeDelayed,
        Rejection::CodeNotSent { trying: false, .. } => Code::CodeNotSent,
        Rejection::NoCodeRequested => Code::NoCodeRequested,
        Rejection::CodeExpired => Code::CodeExpired,
        Rejection::CodeExhausted => Code::CodeExhausted,
        Rejection::WrongCode { .. } => Code::WrongCode,
        Rejection::UnknownBox | Rejection::UnknownDevice => unknown,
        Rejection::KeyCounterUsed { .. } => Code::KeyCounterUsed,
        Rejection::BadKeySignature => Code::BadSignature,
        Rejection::LinkRefused(_) => Code::LinkNotAllowed,
        Rejection::ChainChanged { .. } => Code::ChainChanged,
        Rejection::DeviceRevoked => Code::DeviceRevoked,
        Rejection::BoxDeleted => Code::BoxDeleted,
        Rejection::OwnerNotTold => Code::OwnerNotTold,
        Rejection::ClockInDoubt => Code::ClockUnsafe,
        Rejection::ResetVetoed { .. } => Code::ResetVetoed,
        Rejection::TooManyIdentifiers { .. } => Code::TooManyIdentifiers,
        Rejection::LastIdentifier => Code::LastIdentifier,
        Rejection::IdentifierChanged => Code::IdentifierChanged,
        Rejection::TtlNumberUsed { .. } => Code::TtlNumberUsed,
        Rejection::TooManyBlocked { .. } => Code::TooManyBlocked,
        Rejection::TooManyAllowed { .. } => Code::TooManyAllowed,
        Rejection::EnvelopeTooLarge { .. } => Code::EnvelopeTooLarge,
        Rejection::StaleKeyRecord { .. } => Code::StaleKeyRecord,
        Rejection::CounterReused { .. } => Code::CounterReused,
        Rejection::NotAccepted { .. } => Code::NotAccepted,
        Rejection::CounterForgotten { .. } => Code::CounterForgotten,
        Rejection::SenderShareFull => Code::SenderShareFull,
        Rejection::QueueFull => Code::QueueFull,
        Rejection::BeyondQueue { .. } => Code::BeyondQueue,
        Rejection::ProfileVersionUsed { .. } => Code::ProfileVersionUsed,
        Rejection::ProfileTooLarge { .. } => Code::ProfileTooLarge,
        // Answers to operators and planners, who never come here.
        Rejection::MapChanged { .. }
        | Rejection::PlacementRefused(_)
        | Rejection::AdmissionRefused(_) => Code::Internal,
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        let log = error.to_string();
        match error {
            ProposeError::NotLeader { .. } | ProposeError::NoQuorum | ProposeError::Stopped => {
                Self::unavailable(log)
            }
            ProposeError::ClockUnsafe => Self::from(Code::ClockUnsafe).with_log(log),
            ProposeError::Overloaded => Self::from(Code::Overloaded)
                .with_retry_after(Duration::from_millis(500))
                .with_log(log),
            ProposeError::DiskFull => Self::from(Code::DiskFull)
                .with_retry_after(Duration::from_secs(30))
                .with_log(log),
            ProposeError::Unknown => Self::from(Code::OutcomeUnknown).with_log(log),
            ProposeError::Unencodable => Self::from(Code::Internal).with_log(log),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<ApiError> for tonic::Status {
    fn from(error: ApiError) -> Self {
        let code = error.code;
        let more = error.more.map(|more| *more).unwrap_or_default();
        let message = match more.detail {
            Some(detail) => format!("{}: {detail}", code.message()),
            None => code.message().to_owned(),
        };
        let mut metadata: HashMap<String, String> = more
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        metadata.insert(RETRY_KEY.to_owned(), code.retry().as_str().to_owned());
        let mut details = ErrorDetails::with_error_info(code.as_str(), ERROR_DOMAIN, metadata);
        if let Some(wait) = more.retry_after {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(code.grpc(), message, details)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_in_capitals() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(
            names
                .iter()
                .all(|n| n.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        );
    }

    #[test]
    fn the_protocols_document_lists_every_code() {
        let document = include_str!("../../docs/PROTOCOL.md");
        let (_, table) = document.split_once("<!-- codes -->").unwrap();
        let (table, _) = table.trim_start().split_once("\n\n").unwrap();
        let listed: Vec<&str> = table.lines().skip(2).collect();
        let row = |code: &Code| {
            let (name, retry, message) = (code.as_str(), code.retry().as_str(), code.message());
            format!("| `{name}` | {retry} | {message} |")
        };
        let known: Vec<String> = Code::ALL.iter().map(row).collect();
        assert_eq!(listed, known);
    }

    #[test]
    fn a_status_carries_code_retry_and_time_to_wait_but_not_the_log() {
        let error = ApiError::from(Code::WrongCode)
            .with_metadata("attempts_left", 3)
            .with_retry_after(Duration::from_millis(1500))
            .with_log("for the operator");
        let status = tonic::Status::from(error);
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("WRONG_CODE", "rossby")
        );
        assert_eq!(info.metadata["retry"], "changed");
        assert_eq!(info.metadata["attempts_left"], "3");
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(Duration::from_millis(1500))
        );
        let wire = format!("{status:?}{}", String::from_utf8_lossy(status.details()));
        assert!(!wire.contains("operator"));
    }

    #[test]
    fn a_blocked_senders_refusal_is_that_of_an_unknown_box() {
        let now = Timestamp::from_millis(0);
        let refusal = |rejection| {
            ApiError::of_rejection(&rejection, Code::UnknownRecipient, now).to_refusal()
        };
        assert_eq!(
            refusal(Rejection::UnknownBox),
            refusal(Rejection::UnknownDevice)
        );
        assert_eq!(refusal(Rejection::UnknownBox).code, "UNKNOWN_RECIPIENT");
    }

    #[test]
    fn an_unknown_outcome_never_reads_as_nothing_done() {
        let error = ApiError::from(ProposeError::Unknown);
        assert_eq!(error.code(), Code::OutcomeUnknown);
        assert_eq!(error.code().grpc(), tonic::Code::DeadlineExceeded);
        assert_eq!(error.code().retry(), Retry::Same);
    }
}
