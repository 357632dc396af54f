//! Groups that rest: of which nothing is asked, and which cost next to nothing meanwhile.
//!
//! ```text
//!   leader, a while after the last request: all members have all ─► "rest" ─► each member: clock stopped
//!        │ all agreed: its own clock stopped too
//!        ▼
//!   one beat for each pair of nodes, whatever the number of groups:
//!        leader's node ── "I live, and lead these groups at rest" ──► a member's node: as good as a heartbeat of each
//!                      ◄─────── "all but these rest here" ───────────
//! ```
//!
//! openraft's own clock (`tick`) drives elections and heartbeats, and nothing else: a replica at rest takes no
//! part in time, and still answers whatever comes to it. Whatever comes wakes it *first* ([`Rest::stir`]), and a follower
//! whose leader's node was heard takes in the heartbeat that the last beat stood for, so that its lease is
//! what it would be had the group never rested.
//!
//! **Safety** needs none of this: votes, logs and quorums are openraft's, and a replica at rest is to the others
//! one that is slow. What a leader knows by beats ([`Rest::acked_within`]) is as true as what it knows by heartbeats: a
//! follower that says that it rests refuses to elect another for as long as after a heartbeat at that moment.
//!
//! **Every group at rest wakes**, whatever becomes of its leader:
//! - The leader's *node* is dead, paused or cut off: its beats end. Each follower wakes when a heartbeat would have been
//!   missed for as long as openraft waits: no later than without rest.
//! - The leader *alone* is gone (it failed, stopped, was removed, lost its term) while its node lives: a beat names
//!   only what leads at rest at this moment, so the next one leaves the group out, and that wakes it.
//! - The node was started again: what rests is kept in memory only, and a leader that starts again is a follower
//!   (`enable_leader_restore` is off). Its beats name the group in no term but one that it won since, which is not the one
//!   that the followers rest in. So the term is what tells one life of the leader's node from the next.
//! - Only one direction is cut, or a follower was woken by somebody else, or started again: a beat stays without answer, or the
//!   answer names the group. The leader wakes, and its heartbeats wake the others.
//! - Somebody asks: a write, a read, a vote, a change of members, a hand-over, an append of another leader.

mod beat;
mod fall;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::AppendEntriesResponse;
use parking_lot::Mutex;
use rossby_domain::ids::NodeId;
use rossby_seams::random::{Random, bytes};
use tokio::time::{Instant, timeout};

use crate::frame::Append;
use crate::heard::Heard;
use crate::reads;
use crate::state_machine::Raft;
use crate::timing::Timing;
use crate::types::{LogId, Vote};

pub(crate) use beat::run;

/// Whether a replica rests, and what it knows of the others meanwhile.
pub(crate) struct Rest {
    raft: Raft,
    heard: Arc<Heard>,
    timing: Timing,
    random: Arc<dyn Random>,
    /// Whether it may rest at all.
    allowed: bool,
    /// openraft's clock runs, and if this replica leads, writes are taken.
    awake: AtomicBool,
    /// Something was asked of it since the last look.
    asked: AtomicBool,
    // Held while it is woken, which takes as long as openraft takes.
    state: tokio::sync::Mutex<State>,
    acked: Mutex<Acked>,
    roused: Mutex<Option<Instant>>,
    quiet: Mutex<Quiet>,
}

#[derive(Debug, Clone)]
enum State {
    Awake,
    /// It leads, openraft's clock runs, and a quorum has yet to confirm it.
    Waking,
    /// It leads, and the others are being asked to rest.
    Falling {
        term: u64,
    },
    /// It leads, and all others rest.
    Leading {
        term: u64,
    },
    /// It follows.
    Following(Following),
}

#[derive(Debug, Clone, Copy)]
struct Following {
    vote: Vote,
    /// The last entry that there is.
    last: LogId,
    node: NodeId,
    /// How long it waits for the leader's node.
    patience: Duration,
}

/// When the others' nodes were sent the last beat that they answered, in a term.
#[derive(Debug, Default)]
struct Acked {
    term: u64,
    at: BTreeMap<NodeId, Instant>,
}

/// For how many looks nothing has changed.
#[derive(Debug, Default)]
struct Quiet {
    last_log_index: Option<u64>,
    looks: u32,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest")
            .field("state", &self.state)
            .field("acked", &self.acked)
            .finish_non_exhaustive()
    }
}

/// What a beat of a node means to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beaten {
    /// It rests on.
    Rests,
    /// It does not rest.
    Awake,
    /// It rests, and that node does not lead it at rest any more.
    Dropped,
}

impl Rest {
    pub(crate) fn new(
        raft: Raft,
        heard: Arc<Heard>,
        timing: Timing,
        random: Arc<dyn Random>,
        allowed: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            raft,
            heard,
            timing,
            random,
            allowed,
            awake: AtomicBool::new(true),
            asked: AtomicBool::new(false),
            state: tokio::sync::Mutex::new(State::Awake),
            acked: Mutex::default(),
            roused: Mutex::default(),
            quiet: Mutex::default(),
        })
    }

    /// Whether it takes part in time and, if it leads, takes writes.
    pub(crate) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Acquire)
    }

    /// Whether it rests, and is not only about to.
    pub(crate) fn rests(&self) -> bool {
        let state = self.state.try_lock();
        state.is_ok_and(|state| matches!(*state, State::Leading { .. } | State::Following(_)))
    }

    /// When it was last woken.
    pub(crate) fn roused(&self) -> Option<Instant> {
        *self.roused.lock()
    }

    /// Something is asked of it: it must not come to rest just now.
    pub(crate) fn note_asked(&self) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Wakes it. When this returns, openraft's clock runs, and a follower's lease is what it would be without
    /// rest. A leader that rested still has to be confirmed before it takes writes: that goes on by itself.
    pub(crate) async fn stir(self: &Arc<Self>) {
        self.note_asked();
        if self.is_awake() {
            return;
        }
        let mut state = self.state.lock().await;
        match state.clone() {
            State::Awake | State::Waking => return,
            State::Falling { .. } => {
                // Its last heartbeats are of a moment ago.
                *state = State::Awake;
            }
            State::Leading { .. } => {
                *state = State::Waking;
                let this = self.clone();
                tokio::spawn(async move {
                    let _ = reads::read_index(&this.raft).await;
                    this.settle().await;
                });
            }
            State::Following(following) => {
                if self.heard.within(self.timing.election_max) {
                    // Should it not be taken, the vote is no longer the leader's.
                    let _ = self.raft.append_entries(following.heartbeat()).await;
                }
                *state = State::Awake;
            }
        }
        *self.roused.lock() = Some(Instant::now());
        self.raft.runtime_config().tick(true);
        let is_awake = matches!(*state, State::Awake);
        self.awake.store(is_awake, Ordering::Release);
    }

    /// Waits, but not for long, until a quorum has confirmed the leader that was woken: its lease is what it would be without
    /// rest then.
    pub(crate) async fn confirmed(&self) {
        if !self.is_awake() {
            let _ = timeout(self.timing.election_min, reads::read_index(&self.raft)).await;
        }
    }

    /// A quorum has confirmed the leader that was woken, or will not.
    pub(crate) async fn settle(&self) {
        if self.is_awake() {
            return;
        }
        let mut state = self.state.lock().await;
        if matches!(*state, State::Waking) {
            *state = State::Awake;
            self.awake.store(true, Ordering::Release);
        }
    }

    /// The leader asks this replica on its node to rest; whether it does.
    pub(crate) async fn follow(&self, vote: Vote, last: LogId, node: NodeId) -> bool {
        if !self.allowed {
            return false;
        }
        let mut state = self.state.lock().await;
        if !matches!(*state, State::Awake | State::Following(_)) {
            return false;
        }
        let following = Following {
            vote,
            last,
            node,
            patience: self.patience(),
        };
        // The question is a heartbeat, which tells whether the leader is one and the log ends as its log does.
        let taken = self.raft.append_entries(following.heartbeat()).await;
        if !matches!(taken, Ok(AppendEntriesResponse::Success)) || !self.has_all(&last) {
            return false;
        }
        self.heard.now();
        self.raft.runtime_config().tick(false);
        self.awake.store(false, Ordering::Release);
        *state = State::Following(following);
        true
    }

    /// Whether all up to this entry is applied here, and nothing is behind it.
    fn has_all(&self, last: &LogId) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.is_ok()
            && matches!(metrics.state, ServerState::Follower | ServerState::Learner)
            && metrics.last_log_index == Some(last.index)
            && metrics.last_applied.as_ref() == Some(last)
    }

    /// How long after the lease it stands for election: as openraft draws it.
    fn patience(&self) -> Duration {
        let Timing {
            election_min,
            election_max,
            ..
        } = self.timing;
        let drawn = bytes(&*self.random).map_or(0, u16::from_le_bytes);
        let spread = election_max.saturating_sub(election_min);
        election_max + election_min + spread.mul_f64(f64::from(drawn) / 65_536.0)
    }

    /// A beat of a node came, which names this group in that term or does not name it.
    pub(crate) fn beat(&self, from: NodeId, term: Option<u64>) -> Beaten {
        let Ok(state) = self.state.try_lock() else {
            return Beaten::Awake;
        };
        match &*state {
            State::Following(following) if following.node == from => {
                if term == Some(following.vote.leader_id.term) {
                    self.heard.now();
                    Beaten::Rests
                } else {
                    Beaten::Dropped
                }
            }
            _ => Beaten::Awake,
        }
    }

    /// Whether a candidate is answered without waking for it: a follower at rest that has not heard of its leader for
    /// long may grant its vote, and must not stand for election itself at this moment.
    pub(crate) fn may_grant(&self) -> bool {
        let follows = self.state.try_lock();
        follows.is_ok_and(|state| matches!(*state, State::Following(_)))
            && !self.heard.within(self.timing.election_max)
    }

    /// Before a vote is granted so: it rests no more, or a late beat would have its leader count on it. Its clock runs
    /// once what is returned is dropped.
    pub(crate) async fn give_up(&self) -> Option<Resume<'_>> {
        if self.is_awake() {
            return None;
        }
        let mut state = self.state.lock().await;
        if !matches!(*state, State::Following(_)) {
            return None;
        }
        *state = State::Awake;
        self.awake.store(true, Ordering::Release);
        Some(Resume(&self.raft))
    }

    /// The term in which this replica leads at rest, or is about to; and whether all others rest.
    fn claim(&self) -> Option<(u64, bool)> {
        match *self.state.try_lock().ok()? {
            State::Falling { term } => Some((term, false)),
            State::Leading { term } => Some((term, true)),
            _ => None,
        }
    }

    /// When a follower at rest gives its leader up, if nothing is heard until then.
    fn gives_up_at(&self) -> Option<Instant> {
        match &*self.state.try_lock().ok()? {
            State::Following(following) => Some(self.heard.last()? + following.patience),
            _ => None,
        }
    }

    /// A node that was sent a beat at that moment says that its replica rests.
    fn note_acked(&self, term: u64, node: NodeId, sent: Instant) {
        let mut acked = self.acked.lock();
        if acked.term == term {
            let at = acked.at.entry(node).or_insert(sent);
            *at = sent.max(*at);
        }
    }

    /// Since when no node has left this leader's beats without answer.
    fn all_acked(&self) -> Option<Instant> {
        self.acked.lock().at.values().min().copied()
    }

    /// Whether a node answered a beat, in the term, that was sent within the last `limit`.
    pub(crate) fn acked_within(&self, term: u64, node: NodeId, limit: Duration) -> bool {
        let acked = self.acked.lock();
        let at = acked.at.get(&node).filter(|_| acked.term == term);
        at.is_some_and(|at| at.elapsed() < limit)
    }
}

/// Starts the clock when it is dropped.
pub(crate) struct Resume<'a>(&'a Raft);

impl Drop for Resume<'_> {
    fn drop(&mut self) {
        self.0.runtime_config().tick(true);
    }
}

impl Following {
    /// What the leader would send.
    fn heartbeat(&self) -> Append {
        Append {
            vote: self.vote,
            prev_log_id: Some(self.last),
            leader_commit: Some(self.last),
            entries: Vec::new(),
        }
    }
}
