//! Real `rossby` processes, alone and in clusters, driven as their owners and their users drive them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod abuse;
mod backup;
mod base;
mod bench;
mod check;
mod cluster;
mod config;
mod conversation;
mod couriers;
mod direct;
mod disk;
mod durability;
mod everywhere;
#[expect(dead_code, reason = "what else gateways do, api's own tests try")]
#[path = "../../../api/tests/doors/gateway/mod.rs"]
mod gateway;
mod joining;
mod listen;
mod members;
mod minority;
mod placement;
mod prediction;
mod recover;
mod regions;
mod rest;
mod secrecy;
mod serve;
mod stale;
mod starts;
mod support;
mod survival;
mod tls;
mod usage;
