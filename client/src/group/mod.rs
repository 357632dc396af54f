//! Groups: who is in one and what it is called, by a rule that gives the same on all devices.
//!
//! ```text
//!   a device's page (page.rs): "these are in, these are out, this is the name", signed, one version after another
//!        │ to every member, in an envelope of their own
//!        ▼
//!   Group (state.rs): the last page of each device ──► view.rs: who counts ──► members and name
//! ```
//!
//! The rule: whoever made the group is in. Whom a member says to be in is in, whom they say to be out is out; of
//! two that say something of the same person, the one who stands nearer to the maker counts. So who added somebody can
//! remove them, and so can who added *those*; everybody can add, give the group a name, and leave.
//!
//! Invariants. A page is of one device, which alone writes and signs it: nobody can say anything in another's name,
//! whoever hands the pages on. Of two pages of a device the later one holds, and the view is a function of the pages:
//! it rests neither on the order in which they come nor on how often. What somebody says who is not in counts for
//! nothing, and nobody stands above those who added them, so a person who was removed has no way to turn that around.

mod error;
mod page;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod word;

use std::fmt;

use rossby_domain::ids::BoxId;
use rossby_domain::wire::Writer;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest as _, Sha256};

pub use self::error::GroupError;
pub use self::page::{Author, MAX_VERDICTS, Page};
pub use self::state::{Group, Heard};
pub use self::view::View;
pub use self::word::Word;
use crate::envelope::ConversationId;
use crate::linking::is_name;

/// Members of a group.
pub const MAX_MEMBERS: usize = 256;
/// Pages that are kept of a group: of the devices that stand nearest to its maker.
pub const MAX_PAGES: usize = 1024;

/// Names a group, and the conversation in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(ConversationId);

impl GroupId {
    /// The group of this conversation, if it is one.
    #[must_use]
    pub fn of(conversation: ConversationId) -> Self {
        Self(conversation)
    }

    /// Its conversation.
    #[must_use]
    pub fn conversation(&self) -> ConversationId {
        self.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_bytes().iter();
        bytes
            .into_iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a group comes from. Its id is of these bytes, so that nobody else can pass for its maker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The box of who made it.
    pub maker: BoxId,
    /// Random bytes.
    pub nonce: [u8; 16],
}

impl Origin {
    /// The group's id.
    #[must_use]
    pub fn id(&self) -> GroupId {
        let bytes = Writer::labelled("rossby group v1")
            .fixed(self.maker.as_bytes())
            .fixed(&self.nonce)
            .finish();
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        GroupId(ConversationId::from_bytes(id))
    }
}

/// What a group is called. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct GroupName(String);

impl GroupName {
    /// The most bytes of a name.
    pub const MAX_BYTES: usize = 128;

    /// A name.
    ///
    /// # Errors
    /// [`GroupError::Name`].
    pub fn new(text: &str) -> Result<Self, GroupError> {
        if is_name(text, Self::MAX_BYTES) {
            Ok(Self(text.to_owned()))
        } else {
            Err(GroupError::Name)
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupName(..)")
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
