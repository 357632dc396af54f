//! What is said when an identity is registered: the two requests, signed, and what their answers give. And what
//! is signed to change the identifiers of its box.
//!
//! Nothing here sends or stores: [`crate::Device`] does both, and so may anybody who keeps an identity
//! in another way.

use std::borrow::Cow;

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use rossby_domain::chain::KeyRecord;
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::statement;
use rossby_proto::v1;

use crate::connection::Signer;
use crate::crypto::kem::KemError;
use crate::crypto::token::open_token;
use crate::identity::Identity;

/// Why an identity can not be registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisteringError {
    /// The identity's own keys are not in its record, or it has none.
    #[error("the identity is not whole")]
    NotWhole,
    /// The service answered with somebody else's box.
    #[error("the box is not of this device's identity")]
    NotOurBox,
    /// The token could not be opened.
    #[error("the token can not be opened: {0}")]
    Token(#[source] KemError),
}

/// Asks for a box for this identifier; a code is sent there. With `reset`, also if it is another box's, from which it
/// comes after a delay.
///
/// # Errors
/// [`RegisteringError::NotWhole`].
pub fn register_request(
    identity: &Identity,
    identifier: &Identifier,
    discoverable: bool,
    reset: bool,
) -> Result<v1::RegisterRequest, RegisteringError> {
    let record = first_record(identity)?;
    let keys = record
        .device(&identity.device())
        .ok_or(RegisteringError::NotWhole)?;
    let genesis_hash = record.genesis_hash();
    let signed = statement::register(&genesis_hash, identifier, discoverable, &keys.kem.public);
    Ok(v1::RegisterRequest {
        key_record: Bytes::from(record.encode()),
        identifier: Some(identifier_to_wire(identifier)),
        discoverable,
        signature: sign(identity, &signed),
        reset,
    })
}

/// The record that a box begins with. Links that a service lost with the box come after it.
fn first_record(identity: &Identity) -> Result<Cow<'_, KeyRecord>, RegisteringError> {
    let record = identity.record();
    if record.version() == 0 {
        return Ok(Cow::Borrowed(record));
    }
    let keys = record.device(&record.genesis().device());
    let kem = keys.map(|keys| keys.kem.clone());
    let kem = kem.ok_or(RegisteringError::NotWhole)?;
    let first = KeyRecord::new(record.genesis().clone(), kem);
    first
        .map(Cow::Owned)
        .map_err(|_| RegisteringError::NotWhole)
}

/// The box that the service has made for this identity.
///
/// # Errors
/// [`RegisteringError::NotOurBox`].
pub fn registered_box(
    identity: &Identity,
    response: &v1::RegisterResponse,
) -> Result<BoxId, RegisteringError> {
    let genesis_hash = identity.record().genesis_hash();
    box_from_wire(&response.box_id)
        .filter(|box_id| box_id.is_of_genesis(&genesis_hash))
        .ok_or(RegisteringError::NotOurBox)
}

/// Proves the identifier with the code that was sent there.
#[must_use]
pub fn authorize_request(
    identity: &Identity,
    box_id: &BoxId,
    identifier: &Identifier,
    code: &str,
    reset: bool,
) -> v1::AuthorizeRequest {
    let device = identity.device();
    let says = if reset {
        statement::reset
    } else {
        statement::authorize
    };
    let signed = says(box_id, &device, identifier, code);
    v1::AuthorizeRequest {
        box_id: Bytes::copy_from_slice(box_id.as_bytes()),
        device_id: Bytes::copy_from_slice(device.as_bytes()),
        identifier: Some(identifier_to_wire(identifier)),
        code: code.to_owned(),
        signature: sign(identity, &signed),
        reset,
    }
}

/// What the identity signs its requests with from now on.
///
/// # Errors
/// [`RegisteringError::NotWhole`] if the identity has no KEM key, [`RegisteringError::Token`] if the token
/// is not sealed to the published one.
pub fn authorized_signer(
    identity: &Identity,
    box_id: BoxId,
    response: v1::AuthorizeResponse,
) -> Result<Signer, RegisteringError> {
    let published = identity.published_counter();
    let mut kept = identity.kem_keys().iter();
    let (_, kem) = kept
        .find(|(counter, _)| *counter == published)
        .ok_or(RegisteringError::NotWhole)?;
    let address = DeviceAddress {
        box_id,
        device: identity.device(),
    };
    let (encapsulated_key, sealed) = (&response.encapsulated_key, &response.sealed_token);
    let token =
        open_token(kem, &address, encapsulated_key, sealed).map_err(RegisteringError::Token)?;
    Ok(Signer {
        address,
        token,
        host: response.hawk_host,
    })
}

/// Asks for a code for another identifier of the box. [`authorize_request`] proves it then.
#[must_use]
pub fn add_identifier_request(
    identity: &Identity,
    box_id: &BoxId,
    identifier: &Identifier,
    discoverable: bool,
) -> v1::AddIdentifierRequest {
    let device = identity.device();
    let signed = statement::add_identifier(box_id, &device, identifier, discoverable);
    v1::AddIdentifierRequest {
        identifier: Some(identifier_to_wire(identifier)),
        discoverable,
        signature: sign(identity, &signed),
    }
}

/// Says how long mail may wait in the box, in milliseconds; the number is one above the last statement's.
#[must_use]
pub fn set_ttl_request(
    identity: &Identity,
    box_id: &BoxId,
    ttl_ms: Option<u64>,
    number: u64,
) -> v1::SetTtlRequest {
    let signed = statement::set_ttl(box_id, &identity.device(), ttl_ms, number);
    v1::SetTtlRequest {
        ttl_ms,
        number,
        signature: sign(identity, &signed),
    }
}

/// Takes the identifier from the box that the box has under this generation.
#[must_use]
pub fn remove_identifier_request(
    identity: &Identity,
    box_id: &BoxId,
    identifier: &Identifier,
    generation: u64,
) -> v1::RemoveIdentifierRequest {
    let device = identity.device();
    let signed = statement::remove_identifier(box_id, &device, identifier, generation);
    v1::RemoveIdentifierRequest {
        identifier: Some(identifier_to_wire(identifier)),
        generation,
        signature: sign(identity, &signed),
    }
}

/// Keeps an identifier that another box is to get by the reset of this serial.
#[must_use]
pub fn keep_identifier_request(
    identity: &Identity,
    box_id: &BoxId,
    identifier: &Identifier,
    reset_serial: u64,
) -> v1::KeepIdentifierRequest {
    let device = identity.device();
    let signed = statement::keep_identifier(box_id, &device, identifier, reset_serial);
    v1::KeepIdentifierRequest {
        identifier: Some(identifier_to_wire(identifier)),
        reset_serial,
        signature: sign(identity, &signed),
    }
}

/// Has the service keep a sealed profile of the box under a version.
#[must_use]
pub fn set_profile_request(
    identity: &Identity,
    box_id: &BoxId,
    version: u64,
    sealed: &[u8],
) -> v1::SetProfileRequest {
    let signed = statement::set_profile(box_id, &identity.device(), version, sealed);
    v1::SetProfileRequest {
        version,
        sealed_profile: Bytes::copy_from_slice(sealed),
        signature: sign(identity, &signed),
    }
}

/// What the device signs to delete its box.
#[must_use]
pub fn delete_account_signature(identity: &Identity, box_id: &BoxId) -> [u8; 64] {
    let signed = statement::delete_account(box_id, &identity.device());
    identity.signing_key().sign(&signed).to_bytes()
}

/// The wire's identifier.
#[must_use]
pub fn identifier_to_wire(identifier: &Identifier) -> v1::Identifier {
    use v1::identifier::Kind;
    let kind = match identifier {
        Identifier::Phone(phone) => Kind::Phone(phone.as_str().to_owned()),
        Identifier::Email(email) => Kind::Email(email.as_str().to_owned()),
    };
    v1::Identifier { kind: Some(kind) }
}

/// The box id in bytes from the wire.
#[must_use]
pub fn box_from_wire(bytes: &[u8]) -> Option<BoxId> {
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    BoxId::from_bytes(bytes).ok()
}

fn sign(identity: &Identity, statement: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&identity.signing_key().sign(statement).to_bytes())
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::PartitionId;
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::crypto::kem;
    use crate::crypto::token::TOKEN_INFO;

    fn identity(seed: u64) -> Identity {
        Identity::generate(&SeededRandom::new(seed)).unwrap()
    }

    fn box_of(identity: &Identity) -> BoxId {
        let partition = PartitionId::new(1).unwrap();
        BoxId::derive(partition, &identity.record().genesis_hash())
    }

    #[test]
    fn only_the_identitys_own_box_is_taken() {
        let (ours, theirs) = (identity(1), identity(2));
        let answer = |box_id: &[u8]| v1::RegisterResponse {
            box_id: Bytes::copy_from_slice(box_id),
            code_ttl_ms: 1,
        };
        let own = box_of(&ours);
        assert_eq!(registered_box(&ours, &answer(own.as_bytes())).unwrap(), own);
        let foreign = box_of(&theirs);
        for bytes in [foreign.as_bytes().as_slice(), b"", &[0; 17]] {
            let taken = registered_box(&ours, &answer(bytes));
            assert!(matches!(taken, Err(RegisteringError::NotOurBox)));
        }
    }

    #[test]
    fn the_token_is_for_the_device_that_asked() {
        let (ours, theirs) = (identity(1), identity(2));
        let box_id = box_of(&ours);
        let address = DeviceAddress {
            box_id,
            device: ours.device(),
        };
        let public = ours.kem_keys()[0].1.public_key().unwrap();
        let aad = address.to_string();
        let random = SeededRandom::new(3);
        let sealed = kem::seal(&random, &public, TOKEN_INFO, aad.as_bytes(), b"token").unwrap();
        let response = v1::AuthorizeResponse {
            encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
            sealed_token: Bytes::copy_from_slice(&sealed.ciphertext),
            hawk_host: "cluster".to_owned(),
        };
        let signer = authorized_signer(&ours, box_id, response.clone()).unwrap();
        assert_eq!((signer.address, signer.host.as_str()), (address, "cluster"));
        assert_eq!(signer.token.expose(), b"token");
        let other = authorized_signer(&theirs, box_id, response);
        assert!(matches!(other, Err(RegisteringError::Token(_))));
    }
}
