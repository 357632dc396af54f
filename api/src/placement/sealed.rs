//! Small files that a person can read and a flipped bit can not change: JSON under a line that names
//! the format and the checksum.

use std::io;
use std::path::{Path, PathBuf};

use rossby_seams::disk::{self, Disk};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One kind of such file.
#[derive(Debug, Clone, Copy)]
pub struct SealedFile {
    /// Its name in the data directory.
    pub name: &'static str,
    /// What its first line begins with: what it is.
    pub what: &'static str,
}

impl SealedFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name)
    }

    /// What the file in that folder says; `None` if there is none.
    ///
    /// # Errors
    /// Why that can't be told: the system's error, or what is wrong with the bytes.
    pub fn read<T: DeserializeOwned>(
        &self,
        disk: &dyn Disk,
        folder: &Path,
    ) -> Result<Option<T>, String> {
        match disk::read(disk, &self.path(folder)) {
            Ok(bytes) => self.unseal(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes the file, durably and in one step.
    ///
    /// # Errors
    /// The system's error, or that the value has no form in JSON.
    pub fn write(&self, disk: &dyn Disk, folder: &Path, value: &impl Serialize) -> io::Result<()> {
        disk::replace(disk, &self.path(folder), &self.seal(value)?)
    }

    fn seal(&self, value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
        let body = serde_json::to_string_pretty(value)?;
        let checksum = crc32c::crc32c(body.as_bytes());
        let what = self.what;
        Ok(format!("{what} format=1 crc32c={checksum:08x}\n{body}").into_bytes())
    }

    fn unseal<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        let what = self.what;
        let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
        let (head, body) = text.split_once('\n').ok_or("it is not whole")?;
        let checksum = head
            .strip_prefix(what)
            .and_then(|rest| rest.strip_prefix(" format=1 crc32c="))
            .ok_or_else(|| format!("not a {what} that this release knows"))?;
        if checksum != format!("{:08x}", crc32c::crc32c(body.as_bytes())) {
            return Err("its checksum does not match".to_owned());
        }
        serde_json::from_str(body).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rossby_seams::disk::MemoryDisk;

    use super::*;

    const KIND: SealedFile = SealedFile {
        name: "numbers",
        what: "rossby numbers",
    };

    type Numbers = BTreeMap<String, u64>;

    fn numbers() -> Numbers {
        let names = ["one", "seven", "\u{f6}zel"].map(str::to_owned);
        names.into_iter().zip([1, 7, u64::MAX]).collect()
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_none() {
        let (disk, folder) = (MemoryDisk::default(), Path::new("/data"));
        disk.create_directory(folder).unwrap();
        assert_eq!(KIND.read::<Numbers>(&disk, folder), Ok(None));
        KIND.write(&disk, folder, &numbers()).unwrap();
        assert_eq!(KIND.read(&disk, folder), Ok(Some(numbers())));
    }

    #[test]
    fn any_flipped_bit_and_any_lost_end_is_noticed() {
        let written = KIND.seal(&numbers()).unwrap();
        for bit in 0..written.len() * 8 {
            let mut flipped = written.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = KIND.unseal::<Numbers>(&flipped);
            assert!(read.is_err(), "bit {bit} made no difference");
        }
        for length in 0..written.len() {
            let read = KIND.unseal::<Numbers>(&written[..length]);
            assert!(read.is_err(), "{length} bytes of it were taken for all");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let other = SealedFile {
            what: "rossby words",
            ..KIND
        };
        let written = other.seal(&numbers()).unwrap();
        let read = KIND.unseal::<Numbers>(&written);
        assert_eq!(
            read,
            Err("not a rossby numbers that this release knows".to_owned())
        );
    }
}
