//! Everything that is seen passes here: it goes into the trace, and before every invariant.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use parking_lot::Mutex;
use rossby_seams::watch;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::invariants::Violation;
use crate::judge::Judge;
use crate::observe::{AdmissionEvent, Observation, ReplicaEvent, SimTime, What, Who};

/// What makes a run worth counting, and its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Observations.
    pub observations: u64,
    /// Reigns that began.
    pub leaders: u64,
    /// Checkpoints that a replica took over from another.
    pub shipped: u64,
    /// Checkpoints that were published.
    pub checkpoints: u64,
    /// Nodes that stopped or lost power.
    pub crashes: u64,
    /// Faults that began.
    pub faults: u64,
    /// Replicas that learned that they were removed.
    pub removed: u64,
    /// Disks that were lost or damaged.
    pub disks: u64,
    /// Bits that were flipped on them.
    pub bits: u64,
    /// Starts that were refused.
    pub refused: u64,
    /// Steps of the plan that were begun.
    pub steps: u64,
    /// Tries to join by a token that were let in.
    pub let_in: u64,
    /// Those that were turned away.
    pub turned_away: u64,
    /// Newest versions of the map that nodes came to know.
    pub maps: u64,
    /// Client calls that were answered.
    pub answered: u64,
    /// Client calls whose outcome is not known.
    pub unknown: u64,
}

impl Figures {
    /// Whether leaders changed and a checkpoint was shipped: a run without either shows nothing.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.leaders > 1 && self.shipped > 0
    }

    fn count(&mut self, what: &What) {
        self.observations += 1;
        match what {
            What::Replica { event, .. } => match event {
                ReplicaEvent::Leads { .. } => self.leaders += 1,
                ReplicaEvent::CheckpointInstalled { .. } => self.shipped += 1,
                ReplicaEvent::CheckpointPublished { .. } => self.checkpoints += 1,
                ReplicaEvent::Dismissed => self.removed += 1,
                _ => {}
            },
            What::Crashed { .. } => self.crashes += 1,
            What::FaultOn(_) => self.faults += 1,
            What::Planned(_) => self.steps += 1,
            What::Admission { event, .. } => match event {
                AdmissionEvent::LetIn { .. } => self.let_in += 1,
                AdmissionEvent::TurnedAway { .. } => self.turned_away += 1,
                _ => {}
            },
            What::KnowsMap { .. } => self.maps += 1,
            What::Wiped => self.disks += 1,
            What::BitFlipped { .. } => self.bits += 1,
            What::StartRefused { .. } => self.refused += 1,
            What::Returned { result, .. } => match result {
                Err(crate::observe::Failure::Unknown) => self.unknown += 1,
                _ => self.answered += 1,
            },
            _ => {}
        }
    }
}

/// Takes in observations.
pub struct Recorder {
    begun: Instant,
    inner: Mutex<Inner>,
    broken: watch::Sender<bool>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

struct Inner {
    judge: Judge,
    violation: Option<Violation>,
    trace: Option<BufWriter<File>>,
    hash: Sha256,
    figures: Figures,
}

impl Recorder {
    /// A recorder for a world that begins now; every line also goes to `trace`, if given.
    #[must_use]
    pub fn new(trace: Option<File>) -> Self {
        Self {
            begun: Instant::now(),
            inner: Mutex::new(Inner {
                judge: Judge::default(),
                violation: None,
                trace: trace.map(BufWriter::new),
                hash: Sha256::new(),
                figures: Figures::default(),
            }),
            broken: watch::channel(false).0,
        }
    }

    /// When the world began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// The world's time.
    #[must_use]
    pub fn now(&self) -> SimTime {
        SimTime(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Something happened, now.
    pub fn saw(&self, who: Who, what: What) {
        let observation = Observation {
            at: self.now(),
            who,
            what,
        };
        let mut inner = self.inner.lock();
        if inner.violation.is_some() {
            return;
        }
        inner.note(&observation);
        if let Err(violation) = inner.judge.observe(&observation) {
            inner.violation = Some(violation);
            drop(inner);
            self.broken.send_replace(true);
        }
    }

    /// The world itself found something that must not be.
    pub fn accuse(&self, invariant: &'static str, what: String) {
        let mut inner = self.inner.lock();
        if inner.violation.is_none() {
            inner.violation = Some(Violation {
                invariant,
                at: Some(self.now()),
                what,
            });
        }
        drop(inner);
        self.broken.send_replace(true);
    }

    /// Waits until something is broken.
    pub async fn broken(&self) {
        let mut broken = self.broken.subscribe();
        if broken.wait_for(|broken| *broken).await.is_err() {
            std::future::pending().await
        }
    }

    /// Ends the world: every invariant judges the whole.
    pub fn finish(&self) {
        let mut inner = self.inner.lock();
        if inner.violation.is_none() {
            inner.violation = inner.judge.finish().err();
        }
        if let Some(trace) = &mut inner.trace
            && let Err(error) = trace.flush()
        {
            tracing::error!(%error, "the trace could not be written");
        }
    }

    /// What was broken first, if anything.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        self.inner.lock().violation.clone()
    }

    /// The figures so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.inner.lock().figures
    }

    /// A digest of every line of the trace.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.inner.lock().hash.clone().finalize().into()
    }

    /// The last events that tell people something, oldest first.
    #[must_use]
    pub fn timeline(&self) -> String {
        self.inner.lock().judge.timeline()
    }
}

impl Inner {
    fn note(&mut self, observation: &Observation) {
        let line = format!("{observation}\n");
        self.hash.update(line.as_bytes());
        if let Some(trace) = &mut self.trace
            && let Err(error) = trace.write_all(line.as_bytes())
        {
            tracing::error!(%error, "the trace could not be written");
            self.trace = None;
        }
        self.figures.count(&observation.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_digest_is_that_of_what_was_seen_and_when() {
        let seen = |faults: &'static [&'static str]| async move {
            let recorder = Recorder::new(None);
            for fault in faults {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                recorder.saw(Who::World, What::FaultOn((*fault).to_owned()));
            }
            recorder.digest()
        };
        assert_eq!(seen(&["a", "b"]).await, seen(&["a", "b"]).await);
        assert_ne!(seen(&["a", "b"]).await, seen(&["b", "a"]).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_accusation_stands() {
        let recorder = Recorder::new(None);
        recorder.accuse("first", "one".to_owned());
        recorder.accuse("second", "two".to_owned());
        recorder.broken().await;
        assert_eq!(recorder.violation().unwrap().invariant, "first");
    }
}
