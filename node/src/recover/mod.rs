//! `rossby recover`: groups whose quorum was lost for good go on from what one node has left.
//!
//! ```text
//!   stopped node ─► known: what is left ─► judge: may this node go on, with which groups? ─► said, and no more
//!                                                          │ --data-loss
//!                                  build: new states beside the old ─► intent, written down ─► finish
//! ```
//!
//! | file | what |
//! |---|---|
//! | `known` | what a stopped node has of each group; `judge`: whether a group may go on from it |
//! | `maps` | which cluster map is gone on with, and the numbers of what is recovered |
//! | `build` | the new states; `intent`: putting them in place, finished whatever interrupts it |
//! | `pending` | what the placement group must be told later, if it has not lost its own quorum |
//!
//! What goes on is a group of one under another number, so whoever comes back with the old one can do no harm. Its
//! partitions are marked as restored: what it gives out begins above all that the lost replicas can have given out.

mod args;
mod build;
mod intent;
mod judge;
mod known;
mod maps;
pub(crate) mod pending;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rossby_api::ClusterSecrets;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{ClusterMap, PLACEMENT_GROUP, Successor};
use rossby_seams::disk::{Disk, FileDisk};
use rossby_storage::datadir::{ClusterIdentity, DataDirectory};

use self::intent::Intent;
use self::judge::{Verdict, judge};
use self::known::{Found, Left, Report, look};
use self::tell::Told;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::serve::secrets_check;

pub use self::args::RecoverArgs;
pub use self::intent::refuse_unfinished;

/// How long a node that is said to be lost may take to show that it is not.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Runs `rossby recover`.
///
/// # Errors
/// If it was not asked to do it, must not be done, or could not be.
pub fn run(args: &RecoverArgs) -> Result<(), Failure> {
    let config = config::load(&args.config)?.config;
    let mut data = open(&config)?;
    if let Some(intent) = Intent::read(&data)? {
        return go_on(args, &config, &mut data, &intent);
    }
    let Found {
        report,
        cluster,
        log,
    } = look(&data)?;
    check_secrets(&config, &cluster)?;
    let others = reports(args, &report)?;
    let lost = lost(args, &report, &others)?;
    let map = maps::newest(std::iter::once(&report).chain(&others));
    let known = Known {
        report: &report,
        others: &others,
        map: &map,
        lost: &lost,
    };
    let judged = judge_all(args, &known)?;
    let told = Told {
        report: &report,
        lost: &lost,
        judged: &judged,
        map: &map,
    };
    told.print(args.json)?;
    if args.dry_run {
        return Ok(());
    }
    let groups = permitted(args, &judged)?;
    refuse_left(&known)?;
    if !args.data_loss {
        return Err(
            Failure::new(Exit::Refused, "nothing was changed: this loses data").help(
                "if the lost nodes can't be brought back, give the same with --data-loss; copy the data directory \
                 first if there is room",
            ),
        );
    }
    refuse_living(&known)?;
    let work = build::Work {
        data: &data,
        cluster: &cluster,
        log: &log,
        report: &report,
        groups: &groups,
        lost: &lost,
        map: &map,
        taken: known.taken(),
        cache_bytes: config.storage.base_cache_bytes,
    };
    let intent = build::build(&work)?;
    drop(log);
    intent.write(&data)?;
    intent.finish(&config, &mut data)?;
    tell::done(args.json, &config, &intent)
}

/// Finishes what was interrupted.
fn go_on(
    args: &RecoverArgs,
    config: &Config,
    data: &mut DataDirectory,
    intent: &Intent,
) -> Result<(), Failure> {
    if !args.data_loss {
        let text = "an earlier recovery was interrupted, and is to be finished";
        return Err(Failure::new(Exit::Refused, text)
            .help("give the same with --data-loss: it is finished as it was begun"));
    }
    intent.finish(config, data)?;
    tell::done(args.json, config, intent)
}

/// Opens and locks the directory, which must be there and this node's.
fn open(config: &Config) -> Result<DataDirectory, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(FileDisk);
    if let Err(error) = disk.list(&config.data) {
        let text = format!("can not look into {}: {error}", config.data.display());
        return Err(Failure::new(Exit::Storage, text).help(
            "name the node's data directory with --data, or give its settings with --config",
        ));
    }
    DataDirectory::open(disk, &config.data).map_err(|error| Failure::new(Exit::Storage, error))
}

/// A node without its cluster's secrets could not serve what is recovered.
fn check_secrets(config: &Config, cluster: &ClusterIdentity) -> Result<(), Failure> {
    let path = config.secrets.display();
    let wrong = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Config, format!("{path}: {reason}"))
            .help("give the settings that the node serves with, or name the secrets with --secrets")
    };
    let secrets = ClusterSecrets::load(&config.secrets).map_err(|error| wrong(&error))?;
    let check = secrets_check(&secrets).map_err(|error| wrong(&error))?;
    if cluster.secrets_check.as_ref() == Some(&check) {
        return Ok(());
    }
    Err(wrong(&"these are the secrets of another cluster"))
}

/// What the other nodes said that are left.
fn reports(args: &RecoverArgs, own: &Report) -> Result<Vec<Report>, Failure> {
    let mut all: Vec<Report> = Vec::new();
    for path in &args.report {
        let report = Report::read(path)?;
        let twice = all.iter().any(|other| other.node == report.node);
        if report.cluster != own.cluster || report.node == own.node || twice {
            let text = format!(
                "{}: it must be of another node of the same cluster, and there may be one of each",
                path.display()
            );
            return Err(Failure::new(Exit::Config, text));
        }
        all.push(report);
    }
    Ok(all)
}

/// The nodes that are said to be lost, which must be known.
fn lost(
    args: &RecoverArgs,
    report: &Report,
    others: &[Report],
) -> Result<BTreeSet<NodeId>, Failure> {
    let wrong = |text: String| Err(Failure::new(Exit::Usage, text));
    let lost: BTreeSet<NodeId> = args.lost.iter().copied().map(NodeId).collect();
    let all = std::iter::once(report).chain(others);
    let known: BTreeSet<NodeId> = all.flat_map(Report::nodes).map(|(node, _)| node).collect();
    if lost.contains(&report.node) {
        return wrong(format!(
            "node {} is this node, which is not lost",
            report.node
        ));
    }
    if let Some(other) = others.iter().find(|other| lost.contains(&other.node)) {
        return wrong(format!(
            "there is a report of node {}, which is not lost",
            other.node
        ));
    }
    if let Some(stranger) = lost.difference(&known).next() {
        return wrong(format!(
            "there is no node {stranger} in what this node knows"
        ));
    }
    Ok(lost)
}

/// What is known, here and from the nodes that reported.
struct Known<'a> {
    report: &'a Report,
    others: &'a [Report],
    /// The newest map that any of them knows.
    map: &'a ClusterMap,
    lost: &'a BTreeSet<NodeId>,
}

impl Known<'_> {
    fn reports(&self) -> impl Iterator<Item = &Report> {
        std::iter::once(self.report).chain(self.others)
    }

    /// What took the place of a replica's group, if that was recovered before.
    fn successor(&self, left: &Left) -> Option<Successor> {
        let untold = || {
            self.reports()
                .find_map(|told| told.recovered.get(&left.group).copied())
        };
        self.map
            .supersedes(left.group, left.replica)
            .or_else(untold)
    }

    /// The numbers that no group may get any more, though the map does not say so.
    fn taken(&self) -> BTreeSet<GroupId> {
        let untold = self.reports().flat_map(|told| told.recovered.values());
        let held = self.reports().flat_map(|told| &told.groups);
        let held = held.map(|left| left.group);
        untold.map(|untold| untold.group).chain(held).collect()
    }

    /// Judges a group, of which `strangers` may be members too.
    fn judge(&self, left: &Left, strangers: &BTreeSet<NodeId>) -> Verdict {
        if let Some(successor) = self.successor(left) {
            return Verdict::Recovered(successor);
        }
        let mut told = BTreeMap::from([(self.report.node, left.voice())]);
        let mut gone = self.lost.clone();
        for other in self.others {
            let there = other.group(left.group);
            if let Some(there) = there.filter(|there| self.successor(there).is_none()) {
                told.insert(other.node, there.voice());
            } else {
                // A node that is left and has lost its replica, or never had it, has nothing to say.
                gone.insert(other.node);
            }
        }
        judge(self.report.node, &told, strangers, &gone)
    }

    /// Who may be a member of any group without a replica that is left having heard of it. A placement group that is
    /// alive tells that later. Without one all nodes that are left are heard.
    fn strangers(&self) -> BTreeSet<NodeId> {
        let placement = self.report.group(PLACEMENT_GROUP);
        match placement.map(|left| self.judge(left, &BTreeSet::new())) {
            None | Some(Verdict::HasQuorum(_) | Verdict::Recovered(_)) => BTreeSet::new(),
            Some(_) => self.map.nodes().keys().copied().collect(),
        }
    }
}

/// What may be done with each group that has a replica here, or with those that were named.
fn judge_all(args: &RecoverArgs, known: &Known<'_>) -> Result<BTreeMap<GroupId, Verdict>, Failure> {
    let report = known.report;
    let named: BTreeSet<GroupId> = args.group.iter().copied().map(GroupId).collect();
    if let Some(stranger) = named.iter().find(|group| report.group(**group).is_none()) {
        let text = format!("this node has no replica of group {stranger}");
        return Err(Failure::new(Exit::Refused, text));
    }
    let strangers = known.strangers();
    let groups = report.groups.iter();
    let groups = groups.filter(|left| named.is_empty() || named.contains(&left.group));
    Ok(groups
        .map(|left| (left.group, known.judge(left, &strangers)))
        .collect())
}

/// The groups that are to be recovered, if there are any and nothing stands in the way.
fn permitted(
    args: &RecoverArgs,
    judged: &BTreeMap<GroupId, Verdict>,
) -> Result<BTreeSet<GroupId>, Failure> {
    let refuse = |text: String, help: &str| Err(Failure::new(Exit::Refused, text).help(help));
    for (group, verdict) in judged {
        match verdict {
            Verdict::Unheard(nodes) => {
                return refuse(
                    format!("{} may have more of group {group}", tell::nodes(nodes)),
                    "name with --lost those that are gone for good, and bring the reports of the others: `rossby \
                     recover --json --dry-run` there, and --report FILE here",
                );
            }
            Verdict::Elsewhere(node) if !args.group.is_empty() => {
                return refuse(
                    format!("the replica of group {group} on node {node} reaches further"),
                    "recover it there",
                );
            }
            Verdict::HasQuorum(unheard) if !args.group.is_empty() => {
                let doubt = match unheard.is_empty() {
                    true => String::new(),
                    false => format!(", as far as is known without {}", tell::nodes(unheard)),
                };
                return refuse(
                    format!("group {group} has a majority without the lost nodes{doubt}"),
                    "start the nodes that are left: it goes on by itself, and loses nothing. Lost nodes are \
                     replaced with `rossby node replace`. If it stays without a leader, stop them, and bring the \
                     reports of all of them",
                );
            }
            Verdict::Recovered(successor) if !args.group.is_empty() => {
                return refuse(
                    format!(
                        "group {group} was recovered before, as group {} with replica {}",
                        successor.group, successor.replica
                    ),
                    "start this node: its replica here is void, and goes by itself",
                );
            }
            Verdict::NoMember if !args.group.is_empty() => {
                return refuse(
                    format!("this node was no member of group {group} any more"),
                    "recover it where it has a member that is left",
                );
            }
            _ => {}
        }
    }
    let recoverable = judged.iter();
    let recoverable = recoverable.filter(|(_, verdict)| **verdict == Verdict::Recoverable);
    let groups: BTreeSet<GroupId> = recoverable.map(|(group, _)| *group).collect();
    if groups.is_empty() {
        return refuse(
            "there is nothing to recover on this node".to_owned(),
            "a group is recovered where its furthest replica is left, if it has no majority without the nodes that \
             --lost names",
        );
    }
    Ok(groups)
}

/// Groups go on at a node that is in the cluster.
fn refuse_left(known: &Known<'_>) -> Result<(), Failure> {
    let (own, map) = (known.report.node, known.map);
    if map.nodes().is_empty() || map.nodes().contains_key(&own) {
        return Ok(());
    }
    let text = format!(
        "node {own} has left the cluster, as version {} of the cluster map says",
        map.version()
    );
    Err(Failure::new(Exit::Refused, text).help("recover on a node that is in the map"))
}

/// A node that answers is not lost.
fn refuse_living(known: &Known<'_>) -> Result<(), Failure> {
    let all: BTreeSet<(NodeId, &str)> = known.reports().flat_map(Report::nodes).collect();
    let lost = |(node, _): &(NodeId, &str)| known.lost.contains(node);
    for (node, address) in all.into_iter().filter(lost) {
        if answers(address) {
            let text =
                format!("something answers at {address}, where node {node} was: it is not lost");
            return Err(Failure::new(Exit::Refused, text).help(
                "if it runs, leave it: its group needs no recovery. If it is gone for good, make sure that nothing \
                 listens there",
            ));
        }
    }
    Ok(())
}

fn answers(address: &str) -> bool {
    let addresses = address.to_socket_addrs().into_iter().flatten();
    let mut addresses =
        addresses.map(|address| TcpStream::connect_timeout(&address, ANSWER_WITHIN));
    addresses.any(|connected| connected.is_ok())
}
