//! What an inspection found, for people and for programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::output::{self, size};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Interrupted work: the next start deals with it by itself.
    Harmless,
    /// What is on the disk is not what was written. The node does not start with it.
    Damage,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is.
    pub what: String,
    /// The file or folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Where in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// What the log consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFigures {
    /// Segments with records.
    pub segments: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Records, each read back whole.
    pub records: u64,
    /// Replicas that were removed from this node.
    pub tombstones: u64,
    /// How it ends.
    pub tail: &'static str,
}

/// What the checkpoint of a group consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointFigures {
    /// The entry it holds the state at.
    pub index: u64,
    /// Its files.
    pub files: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Rows by table, each decoded.
    pub rows: BTreeMap<&'static str, u64>,
}

/// What a group's replica consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GroupFigures {
    /// The group.
    pub group: u32,
    /// The replica, if the node holds one.
    pub replica: Option<u64>,
    /// Its checkpoint, if it has one.
    pub checkpoint: Option<CheckpointFigures>,
    /// Entries in the log, each decoded.
    pub entries: u64,
    /// The first entry in the log.
    pub first_entry: Option<u64>,
    /// The last entry.
    pub last_entry: Option<u64>,
    /// The term of the vote.
    pub vote_term: Option<u64>,
    /// The nodes of the members, as far as this replica knows.
    pub member_nodes: Vec<u64>,
}

/// The outcome as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The node can start.
    Sound,
    /// The node does not start with this.
    Damaged,
}

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The data directory.
    pub data: PathBuf,
    /// The node, if its identity could be read.
    pub node: Option<u64>,
    /// The cluster's id and name.
    pub cluster: Option<(String, String)>,
    /// The outcome as a whole.
    pub verdict: Verdict,
    /// The log, unless it is damaged.
    pub log: Option<LogFigures>,
    /// The groups.
    pub groups: Vec<GroupFigures>,
    /// The nodes that the founder's plan names, if this node founded its cluster.
    pub planned_nodes: Vec<u64>,
    /// The key-value base, which is rebuilt from the checkpoints when in doubt.
    pub base: &'static str,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// What to do, step by step. Empty if there is nothing to do.
    pub advice: Vec<String>,
}

impl Report {
    /// A report of a directory that was not looked at yet.
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            node: None,
            cluster: None,
            verdict: Verdict::Sound,
            log: None,
            groups: Vec::new(),
            planned_nodes: Vec::new(),
            base: "none yet",
            bytes_read: 0,
            findings: Vec::new(),
            advice: Vec::new(),
        }
    }

    /// Adds a finding.
    pub fn find(&mut self, severity: Severity, path: Option<&Path>, what: impl ToString) {
        self.findings.push(Finding {
            severity,
            what: what.to_string(),
            path: path.map(Path::to_owned),
            offset: None,
        });
    }

    /// How many findings are damage.
    pub fn damage(&self) -> usize {
        let damage = |finding: &&Finding| finding.severity == Severity::Damage;
        self.findings.iter().filter(damage).count()
    }

    /// The nodes that hold a copy of what this one holds, itself among them, as far as it knows: by
    /// the log, the checkpoint, or the plan of its cluster, whichever can be read.
    pub fn member_nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<_> = self
            .groups
            .iter()
            .flat_map(|group| group.member_nodes.iter().copied())
            .collect();
        if nodes.is_empty() {
            nodes.clone_from(&self.planned_nodes);
        }
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Prints it for people.
    pub fn print(&self) {
        let node = self
            .node
            .map_or("no node's yet".to_owned(), |node| format!("node {node}"));
        let cluster = match &self.cluster {
            Some((id, name)) => format!("cluster \"{name}\" ({id})"),
            None => "no cluster".to_owned(),
        };
        output::line(format!("{}: {node}, {cluster}", self.data.display()));
        match &self.log {
            Some(log) => output::line(format!(
                "  log      {} segments, {}, {} records, {} tombstones; {}",
                log.segments,
                size(log.bytes),
                log.records,
                log.tombstones,
                log.tail
            )),
            None => output::line("  log      can not be read to its end"),
        }
        for group in &self.groups {
            print_group(group);
        }
        output::line(format!("  base     {}", self.base));
        output::line(format!("  read     {}", size(self.bytes_read)));
        for finding in &self.findings {
            print_finding(finding);
        }
        output::line(match self.verdict {
            Verdict::Sound => "Sound: the node can start.".to_owned(),
            Verdict::Damaged => format!("DAMAGED in {} places.", self.damage()),
        });
        for step in &self.advice {
            output::line(format!("  {step}"));
        }
    }
}

fn print_group(group: &GroupFigures) {
    let number = group.group;
    let replica = group
        .replica
        .map_or("no replica".to_owned(), |id| format!("replica {id}"));
    let checkpoint = match &group.checkpoint {
        Some(at) => format!(
            "checkpoint at entry {} ({} files, {}, {} rows)",
            at.index,
            at.files,
            size(at.bytes),
            at.rows.values().sum::<u64>()
        ),
        None => "no checkpoint".to_owned(),
    };
    let entries = match (group.first_entry, group.last_entry) {
        (Some(first), Some(last)) => format!("entries {first} to {last} in the log"),
        _ => "no entries in the log".to_owned(),
    };
    output::line(format!(
        "  group {number}  {replica}, {checkpoint}, {entries}"
    ));
    if !group.member_nodes.is_empty() {
        let nodes: Vec<_> = group.member_nodes.iter().map(u64::to_string).collect();
        output::line(format!("           members: nodes {}", nodes.join(", ")));
    }
}

fn print_finding(finding: &Finding) {
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Harmless => "harmless",
        Severity::Damage => "DAMAGE",
    };
    let place = match (&finding.path, finding.offset) {
        (Some(path), Some(offset)) => format!("{} at byte {offset}: ", path.display()),
        (Some(path), None) => format!("{}: ", path.display()),
        _ => String::new(),
    };
    output::line(format!("  {severity}: {place}{}", finding.what));
}
