//! The cluster's secrets: what every node holds in `cluster.keys` and never writes anywhere else.
//!
//! | key | what it makes |
//! |---|---|
//! | pepper | keyed hashes of identifiers and of verification codes |
//! | token | the tokens of devices: servers keep a generation, never a token |
//! | seal | seals what must rest on disk but not be read there: identifiers and unsent codes |
//!
//! Each has an id, and of each purpose there may be several, one of them current: what is made is
//! made with the current key, what was made with an older one is still understood. Exception: the
//! directory is found by the current pepper alone, so a new pepper needs a new directory.
//!
//! `Debug` of everything here prints nothing, and memory is wiped on drop.

mod file;
mod ring;
mod seal;

use std::fmt;
use std::path::Path;

use bytes::Bytes;
use rossby_domain::claim::CodeMac;
use rossby_domain::identifier::{Identifier, IdentifierHash};
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::mac::hmac_sha256;
use rossby_domain::report::ReportMark;
use rossby_domain::wire::Writer;
use rossby_seams::random::{Random, RandomError};
use zeroize::Zeroizing;

use ring::Ring;

pub use file::SecretsError;
pub use seal::{SealError, SealPurpose};

/// Bytes of every key here, and of a token.
pub const KEY_BYTES: usize = 32;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// Keyed hashes of identifiers and codes.
    Pepper,
    /// Tokens of devices.
    Token,
    /// Sealing at rest.
    Seal,
}

impl KeyPurpose {
    const ALL: [Self; 3] = [Self::Pepper, Self::Token, Self::Seal];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pepper => "pepper",
            Self::Token => "token",
            Self::Seal => "seal",
        }
    }
}

/// A device's token: the key of its Hawk requests.
#[derive(Clone)]
pub struct Token(Zeroizing<[u8; KEY_BYTES]>);

impl Token {
    /// The token's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The cluster's secrets.
pub struct ClusterSecrets {
    pepper: Ring,
    token: Ring,
    seal: Ring,
}

impl fmt::Debug for ClusterSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecrets(..)")
    }
}

impl ClusterSecrets {
    /// New secrets: one key of each purpose.
    ///
    /// # Errors
    /// [`RandomError`] if there is no randomness.
    pub fn generate(random: &dyn Random) -> Result<Self, RandomError> {
        Ok(Self {
            pepper: Ring::generate(random)?,
            token: Ring::generate(random)?,
            seal: Ring::generate(random)?,
        })
    }

    /// Adds a new key and makes it the current one of its purpose. The oldest is dropped when there
    /// would be more than a file may hold.
    ///
    /// # Errors
    /// [`RandomError`] if there is no randomness.
    pub fn rotate(&mut self, purpose: KeyPurpose, random: &dyn Random) -> Result<(), RandomError> {
        match purpose {
            KeyPurpose::Pepper => self.pepper.rotate(random),
            KeyPurpose::Token => self.token.rotate(random),
            KeyPurpose::Seal => self.seal.rotate(random),
        }
    }

    /// Reads `cluster.keys`, which must be a file that only its owner can open.
    ///
    /// # Errors
    /// [`SecretsError`]: missing, too open, or not such a file.
    pub fn load(path: &Path) -> Result<Self, SecretsError> {
        file::load(path)
    }

    /// Writes `cluster.keys` with mode 0600, in one atomic and durable step.
    ///
    /// # Errors
    /// [`SecretsError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), SecretsError> {
        file::save(self, path)
    }

    /// The content of `cluster.keys`, as it is sent to a node that joins.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        file::encode(self)
    }

    /// The secrets in such a content.
    ///
    /// # Errors
    /// [`SecretsError::Malformed`], which names the line and repeats nothing of it.
    pub fn decode(text: &str) -> Result<Self, SecretsError> {
        file::decode(text)
    }

    /// The keyed hash of an identifier.
    #[must_use]
    pub fn identifier_hash(&self, identifier: &Identifier) -> IdentifierHash {
        IdentifierHash::of(self.pepper.current().bytes(), identifier)
    }

    /// The keyed hash of a verification code.
    #[must_use]
    pub fn code_mac(&self, identifier: &IdentifierHash, box_id: &BoxId, code: &str) -> CodeMac {
        CodeMac::of(self.pepper.current().bytes(), identifier, box_id, code)
    }

    /// What stands for one box's report of another.
    #[must_use]
    pub fn report_mark(&self, reported: &BoxId, reporter: &BoxId) -> ReportMark {
        ReportMark::of(self.pepper.current().bytes(), reported, reporter)
    }

    /// The token that a device is given.
    #[must_use]
    pub fn token(&self, address: &DeviceAddress, generation: u64) -> Token {
        derive_token(self.token.current().bytes(), address, generation)
    }

    /// The tokens that are accepted from a device: of the current key, then of older ones.
    pub fn accepted_tokens(
        &self,
        address: &DeviceAddress,
        generation: u64,
    ) -> impl Iterator<Item = Token> {
        self.token
            .newest_first()
            .map(move |key| derive_token(key.bytes(), address, generation))
    }

    /// Seals a text that must not be readable on disk. It opens only with the same purpose and
    /// context (whose row it belongs to).
    ///
    /// # Errors
    /// [`SealError::NoRandomness`].
    pub fn seal(
        &self,
        random: &dyn Random,
        purpose: SealPurpose,
        context: &[u8],
        text: &[u8],
    ) -> Result<Bytes, SealError> {
        seal::seal(self.seal.current(), random, purpose, context, text)
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`SealError`]: another key's, another purpose's or another context's, or damaged.
    pub fn open(
        &self,
        purpose: SealPurpose,
        context: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        seal::open(|id| self.seal.get(id), purpose, context, sealed)
    }

    fn ring(&self, purpose: KeyPurpose) -> &Ring {
        match purpose {
            KeyPurpose::Pepper => &self.pepper,
            KeyPurpose::Token => &self.token,
            KeyPurpose::Seal => &self.seal,
        }
    }
}

fn derive_token(key: &[u8; KEY_BYTES], address: &DeviceAddress, generation: u64) -> Token {
    let message = Writer::labelled("rossby token v1")
        .fixed(address.box_id.as_bytes())
        .fixed(address.device.as_bytes())
        .u64(generation)
        .finish();
    Token(Zeroizing::new(hmac_sha256(key, &message)))
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{DeviceId, PartitionId};
    use rossby_seams::random::SeededRandom;

    use super::*;

    fn address() -> DeviceAddress {
        let box_id = BoxId::derive(PartitionId::new(3).unwrap(), &[7; 32]);
        DeviceAddress {
            box_id,
            device: DeviceId::from_bytes([9; 16]),
        }
    }

    #[test]
    fn a_token_is_bound_to_device_generation_and_key() {
        let secrets = ClusterSecrets::generate(&SeededRandom::new(1)).unwrap();
        let others = ClusterSecrets::generate(&SeededRandom::new(2)).unwrap();
        let token = |secrets: &ClusterSecrets, address, generation| {
            *secrets.token(&address, generation).as_bytes()
        };
        let mine = token(&secrets, address(), 1);
        let other_device = DeviceAddress {
            device: DeviceId::from_bytes([8; 16]),
            ..address()
        };
        assert_eq!(mine, token(&secrets, address(), 1));
        assert_ne!(mine, token(&secrets, address(), 2));
        assert_ne!(mine, token(&secrets, other_device, 1));
        assert_ne!(mine, token(&others, address(), 1));
    }

    #[test]
    fn after_a_rotation_old_tokens_and_seals_still_count_and_new_ones_differ() {
        let random = SeededRandom::new(1);
        let mut secrets = ClusterSecrets::generate(&random).unwrap();
        let old_token = secrets.token(&address(), 1);
        let sealed = secrets
            .seal(&random, SealPurpose::Identifier, b"row", b"text")
            .unwrap();
        secrets.rotate(KeyPurpose::Token, &random).unwrap();
        secrets.rotate(KeyPurpose::Seal, &random).unwrap();
        assert_ne!(
            secrets.token(&address(), 1).as_bytes(),
            old_token.as_bytes()
        );
        let accepted: Vec<_> = secrets.accepted_tokens(&address(), 1).collect();
        assert_eq!(accepted.len(), 2);
        assert!(
            accepted
                .iter()
                .any(|token| token.as_bytes() == old_token.as_bytes())
        );
        let opened = secrets
            .open(SealPurpose::Identifier, b"row", &sealed)
            .unwrap();
        assert_eq!(opened.as_slice(), b"text");
    }

    #[test]
    fn debug_prints_no_secret() {
        let secrets = ClusterSecrets::generate(&SeededRandom::new(1)).unwrap();
        assert_eq!(format!("{secrets:?}"), "ClusterSecrets(..)");
        assert_eq!(format!("{:?}", secrets.token(&address(), 1)), "Token(..)");
    }
}
