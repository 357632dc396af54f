//! The rows: all tables of a device in one place.
//!
//! | table | key -> value |
//! |---|---|
//! | schema | () -> version of the whole |
//! | identity | () -> private keys and the box's own key record |
//! | account | () -> servers, identifier, box, token |
//! | reset | () -> a registration that waits for its identifier |
//! | contacts | box -> pinned key record |
//! | counters | box -> the last counter used for it |
//! | pending | box + counter -> an envelope whose fate is not known yet |
//! | messages | envelope id + recipient -> what was received or sent |
//! | acts | conversation + message -> what was done to that message since (device/acts.rs) |
//! | receipts | conversation + message -> whose devices have it, and who has read it |
//! | owed | conversation + message -> the receipt for it that is still to be sent |
//! | choices | () -> what the owner has chosen, and when (owner/choices.rs) |
//! | profiles | box -> what it shows of itself, and the key for that |
//! | told_profile | box -> which version of this box's profile it was told of |
//! | written | () -> the instant that was put on a message last |
//! | entries | box -> what the owner said of somebody, and when (owner/contact.rs) |
//! | resolved | box -> when it was looked up whether their identifier still leads there |
//! | allow | () -> the service is still to be told of all contacts |
//! | expected | box -> the chain that another device of this box holds somebody to who is not known here |
//! | marks | () -> how far reading has come |
//! | retiring | () -> KEM keys to erase, and when |
//! | key_times | counter -> when that KEM key came and went |
//! | key_schedule | () -> when the device makes a new KEM key by itself |
//! | shown | () -> up to which message a listener has shown them |
//! | map | () -> where boxes are led, as some server said |
//! | linking | () -> the keys of a device that belongs to no box yet |
//! | devices | device -> what it is called |
//! | news | version -> a link of the own chain that the owner was not told of |
//! | greeted | device -> that it was told what this device knows |
//! | groups | group -> what each of its devices said (group/) |

use std::collections::BTreeMap;

use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, Counter, DeviceId, EnvelopeId, Sequence};
use rossby_domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Row;
use crate::conversation::Conversation;
use crate::crypto::secret::{Secret, SecretBytes};
use crate::envelope::{ChainPoint, ConversationId, MessageId};
use crate::group::{GroupId, GroupName};
use crate::linking::DeviceName;
use crate::owner::{Choices, Entry, Overruled};
use crate::profile::ProfileKey;

macro_rules! row {
    ($type:ty, $table:literal, $key:ty) => {
        impl Row for $type {
            const TABLE: &'static str = $table;
            const VERSION: u8 = 1;
            type Key = $key;
        }
    };
}

/// The layout of all rows together.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Schema {
    pub(super) version: u32,
}
row!(Schema, "schema", ());

/// The device's private keys and the box's own key record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityRow {
    /// The seed of the Ed25519 signing key.
    pub signing_seed: Secret<32>,
    /// The seed of the recovery key; `None` on a device that was linked.
    pub recovery_seed: Option<Secret<32>>,
    /// KEM seeds by counter, the newest last.
    pub kem_seeds: Vec<(u64, Secret<32>)>,
    /// The canonical bytes of the box's own key record.
    pub record: Vec<u8>,
}

impl Row for IdentityRow {
    const TABLE: &'static str = "identity";
    const VERSION: u8 = 2;
    type Key = ();

    fn of_earlier(version: u8, value: &[u8]) -> Option<Self> {
        let earlier = (version == 1).then(|| super::decode::<Self, IdentityRowV1>(value));
        let earlier = earlier?.ok()?;
        Some(Self {
            signing_seed: earlier.signing_seed,
            recovery_seed: Some(earlier.recovery_seed),
            kem_seeds: earlier.kem_seeds,
            record: earlier.record,
        })
    }
}

/// The same as version 1 had it: every device was the first one of its box.
#[derive(Serialize, Deserialize)]
pub(super) struct IdentityRowV1 {
    pub(super) signing_seed: Secret<32>,
    pub(super) recovery_seed: Secret<32>,
    pub(super) kem_seeds: Vec<(u64, Secret<32>)>,
    pub(super) record: Vec<u8>,
}

/// The keys of a device that belongs to no box yet, and what it is to be called.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkingRow {
    /// The seed of the Ed25519 signing key.
    pub signing_seed: Secret<32>,
    /// The seed of the KEM key.
    pub kem_seed: Secret<32>,
    /// The name.
    pub name: DeviceName,
}
row!(LinkingRow, "linking", ());

/// What a device of the box is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNameRow {
    /// The name.
    pub name: DeviceName,
    /// When it was called so, by the clock of the device that it was done on. The later name holds.
    pub at: Timestamp,
}
row!(DeviceNameRow, "devices", DeviceId);

/// A device of the box that was told what this device knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GreetedRow;
row!(GreetedRow, "greeted", DeviceId);

/// A link that adds a device was sent: the box may have more devices than this one knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowingRow;
row!(GrowingRow, "growing", ());

/// A registration that may take its identifier from another box: there from the request for a code until the box is
/// authorised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRow {
    /// The identifier.
    pub identifier: StoredIdentifier,
    /// When it can be had, by the service's clock, once it is proven.
    pub completes_at: Option<Timestamp>,
}
row!(ResetRow, "reset", ());

/// Where the device is registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccountRow {
    /// Addresses of nodes, for example `https://rossby.example:7400`.
    pub servers: Vec<String>,
    /// The certificate authority to trust, in PEM; `None` on a plain loopback connection.
    pub ca_pem: Option<String>,
    /// The identifier that the box is registered for.
    pub identifier: Option<StoredIdentifier>,
    /// Whether others may find the box by it.
    pub discoverable: bool,
    /// The box, once registered.
    pub box_id: Option<BoxId>,
    /// What authorisation gave.
    pub access: Option<Access>,
}
row!(AccountRow, "account", ());

/// An identifier, normalised.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIdentifier {
    kind: u8,
    text: String,
}

impl StoredIdentifier {
    /// The identifier again; `None` if the row does not hold one.
    #[must_use]
    pub fn to_identifier(&self) -> Option<Identifier> {
        let identifier = match self.kind {
            1 => Identifier::phone(&self.text),
            _ => Identifier::email(&self.text),
        };
        identifier
            .ok()
            .filter(|identifier| identifier.kind() == self.kind)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&Identifier> for StoredIdentifier {
    fn from(identifier: &Identifier) -> Self {
        Self {
            kind: identifier.kind(),
            text: identifier.as_str().to_owned(),
        }
    }
}

impl std::fmt::Debug for StoredIdentifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredIdentifier(..)")
    }
}

/// What a device shows to be let in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    /// The token.
    pub token: SecretBytes,
    /// The cluster's name: the host of the Hawk MAC.
    pub hawk_host: String,
}

/// Someone we know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactRow {
    /// A name given by this device's owner.
    pub name: Option<String>,
    /// The identifier they were found by, if they were.
    pub identifier: Option<StoredIdentifier>,
    /// The canonical bytes of their key record, verified.
    pub record: Vec<u8>,
    /// The chain that we hold them to.
    pub pinned: ChainPoint,
    /// When they were first met.
    pub since: Timestamp,
    /// Whether this device's owner added them, or they wrote first.
    pub added: bool,
    /// Whether the owner has blocked them.
    pub blocked: bool,
    /// When the owner compared the safety number with theirs.
    pub verified: Option<Timestamp>,
    /// A change of their identity that the owner has not dealt with yet.
    pub changed: Option<IdentityChange>,
}

impl Row for ContactRow {
    const TABLE: &'static str = "contacts";
    const VERSION: u8 = 2;
    type Key = BoxId;

    fn of_earlier(version: u8, value: &[u8]) -> Option<Self> {
        match version {
            1 => super::decode::<Self, ContactRowV1>(value)
                .ok()
                .map(Self::from),
            _ => None,
        }
    }
}

/// A contact as version 1 had it: nobody was verified.
#[derive(Serialize, Deserialize)]
pub(super) struct ContactRowV1 {
    pub(super) name: Option<String>,
    pub(super) identifier: Option<StoredIdentifier>,
    pub(super) record: Vec<u8>,
    pub(super) pinned: ChainPoint,
    pub(super) since: Timestamp,
    pub(super) added: bool,
    pub(super) blocked: bool,
}

impl From<ContactRowV1> for ContactRow {
    fn from(row: ContactRowV1) -> Self {
        Self {
            name: row.name,
            identifier: row.identifier,
            record: row.record,
            pinned: row.pinned,
            since: row.since,
            added: row.added,
            blocked: row.blocked,
            verified: None,
            changed: None,
        }
    }
}

/// What the owner said of somebody, on any device. It stays when they are forgotten, without what it said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// What was said, and when.
    pub entry: Entry,
    /// The changes of their identity that were noticed or heard of here last: none of them is news again.
    pub changes: Vec<ChangeMark>,
}

impl EntryRow {
    /// How many changes are known again.
    const MAX_CHANGES: usize = 16;

    /// Takes note of a change that the owner is told of here.
    pub fn note(&mut self, change: &IdentityChange) {
        if !self.knows(change) {
            self.changes.push(ChangeMark::of(change));
            let old = self.changes.len().saturating_sub(Self::MAX_CHANGES);
            self.changes.drain(..old);
        }
    }

    /// Whether the owner was told of a change here.
    #[must_use]
    pub fn knows(&self, change: &IdentityChange) -> bool {
        self.changes.contains(&ChangeMark::of(change))
    }
}

impl Row for EntryRow {
    const TABLE: &'static str = "entries";
    const VERSION: u8 = 2;
    type Key = BoxId;

    fn of_earlier(version: u8, value: &[u8]) -> Option<Self> {
        match version {
            1 => {
                let (entry, _settled) = super::decode::<Self, (Entry, Timestamp)>(value).ok()?;
                let changes = Vec::new();
                Some(Self { entry, changes })
            }
            _ => None,
        }
    }
}

/// What tells one change of somebody's identity from another, on whichever device. That an identifier moved is the same however
/// often it is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeMark {
    code: String,
    other: Option<BoxId>,
    at: Option<Timestamp>,
}

impl ChangeMark {
    fn of(change: &IdentityChange) -> Self {
        let (other, at) = match &change.what {
            WhatChanged::Chain(_) | WhatChanged::OwnChain => (None, Some(change.at)),
            WhatChanged::MovedFrom(other) | WhatChanged::MovedTo(other) => (Some(*other), None),
        };
        Self {
            code: change.what.code().to_owned(),
            other,
            at,
        }
    }
}

/// Another device has overruled what was said of somebody, and the service is still to be told what holds: it may have heard the two in
/// another order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverruledRow {
    /// What it is about.
    pub what: Overruled,
}
row!(OverruledRow, "overruled", BoxId);

/// From whom messages are taken may not be what holds: another device has chosen otherwise, or one was removed that may have asked
/// for something else. The service is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatRow;
row!(RepeatRow, "repeat", ());

/// What the service said last of whom the box takes messages from. It is the owner's choice, unless somebody else has made it: whoever
/// has a device's token can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedRow {
    /// From contacts only.
    pub contacts_only: bool,
}
row!(AcceptedRow, "accepted", ());

/// The identity chain of somebody who is not known here yet, by the word of another device of this box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedRow {
    /// A point of it.
    pub chain: ChainPoint,
}
row!(ExpectedRow, "expected", BoxId);

/// A change of a contact's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityChange {
    /// When it was noticed.
    pub at: Timestamp,
    /// What it is.
    pub what: WhatChanged,
    /// Whether nothing is sent to them until the owner has confirmed it: they, or who had their
    /// identifier before, were verified.
    pub stops_sending: bool,
}

impl IdentityChange {
    /// Whether it is the same one, on whichever devices.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        ChangeMark::of(self) == ChangeMark::of(other)
    }
}

/// What does not fit a contact's identity any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhatChanged {
    /// Another chain than the pinned one was shown for their box; in words.
    Chain(String),
    /// They were shown another chain of this box than the real one.
    OwnChain,
    /// Their identifier belonged to this box before.
    MovedFrom(BoxId),
    /// Their identifier now belongs to this box.
    MovedTo(BoxId),
}

impl WhatChanged {
    /// Whether the safety number is another where somebody poses as them. It is of the first keys of a box, so
    /// two chains of one box have the same.
    #[must_use]
    pub fn is_seen_in_number(&self) -> bool {
        matches!(self, Self::MovedFrom(_) | Self::MovedTo(_))
    }

    /// A stable name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Chain(_) => "CHAIN_CHANGED",
            Self::OwnChain => "OWN_CHAIN_CHANGED",
            Self::MovedFrom(_) => "MOVED_FROM",
            Self::MovedTo(_) => "MOVED_TO",
        }
    }
}

impl std::fmt::Display for WhatChanged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Chain(what) => f.write_str(what),
            Self::OwnChain => f.write_str("they were shown another identity chain of yours"),
            Self::MovedFrom(known) => {
                write!(f, "their phone or email belonged to box {known} before")
            }
            Self::MovedTo(found) => {
                write!(f, "their phone or email now belongs to box {found}")
            }
        }
    }
}

impl std::fmt::Debug for ContactRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContactRow")
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

/// The last counter that was used for a box. Stored before anything is sent under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CounterRow {
    /// The counter.
    pub last: Counter,
    /// When it was last compared with what the service knows.
    pub compared_at: Timestamp,
}
row!(CounterRow, "counters", BoxId);

/// An envelope that may or may not have been stored. It is sent again, byte for byte, until that
/// is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRow {
    /// The content, to be sealed again should the recipient's keys change.
    pub content: SecretBytes,
    /// When it was written.
    pub written_at: Timestamp,
    /// The sealed body; empty while the recipient's keys are not known.
    pub body: Vec<u8>,
    /// The version of the recipient's chain that it is sealed for.
    pub chain_version: u64,
    /// Its place among the messages.
    pub order: u64,
    /// The group that it is said in; `None` if it is for the recipient alone.
    pub group: Option<GroupId>,
    /// How long it may wait in the recipient's box, in milliseconds; `None` for as long as may be.
    pub ttl_ms: Option<u64>,
}

impl Row for PendingRow {
    const TABLE: &'static str = "pending";
    const VERSION: u8 = 3;
    type Key = (BoxId, Counter);

    fn of_earlier(version: u8, value: &[u8]) -> Option<Self> {
        match version {
            1 => {
                let earlier = super::decode::<Self, PendingRowV1>(value).ok()?;
                Some(Self::of(earlier, None))
            }
            2 => {
                let (earlier, group) = super::decode::<Self, PendingRowV2>(value).ok()?;
                Some(Self::of(earlier, group))
            }
            _ => None,
        }
    }
}

impl PendingRow {
    fn of(earlier: PendingRowV1, group: Option<GroupId>) -> Self {
        Self {
            content: earlier.content,
            written_at: earlier.written_at,
            body: earlier.body,
            chain_version: earlier.chain_version,
            order: earlier.order,
            group,
            ttl_ms: None,
        }
    }
}

/// The same as version 2 had it: nothing was to wait for less than may be.
pub(super) type PendingRowV2 = (PendingRowV1, Option<GroupId>);

/// The same as version 1 had it: there were no groups.
#[derive(Serialize, Deserialize)]
pub(super) struct PendingRowV1 {
    pub(super) content: SecretBytes,
    pub(super) written_at: Timestamp,
    pub(super) body: Vec<u8>,
    pub(super) chain_version: u64,
    pub(super) order: u64,
}

/// What this device knows of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The box of who made it.
    pub maker: BoxId,
    /// Random bytes: with the maker, the group's id is of these.
    pub nonce: [u8; 16],
    /// The verified pages.
    pub pages: Vec<Vec<u8>>,
    /// Pages whose devices' keys are still to be looked up.
    pub unverified: Vec<Vec<u8>>,
    /// Up to which version of this device's page each box was told.
    pub told: BTreeMap<BoxId, u64>,
    /// Whether this box ever was in it.
    pub joined: bool,
    /// The members and the name as they were shown last.
    pub shown: Option<(Vec<BoxId>, Option<GroupName>)>,
}
row!(GroupRow, "groups", GroupId);

/// What names a message: the envelope's id and the box that it went to.
pub type MessageKey = (EnvelopeId, BoxId);

/// Something received or sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Its place among all messages of this device.
    pub order: u64,
    /// Its place in the box that it went to; `None` while that is not known.
    pub sequence: Option<Sequence>,
    /// When it was enqueued, by the service's clock; for what was sent, when it was written.
    pub at: Timestamp,
    /// What became of it.
    pub state: MessageState,
}
row!(MessageRow, "messages", MessageKey);

/// What was done to a message since it was written. Found by the conversation and the message's id; it may
/// be there before the message is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ActsRow {
    /// Whether it was taken back.
    pub deleted: bool,
    /// The last of its edits.
    pub edit: Option<LastAct>,
    /// The last reaction of each person, by their box. An empty text is one that was taken back.
    pub reactions: BTreeMap<BoxId, LastAct>,
}
row!(ActsRow, "acts", (Conversation, MessageId));

/// The last of several acts of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAct {
    /// When it was done, by the clock of whose act it is.
    pub at: Timestamp,
    /// By which of their devices.
    pub by: DeviceId,
    /// The text or the emoji.
    pub text: SecretBytes,
}

/// How far a message has come, by the word of those who have it, and by the time of their clocks. Of one that came in: what this box
/// has told its author, or need not tell any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReceiptsRow {
    /// On whose devices it is, and since when.
    pub delivered: BTreeMap<BoxId, Timestamp>,
    /// Who has seen it, and when.
    pub read: BTreeMap<BoxId, Timestamp>,
}
row!(ReceiptsRow, "receipts", (Conversation, MessageId));

/// A receipt that is still to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedRow {
    /// That the message was read; otherwise that it is here.
    pub read: bool,
}
row!(OwedRow, "owed", (Conversation, MessageId));

/// What the owner has chosen, on any device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoicesRow {
    /// What was chosen, and when.
    pub choices: Choices,
}
row!(ChoicesRow, "choices", ());

/// What a box shows of itself, this one or another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProfileRow {
    /// The key that it is sealed under.
    pub key: Option<ProfileKey>,
    /// The version that there is word of.
    pub told: u64,
    /// The version that is known here; 0 for none.
    pub version: u64,
    /// The bytes of the profile.
    pub profile: Option<SecretBytes>,
    /// The same sealed, of this box's own.
    pub sealed: Vec<u8>,
    /// Whether the service does not show the newest, or shows what is not theirs.
    pub is_withheld: bool,
    /// Whether somebody has the key who must not see what comes.
    pub must_rotate: bool,
    /// What the service is being given, of this box's own: the very same again until its fate is known.
    pub next: Option<NextProfile>,
}
row!(ProfileRow, "profiles", BoxId);

/// What this box is to show from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextProfile {
    /// The key that it is sealed under.
    pub key: ProfileKey,
    /// Whether nobody has had that key before.
    pub is_fresh: bool,
    /// Its version.
    pub version: u64,
    /// The bytes of the profile.
    pub profile: SecretBytes,
    /// The same sealed.
    pub sealed: Vec<u8>,
}

/// Which version of this box's profile somebody was told of, under which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldProfileRow {
    /// The key's id.
    pub key: [u8; 16],
    /// The version.
    pub version: u64,
}
row!(ToldProfileRow, "told_profile", BoxId);

/// The instant that this device put on a message last. It names the message, with the device
/// ([`MessageId`]): no other may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WrittenRow {
    /// The instant.
    pub last: Timestamp,
}
row!(WrittenRow, "written", ());

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageState {
    /// Received and verified.
    Received {
        /// The content's bytes.
        content: SecretBytes,
        /// The conversation.
        conversation: ConversationId,
        /// When it was written, by the sender's clock.
        written_at: Timestamp,
    },
    /// Received, and it can not be opened or does not verify. Kept as it came.
    Unreadable {
        /// A stable name of the reason.
        code: String,
        /// The reason in words.
        reason: String,
        /// The envelope's body.
        body: Vec<u8>,
    },
    /// Sent, and not yet known to be stored.
    Pending {
        /// The content's bytes.
        content: SecretBytes,
    },
    /// Stored in the recipient's box.
    Sent {
        /// The content's bytes.
        content: SecretBytes,
    },
    /// Refused for good; it will not be sent again.
    Refused {
        /// The content's bytes.
        content: SecretBytes,
        /// The service's code.
        code: String,
        /// Its words.
        reason: String,
    },
    /// It may have been stored, and nobody can tell any more. Not sent again by itself.
    Doubtful {
        /// The content's bytes.
        content: SecretBytes,
    },
    /// Taken back before it was known to be stored. What it said is erased.
    Withdrawn,
    /// Sent to a group, by a device of this box.
    ToGroup {
        /// The group.
        group: GroupId,
        /// The content's bytes.
        content: SecretBytes,
        /// What became of it for each member. Another device's are not known.
        outcomes: BTreeMap<BoxId, Outcome>,
    },
}

/// What became of what was sent to one box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Not yet known to be stored.
    Pending,
    /// Stored, at this place.
    Sent(Sequence),
    /// Refused for good; it will not be sent again.
    Refused {
        /// The service's code.
        code: String,
        /// Its words.
        reason: String,
    },
    /// It may have been stored, and nobody can tell any more. Not sent again by itself.
    Doubtful,
    /// Taken back before it was known to be stored.
    Withdrawn,
}

impl Outcome {
    /// The state of a message to one person with this outcome.
    #[must_use]
    pub fn of(self, content: SecretBytes) -> MessageState {
        match self {
            Self::Pending => MessageState::Pending { content },
            Self::Sent(_) => MessageState::Sent { content },
            Self::Refused { code, reason } => MessageState::Refused {
                content,
                code,
                reason,
            },
            Self::Doubtful => MessageState::Doubtful { content },
            Self::Withdrawn => MessageState::Withdrawn,
        }
    }

    /// Its place in the box, if it is stored there.
    #[must_use]
    pub fn sequence(&self) -> Option<Sequence> {
        match self {
            Self::Sent(sequence) => Some(*sequence),
            _ => None,
        }
    }
}

/// How far this device has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MarksRow {
    /// The last sequence that is stored here.
    pub cursor: Sequence,
    /// The last sequence whose acknowledgement the service confirmed.
    pub acknowledged: Sequence,
    /// The order of the next message.
    pub next_order: u64,
}
row!(MarksRow, "marks", ());

/// A link of the own chain, by its version, that another device or the recovery key has signed and the owner has not been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewsRow;
row!(NewsRow, "news", u64);

/// When it was last looked up whether somebody's identifier still leads to their box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedRow {
    /// By this device's clock.
    pub at: Timestamp,
    /// The other box that it led to, which the owner was told.
    pub elsewhere: Option<BoxId>,
}
row!(ResolvedRow, "resolved", BoxId);

/// How long mail may wait in this box, as this device last heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TtlRow {
    /// The number of the statement.
    pub number: u64,
    /// In milliseconds.
    pub ttl_ms: u64,
    /// Whether the owner knows.
    pub told: bool,
}
row!(TtlRow, "ttl", ());

/// How far a listener has come with showing what came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownRow {
    /// Every message before this order has been shown.
    pub next_order: u64,
}
row!(ShownRow, "shown", ());

/// KEM keys that nobody can seal to any more, and until when something may still be sealed to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetiringRow {
    /// Keys with a counter below this one.
    pub below: u64,
    /// They are erased once everything up to here is acknowledged.
    pub upto: Sequence,
}
row!(RetiringRow, "retiring", ());

/// When one of the device's KEM keys came and went, by its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyTimesRow {
    /// When others could first seal to it; `None` if that was not kept.
    pub since: Option<Timestamp>,
    /// When its private half was erased.
    pub erased: Option<Timestamp>,
}
row!(KeyTimesRow, "key_times", u64);

/// When the device makes a new KEM key by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyScheduleRow {
    /// How old the current one is then, in milliseconds; `None`: never.
    pub every_ms: Option<u64>,
}
row!(KeyScheduleRow, "key_schedule", ());

/// Where boxes are led, as some server said: a help, which the next start begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapRow {
    /// The answer of `GetMap`.
    pub map: Vec<u8>,
}
row!(MapRow, "map", ());
