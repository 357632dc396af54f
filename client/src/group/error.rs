//! Why something can not be done with a group.

use rossby_domain::ids::BoxId;

/// Why something can not be done with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Not a name.
    #[error("a group's name has 1 to 128 bytes, without control characters and spaces around it")]
    Name,
    /// There is no such group on this device.
    #[error("there is no such group")]
    Unknown,
    /// This box is not in the group, or not any more.
    #[error("you are not a member of this group")]
    NotAMember,
    /// There is nobody to write to.
    #[error("nobody else is in this group")]
    Alone,
    /// There are as many as a device keeps.
    #[error("this device has as many groups as it keeps")]
    TooMany,
    /// Not all who speak of it could be looked up yet.
    #[error("not all members of this group are known yet")]
    Later,
    /// They are in it already.
    #[error("box {0} is a member already")]
    AlreadyIn(BoxId),
    /// They are not in it.
    #[error("box {0} is not a member")]
    NotIn(BoxId),
    /// Somebody who stands nearer to who made the group has said otherwise.
    #[error("box {0} was added or removed by somebody who stands above you in this group")]
    NotYours(BoxId),
    /// There is no room for more.
    #[error("a group has at most 256 members, and one device adds or removes at most 512 people")]
    Full,
}
