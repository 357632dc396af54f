//! What this machine can do at best, so that a rate here can be told from a rate there.

pub mod disk;
pub mod echo;
