//! What tells a data directory from one that takes its place: a mark, drawn when a node first waits in it for a
//! cluster. The plan of a cluster names the marks of the directories that it was made for: a node whose disk
//! was lost since has another one, and gets no place by that plan, since it would not remember what it promised
//! in it.

use rossby_api::placement::SealedFile;
use rossby_seams::random::{self, Random};
use rossby_storage::datadir::DataDirectory;

use super::node::NodeError;

const FILE: SealedFile = SealedFile {
    name: "mark",
    what: "rossby directory mark",
};

/// The mark of a data directory, drawn if it has none.
pub fn of(data: &DataDirectory, random: &dyn Random) -> Result<String, NodeError> {
    let failed = |reason: String| NodeError::Mark {
        path: FILE.path(data.path()).display().to_string(),
        reason,
    };
    if let Some(mark) = FILE.read(&**data.disk(), data.path()).map_err(failed)? {
        return Ok(mark);
    }
    let drawn: [u8; 16] = random::bytes(random)?;
    let mark = crate::output::hex(&drawn);
    let written = FILE.write(&**data.disk(), data.path(), &mark);
    written.map_err(|error| failed(error.to_string()))?;
    Ok(mark)
}
