//! Profiles: what a person shows of themselves, sealed under a key that only those have whom they have given it.
//!
//! ```text
//!   u8      version = 1
//!   16      key id: HMAC(profile key, "rossby profile key v1"), cut off
//!   u64     version of the profile: each is above the last
//!   12      nonce, random
//!   rest    ChaCha20-Poly1305 under the profile key, AAD = label "rossby sealed profile v1", 16 box, every byte above:
//!             16      device that signed
//!             64      Ed25519 over label "rossby profile v1", 16 box, 16 device, u64 version, 32 SHA-256 of the content
//!             bytes   content: u8 1, bytes name, bytes about, bytes media type, bytes picture
//!             zeroes  up to the next of 512 B, 4, 16, 40 KiB (of 1,024 B)
//! ```
//!
//! The service keeps it and hands it out with the key record. It sees how large it is, up to the next of those sizes, and when it
//! changes. It can hold a newer one back; it can not make one up, nor show an older one as if it were new.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{KeyRecord, verify_signature};
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId};
use rossby_domain::mac::hmac_sha256;
use rossby_domain::profile::MAX_SEALED_PROFILE_BYTES;
use rossby_domain::wire::{Reader, WireError, Writer};
use rossby_seams::random::{Random, RandomError, bytes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::crypto::secret::Secret;

/// The version of the layout.
const VERSION: u8 = 1;
/// The version of the content.
const CONTENT_VERSION: u8 = 1;
/// The version of the word about a profile.
const WORD_VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = 1 + 16 + 8 + NONCE_BYTES;
/// Before the content, sealed.
const SIGNED_BYTES: usize = 16 + 64 + 4;
/// The sizes that it is padded to before it is sealed.
const SIZES: [usize; 4] = [512, 4 * 1024, 16 * 1024, LARGEST];
const LARGEST: usize = 40 * 1024;

/// Bytes of a name.
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a line about oneself.
pub const MAX_ABOUT_BYTES: usize = 512;
/// Bytes of a picture.
pub const MAX_PICTURE_BYTES: usize = 32 * 1024;
const MAX_MEDIA_TYPE_BYTES: usize = 127;

const _: () = assert!(
    SIGNED_BYTES + 17 + MAX_NAME_BYTES + MAX_ABOUT_BYTES + MAX_MEDIA_TYPE_BYTES + MAX_PICTURE_BYTES
        <= LARGEST
        && HEAD_BYTES + LARGEST + 16 <= MAX_SEALED_PROFILE_BYTES,
    "the largest profile must fit"
);

/// What is wrong with a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The name.
    #[error(
        "a name has at most {MAX_NAME_BYTES} bytes, no control characters and no white space around it"
    )]
    Name,
    /// The line about oneself.
    #[error(
        "what is said about oneself has at most {MAX_ABOUT_BYTES} bytes and no control characters"
    )]
    About,
    /// The picture.
    #[error("a picture is of a media type image/..., and has at most {MAX_PICTURE_BYTES} bytes")]
    Picture,
    /// It is malformed.
    #[error("the sealed profile is malformed: {0}")]
    Malformed(#[from] WireError),
    /// It is of a later version.
    #[error("the sealed profile is of a version that is not known here")]
    UnknownVersion,
    /// It is sealed under a key that is not known here.
    #[error("the profile is sealed under another key")]
    OtherKey,
    /// It does not decrypt: it is another's, or was changed.
    #[error("the sealed profile was changed")]
    Sealed,
    /// It is not signed by a device of its box.
    #[error("the profile is not signed by a device of its box")]
    Signature,
}

/// The key that a profile is sealed under.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProfileKey(Secret<32>);

impl ProfileKey {
    /// A new one.
    ///
    /// # Errors
    /// [`RandomError`].
    pub fn draw(random: &dyn Random) -> Result<Self, RandomError> {
        Ok(Self(Secret::new(bytes(random)?)))
    }

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// Its bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// What tells it from others, and says nothing else of it.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        let mac = hmac_sha256(self.0.expose(), b"rossby profile key v1");
        let mut id = [0; 16];
        id.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        id
    }
}

impl fmt::Debug for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProfileKey(..)")
    }
}

/// Word of a profile: under which key it is sealed, and which version there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileWord {
    /// The key.
    pub key: ProfileKey,
    /// The version.
    pub version: u64,
}

impl ProfileWord {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::default()
            .u8(WORD_VERSION)
            .fixed(self.key.expose())
            .u64(self.version)
            .finish()
    }

    /// The word in these bytes; `None` if it is of a later version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != WORD_VERSION {
            return Ok(None);
        }
        let key = ProfileKey::from_bytes(reader.fixed()?);
        let version = reader.u64()?;
        reader.finish()?;
        Ok(Some(Self { key, version }))
    }
}

/// A picture of a person. `Debug` shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Portrait {
    media_type: String,
    bytes: Vec<u8>,
}

impl Portrait {
    /// A picture. What its bytes really are, only who shows it finds out.
    ///
    /// # Errors
    /// [`ProfileError::Picture`].
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Result<Self, ProfileError> {
        let printable = media_type
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let is_image = media_type.starts_with("image/") && printable;
        let fits = media_type.len() <= MAX_MEDIA_TYPE_BYTES && bytes.len() <= MAX_PICTURE_BYTES;
        if !is_image || !fits || bytes.is_empty() {
            return Err(ProfileError::Picture);
        }
        let media_type = media_type.to_owned();
        Ok(Self { media_type, bytes })
    }

    /// What its owner says that it is.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The picture itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Portrait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Portrait({} bytes)", self.bytes.len())
    }
}

/// What a person shows of themselves. Of all of it others know only that a device of theirs said so. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Profile {
    name: String,
    about: String,
    picture: Option<Portrait>,
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Profile(..)")
    }
}

impl Profile {
    /// A profile. The name and the line may be empty.
    ///
    /// # Errors
    /// [`ProfileError::Name`], [`ProfileError::About`].
    pub fn new(name: &str, about: &str, picture: Option<Portrait>) -> Result<Self, ProfileError> {
        let clean = |text: &str| !text.chars().any(char::is_control);
        if name.len() > MAX_NAME_BYTES || !clean(name) || name.trim() != name {
            return Err(ProfileError::Name);
        }
        if about.len() > MAX_ABOUT_BYTES || !clean(about) {
            return Err(ProfileError::About);
        }
        Ok(Self {
            name: name.to_owned(),
            about: about.to_owned(),
            picture,
        })
    }

    /// What they call themselves; empty if nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A line about themselves; empty if none.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.about
    }

    /// Their picture.
    #[must_use]
    pub fn picture(&self) -> Option<&Portrait> {
        self.picture.as_ref()
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (media_type, picture) = match &self.picture {
            Some(picture) => (picture.media_type.as_bytes(), &picture.bytes[..]),
            None => (&[][..], &[][..]),
        };
        let writer = Writer::default()
            .u8(CONTENT_VERSION)
            .bytes(self.name.as_bytes())
            .bytes(self.about.as_bytes())
            .bytes(media_type)
            .bytes(picture);
        Zeroizing::new(writer.finish())
    }

    /// The profile in these bytes.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProfileError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != CONTENT_VERSION {
            return Err(ProfileError::UnknownVersion);
        }
        let name = text(reader.bytes(MAX_NAME_BYTES, "name")?, ProfileError::Name)?;
        let about = text(reader.bytes(MAX_ABOUT_BYTES, "about")?, ProfileError::About)?;
        let media_type = reader.bytes(MAX_MEDIA_TYPE_BYTES, "media type")?;
        let media_type = text(media_type, ProfileError::Picture)?;
        let picture = reader.bytes(MAX_PICTURE_BYTES, "picture")?.to_vec();
        reader.finish()?;
        let picture = match (media_type, picture.is_empty()) {
            ("", true) => None,
            (media_type, _) => Some(Portrait::new(media_type, picture)?),
        };
        Self::new(name, about, picture)
    }
}

fn text(bytes: &[u8], error: ProfileError) -> Result<&str, ProfileError> {
    std::str::from_utf8(bytes).map_err(|_| error)
}

/// Seals a profile under a version, signed by a device of its box.
///
/// # Errors
/// [`RandomError`]; [`ProfileError`] never, for what a [`Profile`] holds fits.
pub fn seal(
    random: &dyn Random,
    key: &ProfileKey,
    (author, signing_key): (DeviceAddress, &SigningKey),
    version: u64,
    profile: &Profile,
) -> Result<Vec<u8>, RandomError> {
    let content = profile.encode();
    let signed = statement(&author.box_id, &author.device, version, &content);
    let mut inner = Zeroizing::new(
        Writer::default()
            .fixed(author.device.as_bytes())
            .fixed(&signing_key.sign(&signed).to_bytes())
            .bytes(&content)
            .finish(),
    );
    let size = SIZES.into_iter().find(|size| inner.len() <= *size);
    inner.resize(size.unwrap_or(LARGEST), 0);
    let nonce: [u8; NONCE_BYTES] = bytes(random)?;
    let head = Writer::default()
        .u8(VERSION)
        .fixed(&key.id())
        .u64(version)
        .fixed(&nonce)
        .finish();
    let aad = aad(&author.box_id, &head);
    let payload = Payload {
        msg: &inner,
        aad: &aad,
    };
    let cipher = ChaCha20Poly1305::new(key.expose().into());
    // It fails for more bytes than there can be here.
    let sealed = cipher.encrypt(&nonce.into(), payload).unwrap_or_default();
    Ok([head, sealed].concat())
}

/// Opens what is shown as a box's profile: its version, and what it says.
///
/// # Errors
/// [`ProfileError`].
pub fn open(
    key: &ProfileKey,
    (box_id, record): (&BoxId, &KeyRecord),
    sealed: &[u8],
) -> Result<(u64, Profile), ProfileError> {
    let (head, ciphertext) = sealed
        .split_at_checked(HEAD_BYTES)
        .ok_or(WireError::Truncated)?;
    let mut reader = Reader::new(head);
    if reader.u8()? != VERSION {
        return Err(ProfileError::UnknownVersion);
    }
    let key_id: [u8; 16] = reader.fixed()?;
    if key_id != key.id() {
        return Err(ProfileError::OtherKey);
    }
    let version = reader.u64()?;
    let nonce: [u8; NONCE_BYTES] = reader.fixed()?;
    let aad = aad(box_id, head);
    let payload = Payload {
        msg: ciphertext,
        aad: &aad,
    };
    let inner = ChaCha20Poly1305::new(key.expose().into())
        .decrypt(&nonce.into(), payload)
        .map(Zeroizing::new)
        .map_err(|_| ProfileError::Sealed)?;
    let mut reader = Reader::new(&inner);
    let device = DeviceId::from_bytes(reader.fixed()?);
    let signature = reader.fixed()?;
    let content = reader.bytes(LARGEST, "profile")?;
    let padding = inner.get(SIGNED_BYTES + content.len()..);
    if padding.unwrap_or_default().iter().any(|byte| *byte != 0) {
        return Err(WireError::Invalid("padding").into());
    }
    let signed = statement(box_id, &device, version, content);
    let signer = record.signing_key(&device);
    if !signer.is_some_and(|key| verify_signature(key, &signed, &signature)) {
        return Err(ProfileError::Signature);
    }
    Ok((version, Profile::decode(content)?))
}

fn aad(box_id: &BoxId, head: &[u8]) -> Vec<u8> {
    let mut aad = Writer::labelled("rossby sealed profile v1")
        .fixed(box_id.as_bytes())
        .finish();
    aad.extend_from_slice(head);
    aad
}

/// What the device signs.
fn statement(box_id: &BoxId, device: &DeviceId, version: u64, content: &[u8]) -> Vec<u8> {
    let digest: [u8; 32] = Sha256::digest(content).into();
    Writer::labelled("rossby profile v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u64(version)
        .fixed(&digest)
        .finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::PartitionId;
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::identity::Identity;

    fn box_of(identity: &Identity) -> BoxId {
        let genesis = identity.record().genesis_hash();
        BoxId::derive(PartitionId::new(1).unwrap(), &genesis)
    }

    fn sealed(identity: &Identity, version: u64, profile: &Profile) -> Vec<u8> {
        let address = DeviceAddress {
            box_id: box_of(identity),
            device: identity.device(),
        };
        let author = (address, identity.signing_key());
        seal(&SeededRandom::new(5), &key(), author, version, profile).unwrap()
    }

    fn key() -> ProfileKey {
        ProfileKey::from_bytes([7; 32])
    }

    fn identity(seed: u64) -> Identity {
        Identity::generate(&SeededRandom::new(seed)).unwrap()
    }

    fn open_as(identity: &Identity, sealed: &[u8]) -> Result<(u64, Profile), ProfileError> {
        open(&key(), (&box_of(identity), identity.record()), sealed)
    }

    fn profiles() -> impl Strategy<Value = Profile> {
        let picture = proptest::collection::vec(any::<u8>(), 1..2000);
        let picture = proptest::option::of(picture);
        let parts = ("[a-zé]{0,40}", "[a-z ü]{0,200}", picture);
        parts.prop_map(|(name, about, picture)| {
            let picture = picture.map(|bytes| Portrait::new("image/png", bytes).unwrap());
            Profile::new(&name, &about, picture).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_profile_reads_back_and_one_changed_byte_is_refused(
            profile in profiles(),
            version: u64,
            at: prop::sample::Index,
        ) {
            prop_assert_eq!(Profile::decode(&profile.encode()).unwrap(), profile.clone());
            let anna = identity(1);
            let mut bytes = sealed(&anna, version, &profile);
            prop_assert!(SIZES.contains(&(bytes.len() - HEAD_BYTES - 16)));
            prop_assert_eq!(open_as(&anna, &bytes), Ok((version, profile)));
            let at = at.index(bytes.len());
            bytes[at] ^= 1;
            prop_assert!(open_as(&anna, &bytes).is_err());
        }

        #[test]
        fn what_can_be_read_is_written_as_the_same_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = [&[CONTENT_VERSION, 0, 0, 0][..], &bytes].concat();
            if let Ok(profile) = Profile::decode(&bytes) {
                let again = profile.encode();
                prop_assert_eq!(again.as_slice(), &bytes[..]);
            }
        }
    }

    #[test]
    fn nobody_elses_profile_passes_for_a_boxes() {
        let (anna, bert) = (identity(1), identity(2));
        let profile = Profile::new("Anna", "", None).unwrap();
        let bytes = sealed(&anna, 3, &profile);
        assert_eq!(open_as(&bert, &bytes), Err(ProfileError::Sealed));
        // Under the same key, and sealed for her box: by whom it is signed, counts.
        let stranger = DeviceAddress {
            box_id: box_of(&anna),
            device: anna.device(),
        };
        let author = (stranger, bert.signing_key());
        let forged = seal(&SeededRandom::new(5), &key(), author, 3, &profile).unwrap();
        assert_eq!(open_as(&anna, &forged), Err(ProfileError::Signature));
        let other = ProfileKey::from_bytes([8; 32]);
        let whose = (&box_of(&anna), anna.record());
        assert_eq!(open(&other, whose, &bytes), Err(ProfileError::OtherKey));
        for cut in [0, 1, HEAD_BYTES, bytes.len() - 1] {
            assert!(open_as(&anna, &bytes[..cut]).is_err());
        }
    }

    #[test]
    fn the_largest_profile_fits_and_a_larger_one_is_none() {
        let picture = Portrait::new(
            &format!("image/{}", "x".repeat(121)),
            vec![1; MAX_PICTURE_BYTES],
        );
        let (name, about) = ("n".repeat(MAX_NAME_BYTES), "a".repeat(MAX_ABOUT_BYTES));
        let profile = Profile::new(&name, &about, Some(picture.unwrap())).unwrap();
        let anna = identity(1);
        let bytes = sealed(&anna, 1, &profile);
        assert!(bytes.len() <= MAX_SEALED_PROFILE_BYTES);
        assert_eq!(open_as(&anna, &bytes), Ok((1, profile)));
        let too_large = Portrait::new("image/png", vec![1; MAX_PICTURE_BYTES + 1]);
        assert_eq!(too_large, Err(ProfileError::Picture));
        for name in ["\u{1b}[2J", " Anna", &"n".repeat(MAX_NAME_BYTES + 1)] {
            assert_eq!(Profile::new(name, "", None), Err(ProfileError::Name));
        }
        let about = "a".repeat(MAX_ABOUT_BYTES + 1);
        assert_eq!(Profile::new("", &about, None), Err(ProfileError::About));
    }
}
