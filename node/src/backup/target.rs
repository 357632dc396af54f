//! The folder that a backup is written to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::GroupId;
use rossby_seams::disk::{self, Disk, DiskFile, DiskLock};
use sha2::{Digest as _, Sha256};

use super::catalogue::{Catalogue, LOCK, group_folder, manifest_path};
use crate::exit::{Exit, Failure};
use crate::output::hex;

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1024 * 1024;
/// Space that is left free on the target.
const SPARE_BYTES: u64 = 1 << 20;

/// A backup's folder, claimed.
pub(super) struct Target {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    /// The backup that is there already.
    pub(super) earlier: Option<Catalogue>,
    _lock: Box<dyn DiskLock>,
}

/// A folder or file that can't be used.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Exit::Failure, format!("{}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.help(
            "make room there and run the same again: what was copied is not copied again, and an earlier \
             backup in that folder is still whole",
        ),
        _ => failure,
    }
}

impl Target {
    /// Claims a folder, made if missing, with mode 0700.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path, data: &Path) -> Result<Self, Failure> {
        refuse_inside(path, data)?;
        let failed = |error| unusable(path, &error);
        if path.exists() {
            refuse_strange(path)?;
        }
        disk.create_directory(path).map_err(failed)?;
        let lock = match disk.lock(&path.join(LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("{}: another backup is being written there", path.display());
                return Err(Failure::new(Exit::Storage, text).help("wait until it is done"));
            }
            other => other.map_err(failed)?,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        // A catalogue that can't be read is no reason to leave the cluster without a backup.
        let earlier = Catalogue::find(&*disk, path).unwrap_or_default();
        Ok(Self {
            disk,
            path: path.to_owned(),
            earlier,
            _lock: lock,
        })
    }

    /// The files of a group that are here and whole, by digest; what is not is removed.
    pub(super) fn held(
        &self,
        group: GroupId,
        mut progress: impl FnMut(u64),
    ) -> Result<BTreeMap<[u8; 32], u64>, Failure> {
        let folder = group_folder(&self.path, group);
        let failed = |error| unusable(&folder, &error);
        self.disk.create_directory(&folder).map_err(failed)?;
        let mut held = BTreeMap::new();
        for path in self.disk.list(&folder).map_err(failed)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(stem) = name.and_then(|name| name.strip_suffix(".rows")) else {
                continue;
            };
            let (digest, length) = digest_of(&*self.disk, &path).map_err(failed)?;
            if hex(&digest) == stem {
                held.insert(digest, length);
            } else {
                crate::output::note(format!("{} is damaged and is copied again", path.display()));
                self.disk.remove(&path).map_err(failed)?;
            }
            progress(length);
        }
        Ok(held)
    }

    /// Refuses what there is no room for.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), Failure> {
        let free = self.disk.free_bytes(&self.path);
        let free = free.map_err(|error| unusable(&self.path, &error))?;
        if free < bytes.saturating_add(SPARE_BYTES) {
            let full = io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{bytes} bytes are needed, {free} are free"),
            );
            return Err(unusable(&self.path, &full));
        }
        Ok(())
    }

    /// Writes a group's manifest under its digest, durably; the digest.
    pub(super) fn put_manifest(&self, group: GroupId, bytes: &[u8]) -> Result<String, Failure> {
        let folder = group_folder(&self.path, group);
        let digest = hex(&Sha256::digest(bytes));
        let path = manifest_path(&folder, &digest);
        disk::replace(&*self.disk, &path, bytes).map_err(|error| unusable(&path, &error))?;
        Ok(digest)
    }

    /// Removes what no part of the backup needs. Failing to is a waste of space.
    pub(super) fn sweep(&self, group: GroupId, manifest: &str, needed: &BTreeMap<String, u64>) {
        let folder = group_folder(&self.path, group);
        for path in self.disk.list(&folder).unwrap_or_default() {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.unwrap_or_default();
            let kept = match name.rsplit_once('.') {
                Some((stem, "rows")) => needed.contains_key(stem),
                Some((stem, "manifest")) => stem == manifest,
                Some((_, "part" | "tmp")) => false,
                _ => true,
            };
            if !kept && let Err(error) = self.disk.remove(&path) {
                crate::output::note(format!("could not remove {}: {error}", path.display()));
            }
        }
    }
}

/// The digest and the length of a file.
fn digest_of(disk: &dyn Disk, path: &Path) -> io::Result<([u8; 32], u64)> {
    let file = disk.open(path)?;
    let length = file.len()?;
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < length {
        let left = usize::try_from(length - at).unwrap_or(usize::MAX);
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        file.read_exact_at(&mut piece, at)?;
        hasher.update(&piece);
        at += piece.len() as u64;
    }
    Ok((hasher.finalize().into(), length))
}

/// A backup inside the data directory would be lost with it, and fill its disk; a data directory inside
/// a backup would make it something else.
pub(super) fn refuse_inside(target: &Path, data: &Path) -> Result<(), Failure> {
    let (target, data) = (real(target), real(data));
    if target.starts_with(&data) || data.starts_with(&target) {
        let text = format!(
            "the backup {} and the data directory {} lie in one another",
            target.display(),
            data.display()
        );
        return Err(
            Failure::new(Exit::Usage, text).help("keep them apart, best on different disks")
        );
    }
    Ok(())
}

/// Where a path really leads, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        rest.extend(ancestor.file_name().map(ToOwned::to_owned));
    }
    path
}

/// A folder that holds anything else than a backup is left alone.
fn refuse_strange(path: &Path) -> Result<(), Failure> {
    let mut entries = fs::read_dir(path).map_err(|error| unusable(path, &error))?;
    let empty = entries.next().is_none();
    if empty || path.join(LOCK).exists() {
        return Ok(());
    }
    let text = format!("{} holds something else than a backup", path.display());
    Err(Failure::new(Exit::Storage, text).help("name a new or an empty folder"))
}

/// A file that comes in piece by piece.
pub(super) struct Incoming {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    hasher: Sha256,
    digest: [u8; 32],
    length: u64,
    at: u64,
}

impl Incoming {
    pub(super) fn create(
        target: &Target,
        group: GroupId,
        digest: [u8; 32],
        length: u64,
    ) -> Result<Self, Failure> {
        let folder = group_folder(&target.path, group);
        let path = folder.join(hex(&digest) + ".part");
        let failed = |error| unusable(&path, &error);
        match target.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = target.disk.create(&path).map_err(failed)?;
        Ok(Self {
            disk: Arc::clone(&target.disk),
            folder,
            path,
            file,
            hasher: Sha256::new(),
            digest,
            length,
            at: 0,
        })
    }

    pub(super) fn is(&self, digest: &[u8]) -> bool {
        self.digest == digest
    }

    /// Takes the next piece; whether the file is whole then, and has its name.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, Failure> {
        let end = self.at.saturating_add(bytes.len() as u64);
        if offset != self.at || end > self.length || bytes.is_empty() {
            return Err(Failure::new(
                Exit::Failure,
                "the node sent pieces out of order",
            ));
        }
        let failed = |error| unusable(&self.path, &error);
        self.file.write_all_at(bytes, offset).map_err(failed)?;
        self.hasher.update(bytes);
        self.at = end;
        if self.at < self.length {
            return Ok(false);
        }
        let digest: [u8; 32] = std::mem::take(&mut self.hasher).finalize().into();
        if digest != self.digest {
            let text = "a file of the node's checkpoint is not what it should be";
            return Err(Failure::new(Exit::Storage, text)
                .help("the node's disk is damaged: take the backup from another node"));
        }
        self.file.sync_data().map_err(failed)?;
        let named = self.folder.join(hex(&digest) + ".rows");
        self.disk.rename(&self.path, &named).map_err(failed)?;
        Ok(true)
    }
}
