//! The leader's lease: a time in which no other replica can be elected, so that the leader may answer reads
//! without asking anybody.
//!
//! ```text
//!   leader    sends an append ──► accepted                   lease ends (by its own clock)
//!             │◄──────────────────── 4/5 of election_min ───►│
//!   voter            hears it ──► votes for nobody else for election_min at least (by its own clock) ──►
//! ```
//!
//! **Voters promise**, whatever their settings, to elect nobody else for `election_min` after they heard from
//! the leader: while they run openraft sees to it (for as long as `election_max`), and one that starts
//! again waits for `election_min` before it votes ([`Abstinence`]), since it does not know what it had promised. It
//! stands for election itself no sooner: openraft counts that wait from its start. Whose `election_min` is another speaks to
//! no node (`links.rs`), and a process with a shorter one than the one before it starts only once that one's promises are over.
//!
//! **The leader counts** from when it *sent* an append that a voter then accepted, in the term, by a clock that is never set
//! and that goes on while the machine is suspended or the process stopped ([`Clock::lasting`]). The lease is good while
//! a majority of the voters (of both sets, while they change) promised; it counts itself, since it
//! has voted for nobody else as long as it leads. That any other leader needs a vote of one of them holds
//! for any membership that another replica may know: whatever comes after the leader's own is proposed by the leader, and
//! changes go through joint ones. A leader that does not vote (it is being removed) has no lease: a sole voter elects itself
//! at once.
//!
//! **Clocks may run at different paces**: a voter's at most a quarter faster than the leader's ([`LENGTH`]). Linux
//! can not be told to steer a clock further than a tenth off either way, which keeps two within that. A voter that is
//! suspended promises the longer. What breaks the promise is a virtual machine that is stopped together
//! with its clocks while its peers go on; who runs nodes in such turns leases off.
//!
//! **Handing over** ends the lease for the rest of the term, before the first word of it leaves the node: voters then
//! elect the successor at once.
//!
//! **Why a pause anywhere is harmless.** A read goes: (1) take down what is committed, as the core of openraft has it in
//! a term that it leads; (2) see that the lease is good; (3) wait until that much is applied; (4) look. Good at (2) means that until
//! then no other leader was elected, so at (1), which came after the read was asked for, nothing was acknowledged
//! anywhere that was not taken down. What (4) shows is at least that, however long the process stood still
//! before, between or after: it was the latest at some moment since the read was asked for, which is what linearizable
//! means, and all that a ReadIndex gives too. Were (2) before (1), a handover between them would go unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::ReplicaId;
use rossby_domain::planted::{Bug, planted};
use rossby_seams::clock::Clock;
use tokio::time::Instant;

use crate::timing::Timing;

/// How much of what voters promise the leader makes use of: the rest is for clocks that differ in pace.
const LENGTH: (u32, u32) = (4, 5);

/// What voters have promised a leader in a term.
pub(crate) struct Lease {
    clock: Arc<dyn Clock>,
    length: Duration,
    promises: Mutex<Promises>,
}

#[derive(Debug, Default)]
struct Promises {
    term: u64,
    /// Leadership was offered to another in this term: nobody's promise counts any more.
    given_up: bool,
    /// When the latest append was sent that a replica accepted.
    since: BTreeMap<ReplicaId, Duration>,
}

impl Promises {
    /// The promises of a term, unless those of a later one are known.
    fn of(&mut self, term: u64) -> Option<&mut Self> {
        if self.term < term {
            *self = Self {
                term,
                ..Self::default()
            };
        }
        (self.term == term).then_some(self)
    }
}

impl Lease {
    pub(crate) fn new(clock: Arc<dyn Clock>, timing: Timing) -> Self {
        let (part, of) = LENGTH;
        Self {
            clock,
            length: timing.election_min * part / of,
            promises: Mutex::default(),
        }
    }

    /// What is told with [`Self::accepted`]: to be taken down before an append is sent.
    pub(crate) fn now(&self) -> Duration {
        self.clock.lasting()
    }

    /// A replica has accepted an append of this replica's, sent in the term at `sent`.
    pub(crate) fn accepted(&self, term: u64, by: ReplicaId, sent: Duration) {
        if let Some(promises) = self.promises.lock().of(term) {
            let since = promises.since.entry(by).or_default();
            *since = sent.max(*since);
        }
    }

    /// Leadership in the term is about to be offered to another.
    pub(crate) fn give_up(&self, term: u64) {
        if let Some(promises) = self.promises.lock().of(term) {
            promises.given_up = true;
        }
    }

    /// Whether no other replica can have been elected until now, if `leader` leads the term and `voters` are
    /// the sets of voters as it knows them.
    pub(crate) fn is_good(
        &self,
        term: u64,
        leader: ReplicaId,
        voters: &[BTreeSet<ReplicaId>],
    ) -> bool {
        let promises = self.promises.lock();
        let of_term = promises.term == term;
        if promises.term > term || (of_term && promises.given_up) {
            return false;
        }
        // Not before the lock is held, so that no promise is of later.
        let now = self.now();
        let is_fresh = |since: &Duration| {
            let age = now.checked_sub(*since);
            age.is_some_and(|age| age < self.length) || planted(Bug::LeaseNeverEnds)
        };
        let counts = |voter: &ReplicaId| {
            *voter == leader || (of_term && promises.since.get(voter).is_some_and(is_fresh))
        };
        let promised = |set: &BTreeSet<ReplicaId>| {
            let count = set.iter().filter(|voter| counts(voter)).count();
            set.contains(&leader) && count > set.len() / 2
        };
        !voters.is_empty() && voters.iter().all(promised)
    }
}

/// The time after its start in which a replica votes for nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abstinence(Option<Instant>);

impl Abstinence {
    /// Of a replica that starts now. One that has never voted nor followed has promised nothing.
    pub(crate) fn begin(has_voted: bool, timing: Timing) -> Self {
        let until = Instant::now() + timing.election_min;
        Self(has_voted.then_some(until))
    }

    /// Whether it votes for nobody yet.
    pub(crate) fn lasts(&self) -> bool {
        self.0.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests;
