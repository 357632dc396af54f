//! What a member does for nodes that come by a join token: issues one, lists and revokes them, and takes in whoever
//! shows one.
//!
//! ```text
//!   node token ─► any node ─► IssueToken ─────┐
//!                                             ├─► the placement group's log, which has the digest only
//!   serve --join ─► seed: calls it back ─► Admit ┘        └─► the map, with the node in it ─► the plan gives it replicas
//! ```

use rossby_api::admin::{IssuedToken, KnownToken, OperatorError};
use rossby_api::peer::{Newcomer, Welcome};
use rossby_api::placement::{
    ADMISSION_WITHIN, admit, hear_of, issue_token, of_placement_group, revoke_token,
};
use rossby_domain::ids::NodeId;
use rossby_domain::placement::{
    JoinToken, Joiner, PLACEMENT_GROUP, PLACEMENT_PARTITION, TokenDigest, TokenUse, TokenWanted,
};
use rossby_domain::{Answer, Query};
use tokio::time::Instant;
use tracing::info;
use zeroize::Zeroizing;

use super::init::{failed, of_connect, refused};
use super::node::Node;
use super::token::Token;

impl Node {
    /// Issues a token by which one node can join.
    pub(super) async fn issue(&self, wanted: TokenWanted) -> Result<IssuedToken, OperatorError> {
        let cluster = self.entered()?.cluster.id;
        self.peers()?;
        self.publish_if_alone().await?;
        let router = &self.entered()?.router;
        let issued = issue_token(router, &*self.parts.random, wanted).await?;
        let node = issued.node;
        info!(%node, "a join token was issued");
        let token = Token {
            cluster,
            node,
            secret: issued.secret,
        };
        Ok(IssuedToken {
            token: token.to_text(),
            node,
            expires_at: issued.expires_at,
            peer_address: self.parts.advertised.peers.clone(),
        })
    }

    /// The tokens that have not expired, as the placement group's leader knows them.
    pub(super) async fn known_tokens(&self) -> Result<Vec<KnownToken>, OperatorError> {
        let membership = self.entered()?;
        let deadline = Instant::now() + ADMISSION_WITHIN;
        let asked = membership.router.ask(
            PLACEMENT_GROUP,
            PLACEMENT_PARTITION,
            Query::JoinTokens,
            deadline,
        );
        let tokens = match asked.await.map_err(|error| of_placement_group(&error))? {
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

    /// Takes the token back that is for this node.
    pub(super) async fn revoke(&self, node: NodeId) -> Result<(), OperatorError> {
        revoke_token(&self.entered()?.router, node).await?;
        info!(%node, "a join token was revoked");
        Ok(())
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
        let version = admit(&self.entered()?.router, joiner).await?;
        hear_of(self, version).await?;
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
        let deadline = Instant::now() + ADMISSION_WITHIN;
        for group in membership.replicas.all() {
            self.publish_own_address(&group, deadline).await?;
        }
        Ok(())
    }
}
