//! The recovery key as a text that a person can write down.
//!
//! Seventeen groups of four hexadecimal digits: the 32 bytes of the key's seed, then the first two
//! bytes of their labelled SHA-256, so that a slip of the pen is noticed.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::secret::Secret;

const GROUP_DIGITS: usize = 4;
const CHECK_BYTES: usize = 2;

/// A text is not a recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryTextError {
    /// Not 68 hexadecimal digits.
    #[error("a recovery key has 17 groups of 4 hexadecimal digits")]
    Form,
    /// The digits do not fit together.
    #[error("the recovery key has a mistake in it")]
    Check,
}

fn check(seed: &[u8; 32]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(b"rossby recovery key v1")
        .chain_update(seed)
        .finalize();
    let [first, second, ..] = <[u8; 32]>::from(digest);
    [first, second]
}

/// Writes a recovery key's seed as text.
#[must_use]
pub fn to_text(seed: &Secret<32>) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(17 * (GROUP_DIGITS + 1)));
    let bytes = seed.expose().iter().copied().chain(check(seed.expose()));
    for (index, byte) in bytes.enumerate() {
        if index > 0 && index.is_multiple_of(GROUP_DIGITS / 2) {
            text.push(' ');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

/// Reads a recovery key's seed. Case and spacing do not matter.
///
/// # Errors
/// [`RecoveryTextError`]: what is wrong with it.
pub fn from_text(text: &str) -> Result<Secret<32>, RecoveryTextError> {
    let mut bytes = Zeroizing::new([0_u8; 32 + CHECK_BYTES]);
    let mut digits = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    for byte in bytes.iter_mut() {
        let mut digit = || {
            digits
                .next()
                .and_then(|c| c.to_digit(16))
                .ok_or(RecoveryTextError::Form)
        };
        *byte = u8::try_from(digit()? * 16 + digit()?).map_err(|_| RecoveryTextError::Form)?;
    }
    if digits.next().is_some() {
        return Err(RecoveryTextError::Form);
    }
    let (seed, given) = bytes
        .split_first_chunk::<32>()
        .ok_or(RecoveryTextError::Form)?;
    if given != check(seed) {
        return Err(RecoveryTextError::Check);
    }
    Ok(Secret::new(*seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_recovery_key_survives_being_written_down(seed: [u8; 32]) {
            let text = to_text(&Secret::new(seed));
            prop_assert_eq!(text.split(' ').count(), 17);
            prop_assert_eq!(from_text(&text.to_uppercase()), Ok(Secret::new(seed)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = from_text(&text);
        }
    }

    #[test]
    fn a_slip_is_noticed() {
        let text = to_text(&Secret::new([7; 32]));
        let slipped = text.replacen('7', "8", 1);
        assert_eq!(from_text(&slipped), Err(RecoveryTextError::Check));
        assert_eq!(from_text("07"), Err(RecoveryTextError::Form));
        assert_eq!(
            from_text(&format!("{}0", *text)),
            Err(RecoveryTextError::Form)
        );
    }
}
