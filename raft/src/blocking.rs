//! Where blocking work runs: files of checkpoints are written and read outside the async threads.

use std::io;

/// Runs blocking work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Blocking {
    /// On the runtime's threads for blocking work.
    #[default]
    Threads,
    /// Right here. For simulation, where nothing may run on a thread of its own.
    Inline,
}

impl Blocking {
    /// Runs it; what it returns.
    ///
    /// # Errors
    /// If it panicked.
    pub async fn run<T, F>(self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work)
                .await
                .map_err(io::Error::other),
            Self::Inline => Ok(work()),
        }
    }
}
