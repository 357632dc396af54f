//! How each crate's own tests run the committed corpus. Included by path, since nothing but tests
//! needs it.
//!
//! `ROSSBY_FUZZ_SEEDS=<folder>` writes the seeds, real encodings of real values, to
//! `<folder>/<target>/<name>`: a new corpus begins with them (`docs/FUZZING.md`).

use std::path::Path;

/// Runs the committed corpus of a target: nothing of it may panic, and some of it must be accepted,
/// or else the decoder was not reached.
pub fn replay(target: &str, decode: fn(&[u8]) -> bool) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target);
    let (mut inputs, mut accepted) = (0_u32, 0_u32);
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| decode(&bytes));
        let Ok(is_accepted) = outcome else {
            panic!("{target} panics on {}", path.display());
        };
        inputs += 1;
        accepted += u32::from(is_accepted);
    }
    assert!(inputs >= 5, "{target}: the corpus has only {inputs} inputs");
    assert!(accepted > 0, "{target}: nothing in the corpus is accepted");
    assert!(
        accepted < inputs,
        "{target}: nothing in the corpus is refused"
    );
}

/// Checks that a real encoding is accepted, and writes it out if asked to.
pub fn seed(target: &str, name: &str, bytes: &[u8], decode: fn(&[u8]) -> bool) {
    assert!(decode(bytes), "{target}: the seed {name} is refused");
    if let Some(folder) = std::env::var_os("ROSSBY_FUZZ_SEEDS") {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Puts a selector byte in front.
#[allow(
    dead_code,
    reason = "not every crate has several decoders in one target"
)]
pub fn with(selector: u8, bytes: &[u8]) -> Vec<u8> {
    [&[selector], bytes].concat()
}
