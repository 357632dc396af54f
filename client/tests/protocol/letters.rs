//! Envelopes put together by hand from docs/PROTOCOL.md: the code seals no bad one.

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _};
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_client::crypto::kem;
use rossby_client::envelope::ConversationId;
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{BoxId, DeviceAddress};
use rossby_domain::mac::hmac_sha256;
use rossby_domain::wire::Writer;
use rossby_seams::random::{Random, bytes};
use sha2::{Digest as _, Sha256};

/// What goes into an envelope. The fields can be set to what no good envelope says.
#[derive(Clone)]
pub struct Letter<'a> {
    pub signing_key: &'a SigningKey,
    pub sender: DeviceAddress,
    pub recipient: BoxId,
    /// For whom the content key is wrapped.
    pub wrapped_for: BoxId,
    pub recipient_record: &'a KeyRecord,
    pub counter: u64,
    pub conversation: ConversationId,
    pub written_at_ms: u64,
    pub sender_chain: (u64, [u8; 32]),
    pub recipient_chain: (u64, [u8; 32]),
    pub content: Vec<u8>,
    /// What fills the bucket.
    pub filler: u8,
    pub inner_version: u8,
    /// Taken for the key's commitment instead of the right one.
    pub commitment: Option<[u8; 32]>,
}

/// An envelope with all that it was made of.
pub struct Made {
    pub content_key: [u8; 32],
    pub nonce: [u8; 12],
    pub commitment: [u8; 32],
    pub signed: Vec<u8>,
    pub signature: [u8; 64],
    pub inner: Vec<u8>,
    pub body: Vec<u8>,
}

const BUCKETS: [usize; 11] = [
    512, 1024, 2048, 4096, 8192, 16_384, 32_768, 49_152, 65_536, 81_920, 88_064,
];

impl Letter<'_> {
    fn statement(&self, writer: Writer) -> Writer {
        writer
            .u8(self.inner_version)
            .fixed(self.sender.box_id.as_bytes())
            .fixed(self.sender.device.as_bytes())
            .fixed(self.recipient.as_bytes())
            .u64(self.counter)
            .fixed(self.conversation.as_bytes())
            .u64(self.written_at_ms)
            .u64(self.sender_chain.0)
            .fixed(&self.sender_chain.1)
            .u64(self.recipient_chain.0)
            .fixed(&self.recipient_chain.1)
    }

    pub fn make(&self, random: &dyn Random) -> Made {
        let content_key = bytes(random).unwrap();
        let nonce = bytes(random).unwrap();
        let right = hmac_sha256(&content_key, b"rossby content key v1");
        let commitment = self.commitment.unwrap_or(right);
        let digest = Sha256::digest(&self.content).into();
        let writer = self.statement(Writer::labelled("rossby envelope v1").u8(1).u8(1));
        let signed = writer.fixed(&commitment).fixed(&digest).finish();
        let signature = self.signing_key.sign(&signed).to_bytes();
        let writer = self.statement(Writer::default()).fixed(&signature);
        let mut inner = writer.bytes(&self.content).finish();
        let bucket = BUCKETS.into_iter().find(|bucket| *bucket >= inner.len());
        inner.resize(bucket.unwrap(), self.filler);
        let header = self.header(random, &content_key, &commitment, &nonce);
        let mut aad = Writer::labelled("rossby content v1").finish();
        aad.extend_from_slice(&header);
        let payload = Payload {
            msg: &inner,
            aad: &aad,
        };
        let cipher = ChaCha20Poly1305::new(&content_key.into());
        let ciphertext = cipher.encrypt(&nonce.into(), payload).unwrap();
        let tail = Writer::default().bytes(&ciphertext).finish();
        Made {
            content_key,
            nonce,
            commitment,
            signed,
            signature,
            inner,
            body: [header, tail].concat(),
        }
    }

    fn header(
        &self,
        random: &dyn Random,
        content_key: &[u8; 32],
        commitment: &[u8; 32],
        nonce: &[u8; 12],
    ) -> Vec<u8> {
        let wraps = self.recipient_record.devices().count() as u8;
        let writer = Writer::default().u8(1).u8(1);
        let mut writer = writer.fixed(commitment).fixed(nonce).u8(wraps);
        for keys in self.recipient_record.devices() {
            let (device, counter) = (keys.device.as_bytes(), keys.kem.counter);
            let aad = Writer::labelled("rossby wrap v1")
                .fixed(self.wrapped_for.as_bytes())
                .fixed(device)
                .u64(counter)
                .fixed(commitment)
                .finish();
            let public = &keys.kem.public;
            let sealed = kem::seal(random, public, b"rossby envelope v1", &aad, content_key);
            let sealed = sealed.unwrap();
            let key: &[u8; 48] = sealed.ciphertext.as_slice().try_into().unwrap();
            writer = writer.fixed(device).u64(counter);
            writer = writer.fixed(&sealed.encapsulated_key).fixed(key);
        }
        writer.finish()
    }
}
