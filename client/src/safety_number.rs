//! The safety number: sixty digits that two people compare by other means. If they agree, nobody
//! stands between the two.
//!
//! It is Signal's numeric fingerprint (version 0, 5,200 rounds of SHA-512) with the hash of the
//! genesis record as the key and the box id as the stable identifier. It changes only when one of
//! the two begins anew with another box: devices come and go under the same genesis.

use rossby_domain::chain::ChainHash;
use rossby_domain::ids::BoxId;
use sha2::{Digest as _, Sha512};

const VERSION: [u8; 2] = [0, 0];
const ROUNDS: u32 = 5200;
/// Digits come in chunks of five, each from five bytes.
const CHUNK: usize = 5;
const CHUNKS_PER_SIDE: usize = 6;

/// The safety number of two boxes, the same from both sides: twelve groups of five digits.
#[must_use]
pub fn safety_number(one: (&BoxId, &ChainHash), other: (&BoxId, &ChainHash)) -> String {
    let side = |(box_id, genesis): (&BoxId, &ChainHash)| digits_of(box_id.as_bytes(), genesis);
    joined([side(one), side(other)])
}

/// The number of two sides, the same whichever comes first.
fn joined(mut sides: [Vec<String>; 2]) -> String {
    sides.sort();
    sides.concat().join(" ")
}

/// One side's thirty digits, in groups of five.
fn digits_of(stable_identifier: &[u8], key: &[u8]) -> Vec<String> {
    let mut hash: [u8; 64] = Sha512::new()
        .chain_update(VERSION)
        .chain_update(key)
        .chain_update(stable_identifier)
        .chain_update(key)
        .finalize()
        .into();
    for _ in 1..ROUNDS {
        hash = Sha512::new()
            .chain_update(hash)
            .chain_update(key)
            .finalize()
            .into();
    }
    let chunks = hash.chunks_exact(CHUNK).take(CHUNKS_PER_SIDE);
    let number = |chunk: &[u8]| {
        chunk
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    chunks
        .map(|chunk| format!("{:05}", number(chunk) % 100_000))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rossby_domain::ids::PartitionId;

    fn hex(digits: &str) -> Vec<u8> {
        let (pairs, _) = digits.as_bytes().as_chunks::<2>();
        let text = |pair: &[u8; 2]| String::from_utf8(pair.to_vec()).unwrap();
        pairs
            .iter()
            .map(|pair| u8::from_str_radix(&text(pair), 16).unwrap())
            .collect()
    }

    /// The vector of libsignal's tests (`rust/protocol/src/fingerprint.rs`), version 1.
    #[test]
    fn the_digits_are_those_of_signals_algorithm() {
        let alice = hex("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868");
        let bob = hex("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b");
        let alice = digits_of(b"+14152222222", &alice);
        let bob = digits_of(b"+14153333333", &bob);
        let published = "300354477692869396892869876765458257569162576843440918079131";
        for sides in [[alice.clone(), bob.clone()], [bob, alice]] {
            assert_eq!(joined(sides).replace(' ', ""), published);
        }
    }

    #[test]
    fn both_sides_see_the_same_number_and_others_another() {
        let box_id = |n: u8| BoxId::derive(PartitionId::new(1).unwrap(), &[n; 32]);
        let (a, b, c) = (box_id(1), box_id(2), box_id(3));
        let number = safety_number((&a, &[1; 32]), (&b, &[2; 32]));
        assert_eq!(number.len(), 60 + 11);
        assert_eq!(number, safety_number((&b, &[2; 32]), (&a, &[1; 32])));
        assert_ne!(number, safety_number((&a, &[1; 32]), (&c, &[3; 32])));
    }
}
