//! The `rossby.v1` wire types, generated from `proto/rossby/v1/*.proto`.
//!
//! They end at the doors: `api` and `client` turn them into domain types at once, and nothing
//! stores, logs or passes them on.

/// The protocol, version 1.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    rust_2018_idioms
)]
pub mod v1 {
    tonic::include_proto!("rossby.v1");

    /// The compiled descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rossby.bin"));
}
