//! A device, as the service sees it: a signing key, a KEM key, and what is made with them.

use ed25519_dalek::{Signer as _, SigningKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable as _, Kem, OpModeR, Serializable as _};
use rossby_api::rpc::TOKEN_INFO;
use rossby_domain::chain::{Genesis, KemKey, KeyRecord, SUITE_XWING};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
use rossby_domain::statement;
use rossby_proto::v1;

/// A device with keys made from a number.
pub struct TestDevice {
    pub signing: SigningKey,
    kem_secret: <XWing as Kem>::PrivateKey,
    pub record: KeyRecord,
}

impl TestDevice {
    pub fn new(number: u8) -> Self {
        Self::with_nonce(number, [number; 32])
    }

    /// The same keys under another genesis nonce: another identity by the same key.
    pub fn with_nonce(number: u8, nonce: [u8; 32]) -> Self {
        let (_, kem_public) = <XWing as Kem>::derive_keypair(&[number; 32]);
        Self::with(number, nonce, kem_public.to_bytes().to_vec())
    }

    /// A device that signs for these bytes as its KEM key.
    pub fn with_kem_public(number: u8, public: Vec<u8>) -> Self {
        Self::with(number, [number; 32], public)
    }

    fn with(number: u8, nonce: [u8; 32], public: Vec<u8>) -> Self {
        let signing = SigningKey::from_bytes(&[number; 32]);
        let recovery = SigningKey::from_bytes(&[number ^ 0x80; 32]);
        let (kem_secret, _) = <XWing as Kem>::derive_keypair(&[number; 32]);
        let device_key = signing.verifying_key().to_bytes();
        let recovery_key = recovery.verifying_key().to_bytes();
        let genesis = Genesis {
            device_key,
            recovery_key,
            nonce,
        };
        let statement = KemKey::statement(&genesis.device(), SUITE_XWING, 1, &public);
        let kem = KemKey {
            suite: SUITE_XWING,
            counter: 1,
            public: public.into(),
            signature: signing.sign(&statement).to_bytes(),
        };
        let record = KeyRecord::new(genesis, kem).unwrap();
        Self {
            signing,
            kem_secret,
            record,
        }
    }

    pub fn id(&self) -> DeviceId {
        self.record.genesis().device()
    }

    pub fn address(&self, box_id: &[u8]) -> DeviceAddress {
        let box_id = BoxId::from_bytes(box_id.try_into().unwrap()).unwrap();
        assert!(box_id.is_of_genesis(&self.record.genesis_hash()));
        DeviceAddress {
            box_id,
            device: self.id(),
        }
    }

    /// The address that it would have in a partition, registered there or not.
    pub fn address_in(&self, partition: u16) -> DeviceAddress {
        let partition = PartitionId::new(partition).unwrap();
        let box_id = BoxId::derive(partition, &self.record.genesis_hash());
        DeviceAddress {
            box_id,
            device: self.id(),
        }
    }

    pub fn register(&self, phone: &str, discoverable: bool) -> v1::RegisterRequest {
        let identifier = Identifier::phone(phone).unwrap();
        let public = &self.record.device(&self.id()).unwrap().kem.public;
        let signed = statement::register(
            &self.record.genesis_hash(),
            &identifier,
            discoverable,
            public,
        );
        v1::RegisterRequest {
            key_record: self.record.encode().into(),
            identifier: Some(phone_of(phone)),
            discoverable,
            signature: self.signing.sign(&signed).to_bytes().to_vec().into(),
            reset: false,
        }
    }

    pub fn authorize(&self, box_id: &[u8], phone: &str, code: &str) -> v1::AuthorizeRequest {
        self.authorize_as(self, box_id, phone, code)
    }

    /// A request in the name of `device`, signed by this one.
    pub fn authorize_as(
        &self,
        device: &Self,
        box_id: &[u8],
        phone: &str,
        code: &str,
    ) -> v1::AuthorizeRequest {
        let bytes = box_id.try_into().unwrap();
        let address = DeviceAddress {
            box_id: BoxId::from_bytes(bytes).unwrap(),
            device: device.id(),
        };
        let identifier = Identifier::phone(phone).unwrap();
        let signed = statement::authorize(&address.box_id, &address.device, &identifier, code);
        v1::AuthorizeRequest {
            box_id: box_id.to_vec().into(),
            device_id: address.device.as_bytes().to_vec().into(),
            identifier: Some(phone_of(phone)),
            code: code.to_owned(),
            signature: self.signing.sign(&signed).to_bytes().to_vec().into(),
            reset: false,
        }
    }

    pub fn open_token(&self, address: &DeviceAddress, reply: &v1::AuthorizeResponse) -> [u8; 32] {
        let key = <XWing as Kem>::EncappedKey::from_bytes(&reply.encapsulated_key).unwrap();
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &self.kem_secret,
            &key,
            TOKEN_INFO,
            &reply.sealed_token,
            address.to_string().as_bytes(),
        );
        opened.unwrap().try_into().unwrap()
    }
}

pub fn phone_of(phone: &str) -> v1::Identifier {
    v1::Identifier {
        kind: Some(v1::identifier::Kind::Phone(phone.to_owned())),
    }
}
