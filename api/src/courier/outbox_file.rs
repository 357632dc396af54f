//! The courier of a test bench or of an operator's own gateway: codes land in a private file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rossby_domain::identifier::Identifier;
use rossby_seams::clock::Clock;

use super::{Courier, CourierError, Kind};

/// Appends one line per code to a file with mode 0600: milliseconds since the Unix epoch, the
/// identifier, the code, separated by tabs. (No identifier and no code holds a tab.)
///
/// The file is opened anew for each code, so that whoever consumes it may rename it away, and its
/// permissions are checked each time.
pub struct OutboxFileCourier {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl OutboxFileCourier {
    /// A courier that writes to `path`, which is made if missing.
    ///
    /// # Errors
    /// [`CourierError`] if the file can't be made, or is open to others: better known at the start
    /// than with the first code.
    pub fn new(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, CourierError> {
        open(path)?;
        Ok(Self {
            path: path.to_owned(),
            clock,
        })
    }
}

/// Opens the file for appending and checks that nobody else can.
fn open(path: &Path) -> Result<File, CourierError> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // Of the file that was opened, not of whatever the name points to by now.
    match file.metadata()?.mode() & 0o7777 {
        0o600 => Ok(file),
        mode => Err(CourierError::TooOpen { mode }),
    }
}

#[async_trait]
impl Courier for OutboxFileCourier {
    async fn deliver(&self, identifier: &Identifier, code: &str) -> Result<(), CourierError> {
        let now = self.clock.now().as_millis();
        let line = format!("{now}\t{}\t{code}\n", identifier.as_str());
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            // One write call, so that lines of several nodes sharing a file don't mix.
            open(&path)?.write_all(line.as_bytes())?;
            Ok(())
        });
        written.await.map_err(std::io::Error::other)?
    }

    fn name(&self, _: Kind) -> Option<&'static str> {
        Some("file")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rossby_domain::time::Timestamp;
    use rossby_seams::clock::ManualClock;

    use super::*;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(ManualClock::new(Timestamp::from_millis(42)))
    }

    #[tokio::test]
    async fn each_code_is_one_line_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes");
        let courier = OutboxFileCourier::new(&path, clock()).unwrap();
        let phone = Identifier::phone("+49 170 1234567").unwrap();
        courier.deliver(&phone, "12345678").await.unwrap();
        courier
            .deliver(&Identifier::email("a@b.example").unwrap(), "00000001")
            .await
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "42\t+491701234567\t12345678\n42\ta@b.example\t00000001\n"
        );
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused_at_the_start_and_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes");
        let courier = OutboxFileCourier::new(&path, clock()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = courier
            .deliver(&Identifier::email("a@b.example").unwrap(), "1")
            .await;
        assert!(matches!(
            refused,
            Err(CourierError::TooOpen { mode: 0o640 })
        ));
        assert!(matches!(
            OutboxFileCourier::new(&path, clock()),
            Err(CourierError::TooOpen { mode: 0o640 })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
