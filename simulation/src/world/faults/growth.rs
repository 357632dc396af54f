//! The cluster grows: groups are added while the world runs, and nodes come by join tokens, which are used, used
//! twice, revoked, or shown when they have expired.

use std::sync::Arc;

use futures_util::future::join;
use rossby_domain::placement::{TokenRegion, TokenWanted};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::Faults;
use super::members::PATIENCE_MS;
use crate::world::joining::{Joined, Token};
use crate::world::node::Node;

/// How long an order to add a group is stayed with when it is broken off, in milliseconds.
const BROKEN_OFF_MS: (u64, u64) = (30, 1_500);
/// For how long tokens are good that expire while somebody watches, and all others, in milliseconds.
const SHORT_VALIDITY_MS: (u64, u64) = (1_000, 5_000);
const LONG_VALIDITY_MS: u64 = 10 * 60 * 1_000;
/// So long after the end of a token no clock of the cluster that is set right takes it for good.
const SURELY_OVER_MS: (u64, u64) = (10_500, 15_000);

impl Faults {
    /// A group of boxes is added in some region. Four of ten orders are broken off.
    pub(super) async fn add_group(&self) {
        let Ok(lost) = self.lost.try_lock() else {
            return;
        };
        if lost.is_some() {
            return;
        }
        // An order that was broken off is given again.
        let Some(home) = self.operator.left_unborn().or_else(|| self.some_region()) else {
            return;
        };
        let partitions = match self.dice.between(0, 9) {
            8 => Some(1),
            9 => Some(2),
            _ => None,
        };
        let (least, most) = match self.dice.permille(400) {
            true => BROKEN_OFF_MS,
            false => PATIENCE_MS,
        };
        let adding = self.operator.add_group(&home, partitions);
        // Whether it was done does not matter: what is half-way comes to its end.
        let _ = timeout(self.dice.millis(least, most), adding).await;
    }

    /// A node joins by a token, or is turned away.
    pub(super) async fn join_by_token(&self) {
        let Ok(lost) = self.lost.try_lock() else {
            return;
        };
        if lost.is_some() {
            return;
        }
        let (least, most) = PATIENCE_MS;
        let joining = Box::pin(self.use_a_token());
        let _ = timeout(self.dice.millis(least, most), joining).await;
    }

    async fn use_a_token(&self) {
        let held = self.operator.unused_tokens();
        let held = self.dice.pick(&held).filter(|_| self.dice.permille(500));
        let token = match held {
            Some(token) => Arc::clone(token),
            None => match self.operator.issue(self.token_wanted()).await {
                Some(token) => token,
                None => return,
            },
        };
        let mut all = self.nodes.iter().zip(&self.turns);
        let Some((machine, turn)) = all.find(|(node, _)| node.id == token.node) else {
            return;
        };
        {
            let _turn = turn.lock().await;
            machine.set_up();
            self.start(machine).await;
        }
        match self.dice.between(0, 9) {
            0 | 1 => self.operator.revoke(&token).await,
            2 | 3 => {
                let revoking = async {
                    sleep(self.dice.millis(0, 300)).await;
                    self.operator.revoke(&token).await;
                };
                join(self.come(machine, turn, &token), revoking).await;
                return;
            }
            4..=6 if token.valid_for.as_millis() < u128::from(LONG_VALIDITY_MS) => {
                let (least, most) = SURELY_OVER_MS;
                sleep(token.valid_for + self.dice.millis(least, most)).await;
            }
            _ => {}
        }
        self.come(machine, turn, &token).await;
    }

    fn token_wanted(&self) -> TokenWanted {
        let region = match self.some_region().filter(|_| self.dice.permille(200)) {
            Some(region) => TokenRegion::Known(region),
            None => TokenRegion::Any,
        };
        let (least, most) = SHORT_VALIDITY_MS;
        TokenWanted {
            node: None,
            region,
            valid_for_ms: match self.dice.permille(400) {
                true => self.dice.between(least, most),
                false => LONG_VALIDITY_MS,
            },
        }
    }

    /// A machine joins by a token; one of five loses its power meanwhile. Whoever was turned away is taken away
    /// again, and where one was let in another tries the same.
    async fn come(&self, machine: &Arc<Node>, turn: &Mutex<()>, token: &Token) {
        let joining = self.operator.join(machine, token);
        let joined = match self.dice.permille(200) {
            true => {
                let crashing = async {
                    sleep(self.dice.millis(1, 400)).await;
                    let _turn = turn.lock().await;
                    machine.crash(self.loss());
                    sleep(self.dice.millis(50, 2_000)).await;
                    self.start(machine).await;
                };
                join(joining, crashing).await.0
            }
            false => joining.await,
        };
        match joined {
            Joined::LetIn => {
                if self.dice.permille(500) {
                    sleep(self.dice.millis(0, 500)).await;
                    self.operator.show_again(token).await;
                }
            }
            // A try whose answer was lost may have been let in, before the token was of no use any more.
            Joined::TurnedAway => {
                let map = self.operator.placed_map().await;
                let _turn = turn.lock().await;
                match map.nodes().contains_key(&token.node) {
                    true => self.operator.take_in(machine).await,
                    false => machine.put_away(),
                }
            }
        }
    }
}
