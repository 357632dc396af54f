//! Members come, go and lose their disks, while everything else goes wrong too.

use std::path::{Path, PathBuf};

use rossby_domain::ids::{GroupId, NodeId};
use rossby_raft::Order;
use rossby_seams::disk::{Disk, MemoryDisk};
use tokio::time::{sleep, timeout};

use super::Faults;
use crate::observe::{What, Who};
use crate::world::dice::Dice;
use crate::world::layout::{GROUP, member};
use crate::world::node::Node;

/// How long the operator stays with an order; the next one then finds it half-way.
pub(super) const PATIENCE_MS: (u64, u64) = (2_000, 60_000);

impl Faults {
    /// One order about the members. One operator is at work at a time, and one node at most has lost
    /// its replica: with two of three gone, what only they held would be lost.
    pub(super) async fn change_members(&self) {
        let Ok(mut lost) = self.lost.try_lock() else {
            return;
        };
        if let Some(node) = *lost {
            // An order before this one gave up on it.
            if self.order_anew(node).await {
                *lost = None;
            }
            return;
        }
        let Some(status) = self
            .operator
            .status(GROUP)
            .await
            .filter(|status| !status.joint)
        else {
            return;
        };
        let voters = status.members.iter().filter(|(_, _, voter, _)| *voter);
        let voters: Vec<NodeId> = voters.map(|(_, member, ..)| member.node).collect();
        let spare = self.nodes.iter().find(|node| !voters.contains(&node.id));
        let Some(old) = self.dice.pick(&voters).copied() else {
            return;
        };
        let order = match spare {
            Some(spare) if self.dice.permille(500) => Order::Add(vec![member(spare.id)]),
            Some(spare) => Order::Replace {
                old,
                new: member(spare.id),
            },
            None => Order::Remove {
                nodes: [old].into(),
                half_added_only: false,
            },
        };
        let (least, most) = PATIENCE_MS;
        // Whether it was done does not matter: whatever is half-way must do no harm.
        let _ = timeout(
            self.dice.millis(least, most),
            self.operator.order(GROUP, order),
        )
        .await;
    }

    /// A node's disk is lost, or its bits turn; it begins anew.
    pub(super) async fn lose_disk(&self, bits_turn: bool) {
        let Ok(mut lost) = self.lost.try_lock() else {
            return;
        };
        if lost.is_some() {
            return;
        }
        let (node, turn) = self.some_node();
        if self.may_lose(node.id).await.is_none() {
            return;
        }
        {
            let _turn = turn.lock().await;
            *lost = Some(node.id);
            node.crash(self.loss());
            if bits_turn {
                self.turn_a_bit(&node);
                sleep(self.dice.millis(50, 2_000)).await;
                if node.start().await.is_ok() {
                    // It may stand where nothing is read. The invariants judge what it does now.
                    sleep(self.dice.millis(500, 8_000)).await;
                }
            }
            node.wipe();
            sleep(self.dice.millis(50, 8_000)).await;
            self.start(&node).await;
        }
        if self.order_anew(node.id).await {
            *lost = None;
        }
    }

    /// Has a node that lost its disk begin anew; whether that came to its end in time.
    async fn order_anew(&self, node: NodeId) -> bool {
        self.begin_anew(node).await
    }

    /// Gives an order for as long as the operator stays with it; whether it came to its end.
    pub(super) async fn order_in_time(&self, group: GroupId, order: Order) -> bool {
        let (least, most) = PATIENCE_MS;
        let patience = self.dice.millis(least, most);
        timeout(patience, self.operator.order(group, order))
            .await
            .is_ok()
    }

    /// Flips one bit of one file of a node that is down.
    fn turn_a_bit(&self, node: &Node) {
        let disk = node.disk();
        let mut files = Vec::new();
        list(&disk, Path::new("/data"), &mut files);
        let Some(path) = self.dice.pick(&files) else {
            return;
        };
        let Some(offset) = flip(&disk, path, &self.dice) else {
            return;
        };
        node.note_damage();
        let what = What::BitFlipped {
            file: path.display().to_string(),
            offset,
        };
        self.common.recorder.saw(Who::Node(node.id), what);
    }
}

/// All files below a folder.
fn list(disk: &MemoryDisk, folder: &Path, files: &mut Vec<PathBuf>) {
    for path in disk.list(folder).unwrap_or_default() {
        if disk.open(&path).is_ok() {
            files.push(path);
        } else {
            list(disk, &path, files);
        }
    }
}

/// Flips one bit of a file, more likely one near its beginning: most of a log's file is not written
/// yet. Where it was, unless the file is empty.
fn flip(disk: &MemoryDisk, path: &Path, dice: &Dice) -> Option<u64> {
    let file = disk.open(path).ok()?;
    let length = file.len().ok()?;
    let magnitude = dice.between(1, u64::from(length.checked_ilog2()?) + 1);
    let offset = dice.between(0, (1 << magnitude) - 1).min(length - 1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).ok()?;
    let [byte] = byte;
    file.write_all_at(&[byte ^ (1 << dice.between(0, 7))], offset)
        .ok()?;
    file.sync_data().ok()?;
    Some(offset)
}
