//! `rossby backup`: takes a checkpoint from a running node, file by file.
//!
//! ```text
//!   status, map ─► target claimed ─► per group: what is there already ─► stream: head, pieces, end
//!                                                                           └─► .part ─► .rows
//!   all there ─► manifests ─► catalogue, in one step ─► what is no longer needed goes
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_domain::placement::ClusterMap;
use rossby_proto::v1;
use rossby_proto::v1::admin_client::AdminClient;
use rossby_proto::v1::backup_part::Part;
use rossby_seams::clock::{Clock as _, SystemClock};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::datadir::ClusterIdentity;
use serde::Serialize;
use tonic::Streaming;
use tonic::transport::Channel;

use super::args::BackupArgs;
use super::catalogue::{Catalogue, GroupBackup, group_folder};
use super::progress::Progress;
use super::target::{Incoming, Target, unusable};
use crate::cluster::{connect, exit_of, order, went_away};
use crate::exit::{Exit, Failure};
use crate::output::{self, hex, size};

/// The status comes at once.
const STATUS_TIMEOUT: Duration = Duration::from_secs(30);
/// A checkpoint may have to be written before anything is sent.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Between two pieces.
const PIECE_TIMEOUT: Duration = Duration::from_secs(120);
/// A head names every file of a checkpoint twice.
const HEAD_LIMIT_BYTES: usize = 64 << 20;

/// What was done, for people and scripts.
#[derive(Serialize)]
struct Report<'a> {
    backup: String,
    cluster: String,
    cluster_name: &'a str,
    node: u64,
    /// Everything acknowledged before this is in it.
    complete_to_ms: Option<u64>,
    files: u64,
    bytes: u64,
    copied_files: u64,
    copied_bytes: u64,
    /// Not in the backup: to be kept apart from it.
    secrets: String,
    groups: &'a [GroupBackup],
}

/// What came of one group.
struct Copied {
    group: GroupBackup,
    cluster: ClusterIdentity,
    version: String,
    secrets: String,
    needed: BTreeMap<String, u64>,
    files: u64,
    bytes: u64,
}

/// Makes a backup.
pub(super) async fn run(args: &BackupArgs, out: &Path) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    client = client
        .max_decoding_message_size(HEAD_LIMIT_BYTES)
        .max_encoding_message_size(HEAD_LIMIT_BYTES);
    let status = order(STATUS_TIMEOUT, client.status(v1::StatusRequest {})).await?;
    if status.groups.is_empty() {
        return Err(if status.standing == "starting" {
            Failure::new(Exit::Unavailable, "this node is starting").help("try again in a moment")
        } else {
            let text = "this node belongs to no cluster yet: there is nothing to back up";
            Failure::new(Exit::Refused, text)
        });
    }
    let map = map_of(&mut client).await?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    let target = Target::open(disk, out, &data_of(args))?;
    if let Some(earlier) = &target.earlier
        && earlier.cluster.id.to_string() != status.cluster_id
    {
        let text = format!(
            "{} holds a backup of another cluster, {}",
            out.display(),
            earlier.cluster.id
        );
        return Err(Failure::new(Exit::Storage, text).help("name a folder of its own"));
    }
    let mut copied = Vec::new();
    for group in map.groups().keys() {
        copied.push(copy(&mut client, &target, *group, args.as_it_is).await?);
    }
    finish(&target, NodeId(status.node_id), map, &copied, args.json)
}

/// The newest map that the node knows. Groups that come later have nothing yet that was acknowledged before
/// the backup began.
async fn map_of(client: &mut AdminClient<Channel>) -> Result<ClusterMap, Failure> {
    let asked = client.placement(v1::PlacementRequest {});
    let map = order(STATUS_TIMEOUT, asked).await?.map;
    let map: ClusterMap = serde_json::from_slice(&map).map_err(|_| untrue("no cluster map"))?;
    if map.groups().is_empty() {
        let text = "this node does not know the cluster map yet";
        return Err(Failure::new(Exit::Unavailable, text).help("try again in a moment"));
    }
    Ok(map)
}

/// The data directory of the node that is asked.
fn data_of(args: &BackupArgs) -> std::path::PathBuf {
    let socket = args.socket.socket.as_deref();
    let beside = socket.and_then(Path::parent);
    // A socket elsewhere says nothing about where the data is.
    let beside = beside.filter(|folder| folder.join("wal").is_dir());
    beside.unwrap_or(&args.socket.data).to_owned()
}

/// Writes the catalogue, which makes it a backup, and says what was done.
fn finish(
    target: &Target,
    asked: NodeId,
    map: ClusterMap,
    copied: &[Copied],
    json: bool,
) -> Result<(), Failure> {
    let own = copied.iter().find(|copied| copied.group.node == asked);
    let Some(first) = own.or_else(|| copied.first()) else {
        return Err(Failure::new(Exit::Failure, "there are no groups"));
    };
    let catalogue = Catalogue {
        cluster: first.cluster.clone(),
        node: asked,
        version: first.version.clone(),
        made_at_ms: SystemClock.now().as_millis(),
        map,
        groups: copied.iter().map(|copied| copied.group.clone()).collect(),
    };
    let written = catalogue.write(&*target.disk, &target.path);
    written.map_err(|error| unusable(&target.path, &error))?;
    for copied in copied {
        target.sweep(copied.group.group, &copied.group.manifest, &copied.needed);
    }
    let sum = |of: fn(&Copied) -> u64| copied.iter().map(of).sum();
    let report = Report {
        backup: target.path.display().to_string(),
        cluster: catalogue.cluster.id.to_string(),
        cluster_name: &catalogue.cluster.name,
        node: catalogue.node.0,
        complete_to_ms: catalogue.complete_to_ms(),
        files: catalogue.files(),
        bytes: catalogue.bytes(),
        copied_files: sum(|copied| copied.files),
        copied_bytes: sum(|copied| copied.bytes),
        secrets: first.secrets.clone(),
        groups: &catalogue.groups,
    };
    output::note(format!(
        "The cluster's secrets are NOT in the backup. Keep a copy of {} apart from it: without that file \
         the backup is useless.",
        report.secrets
    ));
    if json {
        return output::json(&report);
    }
    output::line(format!(
        "Backup of cluster {} ({}) from node {} is whole: {} files, {}; copied {} files, {}.",
        report.cluster_name,
        report.cluster,
        report.node,
        report.files,
        size(report.bytes),
        report.copied_files,
        size(report.copied_bytes)
    ));
    output::line(match report.complete_to_ms {
        Some(to) => format!(
            "It holds everything that was acknowledged before {}.",
            output::utc(to)
        ),
        None => {
            "It holds what this node had: mail that only others have may be missing.".to_owned()
        }
    });
    Ok(())
}

/// Brings one group's files into the target.
async fn copy(
    client: &mut AdminClient<Channel>,
    target: &Target,
    group: GroupId,
    as_it_is: bool,
) -> Result<Copied, Failure> {
    let mut looking = Progress::new("looking at what is there", 0);
    let held = target.held(group, |bytes| looking.add(bytes))?;
    let request = v1::BackupRequest {
        group_id: group.0,
        as_it_is,
        held: held
            .keys()
            .map(|digest| bytes::Bytes::copy_from_slice(digest))
            .collect(),
    };
    let mut parts = order(HEAD_TIMEOUT, client.backup(request)).await?;
    let Some(Part::Head(head)) = next(&mut parts, HEAD_TIMEOUT).await? else {
        return Err(untrue("no head"));
    };
    let files = files_of(&head)?;
    let missing: BTreeMap<_, _> = files
        .iter()
        .filter(|(digest, length)| held.get(*digest) != Some(length))
        .map(|(digest, length)| (*digest, *length))
        .collect();
    let to_copy = missing.values().sum();
    target.check_room(to_copy)?;
    receive(&mut parts, target, group, missing.clone()).await?;
    let folder = group_folder(&target.path, group);
    let synced = target.disk.sync_directory(&folder);
    synced.map_err(|error| unusable(&folder, &error))?;
    let group = GroupBackup {
        group,
        node: NodeId(head.node_id),
        replica: ReplicaId(head.replica_id),
        term: head.term,
        index: head.index,
        complete_to_ms: head.complete_to_ms,
        manifest: target.put_manifest(group, &head.manifest)?,
        files: files.len() as u64,
        bytes: files.values().sum(),
    };
    // What can't be restored must not pass for a backup.
    let stored = group.open(&target.disk, &target.path)?.files();
    let named = stored.iter().map(|file| (file.digest, file.length));
    if named.collect::<BTreeMap<_, _>>() != files {
        return Err(untrue("files that the manifest does not name"));
    }
    Ok(Copied {
        group,
        cluster: cluster_of(&head)?,
        version: head.version,
        secrets: head.secrets_path,
        needed: files
            .iter()
            .map(|(digest, length)| (hex(digest), *length))
            .collect(),
        files: missing.len() as u64,
        bytes: to_copy,
    })
}

/// Takes in the files that are missing.
async fn receive(
    parts: &mut Streaming<v1::BackupPart>,
    target: &Target,
    group: GroupId,
    mut missing: BTreeMap<[u8; 32], u64>,
) -> Result<(), Failure> {
    let mut progress = Progress::new("copying", missing.values().sum());
    let mut coming: Option<Incoming> = None;
    loop {
        let piece = match next(parts, PIECE_TIMEOUT).await? {
            Some(Part::Piece(piece)) => piece,
            Some(Part::End(_)) if missing.is_empty() && coming.is_none() => return Ok(()),
            _ => return Err(untrue("an end before all files were there")),
        };
        let mut incoming = match coming.take() {
            Some(incoming) if incoming.is(&piece.digest) => incoming,
            Some(_) => return Err(untrue("two files at once")),
            None => {
                let digest = digest(&piece.digest)?;
                let length = missing
                    .remove(&digest)
                    .ok_or_else(|| untrue("a file that was not asked for"))?;
                Incoming::create(target, group, digest, length)?
            }
        };
        progress.add(piece.bytes.len() as u64);
        if !incoming.write(piece.offset, &piece.bytes)? {
            coming = Some(incoming);
        }
    }
}

async fn next(
    parts: &mut Streaming<v1::BackupPart>,
    patience: Duration,
) -> Result<Option<Part>, Failure> {
    match tokio::time::timeout(patience, parts.message()).await {
        Ok(Ok(part)) => Ok(part.and_then(|part| part.part)),
        Ok(Err(status)) if went_away(&status) => Err(Failure::new(
            Exit::Unavailable,
            "the node went away before all was copied",
        )
        .help("run the same again: what was copied is not copied again")),
        Ok(Err(status)) => Err(Failure::new(exit_of(&status), status.message())
            .help("run the same again: what was copied is not copied again")),
        Err(_) => Err(
            Failure::new(Exit::Unavailable, "the node sends nothing any more")
                .help("run the same again: what was copied is not copied again"),
        ),
    }
}

fn files_of(head: &v1::BackupHead) -> Result<BTreeMap<[u8; 32], u64>, Failure> {
    let file = |file: &v1::BackupFile| Ok((digest(&file.digest)?, file.length));
    head.files.iter().map(file).collect()
}

fn cluster_of(head: &v1::BackupHead) -> Result<ClusterIdentity, Failure> {
    let partitions = u16::try_from(head.partition_count)
        .ok()
        .and_then(|count| PartitionCount::new(count).ok());
    Ok(ClusterIdentity {
        id: head
            .cluster_id
            .parse()
            .map_err(|_| untrue("no cluster id"))?,
        name: head.cluster_name.clone(),
        partitions: partitions.ok_or_else(|| untrue("no number of partitions"))?,
        secrets_check: (!head.secrets_check.is_empty()).then(|| head.secrets_check.clone()),
    })
}

fn digest(bytes: &[u8]) -> Result<[u8; 32], Failure> {
    bytes.try_into().map_err(|_| untrue("no digest"))
}

fn untrue(what: &str) -> Failure {
    Failure::new(Exit::Failure, format!("the node sent {what}"))
        .help("use the same release of rossby as the node")
}
