//! A checkpoint on its way to an operator who keeps it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_storage::datadir::ClusterIdentity;
use rossby_storage::store::{Checkpoint, FileName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::OperatorError;

/// A piece of a file.
const PIECE_BYTES: u32 = 1024 * 1024;
/// Pieces on their way.
const WINDOW: usize = 4;
/// A caller who takes nothing for so long has gone: the checkpoint's files must not stay for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// A checkpoint to be backed up, and whose it is.
#[derive(Debug, Clone)]
pub struct BackupSource {
    /// The cluster.
    pub cluster: ClusterIdentity,
    /// The node.
    pub node: NodeId,
    /// Its release.
    pub version: String,
    /// The group.
    pub group: GroupId,
    /// The node's replica of it.
    pub replica: ReplicaId,
    /// Everything acknowledged before this is in it, if that is known.
    pub complete_to: Option<Timestamp>,
    /// The checkpoint. Its files stay as long as this lives.
    pub checkpoint: Checkpoint,
    /// Where the cluster's secrets are, which are no part of it.
    pub secrets: PathBuf,
}

/// The stream of parts.
pub(crate) type Parts = ReceiverStream<Result<v1::BackupPart, Status>>;

/// The digests that a caller has.
pub(crate) fn held(digests: &[bytes::Bytes]) -> Result<BTreeSet<[u8; 32]>, OperatorError> {
    digests
        .iter()
        .map(|digest| <[u8; 32]>::try_from(digest.as_ref()))
        .collect::<Result<_, _>>()
        .map_err(|_| OperatorError::Invalid("a digest has 32 bytes".to_owned()))
}

/// Sends all but what the caller has.
pub(crate) fn send(source: BackupSource, held: BTreeSet<[u8; 32]>) -> Parts {
    let (sender, receiver) = mpsc::channel(WINDOW);
    tokio::spawn(async move {
        let sent = send_all(&sender, &source, &held).await;
        if let Err(status) = sent {
            tracing::warn!(reason = status.message(), "a backup broke off");
            // Nobody may be there any more to be told.
            let _ = sender.try_send(Err(status));
        }
    });
    ReceiverStream::new(receiver)
}

type Sender = mpsc::Sender<Result<v1::BackupPart, Status>>;

async fn send_all(
    sender: &Sender,
    source: &BackupSource,
    held: &BTreeSet<[u8; 32]>,
) -> Result<(), Status> {
    use v1::backup_part::Part;
    let files = source.checkpoint.files();
    tracing::info!(group = %source.group, files = files.len(), "sends a backup");
    send_part(sender, Part::Head(head(source, &files))).await?;
    for file in files
        .into_iter()
        .filter(|file| !held.contains(&file.digest))
    {
        let mut offset = 0;
        while offset < file.length {
            let checkpoint = source.checkpoint.clone();
            let read = move || checkpoint.read(&file, offset, PIECE_BYTES);
            let bytes = tokio::task::spawn_blocking(read)
                .await
                .map_err(|error| Status::internal(error.to_string()))?
                .map_err(|error| Status::internal(error.to_string()))?;
            let length = bytes.len() as u64;
            let digest = bytes::Bytes::copy_from_slice(&file.digest);
            let piece = v1::BackupPiece {
                digest,
                offset,
                bytes,
            };
            send_part(sender, Part::Piece(piece)).await?;
            offset = offset.saturating_add(length);
        }
    }
    send_part(sender, Part::End(v1::BackupEnd {})).await
}

async fn send_part(sender: &Sender, part: v1::backup_part::Part) -> Result<(), Status> {
    let part = v1::BackupPart { part: Some(part) };
    match tokio::time::timeout(PATIENCE, sender.send(Ok(part))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the caller has gone")),
        Err(_) => Err(Status::deadline_exceeded("the caller takes nothing")),
    }
}

fn head(source: &BackupSource, files: &[FileName]) -> v1::BackupHead {
    let position = source.checkpoint.position();
    v1::BackupHead {
        cluster_id: source.cluster.id.to_string(),
        cluster_name: source.cluster.name.clone(),
        partition_count: u32::from(source.cluster.partitions.get()),
        secrets_check: source.cluster.secrets_check.clone().unwrap_or_default(),
        node_id: source.node.0,
        version: source.version.clone(),
        group_id: source.group.0,
        replica_id: source.replica.0,
        term: position.term,
        index: position.index,
        complete_to_ms: source.complete_to.map(Timestamp::as_millis),
        manifest: source.checkpoint.manifest(),
        files: files
            .iter()
            .map(|file| v1::BackupFile {
                digest: bytes::Bytes::copy_from_slice(&file.digest),
                length: file.length,
            })
            .collect(),
        secrets_path: source.secrets.display().to_string(),
    }
}
