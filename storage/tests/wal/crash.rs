//! Power loss at every single step of a run, and at every step of the recovery from it.

use rossby_seams::disk::{DiskFault, MemoryDisk, PowerLoss};
use rossby_storage::wal::{Wal, WalWriter};

use crate::harness::{append, drain_all, entry, log_of, open};
use crate::model::{GROUPS, Op, Rig};

/// A run through several segments that uses every operation, with drains of one and of many records.
fn script() -> Vec<Op> {
    let append = |group, sizes: &[usize]| Op::Append {
        group,
        sizes: sizes.to_vec(),
    };
    let mut script = Vec::new();
    for round in 0..10_u64 {
        script.extend([
            Op::Vote { group: 0, size: 20 },
            append(0, &[100, 0, 700]),
            Op::Drain,
            append(1, &[3000]),
            append(2, &[10, 20, 30]),
            append(0, &[1400]),
            Op::Drain,
            append(1, &[600, 600, 600, 600]),
            Op::Committed { group: 1 },
            Op::Truncate { group: 1, count: 2 },
            append(1, &[513, 447]),
            Op::Drain,
            Op::Purge {
                group: 0,
                count: round,
            },
            Op::Drain,
            Op::Purge { group: 1, count: 3 },
            append(2, &[40, 50]),
            Op::Drain,
            Op::Drain,
        ]);
        if round % 3 == 1 {
            script.extend([
                Op::Purge { group: 2, count: 9 },
                Op::Remove { group: 1 },
                Op::Drain,
            ]);
        }
        if round == 4 {
            script.push(Op::Close);
        }
    }
    script
}

fn is_long() -> bool {
    std::env::var_os("ROSSBY_LONG").is_some()
}

fn losses(step: u64) -> impl Iterator<Item = PowerLoss> {
    let seeds = if is_long() { 40 } else { 3 };
    let torn = (0..seeds).map(move |seed| PowerLoss::KeepSome {
        seed: step * 1000 + seed,
    });
    [PowerLoss::DropUnsynced, PowerLoss::KeepAll]
        .into_iter()
        .chain(torn)
}

/// Runs the script until the power goes before mutation `stop`; `None` if the script ended first.
/// Nothing in it if the power went before the log was open.
fn run_until(stop: u64) -> Option<Option<Rig>> {
    let Ok(mut rig) = Rig::stopping_at(stop) else {
        return Some(None);
    };
    let stopped = script().iter().any(|op| rig.run(op).is_err());
    stopped.then_some(Some(rig))
}

#[test]
fn whenever_the_power_goes_the_log_holds_a_prefix_with_all_that_was_reported_durable() {
    let mut tries = 0;
    for stop in 1.. {
        let Some(rig) = run_until(stop) else { break };
        let Some(rig) = rig else { continue };
        for loss in losses(stop) {
            let disk = rig.disk.fork(loss);
            let (wal, writer) = open(&disk)
                .unwrap_or_else(|error| panic!("power loss {stop} {loss:?} refused: {error}"));
            rig.expect_prefix(&wal);
            goes_on(&rig, &disk, wal, writer);
            tries += 1;
        }
    }
    assert!(tries > 700, "the sweep covered only {tries} cases");
}

/// A recovered log takes entries again and keeps them, besides what it had.
fn goes_on(rig: &Rig, disk: &MemoryDisk, wal: Wal, mut writer: WalWriter) {
    let mut before = rig.expect_prefix(&wal);
    for group in 0..GROUPS {
        let log = log_of(&wal, group, before[&group].removals);
        let index = log
            .state()
            .last
            .map_or(u64::from(group), |last| last.index + 1);
        let record = entry(99, index, vec![9; 900]);
        append(&log, vec![record.clone()]).unwrap();
        before
            .get_mut(&group)
            .unwrap()
            .entries
            .insert(index, record);
    }
    drain_all(&mut writer);
    let (wal, _writer) = open(&disk.crash(PowerLoss::DropUnsynced)).unwrap();
    for group in 0..GROUPS {
        let (found, _) = crate::model::observe_group(&wal, group).unwrap();
        assert_eq!(found, before[&group]);
    }
}

#[test]
fn recovery_itself_can_be_cut_off_at_any_step() {
    let every = if is_long() { 1 } else { 3 };
    let mut cut = 0;
    for stop in (1..).step_by(every) {
        let Some(rig) = run_until(stop) else { break };
        let Some(rig) = rig else { continue };
        for loss in losses(stop).skip(1).take(3) {
            let found = rig.disk.fork(loss);
            for step in 1.. {
                let disk = found.fork(PowerLoss::KeepAll);
                disk.stop_at_mutation(step);
                if open(&disk).is_ok() {
                    break;
                }
                cut += 1;
                let disk = disk.crash(PowerLoss::KeepSome {
                    seed: stop * 77 + step,
                });
                let (wal, _writer) = open(&disk).unwrap();
                rig.expect_prefix(&wal);
            }
        }
    }
    assert!(cut > 100, "recovery was cut off only {cut} times");
}

#[test]
fn whichever_operation_fails_nothing_is_reported_durable_that_is_lost() {
    for fault in [DiskFault::Io, DiskFault::Full] {
        let (mut failed, mut went_on) = (0, 0);
        for number in (1..).step_by(if is_long() { 1 } else { 11 }) {
            let disk = MemoryDisk::default();
            disk.fail_operation(number, fault);
            let Ok(mut rig) = Rig::new(disk.clone()) else {
                continue;
            };
            match script()
                .iter()
                .take_while(|op| !matches!(op, Op::Close))
                .find_map(|op| rig.run(op).err())
            {
                Some(_) => failed += 1,
                None => went_on += 1,
            }
            // Damage of another kind is not possible here: a failed disk is not a lying one.
            for loss in losses(number).take(4) {
                let disk = rig.disk.fork(loss);
                let (wal, writer) = open(&disk).unwrap();
                goes_on(&rig, &disk, wal, writer);
            }
            if disk.operations() < number {
                break;
            }
        }
        assert!(
            failed > 10 && went_on > 0,
            "{failed} failed, {went_on} went on"
        );
    }
}
