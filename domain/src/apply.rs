//! Apply.

use crate::command::{Reply, Routed};
use crate::tables::Tables;
use crate::time::Timestamp;

/// What a command may know beside itself and the tables.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// When it was proposed.
    pub stamp: Timestamp,
}

/// Applies a command to its partition.
pub fn apply<T: Tables>(
    _tables: &mut T,
    _context: &Context,
    _routed: Routed,
) -> Result<Reply, T::Error> {
    todo!()
}
