//! Join tokens as an operator carries them from a member to the machine of a new node.
//!
//! ```text
//!   rossby-join-1-<base64url of: cluster, node, secret, checksum>
//! ```
//!
//! It names the cluster, so that a node never joins another by mistake, and the number that the node gets.
//! The checksum tells a token that was cut off from one that is wrong.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rossby_domain::ids::{ClusterId, NodeId};
use zeroize::Zeroizing;

const PREFIX: &str = "rossby-join-1-";
const CLUSTER_BYTES: usize = 16;
const NODE_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;
/// No token has as many characters: what is longer is not looked at.
const MAX_BYTES: usize = 256;

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The cluster that it is for.
    pub cluster: ClusterId,
    /// The node that it is for.
    pub node: NodeId,
    /// What proves that it is one.
    pub secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// A text that is no join token. The text itself is in no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error("not a join token: one begins with {PREFIX}")]
    Foreign,
    /// Some of it is missing or mistyped.
    #[error("a join token that is not whole or was changed: copy it again")]
    Garbled,
}

impl Token {
    /// The token as a text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
        bytes.extend_from_slice(self.cluster.as_bytes());
        bytes.extend_from_slice(&self.node.0.to_be_bytes());
        bytes.extend_from_slice(&*self.secret);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX);
        let body = body.ok_or(TokenError::Foreign)?;
        if body.len() > MAX_BYTES {
            return Err(TokenError::Garbled);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body);
        let bytes = Zeroizing::new(bytes.map_err(|_| TokenError::Garbled)?);
        let parse = || -> Option<Self> {
            let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
            let (cluster, rest) = body.split_first_chunk::<CLUSTER_BYTES>()?;
            let (node, secret) = rest.split_first_chunk::<NODE_BYTES>()?;
            let secret = Zeroizing::new(<[u8; SECRET_BYTES]>::try_from(secret).ok()?);
            let node = NodeId(u64::from_be_bytes(*node));
            let is_whole = crc32c::crc32c(body) == u32::from_be_bytes(*checksum);
            (is_whole && node != NodeId(0)).then_some(Self {
                cluster: ClusterId::from_bytes(*cluster),
                node,
                secret,
            })
        };
        parse().ok_or(TokenError::Garbled)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Token");
        let shown = shown.field("cluster", &self.cluster);
        shown.field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(node: u64, secret: [u8; 32]) -> Token {
        Token {
            cluster: ClusterId::from_random([9; 16]),
            node: NodeId(node),
            secret: Zeroizing::new(secret),
        }
    }

    proptest! {
        #[test]
        fn a_token_reads_back_and_any_change_of_it_is_noticed(
            node in 1..=u64::MAX,
            secret in any::<[u8; 32]>(),
            at in any::<prop::sample::Index>(),
            other in "[A-Za-z0-9_-]",
        ) {
            let token = token(node, secret);
            let text = token.to_text();
            prop_assert_eq!(format!(" {}\n", &*text).parse::<Token>(), Ok(token.clone()));
            let at = PREFIX.len() + at.index(text.len() - PREFIX.len());
            let mut changed = text.to_string();
            changed.replace_range(at..=at, &other);
            let read = changed.parse::<Token>();
            prop_assert!(changed == *text || read == Err(TokenError::Garbled), "{read:?}");
            prop_assert_eq!(text[..at].parse::<Token>(), Err(TokenError::Garbled));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,300}") {
            prop_assert!(text.parse::<Token>().is_err());
            let garbled = format!("{PREFIX}{text}");
            prop_assert!(garbled.parse::<Token>().is_err());
        }
    }

    #[test]
    fn a_token_is_not_shown_by_mistake() {
        let token = token(4, *b"0123456789abcdef0123456789abcdef");
        let shown = format!("{token:?}");
        assert!(shown.contains('4') && !shown.contains("48, 49"), "{shown}");
        assert_eq!("hello".parse::<Token>(), Err(TokenError::Foreign));
    }
}
