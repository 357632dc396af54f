//! What holds for the decoders of this crate, whatever they are given. For the fuzzer
//! (`fuzz/targets/`) and for the tests that replay its corpus; never in a release.
//!
//! Each function panics if something that must hold does not, and says whether the input was
//! accepted. Where bytes are guarded by a checksum, most inputs get a right one: what lies behind
//! it must hold too, should it ever be made by chance, by an attacker or by a bug.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use rossby_domain::chain::KeyRecord;
use rossby_domain::claim::{Claim, CodeBudget, PendingClaim};
use rossby_domain::dedupe::SenderRow;
use rossby_domain::envelope::Envelope;
use rossby_domain::placement::{Admissions, ClusterMap, MapHistoryRow};
use rossby_domain::profile::{Intent, Profile, SealedProfile};
use rossby_domain::tables::{Meta, OutboxRow, QueueState};
use rossby_seams::disk::{Disk, MemoryDisk};

use crate::codec::{Batch, Versioned, decode_value, encode_value};
use crate::datadir::{DataDirectory, FORMAT};

pub use crate::store::fuzz::{manifest, row_file};
pub use crate::wal::fuzz::wal;

/// An entry of the log, or a value of a table: the first byte says which.
pub fn entry(data: &[u8]) -> bool {
    let Some((kind, bytes)) = data.split_first() else {
        return false;
    };
    match kind % 16 {
        0 => value::<Batch>(bytes),
        1 => value::<Claim>(bytes),
        2 => value::<KeyRecord>(bytes),
        3 => value::<Profile>(bytes),
        4 => value::<Envelope>(bytes),
        5 => value::<QueueState>(bytes),
        6 => value::<SenderRow>(bytes),
        7 => value::<PendingClaim>(bytes),
        8 => value::<CodeBudget>(bytes),
        9 => value::<OutboxRow>(bytes),
        10 => value::<Intent>(bytes),
        11 => value::<Meta>(bytes),
        12 => value::<ClusterMap>(bytes),
        13 => value::<MapHistoryRow>(bytes),
        14 => value::<Admissions>(bytes),
        _ => value::<SealedProfile>(bytes),
    }
}

/// What is read is written so that it reads back, in a form of which there is one only.
fn value<T: Versioned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(value) = decode_value::<T>(bytes) else {
        return false;
    };
    let written = encode_value(&value).unwrap_or_default();
    assert_eq!(decode_value::<T>(&written).as_ref(), Ok(&value));
    true
}

/// The identity file of a data directory. After a first byte that is odd, the rest gets a right
/// first line.
pub fn identity(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    let mut file = Vec::new();
    if mode % 2 == 1 {
        let checksum = crc32c::crc32c(rest);
        let head = format!("rossby data directory format={FORMAT} crc32c={checksum:08x}\n");
        file.extend_from_slice(head.as_bytes());
    }
    file.extend_from_slice(rest);
    let disk = MemoryDisk::default();
    let folder = Path::new("/data");
    let written = disk
        .create_directory(folder)
        .and_then(|()| disk.create(&folder.join("node"))?.write_all_at(&file, 0));
    assert!(written.is_ok());
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let Ok(mut opened) = DataDirectory::open(Arc::clone(&disk), folder) else {
        return false;
    };
    let Some(found) = opened.identity().cloned() else {
        return false;
    };
    assert!(opened.save(found.clone()).is_ok());
    drop(opened);
    let again = DataDirectory::open(disk, folder);
    assert!(again.is_ok_and(|again| again.identity() == Some(&found)));
    true
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
pub(crate) mod replay;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rossby_domain::chain::{KemKey, Link, SUITE_XWING, Signer};
    use rossby_domain::claim::{CodeMac, Delivery};
    use rossby_domain::command::{
        Accept, AddIdentifier, Admit, AwaitReset, CountReport, DeleteBox, DropIdentifier, Enqueue,
        EnvelopeDigest, Expire, ExtendChain, ForgetReset, IssueToken, JoinBox, LoseIdentifier,
        MarkCodeSent, MarkCodeUnsent, NoteReset, OpenClaim, OpenReset, Place, ProveReset, Recover,
        ReleaseClaim, RemoveIdentifier, RevokeToken, SetProfile, SetResetDelay, SetTtl, StartReset,
        Suspend, UpdateKey, VetoReset,
    };
    use rossby_domain::contest::{Contest, Reset, ResetNote};
    use rossby_domain::identifier::IdentifierHash;
    use rossby_domain::ids::{
        BoxId, ClusterId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, GroupId, MapVersion,
        NodeId, PartitionCount, PartitionId, ReplicaId, Sequence,
    };
    use rossby_domain::placement::{
        Beginning, Change, FoundingGroup, JoinAttempt, Joiner, NodeEntry, RegionName, SurvivalGoal,
        TokenDigest, TokenRegion, TokenWanted,
    };
    use rossby_domain::report::ReportMark;
    use rossby_domain::restored::Restored;
    use rossby_domain::time::Timestamp;
    use rossby_domain::{Command, Routed};

    use super::*;
    use crate::codec::{decode_batch, encode_batch};
    use crate::datadir::{ClusterIdentity, HeldReplica, Identity};

    use super::replay::{replay, seed, with};

    #[test]
    fn the_corpus_of_entries_holds() {
        replay("entry", entry);
    }

    #[test]
    fn the_corpus_of_identity_files_holds() {
        replay("identity", identity);
    }

    fn box_id() -> BoxId {
        BoxId::derive(PartitionId::new(5).unwrap(), &[1; 32])
    }

    fn envelope_id() -> EnvelopeId {
        EnvelopeId {
            sender: DeviceAddress {
                box_id: box_id(),
                device: DeviceId::from_bytes([2; 16]),
            },
            counter: Counter(3),
        }
    }

    fn kem_key() -> KemKey {
        KemKey {
            suite: SUITE_XWING,
            counter: 2,
            public: Bytes::from(vec![0; 1216]),
            signature: [6; 64],
        }
    }

    fn link() -> Link {
        Link {
            version: 1,
            previous: [3; 32],
            change: rossby_domain::chain::Change::AddDevice { key: [4; 32] },
            signer: Signer::Recovery,
            signature: [5; 64],
        }
    }

    fn batch() -> Batch {
        let identifier = IdentifierHash::from_bytes([4; 32]);
        let body = Bytes::from_static(b"sealed");
        let enqueue = Enqueue {
            recipient: box_id(),
            id: envelope_id(),
            chain_version: 1,
            ttl_ms: Some(60_000),
            digest: EnvelopeDigest::of(&box_id(), 1, Some(60_000), &body),
            body: body.clone(),
        };
        let commands = [
            Command::Enqueue(enqueue.clone()),
            Command::OpenClaim(OpenClaim {
                identifier,
                box_id: box_id(),
                discoverable: true,
                code: CodeMac([5; 32]),
                sealed_code: body,
            }),
            Command::MarkCodeSent(MarkCodeSent {
                identifier,
                box_id: box_id(),
                serial: 9,
            }),
            Command::MarkCodeUnsent(MarkCodeUnsent {
                identifier,
                box_id: box_id(),
                serial: 9,
                gave_up: true,
            }),
            Command::UpdateKey(UpdateKey {
                device: envelope_id().sender,
                kem: kem_key(),
            }),
            Command::Expire(Expire { limit: 256 }),
            Command::Place(Place {
                based_on: MapVersion(0),
                change: founding(),
            }),
            Command::IssueToken(issue()),
            Command::Admit(Admit {
                joiner: Joiner {
                    token: TokenDigest([7; 32]),
                    attempt: JoinAttempt([8; 16]),
                    node: NodeId(4),
                    entry: node_entry(),
                },
            }),
            Command::RevokeToken(RevokeToken { node: NodeId(4) }),
            Command::ExtendChain(ExtendChain {
                box_id: box_id(),
                link: link(),
            }),
            Command::JoinBox(JoinBox {
                device: envelope_id().sender,
                kem: kem_key(),
            }),
            Command::AddIdentifier(AddIdentifier {
                device: envelope_id().sender,
                identifier,
                sealed_identifier: Bytes::from_static(b"sealed"),
                discoverable: true,
            }),
            Command::RemoveIdentifier(RemoveIdentifier {
                device: envelope_id().sender,
                identifier,
                generation: 9,
            }),
            Command::ReleaseClaim(ReleaseClaim {
                identifier,
                box_id: box_id(),
                generation: 9,
            }),
            Command::DropIdentifier(DropIdentifier {
                box_id: box_id(),
                identifier,
                generation: 9,
            }),
            Command::Accept(Accept {
                box_id: box_id(),
                contacts_only: Some(true),
                allow: vec![box_id()],
                disallow: Vec::new(),
            }),
            Command::EnqueueOfContact(enqueue),
            Command::SetTtl(SetTtl {
                box_id: box_id(),
                longest_ms: Some(60_000),
                number: 9,
            }),
            Command::Suspend(Suspend {
                box_id: box_id(),
                suspended: true,
            }),
            Command::CountReport(CountReport {
                box_id: box_id(),
                mark: ReportMark([7; 16]),
            }),
            Command::Recover(Recover {
                device: envelope_id().sender,
                links: vec![link()],
                kem: kem_key(),
            }),
            Command::DeleteBox(DeleteBox {
                device: envelope_id().sender,
            }),
            Command::OpenReset(OpenReset(OpenClaim {
                identifier,
                box_id: box_id(),
                discoverable: true,
                code: CodeMac([5; 32]),
                sealed_code: Bytes::from_static(b"sealed"),
            })),
            Command::ProveReset(ProveReset {
                identifier,
                box_id: box_id(),
                code: CodeMac([5; 32]),
            }),
            Command::StartReset(StartReset {
                identifier,
                box_id: box_id(),
                serial: 9,
            }),
            Command::VetoReset(VetoReset {
                identifier,
                box_id: box_id(),
                serial: 9,
            }),
            Command::NoteReset(NoteReset {
                box_id: box_id(),
                identifier,
                note: ResetNote {
                    serial: 9,
                    completes_at: Timestamp::from_millis(10),
                    lapses_at: Timestamp::from_millis(20),
                },
            }),
            Command::ForgetReset(ForgetReset {
                box_id: box_id(),
                identifier,
                serial: 9,
            }),
            Command::AwaitReset(AwaitReset {
                box_id: box_id(),
                until: Timestamp::from_millis(30),
            }),
            Command::LoseIdentifier(LoseIdentifier {
                box_id: box_id(),
                identifier,
                generation: 9,
            }),
            Command::SetProfile(SetProfile {
                device: envelope_id().sender,
                version: 3,
                sealed: Bytes::from_static(b"sealed"),
            }),
            Command::SetResetDelay(SetResetDelay { reset_delay_ms: 10 }),
        ];
        let routed = |command| Routed {
            partition: box_id().partition(),
            epoch: Epoch(1),
            command,
        };
        Batch {
            stamp: Timestamp::from_millis(1_700_000_000_000),
            may_expire: true,
            commands: commands.into_iter().map(routed).collect(),
        }
    }

    fn node_entry() -> NodeEntry {
        NodeEntry {
            region: RegionName::default(),
            peer_address: "10.0.0.1:7471".to_owned(),
            client_address: "10.0.0.1:7470".to_owned(),
            state: Default::default(),
        }
    }

    fn founding() -> Change {
        let home = RegionName::default();
        let entry = node_entry();
        let founders = [(ReplicaId(1), NodeId(1))].into();
        Change::Found(Beginning {
            goal: SurvivalGoal::Node,
            partitions: PartitionCount::new(8).unwrap(),
            nodes: [(NodeId(1), entry)].into(),
            groups: [(GroupId(1), FoundingGroup { home, founders })].into(),
        })
    }

    fn check<T: Versioned>(kind: u8, value: &T) {
        let bytes = with(kind, &encode_value(value).unwrap());
        seed("entry", &format!("seed-{kind}"), &bytes, entry);
    }

    /// A log that an earlier build wrote is read by this one, and written again as the same bytes.
    #[test]
    fn an_entry_from_before_devices_could_be_linked_is_read_as_it_was() {
        let earlier = include_bytes!("../../fuzz/corpus/entry/seed-0-before-devices");
        let read = decode_batch(&earlier[1..]).unwrap();
        assert_eq!(encode_batch(&read).unwrap(), &earlier[1..]);
        let mut now = batch();
        let commands = now.commands.iter().map(|routed| &routed.command);
        let is_new =
            |command: &&Command| matches!(command, Command::ExtendChain(_) | Command::JoinBox(_));
        let first = commands.clone().position(|command| is_new(&command));
        assert_eq!(commands.filter(is_new).count(), 2);
        now.commands.truncate(first.unwrap());
        assert_eq!(read, now);
    }

    /// What this build writes is what later ones must read.
    #[test]
    fn an_entry_has_the_bytes_that_are_committed() {
        let committed = include_bytes!("../../fuzz/corpus/entry/seed-0");
        let written = encode_batch(&batch()).unwrap();
        assert!(
            written == committed[1..],
            "commit it anew only for more commands"
        );
    }

    #[test]
    fn real_entries_and_values_are_accepted() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        check(0, &batch());
        let code = CodeMac([5; 32]);
        let claim = Claim {
            box_id: box_id(),
            generation: 2,
            discoverable: true,
            code: Some(code),
            contest: Contest::default(),
        };
        check(1, &claim);
        let contested = Claim {
            contest: Contest {
                reset: Some(Reset {
                    box_id: box_id(),
                    serial: 3,
                    code,
                    discoverable: true,
                    started: true,
                    starts_by: at,
                    completes_at: at,
                    lapses_at: at,
                }),
                ..Contest::default()
            },
            ..claim
        };
        let bytes = with(1, &encode_value(&contested).unwrap());
        seed("entry", "seed-1-contested", &bytes, entry);
        check(3, &Profile::default());
        let deleted = Profile {
            deleted: true,
            ..Profile::default()
        };
        let bytes = with(3, &encode_value(&deleted).unwrap());
        seed("entry", "seed-3-deleted", &bytes, entry);
        let envelope = Envelope {
            sequence: Sequence(1),
            id: envelope_id(),
            enqueued_at: at,
            expires_at: at.plus_millis(1),
            body: Bytes::from_static(b"sealed"),
        };
        check(4, &envelope);
        check(5, &QueueState::default());
        check(6, &SenderRow::default());
        let pending = PendingClaim {
            code,
            serial: 1,
            discoverable: false,
            attempts_left: 5,
            expires_at: at,
            delivery: Delivery::Delayed,
        };
        check(7, &pending);
        // Version 1 has no word of the courier, which is the last byte.
        let bytes = encode_value(&pending).unwrap();
        let (_, earlier) = bytes.split_first().unwrap();
        let earlier = with(1, &earlier[..earlier.len() - 1]);
        seed("entry", "seed-7-version-1", &with(7, &earlier), entry);
        let budget = CodeBudget {
            day_start: at,
            sent_today: 1,
            next_at: at,
        };
        check(8, &budget);
        let row = OutboxRow {
            serial: 1,
            sealed: Bytes::from_static(b"sealed"),
            expires_at: at,
        };
        check(9, &row);
        let device = envelope_id().sender.device;
        check(
            10,
            &Intent {
                device,
                expires_at: at,
            },
        );
        check(11, &Meta::default());
        let restored = Meta {
            restored: Restored::default().again(at, true),
            ..Meta::default()
        };
        let bytes = with(11, &encode_value(&restored).unwrap());
        seed("entry", "seed-11-restored", &bytes, entry);
        check(12, &ClusterMap::default().after(&founding()).unwrap());
        let row = MapHistoryRow {
            version: MapVersion(1),
            at,
            change: founding(),
        };
        check(13, &row);
        check(14, &admissions(at));
        let sealed = Bytes::from_static(b"sealed");
        check(15, &SealedProfile { version: 3, sealed });
    }

    fn admissions(now: Timestamp) -> Admissions {
        let mut admissions = Admissions::default();
        let map = ClusterMap::default().after(&founding()).unwrap();
        let issue = issue();
        let issued = admissions.issue(&map, issue.digest, &issue.wanted, now);
        issued.unwrap();
        admissions
    }

    fn issue() -> IssueToken {
        IssueToken {
            digest: TokenDigest([7; 32]),
            wanted: TokenWanted {
                node: Some(NodeId(4)),
                region: TokenRegion::New(RegionName::default()),
                valid_for_ms: 60_000,
            },
        }
    }

    #[test]
    fn a_real_identity_file_is_accepted() {
        let mut full = Identity::new(NodeId(3));
        full.cluster = Some(ClusterIdentity {
            id: "7b2f9d1c-55e0-4c2d-9f6a-0d1e2f3a4b5c"
                .parse::<ClusterId>()
                .unwrap(),
            name: "rossby".to_owned(),
            partitions: PartitionCount::new(256).unwrap(),
            secrets_check: Some("check".to_owned()),
        });
        let (group, replica) = (GroupId(1), ReplicaId(3));
        full.replicas.insert(HeldReplica {
            group,
            replica,
            initialise: true,
        });
        let full = full.without(GroupId(2), ReplicaId(9));
        for (name, written) in [("new", Identity::new(NodeId(1))), ("full", full)] {
            let disk = MemoryDisk::default();
            let folder = Path::new("/data");
            let mut opened = DataDirectory::open(Arc::new(disk.clone()), folder).unwrap();
            opened.save(written).unwrap();
            let bytes = rossby_seams::disk::read(&disk, &folder.join("node")).unwrap();
            let body = bytes.splitn(2, |byte| *byte == b'\n').nth(1).unwrap();
            seed(
                "identity",
                &format!("seed-{name}-whole"),
                &with(0, &bytes),
                identity,
            );
            seed(
                "identity",
                &format!("seed-{name}-body"),
                &with(1, body),
                identity,
            );
        }
    }
}
