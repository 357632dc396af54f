//! Observations as text: one line each, the same for the same observation.

use std::collections::BTreeSet;
use std::fmt;

use rossby_domain::ids::{DeviceAddress, ReplicaId};
use rossby_storage::LogPosition;

use super::{
    AdmissionEvent, Digest, Failure, Loss, Observation, Recovered, ReplicaEvent, Request, Response,
    Seen, SimTime, Vote, What, Who,
};

impl fmt::Display for SimTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:03}s", self.0 / 1000, self.0 % 1000))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter().take(4);
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.pad("world"),
            Self::Node(node) => f.pad(&format!("node {node}")),
            Self::Client(client) => f.pad(&format!("client {}", client.0)),
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.at, self.who, self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Called { call, request } => write!(f, "call {} begins: {request}", call.0),
            Self::Returned { call, result } => match result {
                Ok(response) => write!(f, "call {} ends: {response}", call.0),
                Err(failure) => write!(f, "call {} fails: {failure}", call.0),
            },
            Self::Replica {
                group,
                replica,
                event,
            } => write!(f, "replica {replica} of group {group} {event}"),
            Self::Crashed { loss } => match loss {
                Loss::None => f.write_str("is killed"),
                Loss::Unsynced => f.write_str("loses power, and all that was not synced"),
                Loss::Torn => f.write_str("loses power, and some of what was not synced"),
            },
            Self::StartRefused { reason } => write!(f, "refuses to start: {reason}"),
            Self::Stopped { reason } => write!(f, "has stopped: {reason}"),
            Self::BitFlipped { file, offset } => {
                write!(f, "a bit flips in byte {offset} of {file}")
            }
            Self::Wiped => f.write_str("gets an empty disk"),
            Self::DamageDetected { reason } => write!(f, "finds damage: {reason}"),
            Self::ClockSet { offset_ms } => write!(f, "clock is set {offset_ms:+} ms off"),
            Self::ClockDrifts { ppm, upto_ms } => {
                write!(f, "clock runs {ppm:+} ppm fast, up to {upto_ms:+} ms off")
            }
            Self::KnowsMap {
                version,
                nodes,
                content,
            } => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                let nodes = nodes.join(", ");
                write!(f, "knows map {version} ({content}) of nodes {nodes}")
            }
            Self::Admission { node, event } => write!(f, "{event} of node {node}"),
            Self::Planned(step) => write!(f, "plans: {step}"),
            Self::Foretold {
                group,
                goes_on,
                keeps_all,
                committed,
            } => {
                let goes = if *goes_on { "goes on" } else { "stands still" };
                let keeps = if *keeps_all { "all" } else { "perhaps not all" };
                let committed = committed.unwrap_or_default();
                write!(
                    f,
                    "foretells that group {group} {goes} and keeps {keeps} up to {committed}"
                )
            }
            Self::CameTrue { group, applied } => match applied {
                Some(applied) => write!(f, "group {group} goes on, with all up to {applied}"),
                None => write!(f, "group {group} stands still"),
            },
            Self::Began {
                wall,
                envelope_ttl_ms,
                reset_delay_ms,
            } => {
                let wall = wall.as_millis();
                write!(
                    f,
                    "begins at {wall} ms; letters wait {envelope_ttl_ms} ms, resets {reset_delay_ms} ms"
                )
            }
            Self::DeviceLost { device } => write!(f, "has device {} no more", Device(device)),
            Self::FaultOn(fault) => write!(f, "fault begins: {fault}"),
            Self::FaultOff(fault) => write!(f, "fault ends: {fault}"),
            Self::Healed => f.write_str("all faults are over"),
        }
    }
}

impl fmt::Display for AdmissionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put => f.write_str("putting in"),
            Self::Issued { expires_at } => {
                let until = expires_at.as_millis();
                write!(f, "join token, good until {until} ms,")
            }
            Self::Revoked => f.write_str("revocation of the token"),
            Self::Shown { attempt } => write!(f, "try {attempt} with the token"),
            Self::LetIn { attempt } => write!(f, "letting in by try {attempt}"),
            Self::TurnedAway { attempt, reason } => {
                write!(f, "turning away ({reason}) by try {attempt}")
            }
        }
    }
}

/// A device, short enough for a line: the beginnings of its box and of itself.
struct Device<'a>(&'a DeviceAddress);

impl fmt::Display for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [device, second, ..] = *self.0.device.as_bytes();
        write!(f, "{}/{device:02x}{second:02x}", Box(&self.0.box_id))
    }
}

/// A box, short enough for a line. Its id begins with the partition; what follows is random.
struct Box<'a>(&'a rossby_domain::ids::BoxId);

impl fmt::Display for Box<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = *self.0.as_bytes();
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send {
                to,
                id,
                text,
                ttl_ms,
            } => {
                let (to, sender, counter) = (Box(to), Device(&id.sender), id.counter);
                write!(f, "send {sender}#{counter} ({text}) to {to}")?;
                ttl_ms.map_or(Ok(()), |ttl| write!(f, " for {ttl} ms"))
            }
            Self::Fetch { device, after } => write!(f, "fetch {} after {after}", Device(device)),
            Self::Acknowledge { device, upto } => {
                write!(f, "acknowledge {} up to {upto}", Device(device))
            }
            Self::Verify {
                identifier,
                box_id,
                reset,
            } => {
                let reset = if *reset { ", whoever has it" } else { "" };
                write!(f, "verify {identifier:?} for {}{reset}", Box(box_id))
            }
            Self::Keep { device, identifier } => {
                write!(f, "keep {identifier:?} for {}", Device(device))
            }
            Self::Block {
                device,
                other,
                blocked,
            } => {
                let what = if *blocked { "block" } else { "unblock" };
                write!(f, "{what} {} for {}", Box(other), Device(device))
            }
            Self::Suspend { box_id, suspended } => {
                let what = if *suspended { "suspend" } else { "unsuspend" };
                write!(f, "{what} {}", Box(box_id))
            }
            Self::Lookup { identifier, .. } => write!(f, "look up {identifier:?}"),
            Self::KeyRecord { box_id, sender } => {
                write!(f, "key record of {} for {}", Box(box_id), Device(sender))
            }
            Self::Join { device } => write!(f, "join as {device}"),
            Self::SetTtl { device, ttl_ms } => {
                let device = Device(device);
                match ttl_ms {
                    Some(ttl) => write!(f, "let letters to {device} wait {ttl} ms"),
                    None => write!(f, "let letters to {device} wait"),
                }
            }
            Self::DeleteAccount { device } => write!(f, "delete the box of {}", Device(device)),
            Self::Revoke { device } => write!(f, "revoke {}", Device(device)),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { sequence } => write!(f, "delivered as {sequence}"),
            Self::Page {
                envelopes,
                more,
                status,
            } => {
                f.write_str("page [")?;
                for (nth, seen) in envelopes.iter().enumerate() {
                    write!(f, "{}{seen}", if nth == 0 { "" } else { ", " })?;
                }
                let rest = if *more { ", more" } else { "" };
                let (cursor, last, depth) = (status.cursor, status.last, status.depth);
                write!(f, "]{rest}; cursor {cursor}, last {last}, depth {depth}")?;
                if let Some(at) = status.reset_at {
                    write!(f, ", its identifier goes at {} ms", at.as_millis())?;
                }
                match status.expired_total {
                    0 => Ok(()),
                    expired => write!(f, ", {expired} expired"),
                }
            }
            Self::Acknowledged { cursor, purged } => {
                write!(f, "acknowledged up to {cursor}, {purged} purged")
            }
            Self::Joined { device, cursor } => {
                write!(f, "joined as {} behind {cursor}", Device(device))
            }
            Self::Verified { generation } => write!(f, "verified, generation {generation}"),
            Self::Waits { completes_at } => {
                write!(
                    f,
                    "verified, and to wait until {} ms",
                    completes_at.as_millis()
                )
            }
            Self::Found(None) => f.write_str("nobody"),
            Self::Found(Some(box_id)) => write!(f, "box {}", Box(box_id)),
            Self::KeyRecord { found: None } => f.write_str("no such box"),
            Self::KeyRecord {
                found: Some((version, next)),
            } => write!(f, "record {version}, next counter {next}"),
            Self::Done => f.write_str("done"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sender, counter) = (Device(&self.id.sender), self.id.counter);
        write!(f, "{}:{sender}#{counter} ({})", self.sequence, self.text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => write!(f, "rejected: {rejection}"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Unknown => f.write_str("unknown outcome"),
        }
    }
}

/// A log position: `term.index`, or `-`.
struct At(Option<LogPosition>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(LogPosition { term, index }) => write!(f, "{term}.{index}"),
            None => f.write_str("-"),
        }
    }
}

impl fmt::Display for Vote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let won = if self.won { ", who has won" } else { "" };
        write!(f, "{} in term {}{won}", self.candidate, self.term)
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (purged, last) = (At(self.purged), At(self.last));
        let (checkpoint, applied) = (At(self.checkpoint), At(self.applied));
        write!(
            f,
            "log {purged} to {last}, checkpoint {checkpoint}, applied {applied}, vote "
        )?;
        match &self.vote {
            Some(vote) => vote.fmt(f),
            None => f.write_str("-"),
        }
    }
}

fn ids(replicas: &BTreeSet<ReplicaId>) -> String {
    let ids: Vec<String> = replicas.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

impl fmt::Display for ReplicaEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |position: &LogPosition| At(Some(*position));
        match self {
            Self::Started(found) => write!(f, "starts: {found}"),
            Self::Voted(vote) => write!(f, "votes for {vote}"),
            Self::Leads { term } => write!(f, "leads term {term}"),
            Self::Appended { position, entry } => write!(f, "appends {} ({entry})", at(position)),
            Self::Flushed { upto } => write!(f, "is durable up to {}", at(upto)),
            Self::Truncated { after: Some(after) } => write!(f, "truncates after {after}"),
            Self::Truncated { after: None } => f.write_str("truncates all"),
            Self::Purged { upto } => write!(f, "purges up to {}", at(upto)),
            Self::Committed { upto } => write!(f, "has committed up to {}", at(upto)),
            Self::Applied { position, entry } => write!(f, "applies {} ({entry})", at(position)),
            Self::Ruled { partition, epoch } => {
                write!(f, "rules partition {partition} at epoch {epoch}")
            }
            Self::Members {
                at: position,
                voters,
                learners,
            } => {
                let voters: Vec<String> = voters.iter().map(ids).collect();
                let voters = voters.join(" and ");
                write!(f, "has members {voters} since {}", at(position))?;
                if learners.is_empty() {
                    return Ok(());
                }
                write!(f, ", and {} without a vote", ids(learners))
            }
            Self::Dismissed => f.write_str("was removed and stops for good"),
            Self::State {
                at: position,
                partition,
                digest,
            } => write!(
                f,
                "holds {digest} in partition {partition} at {}",
                at(position)
            ),
            Self::CheckpointPublished { at: position } => {
                write!(f, "publishes its checkpoint at {}", at(position))
            }
            Self::CheckpointInstalled { at: position } => {
                write!(f, "installs a checkpoint at {}", at(position))
            }
        }
    }
}
