//! To whom a box does not exist: who is blocked, or no contact of a box that takes contacts only, gets the same answer as
//! for a box that is not there, and the tables are asked the same for it.

use std::cell::RefCell;
use std::ops::Deref;

use bytes::Bytes;
use rossby_domain::chain::KeyRecord;
use rossby_domain::claim::{Claim, CodeBudget, PendingClaim};
use rossby_domain::command::{Accept, DeleteBox, Enqueue, SetProfile};
use rossby_domain::dedupe::SenderRow;
use rossby_domain::envelope::Envelope;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, MapVersion, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::placement::{Admissions, ClusterMap, MapHistoryRow};
use rossby_domain::profile::{Intent, Profile, SealedProfile};
use rossby_domain::report::ReportMark;
use rossby_domain::tables::{
    DueKey, InboxKey, MemoryTables, MemoryTablesError, Meta, OutboxRow, QueueState, ReadTables,
    Tables,
};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Context, Outcome, Query, Rejection, Reply, Routed};

use crate::common::device_id;
use crate::common::world::{
    EPOCH, World, address, box_id, enqueued, letter, partition, two_people,
};

/// Tables that note what is done with them.
struct Watched {
    tables: MemoryTables,
    noted: RefCell<Vec<&'static str>>,
}

macro_rules! noting {
    (
        read { $($read:ident($($a:ident: $at:ty),*) -> $r:ty;)* }
        write { $($write:ident($($b:ident: $bt:ty),*);)* }
    ) => {
        impl ReadTables for Watched {
            type Error = MemoryTablesError;
            $(fn $read(&self, $($a: $at),*) -> Result<$r, Self::Error> {
                self.noted.borrow_mut().push(stringify!($read));
                self.tables.$read($($a),*)
            })*
        }

        impl Tables for Watched {
            $(fn $write(&mut self, $($b: $bt),*) -> Result<(), Self::Error> {
                self.noted.borrow_mut().push(stringify!($write));
                self.tables.$write($($b),*)
            })*

            fn delete_reports(&mut self, box_id: &BoxId, limit: u32) -> Result<u32, Self::Error> {
                self.noted.borrow_mut().push("delete_reports");
                self.tables.delete_reports(box_id, limit)
            }
        }
    };
}

noting! {
    read {
        claim(key: &InboxKey) -> Option<Claim>;
        key_record(box_id: &BoxId) -> Option<KeyRecord>;
        profile(box_id: &BoxId) -> Option<Profile>;
        envelopes(box_id: &BoxId, after: Sequence, max_envelopes: u32, max_bytes: u64) -> Vec<Envelope>;
        queue_state(box_id: &BoxId) -> Option<QueueState>;
        sender(box_id: &BoxId, sender: &DeviceAddress) -> Option<SenderRow>;
        senders_of(box_id: &BoxId, sender: &BoxId) -> Vec<(DeviceId, SenderRow)>;
        senders(box_id: &BoxId, limit: u32) -> Vec<DeviceAddress>;
        pending_claim(identifier: &IdentifierHash, box_id: &BoxId) -> Option<PendingClaim>;
        pending_claims(identifier: &IdentifierHash, limit: u32) -> Vec<(BoxId, PendingClaim)>;
        code_budget(identifier: &IdentifierHash) -> Option<CodeBudget>;
        outbox_row(identifier: &IdentifierHash, box_id: &BoxId) -> Option<OutboxRow>;
        outbox(after: Option<&(IdentifierHash, BoxId)>, limit: u32) -> Vec<(IdentifierHash, BoxId, OutboxRow)>;
        intent(box_id: &BoxId) -> Option<Intent>;
        intents(after: Option<&BoxId>, limit: u32) -> Vec<(BoxId, Intent)>;
        due(upto: Timestamp, limit: u32) -> Vec<(Timestamp, DueKey)>;
        meta() -> Meta;
        cluster_map() -> Option<ClusterMap>;
        map_changes(after: MapVersion, limit: u32) -> Vec<MapHistoryRow>;
        admissions() -> Admissions;
        has_report(box_id: &BoxId, mark: &ReportMark) -> bool;
        count_reports(box_id: &BoxId, limit: u32) -> u32;
        reported(after: Option<&BoxId>, limit: u32) -> Vec<BoxId>;
        sealed_profile(box_id: &BoxId) -> Option<SealedProfile>;
    }
    write {
        insert_claim(key: &InboxKey, claim: &Claim);
        delete_claim(key: &InboxKey);
        insert_key_record(box_id: &BoxId, record: &KeyRecord);
        update_key_record(box_id: &BoxId, record: &KeyRecord);
        delete_key_record(box_id: &BoxId);
        put_profile(box_id: &BoxId, profile: &Profile);
        delete_profile(box_id: &BoxId);
        append_envelope(box_id: &BoxId, envelope: &Envelope);
        purge_envelope(box_id: &BoxId, sequence: Sequence);
        put_queue_state(box_id: &BoxId, state: &QueueState);
        put_sender(box_id: &BoxId, sender: &DeviceAddress, row: &SenderRow);
        delete_queue_state(box_id: &BoxId);
        delete_sender(box_id: &BoxId, sender: &DeviceAddress);
        put_pending_claim(identifier: &IdentifierHash, box_id: &BoxId, claim: &PendingClaim);
        delete_pending_claim(identifier: &IdentifierHash, box_id: &BoxId);
        put_code_budget(identifier: &IdentifierHash, budget: &CodeBudget);
        delete_code_budget(identifier: &IdentifierHash);
        put_outbox_row(identifier: &IdentifierHash, box_id: &BoxId, row: &OutboxRow);
        delete_outbox_row(identifier: &IdentifierHash, box_id: &BoxId);
        put_intent(box_id: &BoxId, intent: &Intent);
        delete_intent(box_id: &BoxId);
        add_due(at: Timestamp, key: &DueKey);
        remove_due(at: Timestamp, key: &DueKey);
        put_meta(meta: &Meta);
        put_cluster_map(map: &ClusterMap);
        add_map_change(row: &MapHistoryRow);
        delete_map_change(version: MapVersion);
        put_admissions(admissions: &Admissions);
        add_report(box_id: &BoxId, mark: &ReportMark);
        put_sealed_profile(box_id: &BoxId, profile: &SealedProfile);
        delete_sealed_profile(box_id: &BoxId);
    }
}

/// What is done with the tables for a letter from 1 to a box, as one from anybody and as one from a contact, and for a look at it
/// and at its profile, and what is answered.
fn asked(world: &World, to: BoxId) -> (Vec<&'static str>, [Reply; 2], (Answer, Answer)) {
    let mut watched = Watched {
        tables: world.tables.clone(),
        noted: RefCell::default(),
    };
    let commands: [fn(Enqueue) -> Command; 2] = [Command::Enqueue, Command::EnqueueOfContact];
    let replies = [0, 1].map(|index| {
        let routed = Routed {
            partition: partition(),
            epoch: EPOCH,
            command: commands[index](letter(address(1), to, 99, "hello")),
        };
        let context = Context {
            // Later than all before: the clock moves too.
            stamp: world.now.plus_millis(1 + index as u64),
            may_expire: true,
        };
        let reply = rossby_domain::apply(&mut watched, &context, routed).unwrap();
        watched.noted.borrow_mut().push("then");
        reply
    });
    let query = Query::KeyRecord {
        box_id: to,
        sender: address(1),
    };
    let answer = rossby_domain::answer(&watched, world.now, &query).unwrap();
    watched.noted.borrow_mut().push("then");
    let query = Query::SealedProfile {
        box_id: to,
        sender: address(1).box_id,
        after: 0,
    };
    let profile = rossby_domain::answer(&watched, world.now, &query).unwrap();
    let answer = (answer, profile);
    (watched.noted.into_inner(), replies, answer)
}

fn accept(
    world: &mut World,
    by: u8,
    contacts_only: Option<bool>,
    allow: &[u8],
    disallow: &[u8],
) -> Reply {
    let boxes = |seeds: &[u8]| seeds.iter().map(|seed| box_id(*seed)).collect();
    world.apply(Command::Accept(Accept {
        box_id: box_id(by),
        contacts_only,
        allow: boxes(allow),
        disallow: boxes(disallow),
    }))
}

fn accepts(contacts_only: bool) -> Reply {
    Ok(Outcome::AcceptChanged { contacts_only })
}

#[test]
fn who_may_not_send_costs_the_same_and_hears_the_same_as_for_a_box_that_is_not_there() {
    let ten = Limits {
        queue_envelopes: 10,
        sender_share_percent: 100,
        ..Limits::default()
    };
    // The last place of a queue is for contacts only.
    for waiting in [1, 9, 10] {
        let mut world = two_people(ten);
        for counter in 1..=waiting {
            // Letters that came through before make no difference.
            let sent = letter(address(1), box_id(2), counter, "before");
            world.apply(Command::EnqueueOfContact(sent)).unwrap();
        }
        costs_the_same(world);
    }
}

/// For a world in which 1 has written to 2.
fn costs_the_same(mut world: World) {
    let shows = Command::SetProfile(SetProfile {
        device: address(2),
        version: 1,
        sealed: Bytes::from_static(b"sealed"),
    });
    world.apply(shows).unwrap();
    let nobody = asked(&world, box_id(9));
    assert_eq!(
        nobody.1,
        [Err(Rejection::UnknownBox), Err(Rejection::UnknownBox)]
    );
    assert_eq!(
        nobody.2,
        (Answer::KeyRecord(None), Answer::SealedProfile(None))
    );
    let mut expected = ["meta", "profile", "put_meta", "then"].repeat(2);
    expected.extend(["meta", "profile", "then", "meta", "profile"]);
    assert_eq!(nobody.0.deref(), expected);

    let heard = asked(&world, box_id(2));
    assert!(
        heard.1 != nobody.1 && heard.0.len() > nobody.0.len(),
        "{heard:?}"
    );
    let mut blocked = world.clone();
    blocked.block(2, 1, true).unwrap();
    assert_eq!(asked(&blocked, box_id(2)), nobody);
    let mut disallowed = world.clone();
    accept(&mut disallowed, 2, Some(true), &[3, 4], &[]).unwrap();
    assert_eq!(asked(&disallowed, box_id(2)), nobody);
    let mut deleted = world.clone();
    let device = address(2);
    let delete = DeleteBox { device };
    deleted.apply(Command::DeleteBox(delete)).unwrap();
    assert_eq!(asked(&deleted, box_id(2)), nobody);
    // Both at once, and a box that is not active yet.
    disallowed.block(2, 1, true).unwrap();
    assert_eq!(asked(&disallowed, box_id(2)), nobody);
    world.create_box(3, 3).unwrap();
    assert_eq!(asked(&world, box_id(3)), nobody);
}

#[test]
fn a_box_that_takes_contacts_only_hears_them_and_its_own_devices() {
    let mut world = two_people(Limits::default());
    assert_eq!(accept(&mut world, 2, None, &[1], &[]), accepts(false));
    assert_eq!(accept(&mut world, 2, Some(true), &[], &[]), accepts(true));
    // What was said of contacts before was not kept.
    let refused = world.send(letter(address(1), box_id(2), 1, "hello"));
    assert_eq!(refused, Err(Rejection::UnknownBox));
    let to_itself = letter(address(2), box_id(2), 1, "note");
    assert_eq!(world.send(to_itself), enqueued(1));

    assert_eq!(accept(&mut world, 2, None, &[1], &[]), accepts(true));
    let sent = world.send(letter(address(1), box_id(2), 1, "hello"));
    assert_eq!(sent, enqueued(2));
    world.block(2, 1, true).unwrap();
    let refused = world.send(letter(address(1), box_id(2), 2, "blocked"));
    assert_eq!(refused, Err(Rejection::UnknownBox));
    world.block(2, 1, false).unwrap();
    assert_eq!(accept(&mut world, 2, None, &[], &[1]), accepts(true));
    let refused = world.send(letter(address(1), box_id(2), 2, "no contact"));
    assert_eq!(refused, Err(Rejection::UnknownBox));
    assert_eq!(accept(&mut world, 2, Some(false), &[], &[]), accepts(false));
    let sent = world.send(letter(address(1), box_id(2), 2, "anyone"));
    assert_eq!(sent, enqueued(3));
    let profile = world.tables.profile(&box_id(2)).unwrap().unwrap();
    assert_eq!(profile.allowed, None);
    assert!(profile.devices.contains_key(&device_id(2)));
}

#[test]
fn a_box_has_only_so_many_contacts() {
    let mut world = two_people(Limits {
        blocked_boxes: 2,
        ..Limits::default()
    });
    accept(&mut world, 2, Some(true), &[1, 3], &[]).unwrap();
    let third = Command::Accept(Accept {
        box_id: box_id(2),
        contacts_only: None,
        allow: vec![box_id(4)],
        disallow: Vec::new(),
    });
    assert_eq!(world.refused(third), Rejection::TooManyAllowed { limit: 2 });
    assert_eq!(accept(&mut world, 2, None, &[4, 1], &[3]), accepts(true));
    let unknown = Command::Accept(Accept {
        box_id: box_id(9),
        contacts_only: Some(true),
        allow: Vec::new(),
        disallow: Vec::new(),
    });
    assert_eq!(world.refused(unknown), Rejection::UnknownBox);
}
