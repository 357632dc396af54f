//! Answering.

use super::{Answer, Query};
use crate::tables::ReadTables;
use crate::time::Timestamp;

/// Answers a query from a partition's tables, as of `now`.
pub fn answer<T: ReadTables>(
    _tables: &T,
    _now: Timestamp,
    _query: &Query,
) -> Result<Answer, T::Error> {
    todo!()
}
