//! The command that changes the map, and what is remembered of it.

use rossby_domain::command::{Adopt, HISTORY_ROWS, Place};
use rossby_domain::ids::{Epoch, MapVersion, NodeId, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::placement::{
    Change, ClusterMap, MapHistoryRow, PLACEMENT_PARTITION, PlacementRefusal, SurvivalGoal,
};
use rossby_domain::tables::{MemoryTables, ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{
    Answer, Command, Context, Outcome, Query, Rejection, Reply, Routed, answer, apply,
};

use super::{draining, entry, found, founded, nodes};

const EPOCH: Epoch = Epoch(1);

/// The placement group's partition.
pub(super) struct Seat {
    pub(super) tables: MemoryTables,
    pub(super) now: Timestamp,
}

impl Seat {
    pub(super) fn new() -> Self {
        let mut seat = Self {
            tables: MemoryTables::default(),
            now: Timestamp::from_millis(1_795_359_845_000),
        };
        let adopt = Command::Adopt(Adopt {
            limits: Limits::default(),
        });
        seat.apply(PLACEMENT_PARTITION, adopt).unwrap();
        seat
    }

    pub(super) fn apply(&mut self, partition: PartitionId, command: Command) -> Reply {
        let context = Context {
            stamp: self.now,
            may_expire: true,
        };
        let routed = Routed {
            partition,
            epoch: EPOCH,
            command,
        };
        apply(&mut self.tables, &context, routed).unwrap()
    }

    pub(super) fn place(&mut self, based_on: u64, change: &Change) -> Reply {
        self.now = self.now.plus_millis(1000);
        let place = Place {
            based_on: MapVersion(based_on),
            change: change.clone(),
        };
        self.apply(PLACEMENT_PARTITION, Command::Place(place))
    }

    /// A change that is refused and leaves the map and its history as they were.
    fn refused(&mut self, based_on: u64, change: &Change) -> Rejection {
        let before = (self.map(), self.history(0, u32::MAX));
        let rejection = self.place(based_on, change).unwrap_err();
        assert_eq!((self.map(), self.history(0, u32::MAX)), before);
        rejection
    }

    fn ask(&self, query: &Query) -> Answer {
        answer(&self.tables, self.now, query).unwrap()
    }

    pub(super) fn map(&self) -> ClusterMap {
        match self.ask(&Query::Map) {
            Answer::Map(map) => map,
            other => panic!("{other:?}"),
        }
    }

    fn history(&self, after: u64, limit: u32) -> Vec<MapHistoryRow> {
        let after = MapVersion(after);
        match self.ask(&Query::MapHistory { after, limit }) {
            Answer::MapHistory(rows) => rows,
            other => panic!("{other:?}"),
        }
    }
}

fn placed(version: u64) -> Reply {
    Ok(Outcome::Placed {
        version: MapVersion(version),
    })
}

fn changed(current: u64) -> Rejection {
    Rejection::MapChanged {
        current: MapVersion(current),
    }
}

fn founding() -> Change {
    found(&nodes("abc"), SurvivalGoal::Node)
}

/// Node 4 comes at the first call, is drained at the second, and so on to and fro.
fn to_and_fro(turn: u64) -> Change {
    let entry = entry(4, 'a');
    Change::PutNode {
        node: NodeId(4),
        entry: if turn.is_multiple_of(2) {
            entry
        } else {
            draining(entry)
        },
    }
}

#[test]
fn a_change_makes_the_next_version_and_is_remembered() {
    let mut seat = Seat::new();
    assert_eq!(seat.map(), ClusterMap::default());
    assert_eq!(seat.place(0, &founding()), placed(1));
    assert_eq!(seat.map(), founded("abc", SurvivalGoal::Node));
    let founded_at = seat.now;
    assert_eq!(seat.place(1, &to_and_fro(0)), placed(2));
    let rows = seat.history(0, 10);
    let first = MapHistoryRow {
        version: MapVersion(1),
        at: founded_at,
        change: founding(),
    };
    assert_eq!(rows[0], first);
    assert_eq!(rows[1].change, to_and_fro(0));
    assert_eq!(seat.history(0, 1), [first]);
    assert_eq!(seat.history(1, 10), rows[1..]);
    assert_eq!(seat.history(2, 10), []);
}

#[test]
fn the_same_change_again_is_answered_as_the_first_time() {
    let mut seat = Seat::new();
    seat.place(0, &founding()).unwrap();
    assert_eq!(seat.place(0, &founding()), placed(1));
    seat.place(1, &to_and_fro(0)).unwrap();
    let before = (seat.map(), seat.history(0, 10));
    assert_eq!(seat.place(1, &to_and_fro(0)), placed(2));
    assert_eq!((seat.map(), seat.history(0, 10)), before);
    // Once another has followed, nobody can tell any more.
    seat.place(2, &to_and_fro(1)).unwrap();
    assert_eq!(seat.refused(1, &to_and_fro(0)), changed(3));
}

#[test]
fn a_change_of_another_map_is_refused() {
    let mut seat = Seat::new();
    seat.place(0, &founding()).unwrap();
    seat.place(1, &to_and_fro(0)).unwrap();
    // An older map, a newer one, and the one before the newest with another change.
    for based_on in [0, 1, 3, u64::MAX] {
        assert_eq!(seat.refused(based_on, &to_and_fro(1)), changed(2));
    }
    assert_eq!(seat.refused(3, &to_and_fro(0)), changed(2));
}

#[test]
fn a_change_that_makes_no_map_is_refused_with_the_reason() {
    let mut seat = Seat::new();
    let refusal = Rejection::PlacementRefused(PlacementRefusal::NotFounded);
    assert_eq!(seat.refused(0, &to_and_fro(0)), refusal);
    seat.place(0, &founding()).unwrap();
    let refusal = Rejection::PlacementRefused(PlacementRefusal::UnknownNode(NodeId(9)));
    assert_eq!(seat.refused(1, &Change::RemoveNode(NodeId(9))), refusal);
}

#[test]
fn the_map_is_in_the_first_partition_only() {
    let mut seat = Seat::new();
    let place = Place {
        based_on: MapVersion(0),
        change: founding(),
    };
    let other = PartitionId::new(1).unwrap();
    let reply = seat.apply(other, Command::Place(place));
    assert_eq!(reply, Err(Rejection::NotOwner { owned: Some(EPOCH) }));
    assert_eq!(seat.map(), ClusterMap::default());
}

#[test]
fn the_history_is_bounded_and_the_oldest_goes() {
    let mut seat = Seat::new();
    seat.place(0, &founding()).unwrap();
    for turn in 0..HISTORY_ROWS + 5 {
        assert_eq!(seat.place(turn + 1, &to_and_fro(turn)), placed(turn + 2));
        let rows = seat.tables.map_changes(MapVersion(0), u32::MAX).unwrap();
        assert!(rows.len() as u64 <= HISTORY_ROWS);
    }
    let rows = seat.history(0, u32::MAX);
    assert_eq!(rows.len() as u64, HISTORY_ROWS);
    let last = HISTORY_ROWS + 6;
    assert_eq!(rows.first().unwrap().version.0, last - HISTORY_ROWS + 1);
    assert_eq!(rows.last().unwrap().version.0, last);
    // The newest can still be repeated.
    assert_eq!(
        seat.place(last - 1, &to_and_fro(HISTORY_ROWS + 4)),
        placed(last)
    );
}

#[test]
fn a_restored_map_goes_on_above_what_was_lost() {
    let mut seat = Seat::new();
    seat.place(0, &founding()).unwrap();
    let mut meta = seat.tables.meta().unwrap();
    meta.restored = meta.restored.again(seat.now, false);
    seat.tables.put_meta(&meta).unwrap();
    let Ok(Outcome::Placed { version }) = seat.place(1, &to_and_fro(0)) else {
        panic!("refused");
    };
    assert!(version.0 > meta.restored.floor());
    // A retry is one still, and what is too old goes though the versions jumped.
    assert_eq!(seat.place(1, &to_and_fro(0)), placed(version.0));
    seat.place(version.0, &to_and_fro(1)).unwrap();
    let rows = seat.history(0, 10);
    assert_eq!(rows.first().unwrap().version, version);
    assert_eq!(rows.len(), 2);
}
