//! The protocol's test vectors (`docs/vectors/v1.json`), made anew from fixed seeds by the code that
//! runs in devices, and compared with the file: it can not drift from the code, nor the code from it.
//! `interop/python` holds an independent client to the same file.
//!
//! A change on purpose, which is one of the protocol and wants another version of what it changes:
//!
//! ```sh
//! ROSSBY_UPDATE_VECTORS=1 cargo test -p rossby-client --test protocol
//! ```

// A test may stop at the first thing that is not as it should be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod basics;
mod contents;
mod envelopes;
mod hawk;
mod letters;
mod people;
mod profiles;
mod records;

use std::fmt::Write as _;
use std::path::PathBuf;

use parking_lot::Mutex;
use rossby_seams::random::{Random, RandomError};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const ABOUT: &str = "Test vectors of Rossby's protocol, version 1 (docs/PROTOCOL.md). Byte strings are in \
    hexadecimal. Every key and every random byte in here is published: use none of them. \
    client/tests/protocol makes this file.";

/// Bytes as the file shows them.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    let mut text = String::new();
    for byte in bytes.as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// The fixed bytes of this name.
fn seed(name: &str) -> [u8; 32] {
    let hasher = Sha256::new().chain_update(b"rossby vectors v1: ");
    hasher.chain_update(name).finalize().into()
}

/// An endless stream of fixed bytes, where a device would draw random ones. Notes what was drawn.
struct Stream {
    name: String,
    drawn: Mutex<(u64, Vec<Vec<u8>>)>,
}

impl Stream {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            drawn: Mutex::default(),
        }
    }

    /// Everything drawn so far, draw by draw.
    fn drawn(&self) -> Vec<Vec<u8>> {
        self.drawn.lock().1.clone()
    }
}

impl Random for Stream {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        let mut drawn = self.drawn.lock();
        for chunk in buffer.chunks_mut(32) {
            let block = seed(&format!("{} {}", self.name, drawn.0));
            chunk.copy_from_slice(&block[..chunk.len()]);
            drawn.0 += 1;
        }
        drawn.1.push(buffer.to_vec());
        Ok(())
    }
}

async fn vectors() -> Value {
    let people = people::People::new();
    json!({
        "about": ABOUT,
        "wire": basics::wire(),
        "identifiers": basics::identifiers(),
        "signatures": basics::signatures(),
        "people": people.vectors(),
        "key_records": records::good(&people),
        "bad_key_records": records::bad(&people),
        "statements": basics::statements(&people),
        "recovery_keys": basics::recovery_keys(&people),
        "tokens": basics::tokens(&people),
        "conversations": basics::conversations(&people),
        "contents": contents::good(&people),
        "bad_contents": contents::bad(&people),
        "safety_numbers": basics::safety_numbers(&people),
        "hawk": hawk::vectors(&people).await,
        "envelopes": envelopes::good(&people),
        "bad_envelopes": envelopes::bad(&people),
        "profiles": profiles::vectors(&people),
    })
}

#[tokio::test]
async fn the_published_vectors_are_what_the_code_makes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors/v1.json");
    let made = format!(
        "{}\n",
        serde_json::to_string_pretty(&vectors().await).unwrap()
    );
    if std::env::var_os("ROSSBY_UPDATE_VECTORS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap();
    for (number, (made, published)) in made.lines().zip(published.lines()).enumerate() {
        assert_eq!(
            made,
            published,
            "docs/vectors/v1.json, line {}: a released client could not follow",
            number + 1
        );
    }
    assert_eq!(made.len(), published.len(), "docs/vectors/v1.json");
}
