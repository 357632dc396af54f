//! Verification codes, read from the file of the service's file courier as they appear.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::BenchError;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A courier that is longer about it does not work.
const PATIENCE: Duration = Duration::from_secs(60);

/// The codes of a courier's file from now on.
#[derive(Debug)]
pub struct Codes {
    shared: Arc<Mutex<Shared>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Came before somebody waited for it.
    arrived: HashMap<String, String>,
    waiting: HashMap<String, oneshot::Sender<String>>,
}

impl Codes {
    /// Follows a courier's file, from its end on. It need not be there yet.
    ///
    /// # Errors
    /// If it is there and can't be read.
    pub fn follow(path: &Path) -> Result<Self, BenchError> {
        let mut tail = Tail::at_end_of(path).map_err(|error| BenchError::File {
            path: path.to_owned(),
            error,
        })?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let told = Arc::clone(&shared);
        let reader = tokio::spawn(async move {
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // One that can't be read now may be in a moment; whoever waits gives up by time.
                let lines = tail.new_lines().unwrap_or_default();
                let mut shared = told.lock();
                for (identifier, code) in lines.iter().filter_map(|line| parse(line)) {
                    shared.bring(identifier, code);
                }
            }
        });
        Ok(Self { shared, reader })
    }

    /// The next code for an identifier.
    ///
    /// # Errors
    /// [`BenchError::NoCode`] if none comes for a long time.
    pub async fn code_for(&self, identifier: &str) -> Result<String, BenchError> {
        let comes = {
            let mut shared = self.shared.lock();
            if let Some(code) = shared.arrived.remove(identifier) {
                return Ok(code);
            }
            let (bring, comes) = oneshot::channel();
            shared.waiting.insert(identifier.to_owned(), bring);
            comes
        };
        match timeout(PATIENCE, comes).await {
            Ok(Ok(code)) => Ok(code),
            _ => Err(BenchError::NoCode {
                identifier: identifier.to_owned(),
            }),
        }
    }
}

impl Drop for Codes {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn bring(&mut self, identifier: &str, code: &str) {
        let unheard = match self.waiting.remove(identifier) {
            Some(waiting) => waiting.send(code.to_owned()).err(),
            None => Some(code.to_owned()),
        };
        if let Some(code) = unheard {
            self.arrived.insert(identifier.to_owned(), code);
        }
    }
}

/// Identifier and code of a line: milliseconds, identifier, code, separated by tabs.
fn parse(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.split('\t');
    let at: Option<u64> = fields.next()?.parse().ok();
    let (identifier, code) = (fields.next()?, fields.next()?);
    let whole = at.is_some() && fields.next().is_none();
    (whole && !identifier.is_empty() && !code.is_empty()).then_some((identifier, code))
}

/// The end of a file that others append to.
struct Tail {
    path: PathBuf,
    read: u64,
    /// The beginning of a line whose end was not there yet.
    begun: Vec<u8>,
}

impl Tail {
    fn at_end_of(path: &Path) -> io::Result<Self> {
        let read = match File::open(path) {
            Ok(file) => file.metadata()?.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            read,
            begun: Vec::new(),
        })
    }

    /// The lines that have come since.
    fn new_lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let before = self.begun.len();
        file.read_to_end(&mut self.begun)?;
        self.read += (self.begun.len() - before) as u64;
        let whole = self.begun.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = whole else {
            return Ok(Vec::new());
        };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let text = String::from_utf8_lossy(&lines);
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_a_time_an_identifier_and_a_code() {
        assert_eq!(parse("42\ta@b.example\t01"), Some(("a@b.example", "01")));
        for bad in [
            "",
            "42",
            "42\ta",
            "42\ta\t",
            "42\t\t01",
            "x\ta\t01",
            "42\ta\t01\t2",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn codes_reach_whoever_waits_before_or_after_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes");
        let append = |text: &str| {
            let file = OpenOptions::new().append(true).create(true).open(&path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        append("1\told@b.example\t00\n");
        let codes = Codes::follow(&path).unwrap();
        // In two pieces, as a reader may see it.
        append("2\tearly@b.example\t11\n3\tlate@b.ex");
        assert_eq!(codes.code_for("early@b.example").await.unwrap(), "11");
        let waits = codes.code_for("late@b.example");
        let write = async { append("ample\t22\n") };
        let (code, ()) = tokio::join!(waits, write);
        assert_eq!(code.unwrap(), "22");
        assert!(!codes.shared.lock().arrived.contains_key("old@b.example"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_yet_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("codes");
        let codes = Codes::follow(&path).unwrap();
        std::fs::write(&path, "1\ta@b.example\t7\n").unwrap();
        assert_eq!(codes.code_for("a@b.example").await.unwrap(), "7");
    }
}
