//! The doors of a node: what a client, a peer and an operator may say to it.
//!
//! ```text
//!   bytes ──► grpc (raw codec) ──► Door ──► MailboxService::handle ──► one file of rpc/
//!                                   │            │                       parse ─► verify ─►
//!                                   └─ relay     └─ hawk: who is asking  authorise ─► dispatch
//!                                                                             │
//!                                                        router: which group, led here or elsewhere
//!                                                                             │
//!   workers: courier, finisher, expiry, adoption ───────────────────────► raft::Group
//! ```
//!
//! Invariants: wire types end here and domain types begin here; nothing is read from a message of an
//! authenticated call before its Hawk header was verified over the very bytes received; no log line
//! and no metric holds an identifier, a code, a token, a key or a box's id; errors for clients come
//! from the one table in [`error`].
//!
//! Start reading at [`mailbox`], then the file of one call in [`rpc`].

pub mod admin;
pub mod call;
pub mod courier;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod grpc;
pub mod hawk;
pub mod http;
pub mod limits;
pub mod listener;
pub mod mailbox;
pub mod metrics;
pub mod peer;
pub mod placement;
pub mod rates;
pub mod reflection;
pub mod relay;
pub mod router;
pub mod rpc;
pub mod secrets;
mod signals;
mod subscriptions;
pub mod workers;

mod convert;

pub use call::{Call, CallError, CallReply, CallStream, Door, RpcPath};
pub use error::{ApiError, Code, Retry};
pub use grpc::MailboxServer;
pub use limits::DoorLimits;
pub use mailbox::{MailboxConfig, MailboxService};
pub use metrics::Metrics;
pub use relay::Relay;
pub use router::{Directory, Router, SoleGroup};
pub use secrets::ClusterSecrets;
pub use workers::Workers;
