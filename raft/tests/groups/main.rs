//! Groups of one and three nodes, from the first election to power loss.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod clocks;
mod disk;
mod expiry;
mod faults;
mod leases;
mod members;
mod pressure;
mod rest;
mod service;
mod shipping;
mod world;
