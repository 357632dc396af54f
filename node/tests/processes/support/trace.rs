//! What a node wrote to its log and synced, and in which order, as `strace` saw it.
//!
//! ```text
//!   pwrite64(9</…/wal/0000000001.wal>, "…", 4096, 8192) = 4096      the write ended here
//!   fdatasync(9</…/wal/0000000001.wal> <unfinished ...>             the sync begins after it
//!   <... fdatasync resumed>) = 0                                    and ends: now it is durable
//! ```
//!
//! No clock is read. strace writes the line of a call's end before it lets the thread go on, so
//! whatever follows from that end, in this process or in another, finds the line in the trace. Who
//! holds a node's answer and looks how long the trace is, therefore knows that the calls whose ends
//! are within that length came before the answer; and no call counts that might have come later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Node;
use super::strace::Strace;

/// The system calls by which bytes can get into a file, and by which they become durable.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync";
/// More than any drain of the log writes in a test.
const LONGEST_BYTES: &str = "16777216";

/// A node that is being traced.
pub struct Recording {
    strace: Strace,
    path: PathBuf,
}

impl Recording {
    /// Begins to trace a node, into a file that is not there yet.
    pub fn begin(node: &Node, path: PathBuf) -> Self {
        let output = path.to_str().expect("not UTF-8").to_owned();
        let arguments = ["-xx", "-y", "-s", LONGEST_BYTES, "-e", CALLS, "-o", &output];
        let strace = Strace::onto(node, &arguments);
        Self { strace, path }
    }

    /// Where the trace is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of the node; what was seen.
    pub fn end(self) -> Trace {
        drop(self.strace);
        Trace::parse(&fs::read_to_string(&self.path).expect("no trace"))
    }
}

/// How long a trace is now.
pub fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("no trace").len()
}

/// The writes and syncs of a log that succeeded.
#[derive(Debug, Default)]
pub struct Trace {
    writes: Vec<Write>,
    syncs: Vec<Sync>,
}

#[derive(Debug)]
struct Write {
    file: String,
    bytes: Vec<u8>,
    ended: u64,
}

#[derive(Debug)]
struct Sync {
    file: String,
    begun: u64,
    ended: u64,
}

impl Trace {
    /// Reads what `strace -f -xx -y` printed.
    pub fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        // What a thread is in the middle of: where it began, and what was printed then.
        let mut unfinished: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        let mut begun = 0;
        for line in text.split_inclusive('\n') {
            let ended = begun + line.len() as u64;
            if let Some((thread, rest)) = line.trim_end().split_once(char::is_whitespace) {
                let rest = rest.trim_start();
                if let Some(call) = rest.strip_suffix("<unfinished ...>") {
                    unfinished.insert(thread, (begun, call));
                } else if rest.starts_with("<... ") {
                    // One that was begun before the tracing was, is unknown.
                    if let Some((at, call)) = unfinished.remove(thread) {
                        trace.note(call, rest, at, ended);
                    }
                } else {
                    trace.note(rest, rest, begun, ended);
                }
            }
            begun = ended;
        }
        trace
    }

    /// Takes down a call: what was printed when it began, and when it ended.
    fn note(&mut self, call: &str, end: &str, begun: u64, ended: u64) {
        let Some((name, arguments)) = call.split_once('(') else {
            return;
        };
        let result = end.rsplit_once(" = ").map(|(_, result)| result);
        // Less than nothing is an error, which has more words behind it.
        let Some(Ok(result)) = result.map(str::parse::<usize>) else {
            return;
        };
        let Some(file) = log_file(arguments) else {
            return;
        };
        if name.ends_with("sync") {
            self.syncs.push(Sync { file, begun, ended });
        } else {
            let mut bytes = written(arguments);
            bytes.truncate(result);
            self.writes.push(Write { file, bytes, ended });
        }
    }

    /// How far the trace had come when these bytes were durable in the log: the end of the first sync
    /// of a file that began when a write of them to that file had ended.
    pub fn durable(&self, body: &[u8]) -> Option<u64> {
        let writes = self.writes.iter().filter(|write| {
            let mut places = write.bytes.windows(body.len());
            places.any(|place| place == body)
        });
        let syncs = writes.flat_map(|write| {
            let covers = |sync: &&Sync| sync.file == write.file && sync.begun >= write.ended;
            self.syncs.iter().filter(covers)
        });
        syncs.map(|sync| sync.ended).min()
    }

    /// How many syncs of the log there were.
    pub fn syncs(&self) -> usize {
        self.syncs.len()
    }
}

/// The name of the file that a call is about, if that is a segment of the log.
fn log_file(arguments: &str) -> Option<String> {
    let (_, rest) = arguments.split_once('<')?;
    let (name, _) = rest.split_once('>')?;
    let name = String::from_utf8(unescape(name)).ok()?;
    (name.contains("/wal/") && name.ends_with(".wal")).then_some(name)
}

/// The bytes of all strings among the arguments of a call.
fn written(arguments: &str) -> Vec<u8> {
    let strings = arguments.split('"').skip(1).step_by(2);
    strings.flat_map(unescape).collect()
}

/// Bytes from `\x68\x69`.
fn unescape(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    let byte = |digits| u8::from_str_radix(digits, 16).expect("strace printed no hexadecimal byte");
    digits.map(byte).collect()
}
