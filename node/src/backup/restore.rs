//! `rossby restore`: the data directory of a new node out of a backup.
//!
//! ```text
//!   backup, all of it ─► secrets, clock, room ─► <data>.restoring: checkpoint, log, identity
//!                                                        └─► renamed to <data>, in one step
//! ```
//!
//! The result is a cluster of its own: it has a new id, so that no node of the old one can take part
//! in it, and replica ids above those of the backup. What it gives out begins above all that the
//! old cluster can have given out (`rossby_domain::restored`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_api::ClusterSecrets;
use rossby_domain::ids::{ClusterId, GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{
    FoundingGroup, NodeEntry, NodeState, PLACEMENT_GROUP, SurvivalGoal,
};
use rossby_domain::restored::Restored;
use rossby_domain::time::Timestamp;
use rossby_raft::{Member, begin_restored_log, replicas_in, sole_member};
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_seams::random::{self, OsRandom};
use rossby_storage::LogPosition;
use rossby_storage::datadir::{ClusterIdentity, DataDirectory, HeldReplica, Identity};
use rossby_storage::store::Restoration;
use rossby_storage::wal::{self, Wal, WalError, WalOptions};
use serde::Serialize;

use super::args::RestoreArgs;
use super::progress::Progress;
use super::target::refuse_inside;
use super::verify::{WholeBackup, WholeGroup, read_all};
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::output::{self, size};
use crate::room::check_room;
use crate::serve::founding::{Founding, Inherited};
use crate::serve::secrets_check;

/// Tells a folder that a restore left behind from any other.
const MARKER: &str = "restoring";
/// Beside log and checkpoint: what a node needs to start.
const SPARE_BYTES: u64 = 64 << 20;

#[derive(Serialize)]
struct Report {
    data: String,
    node: u64,
    cluster: String,
    cluster_name: String,
    restored_from_cluster: String,
    complete_to_ms: Option<u64>,
    restored_at_ms: u64,
    rows: u64,
    bytes: u64,
    tokens_revoked: bool,
}

/// Restores a backup.
pub(super) fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?.config;
    refuse_taken(&config.data)?;
    refuse_inside(&args.from, &config.data)?;
    let backup = read_all(&args.from)?;
    check_secrets(&config, &backup)?;
    let made_at = Timestamp::from_millis(backup.catalogue.made_at_ms);
    let latest = backup.groups.iter().map(|group| group.verified.latest);
    let now = service_time(SystemClock.now(), made_at, latest);
    check_clock(&backup, now)?;
    let bytes = backup.catalogue.bytes();
    let parent = parent_of(&config.data);
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    disk.create_directory(&parent)
        .map_err(|error| failed(&parent, &error))?;
    let needed = bytes_needed(&config, bytes);
    check_room(
        &*disk,
        &parent,
        needed,
        "make room, or restore to another disk",
    )?;
    let cluster = ClusterIdentity {
        id: ClusterId::from_random(
            random::bytes(&OsRandom).map_err(|error| Failure::new(Exit::Failure, error))?,
        ),
        ..backup.catalogue.cluster.clone()
    };
    let building = beside(&config.data);
    clear_leftover(&building)?;
    let made = build(&disk, &building, &config, &backup, &cluster, args, now);
    if let Err(failure) = made {
        // Whatever is left is cleared by the next try.
        let _ = fs::remove_dir_all(&building);
        return Err(failure);
    }
    fs::rename(&building, &config.data).map_err(|error| failed(&config.data, &error))?;
    disk.sync_directory(&parent)
        .map_err(|error| failed(&parent, &error))?;
    report(&config, &backup, &cluster, args, now)
}

fn report(
    config: &Config,
    backup: &WholeBackup,
    cluster: &ClusterIdentity,
    args: &RestoreArgs,
    now: Timestamp,
) -> Result<(), Failure> {
    let old = &backup.catalogue;
    let report = Report {
        data: config.data.display().to_string(),
        node: config.node,
        cluster: cluster.id.to_string(),
        cluster_name: cluster.name.clone(),
        restored_from_cluster: old.cluster.id.to_string(),
        complete_to_ms: old.complete_to_ms(),
        restored_at_ms: now.as_millis(),
        rows: backup.groups.iter().map(|group| group.verified.rows).sum(),
        bytes: old.bytes(),
        tokens_revoked: args.revoke_tokens,
    };
    if args.json {
        return output::json(&report);
    }
    output::line(format!(
        "Node {} of the new cluster {} ({}) is in {}: {} rows, {}.",
        report.node,
        report.cluster_name,
        report.cluster,
        report.data,
        report.rows,
        size(report.bytes)
    ));
    output::line(match report.complete_to_ms {
        Some(to) => format!(
            "It is as the old cluster was at {}. What was acknowledged later is lost, but for what devices \
             have.",
            output::utc(to)
        ),
        None => {
            "It is as one node of the old cluster was. What only others had is lost.".to_owned()
        }
    });
    if args.revoke_tokens {
        output::line("Every device must be authorised again with a code.");
    }
    output::line(
        "Make sure that no node of the old cluster ever runs again. Then start this one: `rossby serve` with \
         the same settings.",
    );
    Ok(())
}

/// Makes all of the data directory, under another name.
fn build(
    disk: &Arc<dyn Disk>,
    building: &Path,
    config: &Config,
    backup: &WholeBackup,
    cluster: &ClusterIdentity,
    args: &RestoreArgs,
    now: Timestamp,
) -> Result<(), Failure> {
    let failure = |error: &dyn std::fmt::Display| Failure::new(Exit::Storage, error);
    let mut data =
        DataDirectory::open(Arc::clone(disk), building).map_err(|error| failure(&error))?;
    let marker = building.join(MARKER);
    disk.create(&marker)
        .map_err(|error| failed(&marker, &error))?;
    let mut identity = Identity::new(NodeId(config.node));
    identity.cluster = Some(cluster.clone());
    let mut begun = Vec::new();
    let mut progress = Progress::new("restoring", backup.catalogue.bytes());
    for group in &backup.groups {
        let replica = next_replica(group)?;
        let membership = sole_member(replica, member(config))
            .ok_or_else(|| Failure::new(Exit::Failure, "one node makes no group"))?;
        let restoration = Restoration {
            at: now,
            revoke_tokens: args.revoke_tokens,
            partitions: cluster.partitions,
            membership,
        };
        let position = group
            .stored
            .restore(
                Arc::clone(disk),
                &data.checkpoints(),
                &group.verified,
                &restoration,
                |bytes| progress.add(bytes),
            )
            .map_err(|error| failure(&error))?;
        begun.push((group.entry.group, replica, position));
        identity.replicas.insert(HeldReplica {
            group: group.entry.group,
            replica,
            initialise: false,
        });
    }
    // The placement group is made anew at the first start: this one node, and the groups with what they own.
    let inherited = Inherited {
        above: MapVersion(Restored::default().again(now, false).floor()),
        owners: backup.catalogue.map.owners().clone(),
    };
    let founding = founding(config, cluster, &begun, inherited);
    founding.map().map_err(|error| failure(&error))?;
    identity.replicas.extend(
        founding
            .held_by(identity.node)
            .into_iter()
            .filter(|held| held.group == PLACEMENT_GROUP),
    );
    founding.write(&data).map_err(|error| failure(&error))?;
    begin_logs(disk, config, &data, &begun).map_err(|error| failure(&error))?;
    data.save(identity).map_err(|error| failure(&error))?;
    drop(data);
    disk.remove(&marker)
        .and_then(|()| disk.sync_directory(building))
        .map_err(|error| failed(&marker, &error))
}

/// The plan of the restored cluster: this node alone, with the groups that it holds already.
fn founding(
    config: &Config,
    cluster: &ClusterIdentity,
    begun: &[(GroupId, ReplicaId, LogPosition)],
    inherited: Inherited,
) -> Founding {
    let member = member(config);
    let founders = |replica: ReplicaId| BTreeMap::from([(replica, member.node)]);
    let entry = NodeEntry {
        region: config.region.clone(),
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        state: NodeState::Active,
    };
    let groups = begun.iter().map(|(group, replica, _)| {
        let born = FoundingGroup {
            home: config.region.clone(),
            founders: founders(*replica),
        };
        (*group, born)
    });
    Founding {
        cluster: cluster.id,
        name: cluster.name.clone(),
        partitions: cluster.partitions,
        goal: SurvivalGoal::Node,
        nodes: BTreeMap::from([(member.node, entry)]),
        placement: founders(ReplicaId(1)),
        groups: groups.collect(),
        inherited: Some(inherited),
        marks: BTreeMap::new(),
        placed: true,
    }
}

/// An id that no replica of the group had, as far as the backup knows.
fn next_replica(group: &WholeGroup) -> Result<ReplicaId, Failure> {
    let known = match group.stored.membership() {
        Some((_, membership)) => {
            replicas_in(&membership).map_err(|error| Failure::new(Exit::Storage, error))?
        }
        None => BTreeMap::new(),
    };
    let highest = known.keys().max().copied().unwrap_or_default();
    let highest = highest.max(group.entry.replica);
    Ok(ReplicaId(highest.0.saturating_add(1)))
}

/// The node as the one member of its groups.
fn member(config: &Config) -> Member {
    let told = |set: &Option<config::HostPort>, listen: Option<std::net::SocketAddr>| {
        let set = set.as_ref().map(ToString::to_string);
        set.or_else(|| listen.map(|listen| listen.to_string()))
            .unwrap_or_default()
    };
    Member {
        node: NodeId(config.node),
        peer_address: told(&config.peers.advertise, config.peers.listen),
        client_address: told(&config.clients.advertise, Some(config.clients.listen)),
    }
}

/// Makes the log of each group begin where its checkpoint ends.
fn begin_logs(
    disk: &Arc<dyn Disk>,
    config: &Config,
    data: &DataDirectory,
    groups: &[(GroupId, ReplicaId, LogPosition)],
) -> Result<(), WalError> {
    let options = WalOptions {
        segment_bytes: config.storage.segment_bytes,
        cache_bytes: config.storage.log_cache_bytes,
    };
    let (log, writer) = Wal::open(Arc::clone(disk), &data.wal(), options)?;
    let writer = wal::spawn_writer(writer)?;
    let begun = crate::runtime::one_thread()
        .map_err(|_| WalError::Closed)?
        .block_on(async {
            for (group, replica, position) in groups {
                begin_restored_log(&log.log(*group, *replica)?, *position).await?;
            }
            Ok(())
        });
    log.shut_down();
    // Its failures are those of the calls above.
    let _ = writer.join();
    begun
}

fn check_secrets(config: &Config, backup: &WholeBackup) -> Result<(), Failure> {
    let path = config.secrets.display();
    let help =
        "put the cluster's secrets there from where you keep them, or name them with --secrets";
    let secrets = ClusterSecrets::load(&config.secrets);
    let secrets = secrets
        .map_err(|error| Failure::new(Exit::Config, format!("{path}: {error}")).help(help))?;
    let check = secrets_check(&secrets).map_err(|error| Failure::new(Exit::Config, error))?;
    if backup.catalogue.cluster.secrets_check.as_ref() == Some(&check) {
        return Ok(());
    }
    let text = format!("{path}: these are not the secrets of the cluster in the backup");
    Err(Failure::new(Exit::Config, text).help(help))
}

/// The service's time now. It may have been ahead of the clocks when the backup was made, and what was signed
/// then and later must not be taken by the new cluster.
fn service_time(
    clock: Timestamp,
    made_at: Timestamp,
    latest: impl Iterator<Item = Timestamp>,
) -> Timestamp {
    let ahead_ms = latest.map(|latest| latest.millis_since(made_at)).max();
    clock.plus_millis(ahead_ms.unwrap_or_default())
}

fn check_clock(backup: &WholeBackup, now: Timestamp) -> Result<(), Failure> {
    let groups = backup.groups.iter();
    let earliest = groups
        .map(|group| group.stored.earliest(&group.verified))
        .max();
    let earliest = earliest.unwrap_or_default();
    if now >= earliest {
        return Ok(());
    }
    let text = format!(
        "this machine's clock shows {}, but the backup holds what happened at {}",
        output::utc(now.as_millis()),
        output::utc(earliest.as_millis())
    );
    Err(Failure::new(Exit::Refused, text).help(
        "set the clock right: what is given out from now on is told from older things by the time",
    ))
}

/// What a cluster takes that is made of so much.
fn bytes_needed(config: &Config, bytes: u64) -> u64 {
    let log = config.storage.segment_bytes.saturating_mul(2);
    // The base is built beside the checkpoint when the node starts.
    let state = bytes.saturating_mul(2);
    state.saturating_add(log).saturating_add(SPARE_BYTES)
}

/// The directory must be new, or empty.
fn refuse_taken(data: &Path) -> Result<(), Failure> {
    let mut entries = match fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| failed(data, &error))?,
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let text = format!("{} is not empty", data.display());
    Err(Failure::new(Exit::Storage, text)
        .help("name a new directory: a restore never writes over anything"))
}

/// Removes what an earlier restore left behind when it broke off.
fn clear_leftover(building: &Path) -> Result<(), Failure> {
    if !building.exists() {
        return Ok(());
    }
    let ours = building.join(MARKER).exists()
        || fs::read_dir(building).is_ok_and(|mut e| e.next().is_none());
    if !ours {
        let text = format!("{} is in the way", building.display());
        return Err(Failure::new(Exit::Storage, text).help("move it away"));
    }
    fs::remove_dir_all(building).map_err(|error| failed(building, &error))
}

fn parent_of(data: &Path) -> PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    absolute.parent().map_or(absolute.clone(), Path::to_owned)
}

/// Where the directory is made before it gets its name.
fn beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    parent_of(data).join(name)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_was_ahead_of_its_clocks_is_restored_as_far_ahead() {
        let at = Timestamp::from_millis;
        let now = |latest: &[u64]| service_time(at(700), at(500), latest.iter().copied().map(at));
        assert_eq!(now(&[]), at(700));
        assert_eq!(now(&[100, 500]), at(700));
        assert_eq!(now(&[100, 90_500, 800]), at(90_700));
    }
}
