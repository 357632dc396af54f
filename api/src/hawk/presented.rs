//! What a client presents: a strict reader of the `authorization` header.
//!
//! One form only: `Hawk `, then `name="value"` pairs separated by a comma and a space, each of `id`, `ts`,
//! `nonce`, `mac`, `hash` exactly once, in any order, each value in its one canonical form. Whatever a
//! lenient reader would forgive is refused, so that no two headers mean the same.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rossby_domain::ids::DeviceAddress;

/// Bytes of the longest header that is looked at.
pub const MAX_HEADER_BYTES: usize = 512;
/// Digits of the largest `ts` (seconds): enough until the year 5138, too few to overflow anything.
pub const MAX_TS_DIGITS: usize = 11;
const NONCE_BYTES: std::ops::RangeInclusive<usize> = 8..=64;
const DIGEST_BYTES: usize = 32;

/// A header that is not in the one accepted form. It says no more: a client gets this from its
/// own library, and an attacker learns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed authorization header")]
pub struct Malformed;

/// A well-formed header. Nothing in it is proven yet.
#[derive(Debug, Clone)]
pub struct Presented {
    address: DeviceAddress,
    ts_secs: u64,
    nonce: String,
    header: hawk::Header,
}

impl Presented {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Malformed`] unless it is in the one accepted form.
    pub fn parse(authorization: &str) -> Result<Self, Malformed> {
        if authorization.len() > MAX_HEADER_BYTES {
            return Err(Malformed);
        }
        let fields = Fields::split(authorization.strip_prefix("Hawk ").ok_or(Malformed)?)?;
        let address = address_of(fields.id)?;
        let ts_secs = seconds_of(fields.ts)?;
        let nonce = nonce_of(fields.nonce)?.to_owned();
        // Built from what was read here: the crate's own parser never sees a client's bytes.
        let header = hawk::Header::new(
            Some(fields.id.to_owned()),
            Some(UNIX_EPOCH + Duration::from_secs(ts_secs)),
            Some(nonce.clone()),
            Some(digest_of(fields.mac)?.into()),
            None,
            Some(digest_of(fields.hash)?),
            None,
            None,
        )
        .map_err(|_| Malformed)?;
        Ok(Self {
            address,
            ts_secs,
            nonce,
            header,
        })
    }

    /// Who the caller says it is.
    #[must_use]
    pub fn address(&self) -> &DeviceAddress {
        &self.address
    }

    /// When it says it signed, in seconds since the Unix epoch.
    #[must_use]
    pub fn ts_secs(&self) -> u64 {
        self.ts_secs
    }

    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    pub(super) fn header(&self) -> &hawk::Header {
        &self.header
    }
}

/// The values as they stand.
struct Fields<'a> {
    id: &'a str,
    ts: &'a str,
    nonce: &'a str,
    mac: &'a str,
    hash: &'a str,
}

impl<'a> Fields<'a> {
    fn split(text: &'a str) -> Result<Self, Malformed> {
        let (mut id, mut ts, mut nonce, mut mac, mut hash) = (None, None, None, None, None);
        for field in text.split(", ") {
            let (name, value) = field.split_once('=').ok_or(Malformed)?;
            let slot = match name {
                "id" => &mut id,
                "ts" => &mut ts,
                "nonce" => &mut nonce,
                "mac" => &mut mac,
                "hash" => &mut hash,
                // Also `ext`, which nothing here uses, and `app` and `dlg`, which no MAC covers.
                _ => return Err(Malformed),
            };
            let value = value
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            if slot.replace(value.ok_or(Malformed)?).is_some() {
                return Err(Malformed);
            }
        }
        Ok(Self {
            id: id.ok_or(Malformed)?,
            ts: ts.ok_or(Malformed)?,
            nonce: nonce.ok_or(Malformed)?,
            mac: mac.ok_or(Malformed)?,
            hash: hash.ok_or(Malformed)?,
        })
    }
}

/// A device address in its canonical text (`Display`); other spellings of the same UUID are refused.
fn address_of(text: &str) -> Result<DeviceAddress, Malformed> {
    let address: DeviceAddress = text.parse().map_err(|_| Malformed)?;
    if address.to_string() == text {
        Ok(address)
    } else {
        Err(Malformed)
    }
}

fn seconds_of(text: &str) -> Result<u64, Malformed> {
    let canonical = !text.is_empty()
        && text.len() <= MAX_TS_DIGITS
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical {
        text.parse().map_err(|_| Malformed)
    } else {
        Err(Malformed)
    }
}

fn nonce_of(text: &str) -> Result<&str, Malformed> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let valid = NONCE_BYTES.contains(&text.len()) && text.bytes().all(allowed);
    if valid { Ok(text) } else { Err(Malformed) }
}

/// 32 bytes in padded standard base64, no stray bits.
fn digest_of(text: &str) -> Result<Vec<u8>, Malformed> {
    let bytes = STANDARD.decode(text).map_err(|_| Malformed)?;
    if bytes.len() == DIGEST_BYTES {
        Ok(bytes)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn id() -> String {
        let partition = rossby_domain::ids::PartitionId::new(3).unwrap();
        DeviceAddress {
            box_id: rossby_domain::ids::BoxId::derive(partition, &[0xab; 32]),
            device: rossby_domain::ids::DeviceId::from_bytes([0xcd; 16]),
        }
        .to_string()
    }

    fn with(name: &str, value: &str) -> String {
        let id = id();
        let mut fields = [
            ("id", id.as_str()),
            ("ts", "1700000000"),
            ("nonce", "abcdefgh"),
            ("mac", DIGEST),
            ("hash", DIGEST),
        ];
        fields
            .iter_mut()
            .filter(|(known, _)| *known == name)
            .for_each(|field| field.1 = value);
        let fields = fields.map(|(name, value)| format!("{name}=\"{value}\""));
        format!("Hawk {}", fields.join(", "))
    }

    #[test]
    fn a_canonical_header_is_read_in_any_order() {
        let header = with("", "");
        let presented = Presented::parse(&header).unwrap();
        assert_eq!(presented.ts_secs(), 1_700_000_000);
        assert_eq!(presented.address().to_string(), id());
        let mut fields: Vec<&str> = header["Hawk ".len()..].split(", ").collect();
        fields.reverse();
        assert!(Presented::parse(&format!("Hawk {}", fields.join(", "))).is_ok());
    }

    #[test]
    fn a_time_that_would_overflow_is_refused() {
        for ts in [
            "18446744073709551615",
            "999999999999",
            "",
            "-1",
            "+1",
            "01",
            "1.5",
            " 1",
            "1e9",
        ] {
            assert_eq!(
                Presented::parse(&with("ts", ts)).unwrap_err(),
                Malformed,
                "{ts}"
            );
        }
        assert!(Presented::parse(&with("ts", "99999999999")).is_ok());
    }

    #[test]
    fn every_field_is_needed_exactly_once_and_no_other() {
        let header = with("", "");
        for name in ["id", "ts", "nonce", "mac", "hash"] {
            let fields = header["Hawk ".len()..].split(", ");
            let without: Vec<_> = fields
                .clone()
                .filter(|f| !f.starts_with(&format!("{name}=")))
                .collect();
            assert!(
                Presented::parse(&format!("Hawk {}", without.join(", "))).is_err(),
                "{name}"
            );
            let twice = fields
                .clone()
                .find(|f| f.starts_with(&format!("{name}=")))
                .unwrap();
            assert!(
                Presented::parse(&format!("{header}, {twice}")).is_err(),
                "{name}"
            );
        }
        for extra in [
            "app=\"a\"",
            "dlg=\"d\"",
            "ext=\"e\"",
            "ext=\"\"",
            "x=\"y\"",
            "",
        ] {
            assert!(
                Presented::parse(&format!("{header}, {extra}")).is_err(),
                "{extra}"
            );
        }
    }

    #[test]
    fn other_spellings_of_a_value_are_refused() {
        let upper = id().to_ascii_uppercase();
        let braced = format!("{{{}}}{}", &id()[..36], &id()[36..]);
        for id in [upper.as_str(), braced.as_str(), "", "/", "a/b"] {
            assert!(Presented::parse(&with("id", id)).is_err(), "{id}");
        }
        let stray_bits = DIGEST.replace("A=", "B=");
        let unpadded = DIGEST.trim_end_matches('=');
        for mac in [stray_bits.as_str(), unpadded, "", "AAAA"] {
            assert!(Presented::parse(&with("mac", mac)).is_err(), "{mac}");
            assert!(Presented::parse(&with("hash", mac)).is_err(), "{mac}");
        }
        let long = "n".repeat(65);
        for nonce in [
            "short12",
            "with space",
            "quo\\te12",
            "näive123",
            long.as_str(),
        ] {
            assert!(Presented::parse(&with("nonce", nonce)).is_err(), "{nonce}");
        }
    }

    #[test]
    fn other_separators_and_schemes_are_refused() {
        let header = with("", "");
        for bad in [
            header.replace(", ", ","),
            header.replace(", ", ",  "),
            header.replace("Hawk ", "hawk "),
            header.replace("Hawk ", ""),
            header.replace("Hawk ", "Hawk  "),
            format!("{header} "),
            format!("{header}, "),
            format!("{header}{}", " ".repeat(MAX_HEADER_BYTES)),
        ] {
            assert!(Presented::parse(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn random_text_is_refused_without_a_panic(text in "\\PC{0,600}") {
            prop_assert!(Presented::parse(&text).is_err());
            let schemed = format!("Hawk {text}");
            prop_assert!(Presented::parse(&schemed).is_err());
        }

        #[test]
        fn random_values_never_panic(name in "id|ts|nonce|mac|hash", value in "\\PC{0,80}") {
            let _ = Presented::parse(&with(&name, &value));
        }
    }
}
