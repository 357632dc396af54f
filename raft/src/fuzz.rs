//! What holds for what peers send and the log holds, whatever it is. For the fuzzer (`fuzz/targets/`)
//! and for the tests that replay its corpus; never in a release.
//!
//! Each function panics if something that must hold does not, and says whether the input was
//! accepted.

use bytes::Bytes;

use crate::frame::Frame;
use crate::types::{decode_membership, decode_payload, encode_membership, encode_payload};

/// A frame of a link, or the payload of an entry, or a membership: the first byte says which.
pub fn frame(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else {
        return false;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match kind % 3 {
        0 => {
            let Ok(frame) = Frame::decode(&bytes) else {
                return false;
            };
            let written = frame.encode();
            let again = Frame::decode(&written);
            // A membership may be told in several ways; it is written in one.
            assert!(again.is_ok_and(|again| again.encode() == written));
        }
        1 => {
            let Ok(payload) = decode_payload(bytes) else {
                return false;
            };
            let written = encode_payload(&payload);
            assert!(decode_payload(written).is_ok_and(|again| again == payload));
        }
        _ => {
            let Ok(membership) = decode_membership(&bytes) else {
                return false;
            };
            let written = encode_membership(&membership);
            assert!(decode_membership(&written).is_ok_and(|again| again == membership));
        }
    }
    true
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::TestRunner;

    use super::replay::{replay, seed, with};
    use super::*;
    use crate::frame::frames;

    #[test]
    fn the_corpus_of_frames_holds() {
        replay("frame", frame);
    }

    #[test]
    fn real_frames_are_accepted() {
        let mut runner = TestRunner::deterministic();
        for number in 0..60 {
            let real = frames().new_tree(&mut runner).unwrap().current();
            let name = format!("seed-{number:02}");
            seed("frame", &name, &with(0, &real.encode()), frame);
        }
        seed("frame", "seed-blank", &[1, 1, 0], frame);
    }
}
