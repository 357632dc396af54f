//! The doors of nodes in memory, from the admin socket to the couriers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod abuse;
mod across;
mod admin;
mod attacks;
mod clocks;
mod couriers;
mod deleting;
mod deliveries;
mod devices;
mod expiry;
mod gateway;
mod grpc;
mod identifiers;
mod keys;
mod leaders;
mod mailbox;
mod peers;
mod profiles;
mod recovering;
mod registration;
mod relayed;
mod resetting;
mod revoking;
mod signals;
mod subscribe;
mod support;
