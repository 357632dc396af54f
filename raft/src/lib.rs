//! Agreement: Raft groups over openraft.

mod group;
mod groups;
mod member;

pub use group::{Group, GroupStatus, Leadership, ProposeError, ReadError};
pub use groups::{Groups, GroupsConfig, StartError, Timing};
pub use member::Member;
