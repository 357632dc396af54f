//! Counting that somebody reported a box.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::BoxId;
use crate::rejection::Rejection;
use crate::report::ReportMark;
use crate::tables::Tables;

/// Counts a report of a box, once for each box that reports it. That the reporter has an envelope of it, or had one,
/// was seen in the reporter's own box before ([`crate::Query::HasHeardFrom`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountReport {
    /// The box that is reported.
    pub box_id: BoxId,
    /// Stands for the one that reports it.
    pub mark: ReportMark,
}

impl CountReport {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let profile = tables.profile(&self.box_id)?;
        if profile.is_none_or(|profile| !profile.active) {
            return Ok(Err(Rejection::UnknownBox));
        }
        let first = !tables.has_report(&self.box_id, &self.mark)?;
        if first {
            tables.add_report(&self.box_id, &self.mark)?;
        }
        Ok(Ok(Outcome::ReportCounted { first }))
    }
}
