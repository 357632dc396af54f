//! The script: a node's life, played on any disk until it ends or the disk stops it.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use rossby_domain::Command;
use rossby_domain::Routed;
use rossby_domain::claim::CodeMac;
use rossby_domain::command::{Adopt, ClaimDevice, OpenClaim};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, ClusterId, DeviceId, Epoch, GroupId, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_seams::base::MemoryBase;
use rossby_seams::disk::Disk;
use rossby_storage::LogPosition;
use rossby_storage::codec::{Batch, encode_batch};
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica, Identity};
use rossby_storage::store::{GroupStore, Store};
use rossby_storage::wal::{GroupLog, LogRecord, Wal, WalOptions, WalWriter};

use crate::history::{History, LogModel};

pub const GROUPS: [u32; 2] = [1, 2];
/// The smallest segments, so that the script goes through many, and next to no cache.
pub const OPTIONS: WalOptions = WalOptions {
    segment_bytes: 16 << 10,
    cache_bytes: 1 << 10,
};

/// Why a step failed, in words.
pub type Failure = String;

fn text(error: impl std::fmt::Display) -> Failure {
    error.to_string()
}

/// A node's storage while it is open.
pub struct Opened {
    pub data: DataDirectory,
    pub wal: Wal,
    pub writer: WalWriter,
    pub store: Store,
}

/// Opens everything in the order in which a node does.
pub fn open(disk: &Arc<dyn Disk>, root: &Path, base: &Arc<MemoryBase>) -> Result<Opened, Failure> {
    let data = DataDirectory::open(Arc::clone(disk), root).map_err(text)?;
    let (wal, writer) = Wal::open(Arc::clone(disk), &data.wal(), OPTIONS).map_err(text)?;
    let store = Store::open(Arc::clone(disk), &data.checkpoints(), Arc::clone(base) as _);
    Ok(Opened {
        data,
        wal,
        writer,
        store: store.map_err(text)?,
    })
}

/// The base that a start would use: what is there, if it was closed, or an empty one.
pub fn base_for(disk: &Arc<dyn Disk>, root: &Path, last: &Arc<MemoryBase>) -> Arc<MemoryBase> {
    match Store::base_was_closed(&**disk, &root.join("checkpoints")) {
        Ok(true) => Arc::clone(last),
        _ => Arc::default(),
    }
}

/// Runs an operation of the log to its end.
pub fn finish<T>(
    writer: &mut WalWriter,
    operation: impl Future<Output = Result<T, rossby_storage::wal::WalError>>,
) -> Result<T, Failure> {
    let mut operation = pin!(operation);
    loop {
        let polled = operation
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(outcome) => return outcome.map_err(text),
            Poll::Pending => assert!(writer.drain(), "waits for a drain that never comes"),
        }
    }
}

/// Appends entries and waits until they are durable.
pub fn append(
    log: &GroupLog,
    writer: &mut WalWriter,
    records: Vec<LogRecord>,
) -> Result<(), Failure> {
    let told = Arc::new(Mutex::new(None));
    let teller = Arc::clone(&told);
    let on_durable = Box::new(move |outcome: Result<(), _>| {
        *teller.lock().unwrap() = Some(outcome.map_err(text));
    });
    log.append(records, on_durable).map_err(text)?;
    while writer.drain() {}
    let outcome = told.lock().unwrap().take();
    outcome.unwrap_or(Err("nobody told".to_owned()))
}

/// The commands of an entry: the first one adopts the group's partitions, later ones add rows.
pub fn entry(group: u32, term: u64, index: u64, size: usize) -> Bytes {
    let partition = |number: u64| {
        let number = group as u16 * 2 + (number % 2) as u16;
        PartitionId::new(number).unwrap()
    };
    let routed = |number, command| Routed {
        partition: partition(number),
        epoch: Epoch(1),
        command,
    };
    let hash = |kind: u8| {
        let mut hash = [kind; 32];
        hash[..8].copy_from_slice(&index.to_be_bytes());
        hash[8..16].copy_from_slice(&term.to_be_bytes());
        hash
    };
    let box_id = BoxId::derive(partition(index), &hash(1));
    let mut device = [0; 16];
    device.copy_from_slice(&hash(2)[..16]);
    let limits = Limits::default();
    let commands = if index == 1 {
        let adopt = |number| routed(number, Command::Adopt(Adopt { limits }));
        vec![adopt(0), adopt(1)]
    } else {
        let claim = ClaimDevice {
            device: DeviceId::from_bytes(device),
            box_id,
        };
        let open = OpenClaim {
            identifier: IdentifierHash::from_bytes(hash(3)),
            box_id,
            discoverable: true,
            code: CodeMac(hash(4)),
            sealed_code: Bytes::from(vec![index as u8; size]),
        };
        vec![
            routed(index, Command::ClaimDevice(claim)),
            routed(index, Command::OpenClaim(open)),
        ]
    };
    let batch = Batch {
        stamp: Timestamp::from_millis(1_000_000 + index * 1000),
        may_expire: true,
        commands,
    };
    encode_batch(&batch).unwrap()
}

/// One group while it is open.
struct Live {
    log: GroupLog,
    state: GroupStore,
}

/// A node that plays the script, and writes down what it does before it does it.
pub struct Player {
    pub disk: Arc<dyn Disk>,
    pub root: PathBuf,
    pub base: Arc<MemoryBase>,
    pub history: History,
    /// Each deed's beginning and end is written here too, for a process that may be killed.
    progress: Option<File>,
    node: u64,
    term: u64,
    opened: Option<(Opened, Vec<Live>)>,
}

impl Player {
    pub fn new(disk: Arc<dyn Disk>, root: &Path, progress: Option<File>) -> Self {
        Self {
            disk,
            root: root.to_owned(),
            base: Arc::default(),
            history: History::new(),
            progress,
            node: 7,
            term: 1,
            opened: None,
        }
    }

    /// Plays it as another node, whose votes and replicas are its own.
    pub fn of_node(&mut self, node: u64) {
        self.node = node;
    }

    /// Plays the whole script; `closed` says whether it ends in good order.
    pub fn play(&mut self, closed: bool) -> Result<(), Failure> {
        self.start()?;
        for round in 0..3 {
            self.round(round)?;
        }
        if closed {
            self.close()?;
        }
        self.opened = None;
        Ok(())
    }

    fn round(&mut self, round: usize) -> Result<(), Failure> {
        self.vote(0)?;
        self.entries(0, &[10, 900, 20])?;
        self.entries(1, &[if round == 0 { 3000 } else { 100 }])?;
        // A leader whose entries nobody else has, and its successor.
        self.tail(0, &[300, 600])?;
        self.term += 1;
        self.vote(0)?;
        self.truncate(0, 2)?;
        self.entries(0, &[2500])?;
        self.checkpoint(0)?;
        self.purge(0, 1)?;
        self.entries(1, &[1500, 1500])?;
        self.checkpoint(1)?;
        self.entries(0, &[40])?;
        if round == 1 {
            self.replace(1)?;
            self.entries(1, &[200])?;
        }
        self.purge(1, 0)?;
        if round == 2 {
            // As after a kill: nothing is closed.
            self.opened = None;
        } else {
            self.close()?;
        }
        self.start()?;
        self.entries(0, &[700])?;
        self.checkpoint(0)
    }

    fn mark(&mut self, letter: &[u8]) {
        if let Some(file) = &mut self.progress {
            file.write_all(letter).unwrap();
        }
    }

    /// Carries a deed out; the history has its effects already.
    fn deed<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        self.history.issue();
        self.mark(b"i");
        let outcome = act(self)?;
        self.history.done += 1;
        self.mark(b"d");
        Ok(outcome)
    }

    fn model(&self, group: usize) -> &LogModel {
        let logs = self.history.logs.last().unwrap();
        &logs[&GROUPS[group]]
    }

    /// Adds a state of the logs in which one group's has changed.
    fn will(&mut self, group: usize, change: impl FnOnce(&mut LogModel)) {
        let mut logs = self.history.logs.last().unwrap().clone();
        change(logs.entry(GROUPS[group]).or_default());
        self.history.logs.push(logs);
    }

    fn live(&mut self, group: usize) -> (&mut Opened, &mut Live) {
        let (opened, live) = self.opened.as_mut().unwrap();
        (opened, &mut live[group])
    }

    fn save_identity(&mut self, identity: Identity) -> Result<(), Failure> {
        self.history.identities.push(Some(identity.clone()));
        self.deed(|player| {
            let (opened, _) = player.opened.as_mut().unwrap();
            opened.data.save(identity).map_err(text)
        })
    }

    /// Starts the node, the first time with a new identity.
    fn start(&mut self) -> Result<(), Failure> {
        let base = base_for(&self.disk, &self.root, &self.base);
        self.base = base;
        let opened = self.deed(|player| open(&player.disk, &player.root, &player.base))?;
        self.opened = Some((opened, Vec::new()));
        if self.history.logs.last().unwrap().is_empty() {
            let logs = self.history.logs.last_mut().unwrap();
            for group in GROUPS {
                let replica = self.node * 100 + u64::from(group) * 10;
                let model = LogModel {
                    replica,
                    ..LogModel::default()
                };
                logs.insert(group, model);
            }
        }
        if self.history.identities.last().unwrap().is_none() {
            self.save_identity(first_identity(self.node))?;
        }
        for (group, number) in GROUPS.into_iter().enumerate() {
            let replica = self.model(group).replica;
            let (opened, lives) = self.opened.as_mut().unwrap();
            let id = GroupId(number);
            let log = opened.wal.log(id, ReplicaId(replica)).map_err(text)?;
            let state = opened.store.group(id).map_err(text)?;
            lives.push(Live { log, state });
            self.apply(group)?;
        }
        Ok(())
    }

    /// Applies what is in the log and was not applied.
    fn apply(&mut self, group: usize) -> Result<(), Failure> {
        let (_, live) = self.live(group);
        let from = live.state.applied().position.map_or(1, |at| at.index + 1);
        let mut found = Vec::new();
        for record in live.log.read(from, u64::MAX).map_err(text)? {
            let at = record.position;
            let replies = live.state.apply_batch(at, &record.bytes).map_err(text)?;
            assert!(replies.iter().all(Result::is_ok), "{replies:?}");
            let digests = live.state.reader().digests().map_err(text)?.1;
            found.push(((GROUPS[group], at.index, at.term), digests));
        }
        self.history.digests.extend(found);
        Ok(())
    }

    fn vote(&mut self, group: usize) -> Result<(), Failure> {
        let vote = Bytes::from(self.term.to_be_bytes().to_vec());
        self.will(group, |model| model.vote = Some(vote.clone()));
        self.deed(|player| {
            let (opened, live) = player.live(group);
            finish(&mut opened.writer, live.log.save_vote(vote))
        })
    }

    /// Entries that are committed: durable, then applied.
    fn entries(&mut self, group: usize, sizes: &[usize]) -> Result<(), Failure> {
        self.tail(group, sizes)?;
        self.apply(group)
    }

    /// Entries that are durable and not committed.
    fn tail(&mut self, group: usize, sizes: &[usize]) -> Result<(), Failure> {
        let mut records = Vec::new();
        for size in sizes {
            // A new replica goes on after its checkpoint.
            let checkpoint = self.history.checkpoints.last().unwrap();
            let after = checkpoint.get(&GROUPS[group]).copied().unwrap_or(0);
            let index = self.model(group).next().unwrap_or(after + 1);
            let term = self.term;
            let bytes = entry(GROUPS[group], term, index, *size);
            let position = LogPosition { term, index };
            records.push(LogRecord {
                position,
                bytes: bytes.clone(),
            });
            // Any part of a drain that is cut off may be found.
            self.will(group, |model| {
                model.entries.insert(index, (term, bytes));
            });
        }
        self.deed(|player| {
            let (opened, live) = player.live(group);
            append(&live.log, &mut opened.writer, records)
        })
    }

    fn truncate(&mut self, group: usize, count: u64) -> Result<(), Failure> {
        let kept = self.model(group).next().unwrap() - 1 - count;
        self.will(group, |model| {
            model.entries.split_off(&(kept + 1));
        });
        self.deed(|player| {
            let (opened, live) = player.live(group);
            finish(&mut opened.writer, live.log.truncate_after(Some(kept)))
        })
    }

    fn checkpoint(&mut self, group: usize) -> Result<(), Failure> {
        let (_, live) = self.live(group);
        let cut = live.state.cut().expect("nothing to write");
        let index = cut.position().index;
        let mut checkpoints = self.history.checkpoints.last().unwrap().clone();
        checkpoints.insert(GROUPS[group], index);
        self.history.checkpoints.push(checkpoints);
        self.deed(|player| {
            let written = cut.write().map_err(text)?;
            let (opened, live) = player.live(group);
            finish(&mut opened.writer, live.log.wait_durable(index))?;
            written.publish().map(drop).map_err(text)
        })
    }

    /// Purges up to the checkpoint, but for the last `keep` entries.
    fn purge(&mut self, group: usize, keep: u64) -> Result<(), Failure> {
        let checkpoint = self.history.checkpoints.last().unwrap()[&GROUPS[group]];
        let upto = checkpoint - keep;
        let model = self.model(group);
        let Some(term) = model.entries.get(&upto).map(|(term, _)| *term) else {
            return Ok(());
        };
        self.will(group, |model| {
            model.purged = Some((term, upto));
            model.entries = model.entries.split_off(&(upto + 1));
        });
        let upto = LogPosition { term, index: upto };
        self.deed(|player| {
            let (opened, live) = player.live(group);
            finish(&mut opened.writer, live.log.purge(upto))
        })
    }

    /// A group's replica is removed for good, and another takes its place.
    fn replace(&mut self, group: usize) -> Result<(), Failure> {
        let id = GroupId(GROUPS[group]);
        let old = self.model(group).replica;
        let identity = self.history.identities.last().unwrap().clone().unwrap();
        let without = identity.without(id, ReplicaId(old));
        self.save_identity(without.clone())?;
        self.will(group, |model| {
            model.removed.push(model.replica);
            let removed = std::mem::take(&mut model.removed);
            *model = LogModel {
                replica: old + 1,
                removed,
                ..LogModel::default()
            };
        });
        self.deed(|player| {
            let (opened, _) = player.opened.as_mut().unwrap();
            let Opened { wal, writer, .. } = opened;
            finish(writer, wal.remove_replica(id, ReplicaId(old)))
        })?;
        let mut with = without;
        with.replicas.insert(held(GROUPS[group], old + 1));
        self.save_identity(with)?;
        let (opened, lives) = self.opened.as_mut().unwrap();
        lives[group].log = opened.wal.log(id, ReplicaId(old + 1)).map_err(text)?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        self.deed(|player| {
            let (mut opened, lives) = player.opened.take().unwrap();
            drop(lives);
            opened.store.close().map_err(text)?;
            opened.wal.shut_down();
            while opened.writer.drain() {}
            match opened.wal.failure() {
                Some(failure) => Err(text(failure)),
                None => Ok(()),
            }
        })
    }
}

fn held(group: u32, replica: u64) -> HeldReplica {
    HeldReplica {
        group: GroupId(group),
        replica: ReplicaId(replica),
        initialise: false,
    }
}

fn first_identity(node: u64) -> Identity {
    let mut identity = Identity::new(NodeId(node));
    identity.cluster = Some(ClusterIdentity {
        id: ClusterId::from_random([3; 16]),
        name: "test".to_owned(),
        partitions: PartitionCount::DEFAULT,
        secrets_check: None,
    });
    for group in GROUPS {
        let replica = node * 100 + u64::from(group) * 10;
        identity.replicas.insert(held(group, replica));
    }
    identity
}
