//! The recovery key as a text that a person can write down.
//!
//! Twenty-four English words, as BIP-39 makes them of the 32 bytes of the key's seed: the last one holds
//! a checksum, so that a slip of the pen is noticed. Earlier devices showed seventeen groups of four
//! hexadecimal digits instead, the seed and the first two bytes of its labelled SHA-256: those are still
//! read.

use bip39::{Language, Mnemonic};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::secret::Secret;

/// Words of a recovery key.
pub const WORDS: usize = 24;
/// No word of the list is longer than eight letters.
const MAX_TEXT_BYTES: usize = WORDS * 9;
/// Digits of the hexadecimal form.
const DIGITS: usize = 68;
const CHECK_BYTES: usize = 2;

/// A text is not a recovery key. Never says what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryTextError {
    /// Neither as many words as there must be, nor as many digits.
    #[error("a recovery key has 24 words, or 17 groups of 4 hexadecimal digits")]
    Form,
    /// A word that no recovery key has, by its place from 1.
    #[error("word {0} is none that a recovery key can have")]
    Word(usize),
    /// All that is read can be, but it does not fit together.
    #[error("the recovery key has a mistake in it")]
    Check,
}

/// Writes a recovery key's seed as words, with a space between them.
#[must_use]
pub fn to_text(seed: &Secret<32>) -> Zeroizing<String> {
    // As long as it will ever be: a text that grew would leave parts of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_TEXT_BYTES));
    // 32 bytes are always words.
    if let Ok(mnemonic) = Mnemonic::from_entropy(seed.expose()) {
        for word in mnemonic.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
    text
}

/// Reads a recovery key's seed. Case and spacing do not matter.
///
/// # Errors
/// [`RecoveryTextError`]: what is wrong with it.
pub fn from_text(text: &str) -> Result<Secret<32>, RecoveryTextError> {
    if text.split_whitespace().count() != WORDS {
        return from_digits(text);
    }
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &text);
    let mnemonic = mnemonic.map_err(|error| match error {
        bip39::Error::UnknownWord(index) => RecoveryTextError::Word(index.saturating_add(1)),
        bip39::Error::InvalidChecksum => RecoveryTextError::Check,
        _ => RecoveryTextError::Form,
    })?;
    let (bytes, _) = mnemonic.to_entropy_array();
    let bytes = Zeroizing::new(bytes);
    let seed = bytes.first_chunk::<32>().ok_or(RecoveryTextError::Form)?;
    Ok(Secret::new(*seed))
}

/// Reads the hexadecimal form.
fn from_digits(text: &str) -> Result<Secret<32>, RecoveryTextError> {
    let written = |c: &char| !c.is_whitespace() && *c != '-';
    if text.chars().filter(written).count() != DIGITS {
        return Err(RecoveryTextError::Form);
    }
    let mut bytes = Zeroizing::new([0_u8; 32 + CHECK_BYTES]);
    let mut digits = text.chars().filter(written);
    for byte in bytes.iter_mut() {
        let mut digit = || {
            let next = digits.next();
            next.and_then(|c| c.to_digit(16))
                .ok_or(RecoveryTextError::Form)
        };
        *byte = u8::try_from(digit()? * 16 + digit()?).map_err(|_| RecoveryTextError::Form)?;
    }
    let (seed, given) = bytes
        .split_first_chunk::<32>()
        .ok_or(RecoveryTextError::Form)?;
    if given != check(seed) {
        return Err(RecoveryTextError::Check);
    }
    Ok(Secret::new(*seed))
}

fn check(seed: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(b"rossby recovery key v1")
        .chain_update(seed)
        .finalize();
    let [first, second, ..] = <[u8; 32]>::from(digest);
    [first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key as earlier devices showed it.
    fn to_digits(seed: [u8; 32]) -> String {
        let bytes = [&seed[..], &check(&seed)].concat();
        let groups = bytes.chunks(2).map(|pair| {
            let [first, second] = pair.try_into().unwrap();
            format!("{first:02x}{second:02x}")
        });
        groups.collect::<Vec<_>>().join(" ")
    }

    proptest! {
        #[test]
        fn a_recovery_key_survives_being_written_down(seed: [u8; 32]) {
            let text = to_text(&Secret::new(seed));
            prop_assert_eq!(text.split(' ').count(), WORDS);
            prop_assert!(text.capacity() <= MAX_TEXT_BYTES);
            let typed = text.to_uppercase().replace(' ', "\n ");
            prop_assert_eq!(from_text(&typed), Ok(Secret::new(seed)));
        }

        #[test]
        fn the_digits_of_earlier_devices_are_read(seed: [u8; 32]) {
            let text = to_digits(seed);
            prop_assert_eq!(text.split(' ').count(), 17);
            prop_assert_eq!(from_text(&text.to_uppercase()), Ok(Secret::new(seed)));
            let joined = text.replace(' ', "");
            prop_assert_eq!(from_text(&joined), Ok(Secret::new(seed)));
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in ".*",
            words in proptest::collection::vec("(abandon|ability|zoo|[a-z]{3,8})", 22..26),
        ) {
            let _ = from_text(&text);
            let _ = from_text(&words.join(" "));
        }
    }

    #[test]
    fn the_words_are_those_that_bip_39_publishes() {
        // The test vectors of BIP-39: entropy 00.., ff.. and 80...
        let zeroes = format!("{}art", "abandon ".repeat(23));
        assert_eq!(to_text(&Secret::new([0; 32])).as_str(), zeroes);
        let ones = format!("{}vote", "zoo ".repeat(23));
        assert_eq!(to_text(&Secret::new([0xff; 32])).as_str(), ones);
        let letters = "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount \
                       doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless";
        assert_eq!(to_text(&Secret::new([0x80; 32])).as_str(), letters);
        assert_eq!(from_text(letters), Ok(Secret::new([0x80; 32])));
    }

    #[test]
    fn a_slip_is_noticed() {
        let text = to_text(&Secret::new([0; 32]));
        let unknown = text.replacen("abandon", "abandoned", 1);
        assert_eq!(from_text(&unknown), Err(RecoveryTextError::Word(1)));
        let another = text.replace("art", "zoo");
        assert_eq!(from_text(&another), Err(RecoveryTextError::Check));
        let short = text.replacen("abandon ", "", 1);
        assert_eq!(from_text(&short), Err(RecoveryTextError::Form));
        let digits = to_digits([7; 32]);
        let slipped = digits.replacen('7', "8", 1);
        assert_eq!(from_text(&slipped), Err(RecoveryTextError::Check));
        assert_eq!(from_text("07"), Err(RecoveryTextError::Form));
        assert_eq!(
            from_text(&format!("{digits}0")),
            Err(RecoveryTextError::Form)
        );
    }
}
