//! What a world lets its judges see: one observation for each thing that happened.
//!
//! An observation is made when the thing has happened *as far as the one who did it knows*: a vote
//! when `save_vote` has returned, an entry as durable when its callback was called. What is then lost
//! in a crash was promised, and the invariants hold the node to it.

mod deed;
mod show;

use std::collections::BTreeSet;

use rossby_domain::Rejection;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, GroupId, MapVersion, NodeId,
    PartitionId, ReplicaId, Sequence,
};
use rossby_domain::query::QueueStatus;
use rossby_domain::time::Timestamp;
use rossby_storage::LogPosition;
use sha2::{Digest as _, Sha256};

pub use deed::events_of;

/// Milliseconds since the world began, by the world's own time, which nothing in it can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SimTime(pub u64);

/// A client of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// One try of one client call. A retry is another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Tells two byte strings apart: the first 16 bytes of their SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Self(digest)
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When. Observations come in the order of their times.
    pub at: SimTime,
    /// Who did it, or whom it befell.
    pub who: Who,
    /// What it was.
    pub what: What,
}

impl Observation {
    /// The replica that this befell, and what it was, if it is about one.
    #[must_use]
    pub fn of_replica(&self) -> Option<((GroupId, ReplicaId), &ReplicaEvent)> {
        match &self.what {
            What::Replica {
                group,
                replica,
                event,
            } => Some(((*group, *replica), event)),
            _ => None,
        }
    }
}

/// Whom an observation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// The world itself.
    World,
    /// A node.
    Node(NodeId),
    /// A client.
    Client(ClientId),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A client began a call.
    Called {
        /// The call.
        call: CallId,
        /// What it asks for.
        request: Request,
    },
    /// A client's call is over. A call of which this is never seen has an unknown outcome.
    Returned {
        /// The call.
        call: CallId,
        /// Its outcome, as the client knows it.
        result: Result<Response, Failure>,
    },
    /// Something happened to a replica.
    Replica {
        /// Its group.
        group: GroupId,
        /// Its id.
        replica: ReplicaId,
        /// What happened.
        event: ReplicaEvent,
    },
    /// A node was stopped, or lost its power. Its replicas are silent until they start again.
    Crashed {
        /// What became of the bytes that were not synced.
        loss: Loss,
    },
    /// A node could not start, for this reason.
    StartRefused {
        /// What it said.
        reason: String,
    },
    /// A replica, or the log of a node, has stopped by itself while the process went on.
    Stopped {
        /// What it said.
        reason: String,
    },
    /// The world flipped a bit on a stopped node's disk (`who`).
    BitFlipped {
        /// In this file.
        file: String,
        /// In this byte.
        offset: u64,
    },
    /// A stopped node (`who`) got an empty disk: what it held is gone, and with it its replica.
    Wiped,
    /// A node (`who`) met damaged bytes and said so.
    DamageDetected {
        /// What it said.
        reason: String,
    },
    /// The clock of a node (`who`) was set this far from the world's time: the wall time that it
    /// shows is the world's start ([`What::Began`]) + [`Observation::at`] + this.
    ClockSet {
        /// Milliseconds; negative is behind.
        offset_ms: i64,
    },
    /// The clock of a node (`who`) runs fast from now on, or slow, until it is set.
    ClockDrifts {
        /// Millionths that it is fast; negative is slow.
        ppm: i64,
        /// How far it will be from the world's time at most.
        upto_ms: i64,
    },
    /// A node (`who`) takes this for the newest cluster map.
    KnowsMap {
        /// Its version.
        version: MapVersion,
        /// The nodes in it.
        nodes: BTreeSet<NodeId>,
        /// The digest of all that it says.
        content: Digest,
    },
    /// Something that lets a node into the cluster, or does not.
    Admission {
        /// The node.
        node: NodeId,
        /// What happened.
        event: AdmissionEvent,
    },
    /// The leader of the placement group (`who`) begins a step of its plan.
    Planned(String),
    /// What is foretold of a group, by who votes in it, should some nodes be lost; they are lost then.
    Foretold {
        /// The group.
        group: GroupId,
        /// Whether it goes on.
        goes_on: bool,
        /// Whether all that it has acknowledged is left.
        keeps_all: bool,
        /// The last entry that any of its replicas knows to be committed.
        committed: Option<u64>,
    },
    /// What became of a group after that.
    CameTrue {
        /// The group.
        group: GroupId,
        /// The last entry that a leader had applied which was confirmed by a quorum; `None` if there was none.
        applied: Option<u64>,
    },
    /// The world begins; its wall clocks show this.
    Began {
        /// The wall time at [`SimTime`] 0.
        wall: Timestamp,
        /// How long a letter waits in a box at most, in milliseconds.
        envelope_ttl_ms: u64,
        /// How long an identifier stays with its box at least that another has proven, in milliseconds.
        reset_delay_ms: u64,
    },
    /// The owner of a device (`who`) has lost it, or uses it no more: it asks for nothing from now on.
    DeviceLost {
        /// The device.
        device: DeviceAddress,
    },
    /// A fault begins.
    FaultOn(String),
    /// A fault ends.
    FaultOff(String),
    /// All faults are over for good: all nodes run, the network is whole, disks have space, clocks
    /// are right. From here on the service must come back.
    Healed,
}

/// What lets a node into the cluster, or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionEvent {
    /// The operator sets out to put the node in the map by himself, without a token.
    Put,
    /// The operator has been given a join token for it.
    Issued {
        /// From then on it is good no more, by the clock of the placement group.
        expires_at: Timestamp,
    },
    /// The placement group has said that its token is revoked.
    Revoked,
    /// A data directory shows the token.
    Shown {
        /// Its try to join.
        attempt: Digest,
    },
    /// The placement group has said that this try is let in.
    LetIn {
        /// The try.
        attempt: Digest,
    },
    /// The placement group has said that this try is not let in.
    TurnedAway {
        /// The try.
        attempt: Digest,
        /// Why.
        reason: String,
    },
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Put an envelope into a box.
    Send {
        /// The box.
        to: BoxId,
        /// Who sends it, under which counter.
        id: EnvelopeId,
        /// The digest of the body.
        text: Digest,
        /// How long it may wait, in milliseconds; `None` is the box's limit.
        ttl_ms: Option<u64>,
    },
    /// Read a page of a box.
    Fetch {
        /// The device that reads.
        device: DeviceAddress,
        /// Only what comes after this.
        after: Sequence,
    },
    /// Move a device's cursor.
    Acknowledge {
        /// The device.
        device: DeviceAddress,
        /// Up to here.
        upto: Sequence,
    },
    /// Give an identifier to a box, by its code.
    Verify {
        /// The identifier.
        identifier: IdentifierHash,
        /// The box.
        box_id: BoxId,
        /// Whether it may be another box's, which then has the time to say no.
        reset: bool,
    },
    /// Say that an identifier stays which another box has proven.
    Keep {
        /// The device of the box that has it.
        device: DeviceAddress,
        /// The identifier.
        identifier: IdentifierHash,
    },
    /// Have a box not be there for another one, or be there again.
    Block {
        /// The device of the box that asks.
        device: DeviceAddress,
        /// The other box.
        other: BoxId,
        /// Whether it is to be blocked.
        blocked: bool,
    },
    /// The operator's: that a box must not send, or may again.
    Suspend {
        /// The box.
        box_id: BoxId,
        /// Whether it is to be suspended.
        suspended: bool,
    },
    /// Ask which box an identifier belongs to.
    Lookup {
        /// The box that asks.
        by: BoxId,
        /// The identifier.
        identifier: IdentifierHash,
    },
    /// Ask for a box's key record, and the sender's next free counter there.
    KeyRecord {
        /// The box.
        box_id: BoxId,
        /// Who asks.
        sender: DeviceAddress,
    },
    /// Take the place of a further device in the box that has linked it.
    Join {
        /// The device.
        device: DeviceId,
    },
    /// Set how long letters may wait in a box at most, from the next one on.
    SetTtl {
        /// The device of the box that asks.
        device: DeviceAddress,
        /// In milliseconds; `None` for as long as the service allows.
        ttl_ms: Option<u64>,
    },
    /// Delete a box with all that it has, for ever.
    DeleteAccount {
        /// The device of the box that asks.
        device: DeviceAddress,
    },
    /// Remove a device from its box, for ever. Whoever has it uses it no more.
    Revoke {
        /// The device.
        device: DeviceAddress,
    },
    /// Any other call, of which only the fact that it is answered is judged.
    Other(String),
}

/// What a client was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Send`]: delivered.
    Sent {
        /// The envelope's place in the box.
        sequence: Sequence,
    },
    /// To [`Request::Fetch`].
    Page {
        /// The envelopes, as they were given.
        envelopes: Vec<Seen>,
        /// Whether there are more.
        more: bool,
        /// The state of the queue.
        status: QueueStatus,
    },
    /// To [`Request::Acknowledge`].
    Acknowledged {
        /// Where the cursor is now.
        cursor: Sequence,
        /// How many envelopes were purged.
        purged: u32,
    },
    /// To [`Request::Verify`]: the identifier belongs to the box.
    Verified {
        /// The claim's generation.
        generation: u64,
    },
    /// To [`Request::Verify`]: the code is right, the identifier is another box's, and comes to this one no sooner than this.
    Waits {
        /// By the service's clock.
        completes_at: Timestamp,
    },
    /// To [`Request::Join`]: the device has its place.
    Joined {
        /// Where.
        device: DeviceAddress,
        /// Its cursor, as the service's replicas have it: it gets what comes after.
        cursor: Sequence,
    },
    /// To [`Request::Lookup`].
    Found(Option<BoxId>),
    /// To [`Request::KeyRecord`].
    KeyRecord {
        /// The version and the next free counter of the asker, if there is such a box.
        found: Option<(u64, Counter)>,
    },
    /// To [`Request::Other`].
    Done,
}

/// An envelope on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its place.
    pub sequence: Sequence,
    /// Its id.
    pub id: EnvelopeId,
    /// The digest of the body that was served.
    pub text: Digest,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// Why a call was not answered with a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Apply said no. Final for this call, and certain.
    Rejected(Rejection),
    /// Refused before anything was proposed: certain that nothing happened.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// What became of bytes that were not synced when a node stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing was lost: the process was killed, the machine went on.
    None,
    /// All of them were lost.
    Unsynced,
    /// Some sectors and names of them were lost, by the seed.
    Torn,
}

/// What happened to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaEvent {
    /// It runs, after recovery: what it found. The first thing seen of a replica, and of each life.
    Started(Recovered),
    /// A vote is durable: `save_vote` has returned.
    Voted(Vote),
    /// It became leader.
    Leads {
        /// Of this term.
        term: u64,
    },
    /// It appended an entry to its log (durable or not).
    Appended {
        /// Where.
        position: LogPosition,
        /// The digest of the entry's bytes.
        entry: Digest,
    },
    /// Its log is durable up to here, it says: the append's callback was called with success.
    Flushed {
        /// The last entry of the append.
        upto: LogPosition,
    },
    /// It sets out to drop the entries after this index (all, if `None`): `truncate_after` was called.
    Truncated {
        /// The last index kept.
        after: Option<u64>,
    },
    /// It sets out to drop the entries up to here: `purge` was called.
    Purged {
        /// The last entry to drop.
        upto: LogPosition,
    },
    /// It knows that entries up to here are committed.
    Committed {
        /// The last one.
        upto: LogPosition,
    },
    /// It applied an entry.
    Applied {
        /// Where it stands.
        position: LogPosition,
        /// The digest of the entry's bytes.
        entry: Digest,
    },
    /// An entry that it applied was carried out in this partition, as its owner.
    Ruled {
        /// The partition.
        partition: PartitionId,
        /// Since which epoch it owns it.
        epoch: Epoch,
    },
    /// An entry that it applied changed the members.
    Members {
        /// The entry.
        at: LogPosition,
        /// The voters: two sets while a change of them is half-way.
        voters: Vec<BTreeSet<ReplicaId>>,
        /// The members without a vote.
        learners: BTreeSet<ReplicaId>,
    },
    /// It has learned that it is no member any more, and has stopped for good.
    Dismissed,
    /// The digest of a partition's rows after all entries up to here.
    State {
        /// The last entry applied.
        at: LogPosition,
        /// The partition.
        partition: PartitionId,
        /// The digest.
        digest: Digest,
    },
    /// Its manifest names this position.
    CheckpointPublished {
        /// The position.
        at: LogPosition,
    },
    /// It installed a checkpoint that another replica shipped: its state is now that at this
    /// position.
    CheckpointInstalled {
        /// The position.
        at: LogPosition,
    },
}

/// A vote, as a replica's log holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// For whom.
    pub candidate: ReplicaId,
    /// Whether the candidate is known to have won: this is then no vote, but the acceptance of a
    /// leader, which may be another than the one voted for.
    pub won: bool,
}

/// What a replica found on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The vote.
    pub vote: Option<Vote>,
    /// The last entry of its log, or the purge mark if there is none.
    pub last: Option<LogPosition>,
    /// The purge mark.
    pub purged: Option<LogPosition>,
    /// The position of its checkpoint.
    pub checkpoint: Option<LogPosition>,
    /// The last entry that its state reflects.
    pub applied: Option<LogPosition>,
}
