//! Verification codes: drawing one, and the sealed text in which it waits for the courier.

use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::BoxId;
use rossby_domain::wire::{Reader, WireError, Writer};
use rossby_seams::random::{Random, RandomError, bytes};
use zeroize::Zeroizing;

/// Codes are numbers below this, written with all their digits.
const CODES: u32 = 100_000_000;
const DIGITS: usize = 8;
/// Draws at or above this are thrown away: it is the largest multiple of [`CODES`] that fits.
const FAIR_BELOW: u32 = u32::MAX - u32::MAX % CODES;
/// One draw in about 45 is thrown away; this many in a row are not chance.
const MAX_DRAWS: u32 = 64;
const MAX_IDENTIFIER_BYTES: usize = 512;
const MAX_CODE_BYTES: usize = 16;

/// Draws a code: 8 digits, each code as likely as any other.
///
/// # Errors
/// [`RandomError`] if there is no randomness; `Ok(None)` if the source is stuck.
pub fn draw(random: &dyn Random) -> Result<Option<Zeroizing<String>>, RandomError> {
    for _ in 0..MAX_DRAWS {
        let drawn = u32::from_be_bytes(bytes(random)?);
        if drawn < FAIR_BELOW {
            return Ok(Some(Zeroizing::new(format!("{:0DIGITS$}", drawn % CODES))));
        }
    }
    Ok(None)
}

/// What the courier needs, in the canonical bytes that are sealed.
pub(crate) struct SealedCode {
    /// Where the code goes.
    pub identifier: Identifier,
    /// The code.
    pub code: Zeroizing<String>,
}

impl SealedCode {
    /// The bytes to be sealed.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let writer = Writer::labelled("rossby sealed code v1")
            .u8(self.identifier.kind())
            .bytes(self.identifier.as_str().as_bytes())
            .bytes(self.code.as_bytes());
        Zeroizing::new(writer.finish())
    }

    /// Reads such bytes.
    ///
    /// # Errors
    /// [`WireError`] if they are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(64, "label")? != b"rossby sealed code v1" {
            return Err(WireError::Invalid("label"));
        }
        let kind = reader.u8()?;
        let text = text(reader.bytes(MAX_IDENTIFIER_BYTES, "identifier")?)?;
        let identifier = match kind {
            1 => Identifier::phone(text),
            2 => Identifier::email(text),
            _ => return Err(WireError::Invalid("kind of identifier")),
        };
        let code = Zeroizing::new(self::text(reader.bytes(MAX_CODE_BYTES, "code")?)?.to_owned());
        reader.finish()?;
        Ok(Self {
            identifier: identifier.map_err(|_| WireError::Invalid("identifier"))?,
            code,
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("text"))
}

/// The row that a sealed code or identifier belongs to.
pub(crate) fn code_context(identifier: &IdentifierHash, box_id: &BoxId) -> Vec<u8> {
    Writer::default()
        .fixed(identifier.as_bytes())
        .fixed(box_id.as_bytes())
        .finish()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use rossby_seams::random::SeededRandom;

    use super::*;

    /// Gives out the given words.
    struct Words(Mutex<Vec<u32>>);

    impl Random for Words {
        fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
            let word = self.0.lock().remove(0).to_be_bytes();
            buffer.copy_from_slice(&word);
            Ok(())
        }
    }

    #[test]
    fn codes_have_eight_digits_and_differ() {
        let random = SeededRandom::new(1);
        let codes: std::collections::BTreeSet<String> = (0..1000)
            .map(|_| draw(&random).unwrap().unwrap().to_string())
            .collect();
        assert!(codes.len() > 990);
        assert!(
            codes
                .iter()
                .all(|c| c.len() == 8 && c.bytes().all(|b| b.is_ascii_digit()))
        );
    }

    #[test]
    fn draws_that_would_favour_low_codes_are_thrown_away() {
        assert_eq!(FAIR_BELOW, 4_200_000_000);
        let random = Words(Mutex::new(vec![u32::MAX, 4_200_000_000, 4_199_999_999]));
        assert_eq!(draw(&random).unwrap().unwrap().as_str(), "99999999");
        let random = Words(Mutex::new(vec![7]));
        assert_eq!(draw(&random).unwrap().unwrap().as_str(), "00000007");
    }

    #[test]
    fn a_stuck_source_gives_no_code() {
        let random = Words(Mutex::new(vec![u32::MAX; 64]));
        assert!(draw(&random).unwrap().is_none());
    }

    #[test]
    fn a_sealed_code_reads_back() {
        let code = SealedCode {
            identifier: Identifier::email("a@b.example").unwrap(),
            code: Zeroizing::new("00012345".to_owned()),
        };
        let read = SealedCode::decode(&code.encode()).unwrap();
        assert_eq!((read.identifier, read.code), (code.identifier, code.code));
        assert!(SealedCode::decode(b"other").is_err());
    }
}
