//! The primitives, as this crate uses them, against published test vectors:
//!
//! - HPKE: RFC 9180, appendix A.2.1, and the vectors of the post-quantum HPKE draft for the very
//!   suite of ours (X-Wing, HKDF-SHA256, ChaCha20-Poly1305);
//! - X-Wing: draft-connolly-cfrg-xwing-kem;
//! - Ed25519, ChaCha20-Poly1305 and XChaCha20-Poly1305: Wycheproof.
//!
//! The files under `vectors/` name their sources.

// A test may stop at the first thing that is not as it should be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use chacha20poly1305::aead::Payload;
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use rossby_client::crypto::kem::{KemSecret, seal};
use rossby_client::crypto::secret::Secret;
use rossby_domain::chain::verify_signature;
use rossby_seams::random::{Random, RandomError};
use serde_json::Value;
use wycheproof::TestResult;

fn vectors(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    assert!(file["source"].is_string(), "vectors name their source");
    let vectors = file["vectors"].as_array().unwrap().clone();
    assert!(!vectors.is_empty());
    vectors
}

fn hex(value: &Value) -> Vec<u8> {
    let (digits, rest) = value.as_str().unwrap().as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.iter().map(byte).collect()
}

/// Gives the randomness that a vector was made with.
struct Given(Vec<u8>);

impl Random for Given {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

#[test]
fn hpke_opens_the_vectors_of_rfc_9180() {
    type Suite = hpke::kem::X25519HkdfSha256;
    for vector in vectors(include_str!("vectors/rfc9180_a2.json")) {
        let secret = <Suite as Kem>::PrivateKey::from_bytes(&hex(&vector["skRm"])).unwrap();
        assert_eq!(
            Suite::sk_to_pk(&secret).to_bytes().to_vec(),
            hex(&vector["pkRm"])
        );
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(&hex(&vector["enc"])).unwrap();
        let shared = Suite::decap(&secret, None, &encapsulated).unwrap();
        assert_eq!(shared.0.to_vec(), hex(&vector["shared_secret"]));
        let mut context =
            hpke::setup_receiver::<hpke::aead::ChaCha20Poly1305, hpke::kdf::HkdfSha256, Suite>(
                &OpModeR::Base,
                &secret,
                &encapsulated,
                &hex(&vector["info"]),
            )
            .unwrap();
        for message in vector["encryptions"].as_array().unwrap() {
            let opened = context
                .open(&hex(&message["ct"]), &hex(&message["aad"]))
                .unwrap();
            assert_eq!(opened, hex(&message["pt"]));
        }
    }
}

#[test]
fn hpke_with_xwing_opens_the_vectors_of_its_draft() {
    for vector in vectors(include_str!("vectors/hpke_xwing.json")) {
        let seed: [u8; 32] = hex(&vector["skRm"]).try_into().unwrap();
        let secret = KemSecret::from_seed(Secret::new(seed));
        assert_eq!(secret.public_key().unwrap(), hex(&vector["pkRm"]));
        let (info, enc) = (hex(&vector["info"]), hex(&vector["enc"]));
        // What a single shot opens is the first message of a context.
        let first = &vector["encryptions"][0];
        let opened = secret
            .open(&info, &hex(&first["aad"]), &enc, &hex(&first["ct"]))
            .unwrap();
        assert_eq!(opened.to_vec(), hex(&first["pt"]));
    }
}

#[test]
fn hpke_with_xwing_seals_to_the_vectors_of_its_draft() {
    for vector in vectors(include_str!("vectors/hpke_xwing.json")) {
        let first = &vector["encryptions"][0];
        let sealed = seal(
            &Given(hex(&vector["ikmE"])),
            &hex(&vector["pkRm"]),
            &hex(&vector["info"]),
            &hex(&first["aad"]),
            &hex(&first["pt"]),
        )
        .unwrap();
        assert_eq!(sealed.encapsulated_key.to_vec(), hex(&vector["enc"]));
        assert_eq!(sealed.ciphertext, hex(&first["ct"]));
    }
}

#[test]
fn hpke_with_xwing_exports_the_secrets_of_its_draft() {
    for vector in vectors(include_str!("vectors/hpke_xwing.json")) {
        let mode = OpModeR::<hpke::kem::XWing>::Base;
        let secret = <hpke::kem::XWing as Kem>::PrivateKey::from_bytes(&hex(&vector["skRm"]));
        let enc = <hpke::kem::XWing as Kem>::EncappedKey::from_bytes(&hex(&vector["enc"]));
        let mut context = hpke::setup_receiver::<
            hpke::aead::ChaCha20Poly1305,
            hpke::kdf::HkdfSha256,
            hpke::kem::XWing,
        >(
            &mode,
            &secret.unwrap(),
            &enc.unwrap(),
            &hex(&vector["info"]),
        )
        .unwrap();
        for message in vector["encryptions"].as_array().unwrap() {
            let opened = context
                .open(&hex(&message["ct"]), &hex(&message["aad"]))
                .unwrap();
            assert_eq!(opened, hex(&message["pt"]));
        }
        for export in vector["exports"].as_array().unwrap() {
            let mut value = vec![0; usize::try_from(export["L"].as_u64().unwrap()).unwrap()];
            context
                .export(&hex(&export["exporter_context"]), &mut value)
                .unwrap();
            assert_eq!(value, hex(&export["exported_value"]));
        }
    }
}

#[test]
fn xwing_agrees_with_the_vectors_of_its_draft() {
    type XWing = hpke::kem::XWing;
    for vector in vectors(include_str!("vectors/xwing.json")) {
        let secret = <XWing as Kem>::PrivateKey::from_bytes(&hex(&vector["seed"])).unwrap();
        let public = XWing::sk_to_pk(&secret);
        assert_eq!(public.to_bytes().to_vec(), hex(&vector["pk"]));
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&hex(&vector["ct"])).unwrap();
        let shared = XWing::decap(&secret, None, &encapsulated).unwrap();
        assert_eq!(shared.0.to_vec(), hex(&vector["ss"]));
        // What seals to it arrives at the same encapsulated key.
        let random = Given(hex(&vector["eseed"]));
        let sealed = seal(&random, &hex(&vector["pk"]), b"info", b"aad", b"text").unwrap();
        assert_eq!(sealed.encapsulated_key.to_vec(), hex(&vector["ct"]));
        // A secret of another person's key comes to something else.
        let other = <XWing as Kem>::PrivateKey::from_bytes(&[9; 32]).unwrap();
        assert_ne!(
            XWing::decap(&other, None, &encapsulated)
                .unwrap()
                .0
                .to_vec(),
            hex(&vector["ss"])
        );
        let _ = OpModeS::<XWing>::Base;
    }
}

#[test]
fn ed25519_agrees_with_wycheproof() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut judged = 0;
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
        for test in &group.tests {
            let holds = <&[u8; 64]>::try_from(test.sig.as_slice())
                .is_ok_and(|signature| verify_signature(&key, &test.msg, signature));
            match test.result {
                TestResult::Valid => assert!(holds, "{}: {}", test.tc_id, test.comment),
                TestResult::Invalid => assert!(!holds, "{}: {}", test.tc_id, test.comment),
                TestResult::Acceptable => continue,
            }
            judged += 1;
        }
    }
    assert!(judged > 100, "{judged}");
}

/// Runs a Wycheproof AEAD set: what is valid must open and seal to the same bytes, what is not
/// must not open.
fn agrees_with_wycheproof<A: chacha20poly1305::aead::Aead + chacha20poly1305::KeyInit>(
    name: wycheproof::aead::TestName,
    nonce_bytes: usize,
) {
    let set = wycheproof::aead::TestSet::load(name).unwrap();
    let mut judged = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            if test.nonce.len() != nonce_bytes {
                // A nonce of another length can not be expressed in our types.
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            }
            let cipher = A::new_from_slice(&test.key).unwrap();
            let nonce = test.nonce.as_slice().try_into().unwrap();
            let sealed = [test.ct.as_slice(), test.tag.as_slice()].concat();
            let opened = cipher.decrypt(
                nonce,
                Payload {
                    msg: &sealed,
                    aad: &test.aad,
                },
            );
            match test.result {
                TestResult::Valid => {
                    assert_eq!(opened.unwrap(), test.pt.as_slice(), "{}", test.tc_id);
                    let again = cipher.encrypt(
                        nonce,
                        Payload {
                            msg: &test.pt,
                            aad: &test.aad,
                        },
                    );
                    assert_eq!(again.unwrap(), sealed, "{}", test.tc_id);
                }
                TestResult::Invalid => assert!(opened.is_err(), "{}", test.tc_id),
                TestResult::Acceptable => continue,
            }
            judged += 1;
        }
    }
    assert!(judged > 200, "{judged}");
}

#[test]
fn chacha20_poly1305_agrees_with_wycheproof() {
    agrees_with_wycheproof::<ChaCha20Poly1305>(wycheproof::aead::TestName::ChaCha20Poly1305, 12);
}

#[test]
fn xchacha20_poly1305_agrees_with_wycheproof() {
    agrees_with_wycheproof::<XChaCha20Poly1305>(wycheproof::aead::TestName::XChaCha20Poly1305, 24);
}
