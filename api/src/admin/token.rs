//! Join tokens on their way to an operator.

use rossby_domain::ids::NodeId;
use rossby_domain::placement::{JoinToken, RegionName, TokenRegion, TokenUse, TokenWanted};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use zeroize::Zeroizing;

use super::OperatorError;

/// A token, and what it is good for.
pub struct IssuedToken {
    /// The token itself.
    pub token: Zeroizing<String>,
    /// The number of the node that may join by it.
    pub node: NodeId,
    /// From then on it is good no more.
    pub expires_at: Timestamp,
    /// Where the new node reaches the one that was asked.
    pub peer_address: String,
}

/// A token that was issued and has not expired, without its secret.
#[derive(Debug)]
pub struct KnownToken {
    /// What the cluster keeps of it.
    pub token: JoinToken,
    /// Where the node that has used it is reached, if it is in the cluster still.
    pub peer_address: Option<String>,
}

/// The token that is asked for.
pub(crate) fn wanted(request: v1::IssueTokenRequest) -> Result<TokenWanted, OperatorError> {
    let invalid = |text: String| OperatorError::Invalid(text);
    let named = match request.region.as_str() {
        "" => None,
        text => Some(RegionName::new(text).map_err(|error| invalid(error.to_string()))?),
    };
    let region = match (named, request.new_region) {
        (Some(region), true) => TokenRegion::New(region),
        (Some(region), false) => TokenRegion::Known(region),
        (None, false) => TokenRegion::Any,
        (None, true) => return Err(invalid("a new region needs a name".to_owned())),
    };
    Ok(TokenWanted {
        node: (request.node_id != 0).then_some(NodeId(request.node_id)),
        region,
        valid_for_ms: request.valid_for_ms,
    })
}

pub(super) fn response(issued: &IssuedToken) -> v1::IssueTokenResponse {
    v1::IssueTokenResponse {
        token: issued.token.to_string(),
        node_id: issued.node.0,
        expires_ms: issued.expires_at.as_millis(),
        peer_address: issued.peer_address.clone(),
    }
}

pub(super) fn list(known: Vec<KnownToken>) -> v1::ListTokensResponse {
    let told = |known: KnownToken| {
        let token = known.token;
        let (region, new_region) = match token.region {
            TokenRegion::Any => (String::new(), false),
            TokenRegion::Known(region) => (region.to_string(), false),
            TokenRegion::New(region) => (region.to_string(), true),
        };
        let state = match token.used {
            TokenUse::Open => "open",
            TokenUse::By(_) => "used",
            TokenUse::Revoked => "revoked",
        };
        v1::JoinToken {
            node_id: token.node.0,
            region,
            new_region,
            expires_ms: token.expires_at.as_millis(),
            state: state.to_owned(),
            peer_address: known.peer_address.unwrap_or_default(),
        }
    };
    v1::ListTokensResponse {
        tokens: known.into_iter().map(told).collect(),
    }
}
