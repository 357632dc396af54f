//! Issues a join token, lets a node in by one, and takes one back.

use serde::{Deserialize, Serialize};

use super::place::put_map;
use super::{Outcome, Reply};
use crate::ids::NodeId;
use crate::placement::{Change, Joiner, PlacementRefusal, TokenDigest, TokenWanted};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Issues a join token. The same again is answered as the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueToken {
    /// The digest of its secret.
    pub digest: TokenDigest,
    /// What it is to be good for.
    pub wanted: TokenWanted,
}

impl IssueToken {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let map = tables.cluster_map()?.unwrap_or_default();
        let mut admissions = tables.admissions()?;
        let issued = admissions.issue(&map, self.digest, &self.wanted, meta.clock);
        let token = match issued {
            Ok(token) => token,
            Err(refusal) => return Ok(Err(Rejection::AdmissionRefused(refusal))),
        };
        tables.put_admissions(&admissions)?;
        Ok(Ok(Outcome::TokenIssued {
            node: token.node,
            expires_at: token.expires_at,
        }))
    }
}

/// Puts a node that shows a join token in the map. The same try again is answered as the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// Who comes.
    pub joiner: Joiner,
}

impl Admit {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let map = tables.cluster_map()?.unwrap_or_default();
        let mut admissions = tables.admissions()?;
        let refused = |refusal| Ok(Err(Rejection::AdmissionRefused(refusal)));
        let entry = match admissions.admit(&map, &self.joiner, meta.clock) {
            Ok(entry) => entry,
            Err(refusal) => return refused(refusal),
        };
        let node = self.joiner.node;
        let change = Change::PutNode { node, entry };
        let version = match map.after(&change) {
            Ok(next) => put_map(tables, meta, next, change)?,
            Err(PlacementRefusal::Unchanged) => map.version(),
            Err(refusal) => return refused(refusal.into()),
        };
        tables.put_admissions(&admissions)?;
        Ok(Ok(Outcome::Placed { version }))
    }
}

/// Takes a join token back that nobody has used. The same again is answered as the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeToken {
    /// The number of the node that it is for.
    pub node: NodeId,
}

impl RevokeToken {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let mut admissions = tables.admissions()?;
        if let Err(refusal) = admissions.revoke(self.node, meta.clock) {
            return Ok(Err(Rejection::AdmissionRefused(refusal)));
        }
        tables.put_admissions(&admissions)?;
        Ok(Ok(Outcome::TokenRevoked))
    }
}
