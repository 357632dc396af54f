//! Changes the cluster map.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::MapVersion;
use crate::placement::{Change, ClusterMap, MapHistoryRow, PLACEMENT_GROUP};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// How many changes of the map are remembered.
pub const HISTORY_ROWS: u64 = 1000;
/// How many of the oldest may go with each change. More than one comes, so that what is beyond the
/// bound after a jump of versions goes too.
const FORGOTTEN_AT_ONCE: u32 = 2;

/// Changes the cluster map, if it is still the one that the change was made for. The very same again
/// right after it took effect is answered as the first time, so a retry after a lost reply is
/// harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The version of the map that whoever makes the change has seen.
    pub based_on: MapVersion,
    /// The change.
    pub change: Change,
}

impl Place {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let map = tables.cluster_map()?.unwrap_or_default();
        let current = map.version();
        if self.based_on != current {
            let next = tables.map_changes(self.based_on, 1)?;
            let took_effect = next
                .first()
                .is_some_and(|row| row.version == current && row.change == self.change);
            return Ok(if took_effect {
                Ok(Outcome::Placed { version: current })
            } else {
                Err(Rejection::MapChanged { current })
            });
        }
        let next = match map.after(&self.change) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(Rejection::PlacementRefused(refusal))),
        };
        note_numbers(tables, &map, &self.change)?;
        let version = put_map(tables, meta, next, self.change)?;
        Ok(Ok(Outcome::Placed { version }))
    }
}

/// Has the numbers of nodes that leave, or that a lost majority may have let in, not be given again.
fn note_numbers<T: Tables>(
    tables: &mut T,
    before: &ClusterMap,
    change: &Change,
) -> Result<(), T::Error> {
    let (highest, is_loss) = match change {
        Change::RemoveNode(node) => (Some(*node), false),
        Change::Recover { lost, groups, .. } => {
            (lost.last().copied(), groups.contains_key(&PLACEMENT_GROUP))
        }
        _ => return Ok(()),
    };
    let mut admissions = tables.admissions()?;
    let is_new = highest.is_some_and(|node| admissions.note_left(node));
    if is_loss {
        admissions.pass_over(before);
    }
    if is_new || is_loss {
        tables.put_admissions(&admissions)?;
    }
    Ok(())
}

/// Puts the map in its table, and the change that made it in the history; its version.
pub(super) fn put_map<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    next: ClusterMap,
    change: Change,
) -> Result<MapVersion, T::Error> {
    // Above what a map that was lost with a restored state may have had.
    let next = next.raised_above(MapVersion(meta.restored.floor()));
    let version = next.version();
    tables.put_cluster_map(&next)?;
    tables.add_map_change(&MapHistoryRow {
        version,
        at: meta.clock,
        change,
    })?;
    for row in tables.map_changes(MapVersion(0), FORGOTTEN_AT_ONCE)? {
        if row.version.0.saturating_add(HISTORY_ROWS) <= version.0 {
            tables.delete_map_change(row.version)?;
        }
    }
    Ok(version)
}
