//! Commands: everything that can change a partition, each in a file named for it.
//!
//! A command touches one partition only. What spans two (a registration touches the device's
//! directory entry, the box, and the identifier's directory entry) is a chain of idempotent
//! commands that any retry can finish.

mod accept;
mod acknowledge;
mod activate_box;
mod add_identifier;
mod admit;
mod adopt;
mod block;
mod claim_device;
mod count_report;
mod create_box;
mod delete_box;
mod enqueue;
mod expire;
mod extend_chain;
mod intent;
mod join_box;
mod mark_code_sent;
mod mark_code_unsent;
mod offer_device;
mod open_claim;
mod place;
mod recover;
mod release_claim;
mod remove_identifier;
mod reset;
mod set_profile;
mod set_ttl;
mod suspend;
mod update_key;
mod verify_claim;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::contest::ResetNote;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, Epoch, MapVersion, NodeId, PartitionId, Sequence};
use crate::rejection::Rejection;
use crate::time::Timestamp;
use crate::wire::Writer;

pub use accept::Accept;
pub use acknowledge::Acknowledge;
pub use activate_box::ActivateBox;
pub use add_identifier::AddIdentifier;
pub use admit::{Admit, IssueToken, RevokeToken};
pub use adopt::{Adopt, SetResetDelay};
pub use block::Block;
pub use claim_device::ClaimDevice;
pub use count_report::CountReport;
pub use create_box::CreateBox;
pub use delete_box::DeleteBox;
pub use enqueue::Enqueue;
pub use expire::Expire;
pub use extend_chain::ExtendChain;
pub use join_box::JoinBox;
pub use mark_code_sent::MarkCodeSent;
pub use mark_code_unsent::MarkCodeUnsent;
pub use offer_device::OfferDevice;
pub use open_claim::OpenClaim;
pub use place::{HISTORY_ROWS, Place};
pub use recover::{MAX_RECOVERY_LINKS, Recover};
pub use release_claim::ReleaseClaim;
pub use remove_identifier::{DropIdentifier, RemoveIdentifier};
pub use reset::{
    AwaitReset, ForgetReset, LoseIdentifier, NoteReset, OpenReset, ProveReset, StartReset,
    VetoReset,
};
pub use set_profile::SetProfile;
pub use set_ttl::SetTtl;
pub use suspend::Suspend;
pub use update_key::UpdateKey;
pub use verify_claim::VerifyClaim;

/// A command with the partition it is for and the ownership epoch its proposer believes in.
/// Apply refuses it if the partition is not owned at that epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// The partition.
    pub partition: PartitionId,
    /// The ownership epoch.
    pub epoch: Epoch,
    /// What to do in it.
    pub command: Command,
}

impl Routed {
    /// About how many bytes the command takes in the log, so that a log entry can be bounded before
    /// it is encoded.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        /// More than any command takes beside what is counted here.
        const SMALL: usize = 512;
        /// More than a new key record takes, with its KEM key.
        const KEY_RECORD: usize = 4096;
        /// More than a box id takes.
        const BOX_ID: usize = 20;
        /// More than a link takes.
        const LINK: usize = 192;
        SMALL
            + match &self.command {
                Command::Enqueue(enqueue) | Command::EnqueueOfContact(enqueue) => {
                    enqueue.body.len()
                }
                Command::CreateBox(create) => KEY_RECORD + create.sealed_identifier.len(),
                Command::UpdateKey(_) | Command::JoinBox(_) => KEY_RECORD,
                Command::Recover(recover) => KEY_RECORD + recover.links.len() * LINK,
                Command::Place(place) => place.change.weight_bytes(),
                Command::Admit(admit) => admit.joiner.entry.weight_bytes(),
                Command::SetProfile(set) => set.sealed.len(),
                Command::Accept(accept) => (accept.allow.len() + accept.disallow.len()) * BOX_ID,
                _ => 0,
            }
    }
}

/// Everything that can change a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Takes ownership of the partition at a newer epoch and sets its limits.
    Adopt(Adopt),
    /// Register, step 1, and the first step of JoinBox: binds a device id to a box, in the device's
    /// directory partition.
    ClaimDevice(ClaimDevice),
    /// Register, step 2: makes the box, not yet authorised, in its own partition.
    CreateBox(CreateBox),
    /// Register, step 3: opens a pending claim with its code, in the identifier's partition.
    OpenClaim(OpenClaim),
    /// The courier delivered a code: take it out of the outbox.
    MarkCodeSent(MarkCodeSent),
    /// Authorize, step 1: checks the code and gives the identifier to the box.
    VerifyClaim(VerifyClaim),
    /// Authorize, step 2: authorises the box and its first device.
    ActivateBox(ActivateBox),
    /// Puts an envelope at the end of a box's queue, once.
    Enqueue(Enqueue),
    /// Moves a device's cursor and purges what every device has acknowledged.
    Acknowledge(Acknowledge),
    /// Blocks or unblocks a sender.
    Block(Block),
    /// Removes some of what has outlived its time.
    Expire(Expire),
    /// The courier could not hand a code over.
    MarkCodeUnsent(MarkCodeUnsent),
    /// Gives a device a new KEM key.
    UpdateKey(UpdateKey),
    /// Changes the cluster map. (The placement group's first partition.)
    Place(Place),
    /// Issues a token by which a node can join. (As [`Command::Place`].)
    IssueToken(IssueToken),
    /// Lets a node in by its token. (As [`Command::Place`].)
    Admit(Admit),
    /// Takes a join token back. (As [`Command::Place`].)
    RevokeToken(RevokeToken),
    /// Adds a device to a box's chain, or removes one.
    ExtendChain(ExtendChain),
    /// Lets a device in that a link has added.
    JoinBox(JoinBox),
    /// Lets a device find the box that has added it, in the device's directory partition.
    OfferDevice(OfferDevice),
    /// Lists another identifier in a box, to be verified like the first one.
    AddIdentifier(AddIdentifier),
    /// Begins to take an identifier from a box.
    RemoveIdentifier(RemoveIdentifier),
    /// Takes a box's claims to an identifier from it, in the identifier's partition.
    ReleaseClaim(ReleaseClaim),
    /// Takes an identifier off a box's list, once its claims are released.
    DropIdentifier(DropIdentifier),
    /// Takes envelopes from anyone, or from contacts only.
    Accept(Accept),
    /// The same as [`Self::Enqueue`], from a sender whom the recipient has written to: it may use the room that is kept
    /// for contacts. Whoever proposes it has seen so in the sender's own box ([`crate::Query::HasHeardFrom`]).
    EnqueueOfContact(Enqueue),
    /// Sets how long envelopes may wait in a box.
    SetTtl(SetTtl),
    /// Suspends a box, or lets it send again.
    Suspend(Suspend),
    /// Counts a report of a box.
    CountReport(CountReport),
    /// Lets a device in by the recovery key, which may remove others.
    Recover(Recover),
    /// Deletes a box with all that it has.
    DeleteBox(DeleteBox),
    /// Register, to get an identifier from another box: a pending claim with its code.
    OpenReset(OpenReset),
    /// Authorize of such a claim, and of another after the delay: checks the code.
    ProveReset(ProveReset),
    /// Lets the delay run, once the other box has the word.
    StartReset(StartReset),
    /// Ends a reset by the word of the box that has the identifier.
    VetoReset(VetoReset),
    /// Tells a box that it is to lose an identifier.
    NoteReset(NoteReset),
    /// Takes that back.
    ForgetReset(ForgetReset),
    /// Keeps the new box for as long as a reset may take.
    AwaitReset(AwaitReset),
    /// Takes an identifier off the list of a box that has lost it.
    LoseIdentifier(LoseIdentifier),
    /// Replaces what a person shows of themselves.
    SetProfile(SetProfile),
    /// Sets the delay of resets, which Adopt does not carry.
    SetResetDelay(SetResetDelay),
}

impl Command {
    /// Whether the command judges by the time that mail expires by, and so has to carry it, also where the log's time
    /// is far ahead of that.
    #[must_use]
    pub fn goes_by_expiry(&self) -> bool {
        matches!(
            self,
            Self::Expire(_) | Self::ProveReset(_) | Self::StartReset(_) | Self::VetoReset(_)
        )
    }

    /// The box whose rows the command touches; `None` for a command of the directory or of the
    /// partition as a whole.
    #[must_use]
    pub fn box_id(&self) -> Option<BoxId> {
        match self {
            Self::CreateBox(command) => Some(command.box_id),
            Self::ActivateBox(command) => Some(command.box_id),
            Self::Enqueue(command) | Self::EnqueueOfContact(command) => Some(command.recipient),
            Self::Acknowledge(command) => Some(command.device.box_id),
            Self::Block(command) => Some(command.box_id),
            Self::UpdateKey(command) => Some(command.device.box_id),
            Self::ExtendChain(command) => Some(command.box_id),
            Self::JoinBox(command) => Some(command.device.box_id),
            Self::AddIdentifier(command) => Some(command.device.box_id),
            Self::RemoveIdentifier(command) => Some(command.device.box_id),
            Self::DropIdentifier(command) => Some(command.box_id),
            Self::Accept(command) => Some(command.box_id),
            Self::SetTtl(command) => Some(command.box_id),
            Self::Suspend(command) => Some(command.box_id),
            Self::CountReport(command) => Some(command.box_id),
            Self::Recover(command) => Some(command.device.box_id),
            Self::DeleteBox(command) => Some(command.device.box_id),
            Self::NoteReset(command) => Some(command.box_id),
            Self::ForgetReset(command) => Some(command.box_id),
            Self::AwaitReset(command) => Some(command.box_id),
            Self::LoseIdentifier(command) => Some(command.box_id),
            Self::SetProfile(command) => Some(command.device.box_id),
            Self::Adopt(_)
            | Self::SetResetDelay(_)
            | Self::OpenReset(_)
            | Self::ProveReset(_)
            | Self::StartReset(_)
            | Self::VetoReset(_)
            | Self::ClaimDevice(_)
            | Self::OfferDevice(_)
            | Self::OpenClaim(_)
            | Self::MarkCodeSent(_)
            | Self::MarkCodeUnsent(_)
            | Self::VerifyClaim(_)
            | Self::ReleaseClaim(_)
            | Self::Expire(_)
            | Self::Place(_)
            | Self::IssueToken(_)
            | Self::Admit(_)
            | Self::RevokeToken(_) => None,
        }
    }

    /// The box whose devices have something to look at once the command is applied: new mail, or
    /// another state of their right to read it.
    #[must_use]
    pub fn awaited_by(&self) -> Option<BoxId> {
        match self {
            Self::ActivateBox(command) => Some(command.box_id),
            Self::Enqueue(command) | Self::EnqueueOfContact(command) => Some(command.recipient),
            Self::ExtendChain(command) => Some(command.box_id),
            Self::Recover(command) => Some(command.device.box_id),
            Self::DeleteBox(command) => Some(command.device.box_id),
            Self::NoteReset(command) => Some(command.box_id),
            Self::Adopt(_)
            | Self::SetResetDelay(_)
            | Self::OpenReset(_)
            | Self::ProveReset(_)
            | Self::StartReset(_)
            | Self::VetoReset(_)
            | Self::ForgetReset(_)
            | Self::AwaitReset(_)
            | Self::LoseIdentifier(_)
            | Self::ClaimDevice(_)
            | Self::OfferDevice(_)
            | Self::CreateBox(_)
            | Self::JoinBox(_)
            | Self::OpenClaim(_)
            | Self::MarkCodeSent(_)
            | Self::MarkCodeUnsent(_)
            | Self::VerifyClaim(_)
            | Self::Acknowledge(_)
            | Self::Block(_)
            | Self::UpdateKey(_)
            | Self::AddIdentifier(_)
            | Self::RemoveIdentifier(_)
            | Self::ReleaseClaim(_)
            | Self::DropIdentifier(_)
            | Self::Accept(_)
            | Self::SetTtl(_)
            | Self::Suspend(_)
            | Self::CountReport(_)
            | Self::SetProfile(_)
            | Self::Expire(_)
            | Self::Place(_)
            | Self::IssueToken(_)
            | Self::Admit(_)
            | Self::RevokeToken(_) => None,
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The partition is owned at this epoch.
    Adopted {
        /// The epoch.
        epoch: Epoch,
    },
    /// The device id is bound to this box, which is the one asked for, or the one that an earlier
    /// try with the same genesis record chose.
    DeviceClaimed {
        /// The box.
        box_id: BoxId,
    },
    /// The box is there, waiting for its first identifier to be verified.
    BoxCreated,
    /// The claim is pending and its code is in the outbox.
    ClaimOpened,
    /// The code is no longer in the outbox.
    CodeMarkedSent,
    /// The identifier belongs to the box.
    ClaimVerified {
        /// The claim's generation: names this ownership of the identifier for ever.
        generation: u64,
    },
    /// The box and its device are authorised.
    BoxActivated {
        /// The generation of the device's token.
        token_generation: u64,
    },
    /// The envelope is in the queue, from this or an earlier try.
    Enqueued {
        /// Its place.
        sequence: Sequence,
    },
    /// The cursor is where it should be.
    Acknowledged {
        /// The device's cursor now, which may be higher than asked for.
        cursor: Sequence,
        /// How many envelopes were purged.
        purged: u32,
    },
    /// The sender is blocked, or not, as asked.
    BlockChanged,
    /// Some old rows are gone.
    Expired {
        /// How many rows were removed.
        removed: u32,
        /// Whether there is more to remove now.
        more: bool,
    },
    /// To [`Command::MarkCodeUnsent`].
    CodeMarkedUnsent,
    /// The device's KEM key is the one that was given, from this or an earlier try.
    KeyUpdated {
        /// The sequence given out last: what is sealed for keys before the previous one has a
        /// place up to here, and never will have one beyond.
        last: Sequence,
    },
    /// The map is changed, by this or an earlier try.
    Placed {
        /// The version of the map with the change.
        version: MapVersion,
    },
    /// There is a join token, by this or an earlier try.
    TokenIssued {
        /// The number of the node that may join by it.
        node: NodeId,
        /// From then on it is good no more.
        expires_at: Timestamp,
    },
    /// The join token is good for nobody, by this or an earlier try.
    TokenRevoked,
    /// The link is in the chain, from this or an earlier try.
    ChainExtended {
        /// The version that the chain has with it.
        version: u64,
    },
    /// The device has its place in the box.
    BoxJoined {
        /// The generation of its token.
        token_generation: u64,
    },
    /// The box lists the identifier, verified or not.
    IdentifierAdded,
    /// The identifier is on its way out of the box: it is to be released.
    IdentifierLeaving {
        /// The generation under which the box lists it, or 0 if it is not verified.
        generation: u64,
    },
    /// The box does not list the identifier any more.
    IdentifierRemoved,
    /// The box has no pending claim to the identifier, and none of the named generation.
    ClaimReleased {
        /// The generation of a later one that it has.
        held: Option<u64>,
    },
    /// The box takes envelopes from whom it was asked to.
    AcceptChanged {
        /// Whether those are contacts only.
        contacts_only: bool,
    },
    /// Envelopes may wait in the box for so long, from the next one on.
    TtlSet {
        /// In milliseconds: what was asked for, or what the cluster allows if that is shorter.
        ttl_ms: u64,
    },
    /// The box is suspended, or not, as asked.
    SuspensionSet {
        /// Whether it was otherwise before.
        changed: bool,
    },
    /// The report is counted, by this or an earlier try.
    ReportCounted {
        /// Whether it was not before.
        first: bool,
    },
    /// The box is deleted.
    BoxDeleted {
        /// The identifiers that are to be released, with the generation under which the box had each, or 0.
        leaving: Vec<(IdentifierHash, u64)>,
    },
    /// The code was right, and the identifier is another box's: it is to be had later.
    ResetWaits {
        /// The box that has it.
        owner: BoxId,
        /// Names the reset, and says when: what the owner is told.
        note: ResetNote,
        /// Whether the owner was told.
        started: bool,
    },
    /// The box keeps the identifier.
    ResetVetoed,
    /// The box knows what it is to know of a reset.
    ResetNoted,
    /// The profile is the one that was given, from this or an earlier try.
    ProfileSet,
    /// Resets have the delay.
    ResetDelaySet,
}

/// What apply answers: what was done, or why not.
pub type Reply = Result<Outcome, Rejection>;

/// The digest by which two texts under one envelope id are told apart: the first 16 bytes of the
/// SHA-256 of recipient, chain version, TTL and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EnvelopeDigest(pub [u8; 16]);

impl EnvelopeDigest {
    /// The digest of an envelope as it is sent. All that the sender chose is in it, so that a retry
    /// is answered with the first outcome only if it asks for the same.
    #[must_use]
    pub fn of(recipient: &BoxId, chain_version: u64, ttl_ms: Option<u64>, body: &[u8]) -> Self {
        let head = Writer::labelled("rossby envelope digest v1")
            .fixed(recipient.as_bytes())
            .u64(chain_version)
            .u8(u8::from(ttl_ms.is_some()))
            .u64(ttl_ms.unwrap_or(0))
            .u64(body.len() as u64)
            .finish();
        let hash: [u8; 32] = Sha256::new()
            .chain_update(head)
            .chain_update(body)
            .finalize()
            .into();
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Self(digest)
    }
}
