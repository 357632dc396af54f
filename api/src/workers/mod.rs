//! What the leader of a group does by itself.
