//! What a device signs where a token is not there yet, or not enough: its registration, its
//! authorisation, its joining of a box that it was linked to or is let into by the recovery key, the changes of
//! its box's identifiers and profile, and how long mail waits there. Canonical bytes, each under a label of its own ([`crate::wire`]).

use sha2::{Digest as _, Sha256};

use crate::chain::ChainHash;
use crate::identifier::Identifier;
use crate::ids::{BoxId, DeviceId};
use crate::wire::Writer;

/// What the first device of a new box signs to register it for an identifier.
#[must_use]
pub fn register(
    genesis_hash: &ChainHash,
    identifier: &Identifier,
    discoverable: bool,
    kem_public: &[u8],
) -> Vec<u8> {
    Writer::labelled("rossby register v1")
        .fixed(genesis_hash)
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .u8(u8::from(discoverable))
        .bytes(&Sha256::digest(kem_public))
        .finish()
}

/// What the device signs to prove, with a code, that the identifier is its person's.
#[must_use]
pub fn authorize(
    box_id: &BoxId,
    device: &DeviceId,
    identifier: &Identifier,
    code: &str,
) -> Vec<u8> {
    Writer::labelled("rossby authorize v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .bytes(code.as_bytes())
        .finish()
}

/// What the device signs to prove the same of an identifier that may be another box's: it is to come to this one
/// after a delay.
#[must_use]
pub fn reset(box_id: &BoxId, device: &DeviceId, identifier: &Identifier, code: &str) -> Vec<u8> {
    Writer::labelled("rossby reset v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .bytes(code.as_bytes())
        .finish()
}

/// What a device signs to keep an identifier that another box is to get by the reset of this serial.
#[must_use]
pub fn keep_identifier(
    box_id: &BoxId,
    device: &DeviceId,
    identifier: &Identifier,
    serial: u64,
) -> Vec<u8> {
    Writer::labelled("rossby keep identifier v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .u64(serial)
        .finish()
}

/// What a device signs to ask for its place in the box that it was linked to, which it may not know
/// yet. Asked again, the answer is the same and is for this device alone, so nothing here is fresh.
#[must_use]
pub fn join_box(device: &DeviceId, kem_public: &[u8]) -> Vec<u8> {
    Writer::labelled("rossby join box v1")
        .fixed(device.as_bytes())
        .bytes(&Sha256::digest(kem_public))
        .finish()
}

/// How a recovery key's owner names their box.
#[derive(Debug, Clone, Copy)]
pub enum Recoverable<'a> {
    /// By its id.
    Box(&'a BoxId),
    /// By an identifier that it has.
    Identifier(&'a Identifier),
}

/// What a recovery key signs to be shown the key record of its box.
#[must_use]
pub fn lookup_recovery(by: Recoverable<'_>) -> Vec<u8> {
    let writer = Writer::labelled("rossby lookup recovery v1");
    match by {
        Recoverable::Box(box_id) => writer.u8(0).bytes(box_id.as_bytes()),
        Recoverable::Identifier(identifier) => writer
            .u8(identifier.kind())
            .bytes(identifier.as_str().as_bytes()),
    }
    .finish()
}

/// What a device signs to take its place in the box whose recovery key lets it in, and to belong to that box for
/// ever. As for [`join_box`], nothing here is fresh.
#[must_use]
pub fn recover(box_id: &BoxId, device: &DeviceId, kem_public: &[u8]) -> Vec<u8> {
    Writer::labelled("rossby recover v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .bytes(&Sha256::digest(kem_public))
        .finish()
}

/// What a device signs to delete its box. There is nothing to do it to a second time.
#[must_use]
pub fn delete_account(box_id: &BoxId, device: &DeviceId) -> Vec<u8> {
    Writer::labelled("rossby delete account v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .finish()
}

/// What a device signs to have a code sent to another identifier of its box. It changes nothing without the
/// code, which is proven by [`authorize`].
#[must_use]
pub fn add_identifier(
    box_id: &BoxId,
    device: &DeviceId,
    identifier: &Identifier,
    discoverable: bool,
) -> Vec<u8> {
    Writer::labelled("rossby add identifier v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .u8(u8::from(discoverable))
        .finish()
}

/// What a device signs to take an identifier from its box: the one that the box has under this generation
/// (0 if it is not verified), and none that it comes by later.
#[must_use]
pub fn remove_identifier(
    box_id: &BoxId,
    device: &DeviceId,
    identifier: &Identifier,
    generation: u64,
) -> Vec<u8> {
    Writer::labelled("rossby remove identifier v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(identifier.kind())
        .bytes(identifier.as_str().as_bytes())
        .u64(generation)
        .finish()
}

/// What a device signs to have the service keep this sealed profile of its box.
#[must_use]
pub fn set_profile(box_id: &BoxId, device: &DeviceId, version: u64, sealed: &[u8]) -> Vec<u8> {
    let digest: [u8; 32] = Sha256::digest(sealed).into();
    Writer::labelled("rossby set profile v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u64(version)
        .fixed(&digest)
        .finish()
}

/// What a device signs to say how long envelopes may wait in its box. The number is one above that of the last such
/// statement, so none is good twice.
#[must_use]
pub fn set_ttl(box_id: &BoxId, device: &DeviceId, ttl_ms: Option<u64>, number: u64) -> Vec<u8> {
    Writer::labelled("rossby set ttl v1")
        .fixed(box_id.as_bytes())
        .fixed(device.as_bytes())
        .u8(u8::from(ttl_ms.is_some()))
        .u64(ttl_ms.unwrap_or(0))
        .u64(number)
        .finish()
}
