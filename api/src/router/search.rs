//! Looking for the leader of a group: whom to ask next, and when to give up.
//!
//! ```text
//!   named by the last refusal ─► the replica here ─► the last hint ─► where the map says ─► nobody left
//!        ▲                                                                                    │
//!        └────────────────────── a pause, each longer than the one before ◄───────────────────┘
//! ```
//!
//! Between two pauses each node is asked once at most, so that nodes which name each other, or a long
//! chain of stale hints, cost little. Who gave no answer lately comes last. The pauses end when the replica here learns who leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_raft::{Group, Leadership, Member};
use rossby_seams::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Router;
use super::port::ExecuteError;
use crate::ApiError;

/// Kept from a deadline, so that our typed answer comes before the caller's own timer fires.
pub(crate) const ANSWER_MARGIN: Duration = Duration::from_millis(50);
/// The first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How long a node that gave no answer is asked after all others.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// Nodes that are asked between two pauses.
const MAX_ASKED: usize = 8;

/// Who led each group when last heard: true, or corrected by the one who is asked.
#[derive(Debug, Default)]
pub(super) struct Hints(Mutex<HashMap<GroupId, Member>>);

impl Hints {
    pub(super) fn get(&self, group: GroupId) -> Option<Member> {
        self.0.lock().get(&group).cloned()
    }

    fn set(&self, group: GroupId, member: &Member) {
        let mut hints = self.0.lock();
        if hints.get(&group) != Some(member) {
            hints.insert(group, member.clone());
        }
    }

    /// It was not this one.
    fn forget(&self, group: GroupId, node: NodeId) {
        let mut hints = self.0.lock();
        if hints.get(&group).is_some_and(|hint| hint.node == node) {
            hints.remove(&group);
        }
    }
}

/// Nodes that gave no answer lately: they are asked after all others, so that a region that is cut off does
/// not use up the time of every call.
#[derive(Debug, Default)]
pub(super) struct Silent(Mutex<HashMap<NodeId, Instant>>);

impl Silent {
    fn note(&self, node: NodeId) {
        self.0.lock().insert(node, Instant::now());
    }

    fn forget(&self, node: NodeId) {
        self.0.lock().remove(&node);
    }

    fn contains(&self, node: NodeId) -> bool {
        let noted = self.0.lock().get(&node).copied();
        noted.is_some_and(|noted| noted.elapsed() < SILENT_FOR)
    }
}

/// Whom to ask.
pub enum Next {
    /// The replica here, which leads as far as it knows.
    Here(Arc<Group>),
    /// This member.
    At(Member),
}

/// A search for the leader of one group.
pub struct Search<'a> {
    router: &'a Router,
    group: GroupId,
    give_up: Instant,
    replica: Option<(Arc<Group>, watch::Receiver<Leadership>)>,
    /// Since the last pause.
    asked: Vec<NodeId>,
    named: Option<Member>,
    without_quorum: bool,
    pause: Duration,
    /// For the log: what came of the last try.
    why: String,
}

impl<'a> Search<'a> {
    /// A search that ends a little before the deadline.
    pub(super) fn new(router: &'a Router, group: GroupId, deadline: Instant) -> Self {
        let replica = router.directory.replica(group).map(|replica| {
            let changes = replica.watch_leadership();
            (replica, changes)
        });
        Self {
            router,
            group,
            give_up: deadline.checked_sub(ANSWER_MARGIN).unwrap_or(deadline),
            replica,
            asked: Vec::new(),
            named: None,
            without_quorum: false,
            pause: FIRST_PAUSE,
            why: "no node is known that may lead it".to_owned(),
        }
    }

    /// When it ends.
    #[must_use]
    pub fn give_up(&self) -> Instant {
        self.give_up
    }

    /// Whom to ask next; waits if all were asked just now.
    ///
    /// # Errors
    /// Unavailable, once the time is over, or once the group is known to have no quorum. Nothing was
    /// done by all who were asked.
    pub async fn next(&mut self) -> Result<Next, ApiError> {
        loop {
            if Instant::now() >= self.give_up {
                return Err(self.unavailable());
            }
            if let Some(next) = self.candidate() {
                return Ok(next);
            }
            if self.without_quorum {
                return Err(self.unavailable());
            }
            self.rest().await;
        }
    }

    /// This member leads.
    pub fn found(&self, member: &Member) {
        self.router.hints.set(self.group, member);
        self.router.silent.forget(member.node);
    }

    /// This member gave no answer.
    pub fn silent(&mut self, member: &Member, why: String) {
        self.router.silent.note(member.node);
        self.refused(member, None, why);
    }

    /// This member did nothing, and may have named another.
    pub fn refused(&mut self, member: &Member, named: Option<Member>, why: String) {
        self.why = why;
        let own = self.router.node;
        match named {
            Some(named) if named.node != member.node && named.node != own => {
                self.router.hints.set(self.group, &named);
                self.named = Some(named);
            }
            _ => self.router.hints.forget(self.group, member.node),
        }
    }

    /// What a try ended in. Goes on if nothing was done, or if asking again does no harm.
    ///
    /// # Errors
    /// What the caller is told if the search is over.
    pub(super) fn failed(
        &mut self,
        member: Option<&Member>,
        error: ExecuteError,
        may_repeat: bool,
    ) -> Result<(), ApiError> {
        let why = error.to_string();
        if let (Some(member), ExecuteError::Unreachable(_) | ExecuteError::Lost(_)) =
            (member, &error)
        {
            self.router.silent.note(member.node);
        }
        let named = match error {
            ExecuteError::NotLeading { leader } => leader,
            ExecuteError::Unreachable(_) => None,
            ExecuteError::Lost(_) if may_repeat => None,
            // Another may lead, and this one may not know it yet: it is asked for once more round.
            ExecuteError::NoQuorum => {
                self.without_quorum = true;
                None
            }
            over => return Err(over.into()),
        };
        match member {
            Some(member) => self.refused(member, named, why),
            None => (self.why, self.named) = (why, named),
        }
        Ok(())
    }

    fn candidate(&mut self) -> Option<Next> {
        if self.asked.len() >= MAX_ASKED {
            return None;
        }
        let own = self.router.node;
        let mut known = None;
        if let Some((replica, changes)) = &mut self.replica {
            match &*changes.borrow_and_update() {
                Leadership::Here { .. } if !self.asked.contains(&own) => {
                    self.asked.push(own);
                    return Some(Next::Here(Arc::clone(replica)));
                }
                Leadership::Elsewhere(member) => known = Some(member.clone()),
                Leadership::Here { .. } | Leadership::Unknown => {}
            }
        }
        let hint = self.router.hints.get(self.group);
        let asked = &self.asked;
        let is_new = |member: &Member| member.node != own && !asked.contains(&member.node);
        let silent = &self.router.silent;
        let hinted = [self.named.take(), known, hint].into_iter().flatten();
        let hinted = hinted.filter(|member| !silent.contains(member.node));
        let member = hinted.into_iter().find(is_new).or_else(|| {
            let nodes = self.router.directory.nodes(self.group).into_iter();
            let (late, soon): (Vec<_>, Vec<_>) = nodes
                .filter(is_new)
                .partition(|member| silent.contains(member.node));
            soon.into_iter().chain(late).next()
        })?;
        self.asked.push(member.node);
        Some(Next::At(member))
    }

    /// Waits for a while, or until the replica here knows something new.
    async fn rest(&mut self) {
        let until = (Instant::now() + self.pause).min(self.give_up);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.asked.clear();
        if let Some((_, changes)) = &mut self.replica
            && !matches!(timeout_at(until, changes.changed()).await, Ok(Err(_)))
        {
            return;
        }
        sleep_until(until).await;
    }

    fn unavailable(&self) -> ApiError {
        ApiError::unavailable(format!("no leader of group {}: {}", self.group, self.why))
    }
}
