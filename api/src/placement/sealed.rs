//! Small files that a person can read and a flipped bit can not change: JSON under a line that names
//! the format and the checksum.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of such a file. `what` begins it, and names what it is.
///
/// # Errors
/// If the value has no form in JSON.
pub fn seal(what: &str, value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_string_pretty(value)?;
    let checksum = crc32c::crc32c(body.as_bytes());
    Ok(format!("{what} format=1 crc32c={checksum:08x}\n{body}").into_bytes())
}

/// What is in such a file.
///
/// # Errors
/// Why that can't be told.
pub fn unseal<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
    let (head, body) = text.split_once('\n').ok_or("it is not whole")?;
    let checksum = head
        .strip_prefix(what)
        .and_then(|rest| rest.strip_prefix(" format=1 crc32c="))
        .ok_or_else(|| format!("not a {what} that this release knows"))?;
    if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err("its checksum does not match".to_owned());
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}
