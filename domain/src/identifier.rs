//! Identifiers: phone numbers and email addresses, normalised, and their keyed hashes.
//!
//! One person types `+49 170 1234567`, another `0049 (170) 123-4567`: both must find the same box,
//! so an identifier only exists in its normalised form. What can not be normalised for certain is
//! refused. Identifiers are personal data: no `Debug` or `Display` of these types shows one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{PartitionCount, PartitionId};
use crate::mac::hmac_sha256;
use crate::wire::Writer;

/// Fewest digits of a phone number, country code included.
pub const PHONE_MIN_DIGITS: usize = 8;
/// Most digits of a phone number (E.164, section 6.1).
pub const PHONE_MAX_DIGITS: usize = 15;
/// Most bytes of an email address (RFC 5321, section 4.5.3.1.3, less the angle brackets).
pub const EMAIL_MAX_BYTES: usize = 254;
/// Most bytes of an address's local part (RFC 5321, section 4.5.3.1.1).
pub const EMAIL_LOCAL_MAX_BYTES: usize = 64;
/// Most bytes of a label of a domain (RFC 1035, section 2.3.4).
pub const DOMAIN_LABEL_MAX_BYTES: usize = 63;

/// Why a text is not an identifier. The text itself is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// A phone number without `+` or `00` and a country code in front.
    #[error("a phone number must start with + or 00 and its country code")]
    NoCountryCode,
    /// Something in a phone number that is neither a digit nor a separator.
    #[error("a phone number may hold digits, spaces, dots, dashes and parentheses only")]
    NotAPhoneDigit,
    /// Too few or too many digits.
    #[error("a phone number must have 8 to 15 digits")]
    PhoneLength,
    /// Characters beyond ASCII.
    #[error("an email address must be ASCII")]
    EmailNotAscii,
    /// No `@`, or more than one.
    #[error("an email address must have one @")]
    EmailAtSign,
    /// Longer than RFC 5321 allows.
    #[error("an email address may have at most 254 characters, 64 of them before the @")]
    EmailLength,
    /// The part before the `@` is not a dot-separated list of atoms (RFC 5321, `Dot-string`).
    #[error("the part of an email address before the @ is not valid")]
    EmailLocalPart,
    /// The part after the `@` is not a domain name with at least one dot.
    #[error("the part of an email address after the @ is not a domain name")]
    EmailDomain,
}

/// A phone number in E.164: `+` and 8 to 15 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phone(String);

impl Phone {
    /// Normalises a phone number.
    ///
    /// # Errors
    /// [`IdentifierError`]: which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        let mut bare = String::with_capacity(PHONE_MAX_DIGITS + 2);
        for character in text.chars() {
            match character {
                ' ' | '.' | '-' | '(' | ')' => {}
                // The sign may stand in front only.
                '+' if bare.is_empty() => bare.push('+'),
                '0'..='9' => bare.push(character),
                _ => return Err(IdentifierError::NotAPhoneDigit),
            }
        }
        let digits = bare
            .strip_prefix('+')
            .or_else(|| bare.strip_prefix("00"))
            .ok_or(IdentifierError::NoCountryCode)?;
        if digits.starts_with('0') {
            return Err(IdentifierError::NoCountryCode);
        }
        if !(PHONE_MIN_DIGITS..=PHONE_MAX_DIGITS).contains(&digits.len()) {
            return Err(IdentifierError::PhoneLength);
        }
        Ok(Self(format!("+{digits}")))
    }

    /// The normalised number.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(..)")
    }
}

/// An email address in lower case.
///
/// A local part may differ in case by the standard; in practice no provider tells two people apart
/// by it, and a person who types their address another way must find the same box.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// Normalises an email address.
    ///
    /// # Errors
    /// [`IdentifierError`]: which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, IdentifierError> {
        let text = text.trim();
        if !text.is_ascii() {
            return Err(IdentifierError::EmailNotAscii);
        }
        let (local, domain) = text.split_once('@').ok_or(IdentifierError::EmailAtSign)?;
        if domain.contains('@') {
            return Err(IdentifierError::EmailAtSign);
        }
        if text.len() > EMAIL_MAX_BYTES || local.len() > EMAIL_LOCAL_MAX_BYTES {
            return Err(IdentifierError::EmailLength);
        }
        if !local.split('.').all(is_atom) {
            return Err(IdentifierError::EmailLocalPart);
        }
        if !is_domain(domain) {
            return Err(IdentifierError::EmailDomain);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The normalised address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(..)")
    }
}

/// An atom of RFC 5322, section 3.2.3.
fn is_atom(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
}

/// Letters, digits and hyphens, two labels or more, the last not all digits (which would be an
/// address, not a name).
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=DOMAIN_LABEL_MAX_BYTES).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(is_label)
        && text
            .rsplit_once('.')
            .is_some_and(|(_, last)| !last.bytes().all(|b| b.is_ascii_digit()))
}

/// A phone number or an email address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A phone number.
    Phone(Phone),
    /// An email address.
    Email(Email),
}

impl Identifier {
    /// Normalises a phone number.
    ///
    /// # Errors
    /// [`IdentifierError`]: which rule it breaks.
    pub fn phone(text: &str) -> Result<Self, IdentifierError> {
        Phone::parse(text).map(Self::Phone)
    }

    /// Normalises an email address.
    ///
    /// # Errors
    /// [`IdentifierError`]: which rule it breaks.
    pub fn email(text: &str) -> Result<Self, IdentifierError> {
        Email::parse(text).map(Self::Email)
    }

    /// The kind, as it is signed and hashed: 1 for a phone number, 2 for an email address.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Phone(_) => 1,
            Self::Email(_) => 2,
        }
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Phone(phone) => phone.as_str(),
            Self::Email(email) => email.as_str(),
        }
    }
}

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phone(phone) => phone.fmt(f),
            Self::Email(email) => email.fmt(f),
        }
    }
}

/// The keyed hash of an identifier: all that the servers' tables know of it in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentifierHash([u8; 32]);

impl IdentifierHash {
    /// The hash of an identifier under the cluster's pepper.
    #[must_use]
    pub fn of(pepper: &[u8; 32], identifier: &Identifier) -> Self {
        let message = Writer::labelled("rossby identifier v1")
            .u8(identifier.kind())
            .bytes(identifier.as_str().as_bytes())
            .finish();
        Self(hmac_sha256(pepper, &message))
    }

    /// The hash in these bytes (any 32 bytes are one).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The partition of the directory that holds this identifier's claims.
    #[must_use]
    pub fn partition(&self, count: PartitionCount) -> PartitionId {
        count.directory_of_hash(&self.0)
    }
}
