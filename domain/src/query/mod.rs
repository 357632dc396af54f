//! Queries: everything that can be read from a partition.
//!
//! Both queries and answers travel between nodes by serde: a node asks the leader of another group.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chain::KeyRecord;
use crate::contest::{Former, ResetNote};
use crate::envelope::Envelope;
use crate::identifier::IdentifierHash;
use crate::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, Epoch, MapVersion, PartitionId, Sequence,
};
use crate::placement::{ClusterMap, JoinToken, MapHistoryRow};
use crate::profile::{ProfileIdentifier, SealedProfile};
use crate::report::ReportMark;
use crate::time::Timestamp;

/// A question to one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Which box an identifier belongs to. (Directory partition of the identifier.)
    ResolveIdentifier(IdentifierHash),
    /// Which box a device belongs to, or is offered a place in. (Directory partition of the device.)
    ResolveDevice(DeviceId),
    /// The key record of an authorised box, and the free counter for a sender's device in its queue.
    KeyRecord {
        /// The box.
        box_id: BoxId,
        /// Who asks.
        sender: DeviceAddress,
    },
    /// The key record of a box, authorised or not, with its state (for Authorize and sealing tokens).
    BoxState(BoxId),
    /// Whether a device is authorised, and the generation of its token.
    DeviceAuth(DeviceAddress),
    /// A page of a device's waiting envelopes, after its cursor or after `after` if that is higher.
    Fetch {
        /// The device that reads.
        device: DeviceAddress,
        /// Only envelopes after this one.
        after: Sequence,
        /// At most this many.
        max_envelopes: u32,
        /// At most about this many bytes of bodies (one envelope is always given).
        max_bytes: u32,
    },
    /// Some codes that wait for the courier, in order.
    Outbox {
        /// The partition.
        partition: PartitionId,
        /// Only those after this one's.
        after: Option<(IdentifierHash, BoxId)>,
        /// At most this many.
        limit: u32,
    },
    /// Some boxes with identifiers on their way in (half-done registrations) or out, in order.
    PendingBoxes {
        /// The partition.
        partition: PartitionId,
        /// Only boxes after this one.
        after: Option<BoxId>,
        /// At most this many.
        limit: u32,
    },
    /// The box that a claim of this identifier was verified for, whoever asks (for the finisher).
    VerifiedClaim(IdentifierHash),
    /// Whether and at which epoch the partition is owned, and its clock.
    Ownership(PartitionId),
    /// When something in the partition next outlives its time (for the expiry worker).
    NextDue(PartitionId),
    /// The cluster map. (The placement group's first partition.)
    Map,
    /// Some of the remembered changes of the map, oldest first.
    MapHistory {
        /// Only those that made a later version than this.
        after: MapVersion,
        /// At most this many.
        limit: u32,
    },
    /// The join tokens that have not expired. (As [`Query::Map`].)
    JoinTokens,
    /// Which box a device has bound itself to, if it has. (Directory partition of the device.)
    BoundDevice(DeviceId),
    /// The identifiers that a box lists, less those that are on their way out.
    Identifiers(BoxId),
    /// Whether a box has an identifier, and may be found by it. (Directory partition of the identifier.)
    Discoverable {
        /// The identifier.
        identifier: IdentifierHash,
        /// The box.
        box_id: BoxId,
    },
    /// Whether a box has ever taken an envelope from another one. (Partition of the first.)
    HasHeardFrom {
        /// Whose box it is.
        box_id: BoxId,
        /// Who may have written to it.
        sender: BoxId,
    },
    /// Whether a box is suspended. One that is not there sends nothing either.
    IsSuspended(BoxId),
    /// What an operator may know of a box.
    BoxView(BoxId),
    /// Whether a box was there and is deleted (for its own devices).
    IsDeleted(BoxId),
    /// What a box was told of its identifiers that are to go to other boxes.
    Resets(BoxId),
    /// From whom a box got an identifier by a reset. (Directory partition of the identifier.)
    FormerOwner {
        /// The identifier.
        identifier: IdentifierHash,
        /// The box that has it now.
        box_id: BoxId,
    },
    /// What a person shows of themselves, sealed, and its version.
    SealedProfile {
        /// The box.
        box_id: BoxId,
        /// Who asks.
        sender: BoxId,
        /// The version that the asker has: only a later one is told.
        after: u64,
    },
    /// Whether a box has a report. (Partition of the box.)
    HasReport {
        /// The box that is reported.
        box_id: BoxId,
        /// Stands for the one that reports it.
        mark: ReportMark,
    },
    /// The boxes of a partition that others have reported, in order, for its operator.
    Reported {
        /// Only those after this one.
        after: Option<BoxId>,
        /// So many at most.
        limit: u32,
    },
}

impl Query {
    /// Whether the answer leaves out what has expired by the time of the read.
    #[must_use]
    pub fn depends_on_time(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. } | Self::Outbox { .. } | Self::JoinTokens | Self::Resets(_)
        )
    }
}

/// The answer to a [`Query`], variant for variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::ResolveIdentifier`]: the box, if the identifier is verified and discoverable.
    ResolvedIdentifier(Option<BoxId>),
    /// To [`Query::ResolveDevice`] and [`Query::BoundDevice`].
    ResolvedDevice(Option<BoxId>),
    /// To [`Query::KeyRecord`]: `None` for no such box, and for a box that does not take envelopes from the asker.
    KeyRecord(Option<KeyRecordAnswer>),
    /// To [`Query::BoxState`].
    BoxState(Option<BoxStateAnswer>),
    /// To [`Query::DeviceAuth`]: the token generation of an authorised device.
    DeviceAuth(Option<u64>),
    /// To [`Query::Fetch`]: `None` for no such box or device.
    Page(Option<Page>),
    /// To [`Query::Outbox`].
    Outbox(Vec<OutboxItem>),
    /// To [`Query::PendingBoxes`].
    PendingBoxes(Vec<PendingBox>),
    /// To [`Query::VerifiedClaim`]: the box and the claim's generation.
    VerifiedClaim(Option<(BoxId, u64)>),
    /// To [`Query::Ownership`]: the epoch if owned, and the partition's clock.
    Ownership {
        /// The epoch at which this group owns the partition.
        epoch: Option<Epoch>,
        /// The latest time that a command carried into the partition.
        clock: Timestamp,
    },
    /// To [`Query::NextDue`]: `None` if nothing will.
    NextDue(Option<Timestamp>),
    /// To [`Query::Map`]: of version 0 before the cluster was founded.
    Map(ClusterMap),
    /// To [`Query::MapHistory`].
    MapHistory(Vec<MapHistoryRow>),
    /// To [`Query::JoinTokens`]: by the numbers that they are for.
    JoinTokens(Vec<JoinToken>),
    /// To [`Query::Identifiers`]: the oldest first; none for no such box.
    Identifiers(Vec<ProfileIdentifier>),
    /// To [`Query::Discoverable`]: `None` if the box does not have the identifier.
    Discoverable(Option<bool>),
    /// To [`Query::HasHeardFrom`].
    HasHeardFrom(bool),
    /// To [`Query::IsSuspended`].
    IsSuspended(bool),
    /// To [`Query::BoxView`]: `None` for no such box.
    BoxView(Option<BoxView>),
    /// To [`Query::IsDeleted`].
    IsDeleted(bool),
    /// To [`Query::Resets`]: those that have not lapsed.
    Resets(Vec<(IdentifierHash, ResetNote)>),
    /// To [`Query::FormerOwner`].
    FormerOwner(Option<Former>),
    /// To [`Query::SealedProfile`]: `None` for no such box, for one that does not take envelopes from the asker, and for one
    /// that has none. Empty, but for its version, if the asker has it.
    SealedProfile(Option<SealedProfile>),
    /// To [`Query::HasReport`].
    HasReport(bool),
    /// To [`Query::Reported`].
    Reported(Vec<ReportedBox>),
}

/// A box that others have reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedBox {
    /// The box.
    pub box_id: BoxId,
    /// How many boxes have, up to [`REPORTS_COUNTED`].
    pub reports: u32,
    /// Whether it may send nothing.
    pub suspended: bool,
}

/// A box as an operator sees it: counts, and neither whose it is nor with whom it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxView {
    /// Whether it is authorised.
    pub active: bool,
    /// Whether it may send nothing.
    pub suspended: bool,
    /// Devices that may use it.
    pub devices: u32,
    /// Verified identifiers.
    pub identifiers: u32,
    /// How many boxes have reported it, up to [`REPORTS_COUNTED`].
    pub reports: u32,
    /// Envelopes in its queue.
    pub depth: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest was enqueued.
    pub oldest: Option<Timestamp>,
    /// Envelopes that expired unread.
    pub expired_total: u64,
    /// How long an envelope that comes in now may wait, in milliseconds.
    pub ttl_ms: u64,
}

/// More reports than these are not counted for a [`BoxView`].
pub const REPORTS_COUNTED: u32 = 10_000;

/// A key record and where the asking device stands in the box's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecordAnswer {
    /// The record.
    pub record: KeyRecord,
    /// The lowest counter that the asking device has not used for this box.
    pub next_counter: Counter,
}

/// A box on its way through registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxStateAnswer {
    /// Its key record.
    pub record: KeyRecord,
    /// Whether it is authorised.
    pub active: bool,
}

/// A page of envelopes and the state of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Envelopes in the order of the queue.
    pub envelopes: Vec<Envelope>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// The queue as a whole.
    pub status: QueueStatus,
}

/// The state of a box's queue, as one device sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Envelopes in the queue. One that has expired counts until it is purged.
    pub depth: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest of those that have not expired was enqueued.
    pub oldest: Option<Timestamp>,
    /// How many envelopes of this box have expired unread since it was made.
    pub expired_total: u64,
    /// The device's cursor.
    pub cursor: Sequence,
    /// The sequence given out last.
    pub last: Sequence,
    /// How long an envelope that comes in now may wait, in milliseconds.
    pub ttl_ms: u64,
    /// Whether the box may send nothing.
    pub suspended: bool,
    /// When the first of the box's identifiers goes to another box, unless one of its devices says no.
    pub reset_at: Option<Timestamp>,
    /// The number of the last statement of how long envelopes may wait.
    pub ttl_number: u64,
}

/// A code that waits for the courier, sealed under the cluster's seal key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxItem {
    /// The identifier's hash.
    pub identifier: IdentifierHash,
    /// The box that asked for the code.
    pub box_id: BoxId,
    /// Names this one sending: a later code for the same claim has a higher one.
    pub serial: u64,
    /// Identifier and code, sealed.
    pub sealed: Bytes,
    /// When the code is no longer worth sending.
    pub expires_at: Timestamp,
}

/// A box with identifiers on their way in or out: a half-done registration, or a later change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingBox {
    /// The box.
    pub box_id: BoxId,
    /// The device that registered it, or one that is let in.
    pub device: DeviceId,
    /// The identifiers that it has asked for and not verified. Any of them brings a new box to life.
    pub identifiers: Vec<IdentifierHash>,
    /// Those that are to be released, with the generation under which the box lists each, or 0.
    pub leaving: Vec<(IdentifierHash, u64)>,
}

mod answer;
pub use answer::answer;
