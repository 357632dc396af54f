//! Who may come into the cluster: join tokens, and the numbers of nodes.
//!
//! ```text
//!   issue ─► a number that no node ever had, kept with the digest of a secret that only the operator has
//!   admit ─► the secret's digest, who shows it and where that is ─► the node may be put in the map
//!   revoke ─► the number that it is for, which names a token as long as there are any
//! ```
//!
//! Invariants:
//! - A number is given out once, also after its node has left.
//! - A token admits one node, once. What is asked again is the same try of the same node, for as long as the
//!   token is good and the node is in the map.
//! - A token that was revoked admits nobody, from the moment on at which that is in the log.
//! - A placement group that goes on without what its lost majority had gives numbers far above all that it knows, and
//!   lets nobody in by a token from before: another node may have come by it.
//! - No secret is here: whoever reads a disk, a backup or a log can't join by it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::map::{ClusterMap, NodeEntry};
use super::recover::BEYOND;
use super::{PlacementRefusal, RegionName};
use crate::ids::NodeId;
use crate::planted::{Bug, planted};
use crate::time::Timestamp;
use crate::wire::Writer;

/// The most tokens that can be good at a time.
pub const MAX_TOKENS: usize = 64;
/// The longest that a token can be good.
pub const MAX_TOKEN_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// What is kept of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenDigest(pub [u8; 32]);

impl TokenDigest {
    /// The digest of a secret, which has all the entropy that it needs.
    #[must_use]
    pub fn of(secret: &[u8; 32]) -> Self {
        let head = Writer::labelled("rossby join token v1").finish();
        let hash = Sha256::new().chain_update(head).chain_update(secret);
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.0;
        write!(f, "{first:02x}{second:02x}{third:02x}{fourth:02x}..")
    }
}

/// Names one try of a node to join: drawn by chance, and kept in its data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JoinAttempt(pub [u8; 16]);

/// In which region a node may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenRegion {
    /// In any that active nodes are in.
    Any,
    /// In this one, that active nodes are in.
    Known(RegionName),
    /// In this one, which may be new.
    New(RegionName),
}

/// What is asked for with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenWanted {
    /// The node's number; `None` for the next one.
    pub node: Option<NodeId>,
    /// Where it may be.
    pub region: TokenRegion,
    /// For how long the token is good, in milliseconds.
    pub valid_for_ms: u64,
}

/// What has become of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenUse {
    /// Nobody has used it.
    Open,
    /// This try has.
    By(JoinAttempt),
    /// It was taken back before anybody did.
    Revoked,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The one node that may join by it.
    pub node: NodeId,
    /// Where it may be.
    pub region: TokenRegion,
    /// From then on it is good no more.
    pub expires_at: Timestamp,
    /// What has become of it.
    pub used: TokenUse,
}

/// A node that shows a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joiner {
    /// The digest of the secret that it shows.
    pub token: TokenDigest,
    /// Its try.
    pub attempt: JoinAttempt,
    /// Its number, as its certificate proves.
    pub node: NodeId,
    /// Where it is.
    pub entry: NodeEntry,
}

/// Why no token is issued, or no node admitted. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AdmissionRefusal {
    /// A number that a node has, had, or is to have.
    #[error(
        "number {node} may have been used before: the numbers up to {last} are not given again"
    )]
    NumberTaken {
        /// The number.
        node: NodeId,
        /// The highest one that was ever given.
        last: NodeId,
    },
    /// Nobody could use it, or anybody for ever.
    #[error("a join token is good for a second at least, and for 30 days at most")]
    Validity,
    /// Too many are good.
    #[error("{MAX_TOKENS} join tokens are good now: wait until one has expired")]
    TooManyTokens,
    /// Nobody was given such a token, or it expired so long ago that it was forgotten.
    #[error("this cluster knows no such join token, or it has expired")]
    UnknownToken,
    /// It is good no more.
    #[error("the join token has expired")]
    Expired,
    /// Another try, from another directory, has used it.
    #[error("the join token was used before: each is good for one node with one data directory")]
    Used,
    /// It is another node's.
    #[error("the join token is for node {expected}, not for node {found}")]
    OtherNode {
        /// Whose it is.
        expected: NodeId,
        /// Who shows it.
        found: NodeId,
    },
    /// A node of that number came by another way.
    #[error("node {0} is in the cluster already")]
    AlreadyIn(NodeId),
    /// It is good for another region.
    #[error("the join token is for region {expected}, and this node is in region {found}")]
    OtherRegion {
        /// Where the node may be.
        expected: RegionName,
        /// Where it is.
        found: RegionName,
    },
    /// Nobody is there yet, and the token does not say that the region is new.
    #[error("no active node is in region {0} yet: a new region takes a token that says so")]
    NoSuchRegion(RegionName),
    /// The map can't take the node in.
    #[error(transparent)]
    Map(#[from] PlacementRefusal),
    /// It was taken back.
    #[error("the join token was revoked")]
    Revoked,
    /// None was given out for that number, or it has expired and was forgotten.
    #[error("there is no join token for node {0}, or it has expired")]
    NoToken(NodeId),
    /// Too late to take it back.
    #[error("node {0} has joined by its token, which is good for nobody else")]
    Joined(NodeId),
}

/// The tokens that are good, and the numbers that were given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Admissions {
    /// The highest number that was given with a token, or whose node has left.
    last_node: NodeId,
    tokens: BTreeMap<TokenDigest, JoinToken>,
}

impl Admissions {
    /// Issues a token. Asked again with the same secret, the first answer holds.
    ///
    /// # Errors
    /// [`AdmissionRefusal`]; nothing is changed.
    pub fn issue(
        &mut self,
        map: &ClusterMap,
        digest: TokenDigest,
        wanted: &TokenWanted,
        now: Timestamp,
    ) -> Result<JoinToken, AdmissionRefusal> {
        if let Some(known) = self.tokens.get(&digest) {
            return Ok(known.clone());
        }
        if !(1000..=MAX_TOKEN_MS).contains(&wanted.valid_for_ms) {
            return Err(AdmissionRefusal::Validity);
        }
        if let TokenRegion::Known(region) = &wanted.region
            && !map.active_regions().contains(region)
        {
            return Err(AdmissionRefusal::NoSuchRegion(region.clone()));
        }
        let is_good =
            |token: &&JoinToken| now < token.expires_at && token.used != TokenUse::Revoked;
        if self.tokens.values().filter(is_good).count() >= MAX_TOKENS {
            return Err(AdmissionRefusal::TooManyTokens);
        }
        let last = self.last_given(map);
        let next = NodeId(last.0.saturating_add(1));
        let node = wanted.node.unwrap_or(next);
        if node <= last {
            return Err(AdmissionRefusal::NumberTaken { node, last });
        }
        let token = JoinToken {
            node,
            region: wanted.region.clone(),
            expires_at: now.plus_millis(wanted.valid_for_ms),
            used: TokenUse::Open,
        };
        // Those that were revoked are remembered, to be told of, only while there is room.
        let is_full = self.tokens.len() >= MAX_TOKENS;
        self.tokens.retain(|_, token| {
            now < token.expires_at && !(is_full && token.used == TokenUse::Revoked)
        });
        self.last_node = node;
        self.tokens.insert(digest, token.clone());
        Ok(token)
    }

    /// Lets a node in by its token, which is used by that: the node as it is to be in the map.
    ///
    /// # Errors
    /// [`AdmissionRefusal`]; nothing is changed.
    pub fn admit(
        &mut self,
        map: &ClusterMap,
        joiner: &Joiner,
        now: Timestamp,
    ) -> Result<NodeEntry, AdmissionRefusal> {
        let token = self.tokens.get_mut(&joiner.token);
        let token = token.ok_or(AdmissionRefusal::UnknownToken)?;
        if now >= token.expires_at {
            return Err(AdmissionRefusal::Expired);
        }
        if token.node != joiner.node {
            return Err(AdmissionRefusal::OtherNode {
                expected: token.node,
                found: joiner.node,
            });
        }
        let mut entry = joiner.entry.clone();
        let known = map.nodes().get(&joiner.node);
        match (token.used, known) {
            (TokenUse::Revoked, _) => return Err(AdmissionRefusal::Revoked),
            (TokenUse::Open, None) => token.region.check(map, &entry.region)?,
            (TokenUse::Open, Some(_)) => return Err(AdmissionRefusal::AlreadyIn(joiner.node)),
            (TokenUse::By(attempt), Some(known))
                if attempt == joiner.attempt || planted(Bug::TokenUsedTwice) =>
            {
                // It may have been told to leave meanwhile.
                entry.state = known.state;
            }
            (TokenUse::By(_), _) => return Err(AdmissionRefusal::Used),
        }
        token.used = TokenUse::By(joiner.attempt);
        Ok(entry)
    }

    /// Takes the token for a number back. Again, it is no other than the first time.
    ///
    /// # Errors
    /// [`AdmissionRefusal`]; nothing is changed.
    pub fn revoke(&mut self, node: NodeId, now: Timestamp) -> Result<(), AdmissionRefusal> {
        let mut tokens = self.tokens.values_mut();
        let token = tokens.find(|token| token.node == node && now < token.expires_at);
        let token = token.ok_or(AdmissionRefusal::NoToken(node))?;
        if let TokenUse::By(_) = token.used {
            return Err(AdmissionRefusal::Joined(node));
        }
        token.used = TokenUse::Revoked;
        Ok(())
    }

    /// The tokens that have not expired, by the numbers that they are for.
    #[must_use]
    pub fn tokens(&self, now: Timestamp) -> Vec<JoinToken> {
        let tokens = self.tokens.values();
        let mut tokens: Vec<_> = tokens
            .filter(|token| now < token.expires_at)
            .cloned()
            .collect();
        tokens.sort_by_key(|token| token.node);
        tokens
    }

    /// Remembers the number of a node that leaves; whether that is new.
    pub fn note_left(&mut self, node: NodeId) -> bool {
        let is_new = node > self.last_node;
        self.last_node = self.last_node.max(node);
        is_new
    }

    /// Goes on without those who may have given numbers, and let nodes in by tokens, since what is known here.
    pub fn pass_over(&mut self, map: &ClusterMap) {
        let last = self.last_given(map);
        self.last_node = NodeId(last.0.saturating_add(u64::from(BEYOND)));
        let tokens = self.tokens.values_mut();
        for token in tokens.filter(|token| token.used == TokenUse::Open) {
            token.used = TokenUse::Revoked;
        }
    }

    /// The highest number that was ever given, as far as is known.
    fn last_given(&self, map: &ClusterMap) -> NodeId {
        let highest = map.nodes().keys().next_back().copied();
        self.last_node.max(highest.unwrap_or_default())
    }
}

impl TokenRegion {
    fn check(&self, map: &ClusterMap, found: &RegionName) -> Result<(), AdmissionRefusal> {
        match self {
            Self::Known(expected) | Self::New(expected) if expected != found => {
                Err(AdmissionRefusal::OtherRegion {
                    expected: expected.clone(),
                    found: found.clone(),
                })
            }
            Self::New(_) => Ok(()),
            Self::Any | Self::Known(_) if map.active_regions().contains(found) => Ok(()),
            Self::Any | Self::Known(_) => Err(AdmissionRefusal::NoSuchRegion(found.clone())),
        }
    }
}
