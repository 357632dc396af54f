//! Join tokens on their way to an operator.

use rossby_domain::ids::NodeId;
use rossby_domain::placement::{RegionName, TokenRegion, TokenWanted};
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

/// The token that is asked for.
pub(super) fn wanted(request: v1::IssueTokenRequest) -> Result<TokenWanted, OperatorError> {
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
