//! Bugs that are planted on purpose, so that the simulation can show that it would find them.
//!
//! Without the feature `planted-bugs`, which no shipped build has, [`planted`] is `false` for the
//! compiler and nothing of this is left. With it, one bug at most is alive in a process.

/// A bug that a simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The log says that entries are durable when they were written but not synced.
    AckBeforeFsync,
    /// A checkpoint's manifest is published before the log is durable up to it.
    ManifestBeforeDrain,
    /// A box does not remember what was sent to it.
    DedupeOff,
    /// An acknowledgement purges what the device has not acknowledged yet.
    PurgeBeforeLastDevice,
    /// A vote counts as saved before it is on disk.
    VoteNotSynced,
    /// A checkpoint is taken as it is read, whatever its checksums and digest say.
    DamageUnchecked,
    /// A replica that is added gets the id that others had before it.
    ReplicaIdReused,
    /// A leader takes its lease for good however long ago its voters promised it.
    LeaseNeverEnds,
    /// A group takes commands for partitions that it does not own.
    SkippedEpochCheck,
    /// A replica that is added gets its vote before it has what the others have.
    PromotedBeforeCaughtUp,
    /// A join token lets every try in that shows it.
    TokenUsedTwice,
    /// A new group gets partitions that others own.
    OwnedPartitionGiven,
    /// A box takes envelopes from those whom it blocks.
    BlockIgnored,
    /// A reset can be completed as soon as it has started.
    ResetEarly,
    /// A reset starts though its owner was not told.
    ResetUntold,
    /// A box that was deleted serves its devices on.
    DeletedStillRead,
    /// A box that was deleted takes mail.
    DeletedStillWritten,
    /// An envelope waits as long as the service lets it, whatever the box says.
    TtlOfBoxIgnored,
    /// A box that is suspended may send.
    SuspendedSends,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::AckBeforeFsync,
        Self::ManifestBeforeDrain,
        Self::DedupeOff,
        Self::PurgeBeforeLastDevice,
        Self::VoteNotSynced,
        Self::DamageUnchecked,
        Self::ReplicaIdReused,
        Self::LeaseNeverEnds,
        Self::SkippedEpochCheck,
        Self::PromotedBeforeCaughtUp,
        Self::TokenUsedTwice,
        Self::OwnedPartitionGiven,
        Self::BlockIgnored,
        Self::ResetEarly,
        Self::ResetUntold,
        Self::DeletedStillRead,
        Self::DeletedStillWritten,
        Self::TtlOfBoxIgnored,
        Self::SuspendedSends,
    ];

    /// Its name, as a command line gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::ManifestBeforeDrain => "manifest-before-drain",
            Self::DedupeOff => "dedupe-off",
            Self::PurgeBeforeLastDevice => "purge-before-last-device",
            Self::VoteNotSynced => "vote-not-synced",
            Self::DamageUnchecked => "damage-unchecked",
            Self::ReplicaIdReused => "replica-id-reused",
            Self::LeaseNeverEnds => "lease-never-ends",
            Self::SkippedEpochCheck => "skipped-epoch-check",
            Self::PromotedBeforeCaughtUp => "promoted-before-caught-up",
            Self::TokenUsedTwice => "token-used-twice",
            Self::OwnedPartitionGiven => "owned-partition-given",
            Self::BlockIgnored => "block-ignored",
            Self::ResetEarly => "reset-early",
            Self::ResetUntold => "reset-untold",
            Self::DeletedStillRead => "deleted-still-read",
            Self::DeletedStillWritten => "deleted-still-written",
            Self::TtlOfBoxIgnored => "ttl-of-box-ignored",
            Self::SuspendedSends => "suspended-sends",
        }
    }
}

#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Plants a bug in this process, for good.
///
/// # Errors
/// The bug that was planted before.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Bug) -> Result<(), Bug> {
    match PLANTED.get_or_init(|| bug) {
        planted if *planted == bug => Ok(()),
        planted => Err(*planted),
    }
}

/// Whether this bug is alive in this process.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// Whether this bug is alive in this process: never, without the feature `planted-bugs`.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn planted(_bug: Bug) -> bool {
    false
}
