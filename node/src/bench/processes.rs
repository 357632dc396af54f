//! The processes of nodes of our own, and their end.

use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::{Instant, timeout_at};

use crate::exit::{Exit, Failure};

/// How long is waited for processes that are killed because a run broke off.
const BREAKING_OFF: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Nodes by their numbers. None is left when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Processes(Vec<(u64, Child)>);

impl Processes {
    /// Takes on one more.
    pub(super) fn add(&mut self, id: u64, child: Child) -> &mut Child {
        let place = self.0.len();
        self.0.push((id, child));
        #[allow(clippy::indexing_slicing)]
        // It was put there just now.
        &mut self.0[place].1
    }

    /// One that has ended.
    pub(super) fn ended(&mut self) -> Option<u64> {
        let gone = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        let mut ended = self
            .0
            .iter_mut()
            .filter_map(|(id, child)| gone(child).then_some(*id));
        ended.next()
    }

    /// Sends all of them this signal, and waits until they have ended.
    ///
    /// # Errors
    /// If one takes longer than this.
    pub(super) async fn end(&mut self, signal: Signal, patience: Duration) -> Result<(), Failure> {
        let failed = |id: u64, why: &dyn std::fmt::Display| {
            Failure::new(Exit::Failure, format!("node {id} does not end: {why}"))
        };
        for (id, child) in &self.0 {
            // One that has been waited for has no number any more, and nobody else gets this signal.
            let pid = child.id().and_then(|pid| pid.try_into().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                kill_process(pid, signal).map_err(|error| failed(*id, &error))?;
            }
        }
        let deadline = Instant::now() + patience;
        for (id, child) in &mut self.0 {
            match timeout_at(deadline, child.wait()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(failed(*id, &error)),
                Err(_) => {
                    return Err(failed(
                        *id,
                        &format!("{} s were not enough", patience.as_secs()),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Processes {
    /// Nothing may be awaited here, but what they write to is removed next: waits for a moment.
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // One that has ended already can't be killed.
            let _ = child.start_kill();
        }
        let deadline = Instant::now() + BREAKING_OFF;
        for (_, child) in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}
