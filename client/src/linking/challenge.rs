//! The digits that a device which approves another draws, and a person types on the new one.
//!
//! What both devices show for comparison depends on them, so nobody can have looked for keys beforehand
//! that show the same: the code is fixed before they are drawn.

use std::fmt;

use rossby_seams::random::{Random, RandomError, bytes};

/// The digits are a number below this.
const NUMBERS: u64 = 1_000_000;
/// How many digits there are.
const DIGITS: usize = 6;

/// A text is no such digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other device shows six digits")]
pub struct ChallengeError;

/// Six digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge(u64);

impl Challenge {
    /// Draws digits.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn draw(random: &dyn Random) -> Result<Self, RandomError> {
        let drawn: [u8; 8] = bytes(random)?;
        Ok(Self(u64::from_be_bytes(drawn) % NUMBERS))
    }

    /// Reads digits as they were typed. Spaces do not matter.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn from_text(text: &str) -> Result<Self, ChallengeError> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ChallengeError);
        }
        digits.parse().map(Self).map_err(|_| ChallengeError)
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_seams::random::SeededRandom;

    use super::*;

    proptest! {
        #[test]
        fn what_is_drawn_can_be_typed(seed: u64) {
            let drawn = Challenge::draw(&SeededRandom::new(seed)).unwrap();
            let text = drawn.to_string();
            prop_assert_eq!(text.len(), DIGITS);
            prop_assert_eq!(Challenge::from_text(&text), Ok(drawn));
            prop_assert_eq!(Challenge::from_text(&format!(" {} {}", &text[..3], &text[3..])), Ok(drawn));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*", digits in "[0-9]{0,20}") {
            let _ = Challenge::from_text(&text);
            prop_assert_eq!(Challenge::from_text(&digits).is_ok(), digits.len() == DIGITS);
        }
    }
}
