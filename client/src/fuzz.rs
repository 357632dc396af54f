//! What holds for what servers and other devices send, whatever it is. For the fuzzer
//! (`fuzz/targets/`) and for the tests that replay its corpus; never in a release.
//!
//! Each function panics if something that must hold does not, and says whether the input was
//! accepted.

pub use crate::connection::fuzz::reply;
pub use crate::envelope::fuzz::envelope;

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
pub(crate) mod replay;
