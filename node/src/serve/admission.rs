//! What a member does for nodes that come by a join token: issues one, lists and revokes them, and takes in whoever
//! shows one.
//!
//! ```text
//!   node token ─► any node ─► IssueToken ─────┐
//!                                             ├─► the placement group's log, which has the digest only
//!   serve --join ─► seed: calls it back ─► Admit ┘        └─► the map, with the node in it ─► the plan gives it replicas
//! ```
//!
//! All commands may be given again, so what is not known is asked again.

use std::time::Duration;

use rossby_api::admin::{IssuedToken, KnownToken, OperatorError};
use rossby_api::peer::{Newcomer, Welcome};
use rossby_api::{ApiError, Code, Retry};
use rossby_domain::command::{Admit, IssueToken, RevokeToken};
use rossby_domain::ids::NodeId;
use rossby_domain::placement::{
    AdmissionRefusal, JoinToken, Joiner, PLACEMENT_GROUP, PLACEMENT_PARTITION, TokenDigest,
    TokenUse, TokenWanted,
};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};
use rossby_seams::random;
use tokio::time::{Instant, sleep};
use tracing::info;
use zeroize::Zeroizing;

use super::init::{failed, of_connect, refused, unavailable};
use super::node::Node;
use super::token::Token;

/// How long it may take until a command is in the placement group's log.
const WITHIN: Duration = Duration::from_secs(12);
/// How long one try may take.
const ONE_TRY: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

impl Node {
    /// Issues a token by which one node can join.
    pub(super) async fn issue(&self, wanted: TokenWanted) -> Result<IssuedToken, OperatorError> {
        let cluster = self.entered()?.cluster.id;
        self.peers()?;
        self.publish_if_alone().await?;
        let secret = random::bytes(&*self.parts.random).map_err(failed)?;
        let secret = Zeroizing::new(secret);
        let digest = TokenDigest::of(&secret);
        let command = Command::IssueToken(IssueToken { digest, wanted });
        match self.propose_admission(command).await? {
            Outcome::TokenIssued { node, expires_at } => {
                info!(%node, "a join token was issued");
                let token = Token {
                    cluster,
                    node,
                    secret,
                };
                Ok(IssuedToken {
                    token: token.to_text(),
                    node,
                    expires_at,
                    peer_address: self.parts.advertised.peers.clone(),
                })
            }
            other => Err(failed(format!("unexpected outcome: {other:?}"))),
        }
    }

    /// The tokens that have not expired, as the placement group's leader knows them.
    pub(super) async fn known_tokens(&self) -> Result<Vec<KnownToken>, OperatorError> {
        let membership = self.entered()?;
        let deadline = Instant::now() + WITHIN;
        let asked = membership.router.ask(
            PLACEMENT_GROUP,
            PLACEMENT_PARTITION,
            Query::JoinTokens,
            deadline,
        );
        let tokens = match asked.await.map_err(|error| of_api(&error))? {
            Answer::JoinTokens(tokens) => tokens,
            other => return Err(failed(format!("unexpected answer: {other:?}"))),
        };
        let map = membership.map.newest();
        let known = |token: JoinToken| {
            let is_used = matches!(token.used, TokenUse::By(_));
            let entry = map.nodes().get(&token.node).filter(|_| is_used);
            KnownToken {
                peer_address: entry.map(|entry| entry.peer_address.clone()),
                token,
            }
        };
        Ok(tokens.into_iter().map(known).collect())
    }

    /// Takes the token back that is for this node. Every member asks the placement group about each token that it is
    /// shown, so none takes it from then on.
    pub(super) async fn revoke(&self, node: NodeId) -> Result<(), OperatorError> {
        let command = Command::RevokeToken(RevokeToken { node });
        match self.propose_admission(command).await? {
            Outcome::TokenRevoked => {
                info!(%node, "a join token was revoked");
                Ok(())
            }
            other => Err(failed(format!("unexpected outcome: {other:?}"))),
        }
    }

    /// Takes a node in that shows a token.
    pub(super) async fn take_in(&self, newcomer: Newcomer) -> Result<Welcome, OperatorError> {
        let cluster = &self.entered()?.cluster;
        if newcomer.secrets_check.is_some() && newcomer.secrets_check != cluster.secrets_check {
            return Err(refused(
                "the new node's file of secrets is another cluster's: move it away, or name another with \
                 --secrets",
            ));
        }
        let (node, address) = (newcomer.node, newcomer.entry.peer_address.clone());
        // A node that can't be called would be a member that everybody waits for.
        let called = self.peers()?.get(node, &address).await;
        called.map_err(of_connect)?;
        let joiner = Joiner {
            token: TokenDigest::of(&newcomer.secret),
            attempt: newcomer.attempt,
            node,
            entry: newcomer.entry,
        };
        let admitted = self.propose_admission(Command::Admit(Admit { joiner }));
        let version = match admitted.await? {
            Outcome::Placed { version } => version,
            other => return Err(failed(format!("unexpected outcome: {other:?}"))),
        };
        self.hear_of(version).await?;
        info!(%node, address, "a node has joined by its token");
        let secrets = self.load_secrets().map_err(failed)?.encode();
        Ok(Welcome {
            cluster: cluster.id,
            cluster_name: cluster.name.clone(),
            partitions: cluster.partitions,
            secrets: Zeroizing::new(secrets.to_string()),
            map: self.entered()?.map.newest(),
        })
    }

    /// The only node of a cluster may be in its groups and in the map without an address for peers.
    async fn publish_if_alone(&self) -> Result<(), OperatorError> {
        let membership = self.entered()?;
        if membership.map.newest().nodes().len() > 1 {
            return Ok(());
        }
        let deadline = Instant::now() + WITHIN;
        for group in membership.replicas.all() {
            self.publish_own_address(&group, deadline).await?;
        }
        Ok(())
    }

    /// Has a command of admission carried out by the placement group, wherever it is led.
    async fn propose_admission(&self, command: Command) -> Result<Outcome, OperatorError> {
        let router = &self.entered()?.router;
        let deadline = Instant::now() + WITHIN;
        loop {
            let one_try = deadline.min(Instant::now() + ONE_TRY);
            let commands = || vec![(PLACEMENT_PARTITION, command.clone())];
            let proposed = router.propose(PLACEMENT_GROUP, commands, one_try).await;
            let error = match proposed {
                Ok(proposed) => match proposed.replies.into_iter().next() {
                    Some(Ok(outcome)) => return Ok(outcome),
                    Some(Err(Rejection::AdmissionRefused(refusal))) => {
                        return Err(of_refusal(&refusal));
                    }
                    Some(Err(Rejection::NotOwner { .. })) => {
                        unavailable("the placement group is just beginning")
                    }
                    other => return Err(failed(format!("unexpected reply: {other:?}"))),
                },
                Err(error) => of_api(&error),
            };
            let may_pass = matches!(
                error,
                OperatorError::Unavailable(_) | OperatorError::Unknown(_)
            );
            if !may_pass || Instant::now() >= deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the operator can do about a refusal is told by whoever speaks to the operator.
fn of_refusal(refusal: &AdmissionRefusal) -> OperatorError {
    match refusal {
        AdmissionRefusal::Validity | AdmissionRefusal::NoToken(_) => {
            OperatorError::Invalid(refusal.to_string())
        }
        AdmissionRefusal::Joined(node) => refused(format!(
            "{refusal}: `rossby node decommission {node}` takes the node out of the cluster"
        )),
        refusal => refused(refusal),
    }
}

fn of_api(error: &ApiError) -> OperatorError {
    let text = format!("the placement group: {}", error.code().message());
    match (error.code(), error.code().retry()) {
        (Code::OutcomeUnknown, _) => OperatorError::Unknown(text),
        (_, Retry::Same) => OperatorError::Unavailable(text),
        _ => OperatorError::Failed(text),
    }
}
