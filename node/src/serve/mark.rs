//! What tells a data directory from one that takes its place: a mark, drawn when a node first waits in it for a
//! cluster. The plan of a cluster names the marks of the directories that it was made for: a node whose disk
//! was lost since has another one, and gets no place by that plan, since it would not remember what it promised
//! in it.

use std::io;

use rossby_api::placement::{seal, unseal};
use rossby_seams::disk;
use rossby_seams::random::{self, Random};
use rossby_storage::datadir::DataDirectory;

use super::node::NodeError;

const FILE: &str = "mark";
const WHAT: &str = "rossby directory mark";

/// The mark of a data directory, drawn if it has none.
pub fn of(data: &DataDirectory, random: &dyn Random) -> Result<String, NodeError> {
    let path = data.path().join(FILE);
    let failed = |reason: String| NodeError::Mark {
        path: path.display().to_string(),
        reason,
    };
    match disk::read(&**data.disk(), &path) {
        Ok(bytes) => return unseal(WHAT, &bytes).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let drawn: [u8; 16] = random::bytes(random)?;
    let mark = crate::output::hex(&drawn);
    let bytes = seal(WHAT, &mark).map_err(|error| failed(error.to_string()))?;
    disk::replace(&**data.disk(), &path, &bytes).map_err(|error| failed(error.to_string()))?;
    Ok(mark)
}
