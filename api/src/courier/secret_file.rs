//! Small files with secrets, which only their owner may read.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::SettingsError;

/// Far more than a password or some headers need.
const MAX_BYTES: u64 = 16 * 1024;

/// The text in a file with mode 0600 (or less).
pub(super) fn read(key: &'static str, path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let unusable = |why: String| SettingsError::File {
        key,
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(|error| unusable(error.to_string()))?;
    let metadata = file
        .metadata()
        .map_err(|error| unusable(error.to_string()))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(unusable(format!(
            "others than its owner may open it (mode {mode:o}); run: chmod 600 {}",
            path.display()
        )));
    }
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(unusable(format!("not a file of up to {MAX_BYTES} bytes")));
    }
    // Large enough to never move, so that no copy is left behind in memory.
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    match file.take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(_) => Err(unusable("it can't be read as text".to_owned())),
    }
}
