//! Nodes that come by a join token, as `rossby node token` and `rossby serve --join` have them come.
//!
//! ```text
//!   operator ─► any node ─► IssueToken, RevokeToken ──────────────────┐
//!   machine: its try, written down ─► any node: calls it back ─► Admit ┴─► the placement group's log ─► the map
//! ```
//!
//! Twin of `rossby_node`'s `serve/admission.rs` and `serve/joining.rs`, over the network in memory. The token's
//! commands, the file of the try and what becomes of both are the real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use rossby_api::admin::OperatorError;
use rossby_api::placement::{
    admit, begin_attempt, begun_attempt, end_attempt, hear_of, issue_token, revoke_token,
};
use rossby_domain::ids::NodeId;
use rossby_domain::placement::{
    ClusterMap, JoinAttempt, Joiner, PLACEMENT_GROUP, TokenDigest, TokenWanted,
};
use rossby_seams::random::{self, SeededRandom};
use tokio::time::{Instant, sleep};

use super::life::{Life, MAP_WITHIN};
use super::node::Node;
use super::operator::{AGAIN, Operator};
use crate::observe::{AdmissionEvent, Digest, What, Who};

/// A join token, as the operator holds it.
#[derive(Debug)]
pub struct Token {
    /// The node that it is for.
    pub node: NodeId,
    /// For how long it was to be good.
    pub valid_for: Duration,
    secret: [u8; 32],
    /// Somebody was let in by it, or turned away for good.
    is_spent: AtomicBool,
}

/// How a try to join ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The node is a member.
    LetIn,
    /// It will not be one by this token.
    TurnedAway,
}

impl Operator {
    /// Has a token issued, from any node, again and again until there is one or it makes no sense.
    pub async fn issue(&self, wanted: TokenWanted) -> Option<Arc<Token>> {
        let issued = loop {
            let (random, wanted) = (SeededRandom::new(self.dice.draw()), wanted.clone());
            let asked =
                self.ask_any(async move |life| issue_token(&life.router, &random, wanted).await);
            match asked.await {
                Some(Ok(issued)) => break issued,
                Some(Err(error)) if !may_pass(&error) => return None,
                _ => sleep(AGAIN).await,
            }
        };
        let expires_at = issued.expires_at;
        self.note(issued.node, AdmissionEvent::Issued { expires_at });
        let token = Arc::new(Token {
            node: issued.node,
            valid_for: Duration::from_millis(wanted.valid_for_ms),
            secret: *issued.secret,
            is_spent: AtomicBool::new(false),
        });
        self.tokens.lock().insert(token.node, Arc::clone(&token));
        Some(token)
    }

    /// Has a token revoked, from any node, again and again until it is or can't be any more.
    pub async fn revoke(&self, token: &Token) {
        loop {
            let node = token.node;
            let asked = self.ask_any(async move |life| revoke_token(&life.router, node).await);
            match asked.await {
                Some(Ok(())) => return self.note(token.node, AdmissionEvent::Revoked),
                Some(Err(error)) if !may_pass(&error) => return,
                _ => sleep(AGAIN).await,
            }
        }
    }

    /// Whether he was given a token for this node, which comes by no other way then.
    #[must_use]
    pub fn has_token(&self, node: NodeId) -> bool {
        self.tokens.lock().contains_key(&node)
    }

    /// The tokens that may be of use still.
    #[must_use]
    pub fn unused_tokens(&self) -> Vec<Arc<Token>> {
        let tokens = self.tokens.lock();
        let unused = tokens
            .values()
            .filter(|token| !token.is_spent.load(Ordering::SeqCst));
        unused.cloned().collect()
    }

    /// Has a machine with an empty directory join by a token, again and again until it is let in or turned away.
    pub async fn join(&self, machine: &Node, token: &Token) -> Joined {
        loop {
            let joined = match machine.life() {
                // Taken in by an invitation, once it was in the map.
                Some(_) => Some(Joined::LetIn),
                None => self.knock(machine, token).await,
            };
            if let Some(joined) = joined {
                token.is_spent.store(true, Ordering::SeqCst);
                return joined;
            }
            sleep(AGAIN).await;
        }
    }

    async fn knock(&self, machine: &Node, token: &Token) -> Option<Joined> {
        let joiner = token.joiner(self.attempt(machine)?, self);
        let seed = self.any_life()?.node;
        show(&joiner, self);
        let asked = self
            .common
            .visit(machine.id, seed, async move |node: Arc<Node>| {
                let life = node.life()?;
                let taking = life.let_in(joiner).boxed();
                life.gone.run_until_cancelled(taking).await
            });
        match asked.await.flatten()? {
            Ok(map) => {
                machine.take_places([].into(), Some(map)).await.ok()?;
                machine.life()?.forget_attempt();
                Some(Joined::LetIn)
            }
            Err(error) => (!may_pass(&error)).then_some(Joined::TurnedAway),
        }
    }

    /// Another data directory shows a token that was used.
    pub async fn show_again(&self, token: &Token) {
        let random = SeededRandom::new(self.dice.draw());
        let Ok(attempt) = random::bytes(&random).map(JoinAttempt) else {
            return;
        };
        let joiner = token.joiner(attempt, self);
        show(&joiner, self);
        let _ = self
            .ask_any(async move |life| life.let_in(joiner).await)
            .await;
    }

    /// The name of a machine's try: the one that was begun, or a new one.
    fn attempt(&self, machine: &Node) -> Option<JoinAttempt> {
        let data = machine.waiting()?;
        let data = data.lock();
        let (disk, path) = (&**data.disk(), data.path());
        // Its disk may have failed it; then it tries again.
        match begun_attempt(disk, path).ok()? {
            Some(begun) => Some(begun),
            None => {
                let random = SeededRandom::new(self.dice.draw());
                begin_attempt(disk, path, &random).ok()
            }
        }
    }

    /// The map as the placement group has it, as soon as anybody tells.
    pub async fn placed_map(&self) -> ClusterMap {
        loop {
            let deadline = Instant::now() + MAP_WITHIN;
            let asked = self.ask_any(async move |life| life.read_map(deadline).await);
            if let Some(Some(map)) = asked.await {
                return map;
            }
            sleep(AGAIN).await;
        }
    }

    /// Tells of something that lets a node in, or does not.
    pub fn note(&self, node: NodeId, event: AdmissionEvent) {
        self.saw(What::Admission { node, event });
    }

    /// Asks any process for something; `None` if none runs, or it ends.
    async fn ask_any<F>(&self, ask: impl FnOnce(Arc<Life>) -> F) -> Option<F::Output>
    where
        F: Future + Send,
    {
        let life = self.any_life()?;
        let gone = life.gone.clone();
        let asking = Box::pin(ask(life));
        gone.run_until_cancelled(asking).await
    }
}

impl Token {
    fn joiner(&self, attempt: JoinAttempt, operator: &Operator) -> Joiner {
        Joiner {
            token: TokenDigest::of(&self.secret),
            attempt,
            node: self.node,
            entry: operator.common.layout.entry(self.node),
        }
    }
}

impl Life {
    /// Lets a node in that shows a token. Twin of `take_in` in `rossby_node`.
    async fn let_in(self: &Arc<Self>, joiner: Joiner) -> Result<Arc<ClusterMap>, OperatorError> {
        let (node, attempt) = (joiner.node, Digest::of(&joiner.attempt.0));
        // A node that can't be called would be a member that everybody waits for.
        let common = &self.parts.common;
        let calling = common.visit(self.node, node, async move |node: Arc<Node>| {
            node.describe(PLACEMENT_GROUP).is_some()
        });
        if calling.await != Some(true) {
            return Err(OperatorError::Unavailable(format!(
                "node {node} does not answer"
            )));
        }
        let tell = |event| self.witness.node(What::Admission { node, event });
        match admit(&self.router, joiner).await {
            Ok(version) => {
                tell(AdmissionEvent::LetIn { attempt });
                hear_of(&self.ground(), version).await?;
                Ok(self.map().unwrap_or_default())
            }
            Err(error) => {
                if !may_pass(&error) {
                    let reason = error.to_string();
                    tell(AdmissionEvent::TurnedAway { attempt, reason });
                }
                Err(error)
            }
        }
    }

    /// Its directory is a member's now.
    fn forget_attempt(&self) {
        let data = self.parts.data.lock();
        if let Err(error) = end_attempt(&**data.disk(), data.path()) {
            tracing::info!(%error, "the try to join is still written down");
        }
    }
}

fn show(joiner: &Joiner, operator: &Operator) {
    let (node, attempt) = (joiner.node, Digest::of(&joiner.attempt.0));
    let event = AdmissionEvent::Shown { attempt };
    let what = What::Admission { node, event };
    operator.common.recorder.saw(Who::Node(node), what);
}

/// Whether the same may be answered otherwise later.
fn may_pass(error: &OperatorError) -> bool {
    matches!(
        error,
        OperatorError::Unavailable(_) | OperatorError::Unknown(_)
    )
}
