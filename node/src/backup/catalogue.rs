//! What is in a backup's folder.
//!
//! ```text
//!   <backup>/backup                    the catalogue: written last, in one step
//!           /backup.lock               held while a backup is written
//!           /group-<n>/<sha-256>.manifest
//!           /group-<n>/<sha-256>.rows  files of the checkpoint
//!           /group-<n>/<sha-256>.part  on its way to becoming one
//! ```
//!
//! The catalogue is one line that names format and checksum, then JSON that a person can read. A
//! folder without one holds no backup, whatever else it holds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_domain::placement::ClusterMap;
use rossby_seams::disk::{self, Disk};
use rossby_storage::datadir::ClusterIdentity;
use rossby_storage::store::StoredCheckpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Failure};
use crate::output::hex;

const FILE: &str = "backup";
/// Claimed while a backup is written; tells an unfinished backup from any other folder.
pub(super) const LOCK: &str = "backup.lock";
/// What the catalogue begins with; names its format.
const HEADLINE: &str = "rossby backup format=";
const FORMAT: &str = "3";

/// A backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalogue {
    /// The cluster.
    pub cluster: ClusterIdentity,
    /// The node that was asked for it.
    pub node: NodeId,
    /// The release of that node.
    pub version: String,
    /// When it was finished, in milliseconds since the Unix epoch.
    pub made_at_ms: u64,
    /// The cluster map: which group owns what, and where things were.
    pub map: ClusterMap,
    /// The groups of boxes, all of the map's.
    pub groups: Vec<GroupBackup>,
}

/// One group of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBackup {
    /// The group.
    pub group: GroupId,
    /// The node that it was taken from.
    pub node: NodeId,
    /// The replica that it was taken from.
    pub replica: ReplicaId,
    /// The entry that the state is at.
    pub term: u64,
    /// The same.
    pub index: u64,
    /// Everything acknowledged before this time is in it; `None` if that is not known.
    pub complete_to_ms: Option<u64>,
    /// The SHA-256 of the manifest, in hexadecimal digits.
    pub manifest: String,
    /// How many files there are.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// The folder of a group's files.
pub(super) fn group_folder(backup: &Path, group: GroupId) -> PathBuf {
    backup.join(format!("group-{group}"))
}

/// Where a group's manifest is.
pub(super) fn manifest_path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.manifest"))
}

impl Catalogue {
    /// The catalogue in a folder; `None` if there is none.
    pub(super) fn find(disk: &dyn Disk, backup: &Path) -> Result<Option<Self>, Failure> {
        let path = backup.join(FILE);
        match disk::read(disk, &path) {
            Ok(bytes) => unseal(&bytes).map(Some).map_err(|reason| {
                Failure::new(Exit::Storage, format!("{}: {reason}", path.display()))
                    .help("use another copy of the backup, or an earlier one")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(
                Exit::Storage,
                format!("{}: {error}", path.display()),
            )),
        }
    }

    /// The catalogue of the backup in a folder.
    pub(super) fn read(disk: &dyn Disk, backup: &Path) -> Result<Self, Failure> {
        if let Some(catalogue) = Self::find(disk, backup)? {
            return Ok(catalogue);
        }
        let shown = backup.display();
        Err(if backup.join(LOCK).exists() {
            Failure::new(
                Exit::Storage,
                format!("{shown} holds a backup that was never finished"),
            )
            .help("run `rossby backup --out` on it again, or use another backup")
        } else {
            Failure::new(Exit::Storage, format!("{shown} holds no backup"))
                .help("name the folder that was given to `rossby backup --out`")
        })
    }

    /// Writes it, durably and in one step: from then on the folder holds this backup.
    pub(super) fn write(&self, disk: &dyn Disk, backup: &Path) -> io::Result<()> {
        disk::replace(disk, &backup.join(FILE), &seal(self)?)
    }

    /// Whether it holds all groups of its cluster, and no other.
    fn is_whole(&self) -> bool {
        let held = self.groups.iter().map(|group| group.group);
        held.eq(self.map.groups().keys().copied())
            && self.map.partitions() == self.cluster.partitions
    }

    /// How many files there are in all groups.
    pub(super) fn files(&self) -> u64 {
        self.groups.iter().map(|group| group.files).sum()
    }

    /// How many bytes they have.
    pub(super) fn bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.bytes).sum()
    }

    /// Everything acknowledged before this is in all groups, if that is known.
    pub(super) fn complete_to_ms(&self) -> Option<u64> {
        let times = self.groups.iter().map(|group| group.complete_to_ms);
        times.min().flatten()
    }
}

impl GroupBackup {
    /// The group's checkpoint.
    pub(super) fn open(
        &self,
        disk: &Arc<dyn Disk>,
        backup: &Path,
    ) -> Result<StoredCheckpoint, Failure> {
        let folder = group_folder(backup, self.group);
        let path = manifest_path(&folder, &self.manifest);
        let failure = |text: String| {
            Failure::new(Exit::Storage, format!("{}: {text}", path.display()))
                .help("use another copy of the backup, or an earlier one")
        };
        let bytes = disk::read(&**disk, &path).map_err(|error| failure(error.to_string()))?;
        if hex(&Sha256::digest(&bytes)) != self.manifest {
            return Err(failure("its digest does not match".to_owned()));
        }
        let opened = StoredCheckpoint::open(Arc::clone(disk), &folder, self.group, &bytes);
        let stored = opened.map_err(|error| Failure::new(Exit::Storage, error))?;
        let position = stored.position();
        if (position.term, position.index) == (self.term, self.index) {
            Ok(stored)
        } else {
            Err(failure(
                "it is not the one that the catalogue is about".to_owned(),
            ))
        }
    }
}

fn seal(catalogue: &Catalogue) -> io::Result<Vec<u8>> {
    let body = serde_json::to_string_pretty(catalogue)? + "\n";
    let checksum = crc32c::crc32c(body.as_bytes());
    Ok(format!("{HEADLINE}{FORMAT} crc32c={checksum:08x}\n{body}").into_bytes())
}

fn unseal(bytes: &[u8]) -> Result<Catalogue, String> {
    let damaged = || "the catalogue of the backup is damaged".to_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
    let (head, body) = text.split_once('\n').ok_or_else(damaged)?;
    let (format, checksum) = head
        .strip_prefix(HEADLINE)
        .and_then(|rest| rest.split_once(" crc32c="))
        .ok_or_else(damaged)?;
    if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
        return Err(damaged());
    }
    if format != FORMAT {
        return Err(format!(
            "the backup has format {format}, but this version of rossby knows format {FORMAT} only"
        ));
    }
    let catalogue: Catalogue =
        serde_json::from_str(body).map_err(|error| format!("{}: {error}", damaged()))?;
    match catalogue.is_whole() {
        true => Ok(catalogue),
        false => Err("the groups of the backup are not those of its cluster map".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rossby_domain::ids::{ClusterId, PartitionCount};
    use rossby_domain::placement::{
        Beginning, Change, FoundingGroup, NodeEntry, NodeState, RegionName, SurvivalGoal,
    };

    use super::*;

    /// A map of one node with groups of these numbers.
    fn map(groups: impl Iterator<Item = u32>) -> ClusterMap {
        let entry = NodeEntry {
            region: RegionName::default(),
            peer_address: String::new(),
            client_address: String::new(),
            state: NodeState::Active,
        };
        let born = FoundingGroup {
            home: RegionName::default(),
            founders: BTreeMap::from([(ReplicaId(1), NodeId(2))]),
        };
        let founded = Change::Found(Beginning {
            goal: SurvivalGoal::Node,
            partitions: PartitionCount::DEFAULT,
            nodes: BTreeMap::from([(NodeId(2), entry)]),
            groups: groups.map(|group| (GroupId(group), born.clone())).collect(),
        });
        ClusterMap::default().after(&founded).unwrap()
    }

    fn catalogue() -> Catalogue {
        Catalogue {
            cluster: ClusterIdentity {
                id: ClusterId::from_random([7; 16]),
                name: "test".to_owned(),
                partitions: PartitionCount::DEFAULT,
                secrets_check: Some("ab".to_owned()),
            },
            node: NodeId(2),
            version: "0.1.0".to_owned(),
            made_at_ms: 5,
            map: map(1..2),
            groups: vec![GroupBackup {
                group: GroupId(1),
                node: NodeId(2),
                replica: ReplicaId(2),
                term: 3,
                index: 4,
                complete_to_ms: Some(5),
                manifest: "00".to_owned(),
                files: 6,
                bytes: 7,
            }],
        }
    }

    #[test]
    fn any_flipped_bit_and_any_lost_byte_in_the_catalogue_is_noticed() {
        let written = seal(&catalogue()).unwrap();
        assert_eq!(unseal(&written), Ok(catalogue()));
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(
                unseal(&flipped),
                Ok(catalogue()),
                "bit {bit} made no difference"
            );
        }
        for length in 0..written.len() {
            assert!(unseal(&written[..length]).is_err());
        }
    }

    #[test]
    fn a_catalogue_without_one_of_its_groups_is_none() {
        let mut lacking = catalogue();
        lacking.map = map(1..3);
        assert!(unseal(&seal(&lacking).unwrap()).is_err());
        let second = GroupBackup {
            group: GroupId(2),
            ..lacking.groups[0].clone()
        };
        lacking.groups.push(second);
        assert_eq!(unseal(&seal(&lacking).unwrap()), Ok(lacking));
    }

    #[test]
    fn a_backup_is_complete_to_where_its_earliest_group_is_and_to_nowhere_if_one_is_not() {
        let mut two = catalogue();
        two.groups.push(GroupBackup {
            complete_to_ms: Some(3),
            ..two.groups[0].clone()
        });
        assert_eq!(two.complete_to_ms(), Some(3));
        two.groups[0].complete_to_ms = None;
        assert_eq!(two.complete_to_ms(), None);
    }
}
