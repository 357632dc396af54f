use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::raft::{
    StreamAppendError, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use rossby_domain::ids::NodeId;
use rossby_domain::time::Timestamp;
use rossby_storage::LogPosition;
use rossby_storage::codec::Batch;
use rossby_storage::store::FileName;

use super::message::AppendOutcome;
use super::*;
use crate::Member;
use crate::members::Standing;
use crate::types::{Entry, LogId, Membership, Proposal, Vote, log_id};

fn votes() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(term, replica, committed)| {
        if committed {
            Vote::new_committed(term, ReplicaId(replica))
        } else {
            Vote::new(term, ReplicaId(replica))
        }
    })
}

fn log_ids() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(LogPosition { term, index }))
}

fn memberships() -> impl Strategy<Value = Membership> {
    let member = (any::<u64>(), ".{0,20}", ".{0,20}").prop_map(|(node, peer, client)| Member {
        node: NodeId(node),
        peer_address: peer,
        client_address: client,
    });
    let members = btree_map(any::<u64>().prop_map(ReplicaId), member, 1..5);
    members.prop_map(|members: BTreeMap<ReplicaId, Member>| {
        let voters: BTreeSet<ReplicaId> = members.keys().copied().take(3).collect();
        Membership::new(vec![voters], members).unwrap()
    })
}

fn payloads() -> impl Strategy<Value = EntryPayload<Proposal, ReplicaId, Member>> {
    let batch = any::<u64>().prop_map(|stamp| {
        let stamp = Timestamp::from_millis(stamp);
        Proposal::new(&Batch {
            stamp,
            may_expire: stamp.as_millis().is_multiple_of(2),
            commands: Vec::new(),
        })
        .unwrap()
    });
    prop_oneof![
        Just(EntryPayload::Blank),
        batch.prop_map(EntryPayload::Normal),
        memberships().prop_map(EntryPayload::Membership),
    ]
}

fn appends() -> impl Strategy<Value = Append> {
    let start = option::of((any::<u64>(), 0..u64::MAX / 2));
    (
        votes(),
        start,
        option::of(log_ids()),
        vec((any::<u64>(), payloads()), 0..5),
    )
        .prop_map(|(vote, start, leader_commit, payloads)| {
            let prev = start.map(|(term, index)| LogPosition { term, index });
            let first = prev.map_or(0, |prev| prev.index + 1);
            let entries = (first..)
                .zip(payloads)
                .map(|(index, (term, payload))| Entry {
                    log_id: log_id(LogPosition { term, index }),
                    payload,
                });
            let entries = entries.collect();
            Append {
                vote,
                prev_log_id: prev.map(log_id),
                entries,
                leader_commit,
            }
        })
}

fn ballots() -> impl Strategy<Value = VoteRequest<crate::types::TypeConfig>> {
    (votes(), option::of(log_ids()), any::<bool>()).prop_map(|(vote, last, transfer)| {
        let mut ballot = VoteRequest::new(vote, last);
        ballot.leadership_transfer = transfer;
        ballot
    })
}

fn files() -> impl Strategy<Value = FileName> {
    (any::<[u8; 32]>(), any::<u64>()).prop_map(|(digest, length)| FileName { digest, length })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..100).prop_map(Bytes::from)
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        appends().prop_map(Request::Append),
        ballots().prop_map(Request::Vote),
        ballots().prop_map(Request::PreVote),
        (votes(), any::<u64>(), option::of(log_ids())).prop_map(|(from, to, last)| {
            Request::Transfer(TransferLeaderRequest::new(from, ReplicaId(to), last))
        }),
        any::<u64>().prop_map(|id| Request::Standing {
            replica: ReplicaId(id)
        }),
        bytes().prop_map(|manifest| Request::SnapshotBegin { manifest }),
        (any::<u64>(), files(), any::<u64>(), bytes()).prop_map(
            |(transfer, file, offset, bytes)| Request::SnapshotChunk {
                transfer,
                file,
                offset,
                bytes
            }
        ),
        (any::<u64>(), votes())
            .prop_map(|(transfer, vote)| Request::SnapshotInstall { transfer, vote }),
        Just(Request::Clock),
        Just(Request::ReadIndex),
        (votes(), log_ids()).prop_map(|(vote, last)| Request::Rest { vote, last }),
        vec((any::<u32>().prop_map(GroupId), any::<u64>()), 0..5)
            .prop_map(|resting| Request::Beat { resting }),
    ]
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::UnknownGroup),
        any::<u64>().prop_map(|actual| Refusal::WrongReplica {
            actual: ReplicaId(actual)
        }),
        Just(Refusal::Stopped),
        Just(Refusal::NoRoom),
        Just(Refusal::Busy),
        Just(Refusal::UnknownTransfer),
        Just(Refusal::BadCheckpoint),
        Just(Refusal::Removed),
        Just(Refusal::OtherNode),
        Just(Refusal::NotLeading),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    let append = prop_oneof![
        Just(AppendOutcome::Success),
        option::of(log_ids()).prop_map(AppendOutcome::PartialSuccess),
        Just(AppendOutcome::Conflict),
        votes().prop_map(AppendOutcome::HigherVote),
    ];
    let transfer = prop_oneof![
        Just(Ok(())),
        (votes(), votes()).prop_map(|(expected, actual)| {
            Err(TransferLeaderError::VoteChanged { expected, actual })
        }),
        (option::of(log_ids()), option::of(log_ids())).prop_map(|(expected, actual)| {
            Err(TransferLeaderError::LogNotFlushed { expected, actual })
        }),
    ];
    prop_oneof![
        append.prop_map(Answer::Append),
        (votes(), option::of(log_ids()), any::<bool>())
            .prop_map(|(vote, last, granted)| Answer::Vote(VoteResponse::new(vote, last, granted))),
        transfer.prop_map(Answer::Transfer),
        (any::<u64>(), vec((files(), any::<u64>()), 0..4))
            .prop_map(|(transfer, missing)| Answer::SnapshotMissing { transfer, missing }),
        Just(Answer::SnapshotWritten),
        votes().prop_map(Answer::SnapshotInstalled),
        any::<u64>().prop_map(|now| Answer::Clock(Timestamp::from_millis(now))),
        Just(Answer::Standing(Standing::Member)),
        Just(Answer::Standing(Standing::Removed)),
        Just(Answer::Standing(Standing::Unknown)),
        any::<u64>().prop_map(Answer::ReadIndex),
        any::<bool>().prop_map(Answer::Rest),
        vec(any::<u32>().prop_map(GroupId), 0..5).prop_map(|awake| Answer::Beat { awake }),
    ]
}

fn stream_outcomes() -> impl Strategy<Value = StreamOutcome> {
    prop_oneof![
        option::of(log_ids()).prop_map(Ok),
        log_ids().prop_map(|at| Err(StreamAppendError::Conflict(at))),
        votes().prop_map(|vote| Err(StreamAppendError::HigherVote(vote))),
    ]
}

pub(crate) fn frames() -> impl Strategy<Value = Frame> {
    let target = || {
        (any::<u32>(), any::<u64>()).prop_map(|(group, replica)| Target {
            group: GroupId(group),
            replica: ReplicaId(replica),
        })
    };
    let id = any::<u64>;
    prop_oneof![
        (id(), target(), requests()).prop_map(|(id, to, request)| Frame::Call { id, to, request }),
        (id(), target(), appends()).prop_map(|(id, to, append)| Frame::StreamAppend {
            id,
            to,
            append
        }),
        id().prop_map(|id| Frame::StreamEnd { id }),
        (id(), prop::result::maybe_ok(answers(), refusals()))
            .prop_map(|(id, answer)| Frame::Answer { id, answer }),
        (id(), prop::result::maybe_ok(stream_outcomes(), refusals()))
            .prop_map(|(id, answer)| Frame::StreamAnswer { id, answer }),
        any::<u64>().prop_map(|promise_ms| Frame::Hello { promise_ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("ROSSBY_LONG").is_some() { 20_000 } else { 256 }
    ))]

    #[test]
    fn a_frame_comes_out_as_it_went_in(frame in frames()) {
        let bytes = frame.encode();
        let decoded = Frame::decode(&bytes).unwrap();
        prop_assert_eq!(format!("{frame:?}"), format!("{decoded:?}"));
        prop_assert_eq!(bytes, decoded.encode());
    }

    #[test]
    fn a_frame_cut_short_or_with_more_after_it_is_refused(frame in frames(), cut in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        prop_assert!(Frame::decode(&bytes.slice(..cut.index(bytes.len()))).is_err());
        let mut longer = bytes.to_vec();
        longer.push(0);
        prop_assert!(Frame::decode(&longer.into()).is_err());
    }

    #[test]
    fn a_damaged_frame_never_panics(
        frame in frames(), at in any::<prop::sample::Index>(), flip in 1..=255u8
    ) {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = Frame::decode(&bytes.into());
    }

    #[test]
    fn random_bytes_never_panic(body in vec(any::<u8>(), 0..300), kind in 0..20u8) {
        let _ = Frame::decode(&Bytes::from(body.clone()));
        let mut plausible = vec![1, kind];
        plausible.extend(body);
        let _ = Frame::decode(&plausible.into());
    }

    #[test]
    fn sets_of_voters_survive_while_a_membership_changes(
        old in btree_set(0..5u64, 1..5), new in btree_set(0..5u64, 1..5)
    ) {
        let set = |ids: &BTreeSet<u64>| ids.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let members = (0..6).map(|id| (ReplicaId(id), Member::default()));
        let members: BTreeMap<_, _> = members.collect();
        let joint = Membership::new(vec![set(&old), set(&new)], members).unwrap();
        let bytes = crate::types::encode_membership(&joint);
        prop_assert_eq!(crate::types::decode_membership(&bytes), Ok(joint));
    }
}

#[test]
fn other_versions_and_kinds_are_told_apart_from_damage() {
    let bytes = Frame::StreamEnd { id: 7 }.encode();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        Frame::decode(&bytes.into()).unwrap_err()
    };
    assert_eq!(with(0, 2), FrameError::Version(2));
    assert_eq!(with(1, 99), FrameError::Kind(99));
    let large = Bytes::from(vec![1; MAX_FRAME_BYTES + 1]);
    assert_eq!(
        Frame::decode(&large).unwrap_err(),
        FrameError::TooLarge(MAX_FRAME_BYTES + 1)
    );
}

#[test]
fn entries_out_of_order_are_refused() {
    let at = |index| log_id(LogPosition { term: 1, index });
    let blank = |index| Entry {
        log_id: at(index),
        payload: EntryPayload::Blank,
    };
    let append = |entries| Append {
        vote: Vote::new_committed(1, ReplicaId(1)),
        prev_log_id: Some(at(4)),
        entries,
        leader_commit: None,
    };
    let to = Target {
        group: GroupId(1),
        replica: ReplicaId(2),
    };
    let decode = |entries| {
        Frame::decode(
            &Frame::StreamAppend {
                id: 1,
                to,
                append: append(entries),
            }
            .encode(),
        )
    };
    assert!(decode(vec![blank(5), blank(6)]).is_ok());
    assert!(decode(vec![blank(6)]).is_err());
    assert!(decode(vec![blank(5), blank(7)]).is_err());
}
