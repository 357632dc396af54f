//! Power loss at every write, sync, rename and removal of a node's life.

use std::path::Path;
use std::sync::Arc;

use rossby_seams::disk::{MemoryDisk, PowerLoss};

use crate::checker::{Found, copy_of};
use crate::is_long;
use crate::player::{Player, base_for, open};

pub const ROOT: &str = "/data";

/// Plays the script on a disk that stops before mutation `stop`; `None` if it ran to its end.
fn play_until(stop: u64) -> Option<(MemoryDisk, Player)> {
    let disk = MemoryDisk::default();
    disk.stop_at_mutation(stop);
    let mut player = Player::new(Arc::new(disk.clone()), Path::new(ROOT), None);
    let ended = player.play(true);
    ended.is_err().then_some((disk, player))
}

fn found<'a>(disk: &MemoryDisk, player: &'a Player) -> Found<'a> {
    Found {
        disk: Arc::new(disk.clone()),
        root: Path::new(ROOT),
        base: &player.base,
        history: &player.history,
        sure: player.history.sure(),
        possible: player.history.possible(),
    }
}

fn losses(step: u64) -> impl Iterator<Item = PowerLoss> {
    let seeds = if is_long() { 12 } else { 1 };
    let torn = (0..seeds).map(move |seed| PowerLoss::KeepSome {
        seed: step * 1000 + seed,
    });
    let killed = is_long() || step.is_multiple_of(4);
    [PowerLoss::DropUnsynced]
        .into_iter()
        .chain(torn)
        .chain(killed.then_some(PowerLoss::KeepAll))
}

/// All steps, shared out over as many tests as there is a share.
fn sweep(share: u64, of: u64) {
    let (mut cases, mut last) = (0, 0);
    for stop in 1.. {
        if stop % of != share {
            continue;
        }
        let Some((disk, player)) = play_until(stop) else {
            break;
        };
        last = stop;
        for loss in losses(stop) {
            let started = found(&disk.fork(loss), &player).check();
            started.unwrap_or_else(|error| panic!("step {stop}, {loss:?}: refused: {error}"));
            cases += 1;
        }
    }
    eprintln!("{cases} losses of power, up to step {last}");
    assert!(
        last > 300 && cases >= 2 * last / of,
        "only {cases} up to {last}"
    );
}

#[test]
fn whenever_the_power_goes_the_node_starts_with_all_that_was_acknowledged_even_steps() {
    sweep(0, 2);
}

#[test]
fn whenever_the_power_goes_the_node_starts_with_all_that_was_acknowledged_odd_steps() {
    sweep(1, 2);
}

#[test]
fn the_start_after_power_loss_can_itself_lose_power_at_any_step() {
    let every = if is_long() { 3 } else { 41 };
    let mut cut = 0;
    for stop in (1..).step_by(every) {
        let Some((disk, player)) = play_until(stop) else {
            break;
        };
        let torn = disk.fork(PowerLoss::KeepSome { seed: stop });
        for step in 1.. {
            let again = torn.fork(PowerLoss::KeepAll);
            again.stop_at_mutation(step);
            let shared: Arc<dyn rossby_seams::disk::Disk> = Arc::new(again.clone());
            let base = base_for(&shared, Path::new(ROOT), &copy_of(&player.base));
            let opened = open(&shared, Path::new(ROOT), &base);
            if opened.is_ok() {
                break;
            }
            cut += 1;
            let seed = stop * 1000 + step;
            let started = found(&again.fork(PowerLoss::KeepSome { seed }), &player).check();
            started.unwrap_or_else(|error| panic!("step {stop}, then {step}: refused: {error}"));
        }
    }
    eprintln!("{cut} starts were cut off");
    assert!(cut > 20, "only {cut} starts were cut off");
}
