//! The code that a new device shows, as a text and in a QR code, and the digits that guard it.
//!
//! The bytes: `u8` 1, the Ed25519 public key, `u8` length of the name, the name, and the first four bytes
//! of the labelled SHA-256 of all that. Written as hexadecimal digits in groups of four.

use argon2::{Algorithm, Argon2, Params, Version};
use rossby_domain::chain::{ChainHash, SigningPublicKey};
use rossby_domain::ids::DeviceId;
use rossby_domain::wire::{Reader, WireError, Writer};
use sha2::{Digest as _, Sha256};

use super::challenge::Challenge;
use super::name::DeviceName;
use crate::store::KdfCost;

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 4;
const MAX_BYTES: usize = 1 + 32 + 1 + DeviceName::MAX_BYTES + CHECK_BYTES;
const GROUP_DIGITS: usize = 4;
/// Argon2 wants a salt; what makes the digits another each time is the message.
const SALT: &[u8] = b"rossby link code";
/// The digits that are compared are a number below this.
const NUMBERS: u64 = 100_000_000;

/// A text is no link code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkCodeError {
    /// Not hexadecimal digits, too few or too many.
    #[error("this is no link code: it has hexadecimal digits only, as the new device shows them")]
    Form,
    /// The digits do not fit together.
    #[error("the link code has a mistake in it")]
    Check,
    /// Made by a later version.
    #[error("the link code is of version {0}, which this version does not know")]
    Version(u8),
    /// The digits can not be worked out.
    #[error("there is not enough memory to work out the digits to compare")]
    Digits,
}

impl From<WireError> for LinkCodeError {
    fn from(_: WireError) -> Self {
        Self::Form
    }
}

/// What a new device shows to the one that is to link it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkCode {
    /// The new device's signing key.
    pub key: SigningPublicKey,
    /// What it is to be called.
    pub name: DeviceName,
}

impl LinkCode {
    /// The device that the code is of.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&self.key)
    }

    fn encode(&self) -> Vec<u8> {
        let name = self.name.as_str().as_bytes();
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let writer = Writer::default().u8(VERSION).fixed(&self.key).u8(length);
        let mut bytes = writer.finish();
        bytes.extend_from_slice(name);
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, LinkCodeError> {
        let (body, given) = bytes
            .split_last_chunk::<CHECK_BYTES>()
            .ok_or(LinkCodeError::Form)?;
        if check(body) != *given {
            return Err(LinkCodeError::Check);
        }
        let mut reader = Reader::new(body);
        match reader.u8()? {
            VERSION => {}
            later => return Err(LinkCodeError::Version(later)),
        }
        let key = reader.fixed()?;
        let length = usize::from(reader.u8()?);
        let name = body.get(1 + 32 + 1..).unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| LinkCodeError::Form)?;
        if name.len() != length {
            return Err(LinkCodeError::Form);
        }
        let name = DeviceName::new(name).map_err(|_| LinkCodeError::Form)?;
        Ok(Self { key, name })
    }

    /// The digits alone, which is what a QR code holds.
    #[must_use]
    pub fn to_digits(&self) -> String {
        use std::fmt::Write as _;
        self.encode().iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02X}");
            text
        })
    }

    /// The code as a text: one word, in groups of four digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        let digits = self.to_digits();
        let (mut text, mut rest) = (String::new(), digits.as_str());
        while let Some((group, more)) = rest.split_at_checked(GROUP_DIGITS) {
            if !text.is_empty() {
                text.push('-');
            }
            text.push_str(group);
            rest = more;
        }
        if !rest.is_empty() {
            text.push('-');
            text.push_str(rest);
        }
        text
    }

    /// Reads a code. Case, spaces and dashes do not matter.
    ///
    /// # Errors
    /// [`LinkCodeError`]: what is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, LinkCodeError> {
        let mut bytes = Vec::new();
        let mut digits = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
        while let Some(high) = digits.next() {
            let digit = |c: char| c.to_digit(16).ok_or(LinkCodeError::Form);
            let low = digits.next().ok_or(LinkCodeError::Form)?;
            let byte = digit(high)? * 16 + digit(low)?;
            bytes.push(u8::try_from(byte).map_err(|_| LinkCodeError::Form)?);
            if bytes.len() > MAX_BYTES {
                return Err(LinkCodeError::Form);
            }
        }
        Self::decode(&bytes)
    }

    /// The eight digits that both devices show before one approves the other, for a person to compare:
    /// `1234 5678`. They tell this code from another's.
    ///
    /// Who wants to pass off another device as this one must have chosen its key before the challenge was
    /// drawn: one guess in a hundred million, which also costs as much as a try at a passphrase.
    ///
    /// # Errors
    /// [`LinkCodeError::Digits`].
    pub fn comparison(&self, challenge: &Challenge) -> Result<String, LinkCodeError> {
        let message = Writer::labelled("rossby link code digits v1")
            .bytes(&self.encode())
            .bytes(challenge.to_string().as_bytes());
        digits_of(&message.finish())
    }

    /// The eight digits that both devices show once one has approved the other: they tell the box with
    /// this genesis from another that has linked the same code.
    ///
    /// # Errors
    /// [`LinkCodeError::Digits`].
    pub fn box_comparison(
        &self,
        challenge: &Challenge,
        genesis: &ChainHash,
    ) -> Result<String, LinkCodeError> {
        let message = Writer::labelled("rossby link box digits v1")
            .bytes(&self.encode())
            .bytes(challenge.to_string().as_bytes())
            .fixed(genesis);
        digits_of(&message.finish())
    }
}

fn digits_of(message: &[u8]) -> Result<String, LinkCodeError> {
    let KdfCost {
        memory_kib,
        passes,
        lanes,
    } = KdfCost::STANDARD;
    let params = Params::new(memory_kib, passes, lanes, Some(8));
    let params = params.map_err(|_| LinkCodeError::Digits)?;
    let mut drawn = [0; 8];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(message, SALT, &mut drawn)
        .map_err(|_| LinkCodeError::Digits)?;
    let number = u64::from_be_bytes(drawn) % NUMBERS;
    Ok(format!("{:04} {:04}", number / 10_000, number % 10_000))
}

fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new()
        .chain_update(b"rossby link code v1")
        .chain_update(bytes)
        .finalize();
    let [first, second, third, fourth, ..] = <[u8; 32]>::from(digest);
    [first, second, third, fourth]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(key: [u8; 32], name: &str) -> LinkCode {
        LinkCode {
            key,
            name: DeviceName::new(name).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn a_code_survives_being_typed(key: [u8; 32], name in "[a-zA-Z0-9]{1,8}( [a-z]{1,8}){0,2}") {
            let code = code(key, &name);
            let text = code.to_text();
            prop_assert!(text.len() <= 180, "{}", text.len());
            prop_assert_eq!(LinkCode::from_text(&text), Ok(code.clone()));
            let typed = text.to_lowercase().replace('-', " ");
            prop_assert_eq!(LinkCode::from_text(&typed), Ok(code));
        }

        #[test]
        fn a_slip_is_noticed(key: [u8; 32], at in 0..76_usize, digit in 0..16_u32) {
            let digits = code(key, "phone").to_digits();
            let mut slipped: Vec<char> = digits.chars().collect();
            slipped[at] = char::from_digit(digit, 16).unwrap().to_ascii_uppercase();
            let slipped: String = slipped.into_iter().collect();
            if slipped != digits {
                prop_assert_eq!(LinkCode::from_text(&slipped), Err(LinkCodeError::Check));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*", digits in "[0-9A-F]{0,200}") {
            let _ = LinkCode::from_text(&text);
            let _ = LinkCode::from_text(&digits);
        }

        #[test]
        fn any_bytes_with_the_right_check_are_read_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            version in 0..3_u8,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            let whole = [&bytes[..], &check(&bytes)].concat();
            if let Ok(code) = LinkCode::decode(&whole) {
                prop_assert_eq!(code.encode(), whole);
            }
        }
    }

    #[test]
    fn the_digits_to_compare_are_of_all_that_is_compared() {
        let [one, other] = ["204863", "204864"].map(|text| Challenge::from_text(text).unwrap());
        let phone = code([7; 32], "phone");
        let digits = phone.comparison(&one).unwrap();
        assert_eq!(digits.len(), 9);
        assert_eq!(digits, phone.comparison(&one).unwrap());
        let in_a_box = phone.box_comparison(&one, &[1; 32]).unwrap();
        let all = [
            digits,
            in_a_box,
            phone.comparison(&other).unwrap(),
            code([8; 32], "phone").comparison(&one).unwrap(),
            code([7; 32], "phones").comparison(&one).unwrap(),
            phone.box_comparison(&one, &[2; 32]).unwrap(),
            phone.box_comparison(&other, &[1; 32]).unwrap(),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_later_version_is_told_by_its_number() {
        let mut bytes = code([7; 32], "phone").encode();
        bytes.truncate(bytes.len() - CHECK_BYTES);
        bytes[0] = 2;
        let whole = [&bytes[..], &check(&bytes)].concat();
        assert_eq!(LinkCode::decode(&whole), Err(LinkCodeError::Version(2)));
    }
}
