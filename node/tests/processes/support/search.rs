//! Looks for things that must not be on a disk, in every form in which they might be there.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rustix::process::Pid;

/// A secret in one of its forms.
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

/// Secrets to look for.
#[derive(Default)]
pub struct Secrets {
    needles: Vec<Needle>,
}

impl Secrets {
    /// Adds a text, in the forms of its bytes and in UTF-16.
    pub fn add_text(&mut self, name: &str, text: &str) {
        self.add_bytes(name, text.as_bytes());
        let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect();
        self.push(name, "UTF-16LE", wide(u16::to_le_bytes));
        self.push(name, "UTF-16BE", wide(u16::to_be_bytes));
    }

    /// Adds bytes: as they are, in hexadecimal, in base64 at each alignment, as a list of numbers
    /// and as an escaped string.
    pub fn add_bytes(&mut self, name: &str, bytes: &[u8]) {
        self.push(name, "as it is", bytes.to_vec());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.push(name, "HEX", hex.to_uppercase().into_bytes());
        self.push(name, "hex", hex.into_bytes());
        for shift in 0..3 {
            // Characters that depend on the neighbours of these bytes are left out.
            let (skip, all) = ([0, 2, 3][shift], shift + bytes.len());
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(bytes);
            for text in [
                STANDARD_NO_PAD.encode(&shifted),
                URL_SAFE_NO_PAD.encode(&shifted),
            ] {
                let end = text.len() - usize::from(all % 3 != 0);
                self.push(name, "base64", text.as_bytes()[skip..end].to_vec());
            }
        }
        let list = format!("{bytes:?}");
        let list = list.trim_matches(['[', ']']).to_owned();
        self.push(name, "list of numbers", list.into_bytes());
        self.push(name, "escaped", bytes.escape_ascii().collect());
    }

    fn push(&mut self, name: &str, form: &str, bytes: Vec<u8>) {
        assert!(bytes.len() >= 8, "{name} ({form}) would be found by chance");
        let name = format!("{name} ({form})");
        self.needles.push(Needle { name, bytes });
    }

    /// The names of all forms of all secrets.
    pub fn names(&self) -> BTreeSet<String> {
        let names = self.needles.iter().map(|needle| needle.name.clone());
        names.collect()
    }

    /// All forms of all secrets in one piece, to plant where a search must find them.
    pub fn all_forms(&self) -> Vec<u8> {
        let forms = self.needles.iter().map(|needle| &needle.bytes[..]);
        forms.collect::<Vec<_>>().join(&b"\n"[..])
    }

    /// The names of what is in a piece of bytes.
    pub fn in_bytes(&self, hay: &[u8]) -> BTreeSet<String> {
        Starts::of(self).search(hay)
    }

    /// The names of what a process has in the memory that it can write, as a core dump would show it.
    pub fn in_memory(&self, process: Pid) -> BTreeSet<String> {
        let of = format!("/proc/{}", process.as_raw_nonzero());
        let maps = std::fs::read_to_string(format!("{of}/maps")).expect("no maps");
        let memory = File::open(format!("{of}/mem")).expect("no memory");
        let starts = Starts::of(self);
        let mut found = BTreeSet::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory
                .read_exact_at(&mut bytes, from)
                .expect("can't read its memory");
            found.extend(starts.search(&without_empty_pages(&bytes)));
        }
        found
    }

    /// What is in which file of a folder, and all below it.
    pub fn in_folder(&self, folder: &Path) -> Vec<(PathBuf, String)> {
        let starts = Starts::of(self);
        let mut found = Vec::new();
        for path in files(folder) {
            let hay = without_empty_pages(&std::fs::read(&path).expect("can't read"));
            let names = starts.search(&hay);
            found.extend(names.into_iter().map(|name| (path.clone(), name)));
        }
        found
    }
}

/// Needles by their first two bytes: one look at a table for each place in the hay.
struct Starts<'a>(Vec<Vec<&'a Needle>>);

impl<'a> Starts<'a> {
    fn of(secrets: &'a Secrets) -> Self {
        let mut starts = vec![Vec::new(); 1 << 16];
        for needle in &secrets.needles {
            starts[start_of(&needle.bytes)].push(needle);
        }
        Self(starts)
    }

    fn search(&self, hay: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, pair) in hay.windows(2).enumerate() {
            for needle in &self.0[start_of(pair)] {
                if hay[at..].starts_with(&needle.bytes) {
                    found.insert(needle.name.clone());
                }
            }
        }
        found
    }
}

fn start_of(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// All regular files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("no such folder") {
        let entry = entry.expect("can't list the folder");
        let kind = entry.file_type().expect("no type");
        if kind.is_dir() {
            all.extend(files(&entry.path()));
        } else if kind.is_file() {
            all.push(entry.path());
        }
    }
    all
}

/// The bytes without whole pages of zeros, of which pre-filled files are full. No secret holds one.
fn without_empty_pages(bytes: &[u8]) -> Vec<u8> {
    const EMPTY: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks(EMPTY.len()).filter(|page| **page != EMPTY[..]);
    pages.collect::<Vec<_>>().concat()
}
