//! Resets and deletions over three groups: of the box that is left, of the one that is begun anew, and of the directory.
//! Whatever breaks off, and whichever of them can decide nothing for a time, a phone has one owner.

use std::sync::Arc;
use std::time::Duration;

use rossby_api::{Code, RpcPath};
use rossby_domain::limits::Limits;
use rossby_domain::query::{BoxStateAnswer, PendingBox};
use rossby_domain::{Answer, Query};
use rossby_proto::v1;
use rossby_proto::v1::lookup_key_request::By;
use tokio::time::Instant;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::ANNA;
use super::world::{ONE, STUCK, THREE, TWO, World, code, owner};
use crate::deleting::{deletion, joining};
use crate::identifiers::{adding, removing};
use crate::resetting::{ALL_MS, asking, hasty, keeping, proof};
use crate::support::{Resident, TestDevice, envelope, phone_of, sequence};

/// Twice as much is less than what a clock can jump before its node loses the lead.
const BRIEF_MS: u64 = 4_000;

/// A delay that passes before anybody else leads.
fn brief() -> Limits {
    Limits {
        reset_delay_ms: BRIEF_MS,
        ..limits()
    }
}

/// Codes follow each other at once.
fn limits() -> Limits {
    Limits {
        code_pause_ms: 0,
        ..hasty()
    }
}

/// A phone that is to leave a box of group 2 for one of group 1. Group 3 has its claim.
struct Move {
    phone: String,
    old: Resident,
    new: Arc<TestDevice>,
    box_id: Vec<u8>,
    code: String,
}

impl Move {
    async fn asked(world: &World, phone: String, number: u8) -> Self {
        let old = world.resident(2, 4, number, &phone).await;
        let mut moving = Self {
            phone,
            old,
            new: Arc::new(TestDevice::new(number + 1)),
            box_id: Vec::new(),
            code: String::new(),
        };
        moving.ask(world).await;
        let homes = [moving.old.address, moving.new.address(&moving.box_id)];
        let homes = homes.map(|address| owner(address.box_id.partition()));
        assert_eq!(homes, [Some(TWO), Some(ONE)]);
        moving
    }

    /// Asks for a code, or another.
    async fn ask(&mut self, world: &World) {
        let request = asking(&self.new, &self.phone);
        let asked = as_devices_do(async || world.plain(1, RpcPath::Register, &request).await);
        let registered: v1::RegisterResponse = asked.await.unwrap();
        self.box_id = registered.box_id.to_vec();
        self.code = world.next_code().await;
    }

    async fn prove(&self, world: &World, at: u64) -> Result<v1::AuthorizeResponse, Status> {
        let request = proof(&self.new, &self.phone, &self.box_id, &self.code);
        world.plain(at, RpcPath::Authorize, &request).await
    }

    /// Proves it until that is refused or done.
    async fn proven(&self, world: &World, at: u64) -> Result<v1::AuthorizeResponse, Status> {
        as_devices_do(async || self.prove(world, at).await).await
    }

    /// A device of the old box says no, with the name of the reset that it was told.
    async fn keep(&self, world: &World, at: u64, serial: u64) -> Result<(), Status> {
        let request = keeping(&self.old, &self.old.device, &self.phone, serial);
        let kept = world.signed(at, &self.old, RpcPath::KeepIdentifier, &request);
        kept.await.map(|_: v1::KeepIdentifierResponse| ())
    }

    async fn serial(&self, world: &World) -> u64 {
        listed(world, 1, &self.old).await[0].reset_serial
    }

    /// The box that the directory has for the phone.
    fn owner(&self, world: &World) -> Vec<u8> {
        claimed(world, &self.phone).unwrap()
    }

    fn old_box(&self) -> Vec<u8> {
        self.old.address.box_id.as_bytes().to_vec()
    }

    fn is_alive(&self, world: &World) -> bool {
        let id = self.new.address(&self.box_id).box_id;
        let state = world.applied(id.partition(), &Query::BoxState(id));
        matches!(
            state,
            Answer::BoxState(Some(BoxStateAnswer { active: true, .. }))
        )
    }

    /// The phone is the new box's, for all.
    async fn assert_moved(&self, world: &World, (at, by): (u64, &Resident)) {
        // Said again, it takes what is left to do.
        let sealed = self.proven(world, at).await.unwrap();
        let address = self.new.address(&self.box_id);
        let new = Resident {
            token: self.new.open_token(&address, &sealed),
            device: Arc::clone(&self.new),
            address,
        };
        assert_eq!(
            found(world, at, by, &self.phone).await,
            Some(self.box_id.clone())
        );
        let own = listed(world, at, &new).await;
        assert!(own.len() == 1 && own[0].verified, "{own:?}");
        assert_eq!(listed(world, at, &self.old).await, []);
        assert_eq!(told(world, at, &self.old).await, None);
    }
}

/// What a device does that was told nothing certain: the same again, a little later.
pub async fn as_devices_do<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let began = Instant::now();
    loop {
        match call().await {
            Err(refused) if may_pass(&refused) => {
                assert!(began.elapsed() < STUCK, "{refused:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            settled => return settled,
        }
    }
}

/// Whether a refusal says that it may have been done, or that it was not and that another try may help.
pub fn may_pass(refused: &Status) -> bool {
    let code = code(refused);
    ["UNAVAILABLE", "OUTCOME_UNKNOWN", "CLOCK_UNSAFE"].contains(&code.as_str())
}

/// When the phone can be had, of a proof that was right.
fn waits_until(proven: Result<v1::AuthorizeResponse, Status>) -> u64 {
    let refused = proven.unwrap_err();
    assert_eq!(code(&refused), Code::ResetWaits.as_str());
    let details = refused.get_details_error_info().unwrap();
    details.metadata["completes_at_ms"].parse().unwrap()
}

/// What a box is told, when its device reads, of a phone that is to go.
async fn told(world: &World, at: u64, who: &Resident) -> Option<u64> {
    let request = v1::FetchRequest::default();
    let fetching = async || world.signed(at, who, RpcPath::Fetch, &request).await;
    let page: v1::FetchResponse = as_devices_do(fetching).await.unwrap();
    page.status.unwrap().reset_at_ms
}

async fn listed(world: &World, at: u64, who: &Resident) -> Vec<v1::OwnIdentifier> {
    let request = v1::ListIdentifiersRequest {};
    let listing = async || {
        world
            .signed(at, who, RpcPath::ListIdentifiers, &request)
            .await
    };
    let listed: v1::ListIdentifiersResponse = as_devices_do(listing).await.unwrap();
    listed.identifiers
}

/// The box that others find by a phone.
async fn found(world: &World, at: u64, by: &Resident, phone: &str) -> Option<Vec<u8>> {
    let request = v1::LookupKeyRequest {
        by: Some(By::Identifier(phone_of(phone))),
        profile_after: None,
    };
    let looking = async || world.signed(at, by, RpcPath::LookupKey, &request).await;
    match as_devices_do(looking).await {
        Ok(v1::LookupKeyResponse { box_id, .. }) => Some(box_id.to_vec()),
        Err(refused) => {
            assert_eq!(code(&refused), Code::NoUser.as_str());
            None
        }
    }
}

/// The box that the directory has for a phone.
fn claimed(world: &World, phone: &str) -> Option<Vec<u8>> {
    let (identifier, directory) = world.directory(phone);
    match world.applied(directory, &Query::VerifiedClaim(identifier)) {
        Answer::VerifiedClaim(claim) => claim.map(|(box_id, _)| box_id.as_bytes().to_vec()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_reset_that_breaks_off_anywhere_goes_on_elsewhere_and_there_is_one_owner_all_the_time() {
    let world = World::with_limits(brief()).await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let mut phones = world.phones(THREE);
    let mut moves: Vec<Move> = Vec::new();
    // Node 4 leads none of the groups: each step is another node's.
    for (number, after) in (10..).step_by(2).zip(0..) {
        let moving = Move::asked(&world, phones.next().unwrap(), number).await;
        world.break_off(4, after);
        let first = moving.prove(&world, 4).await.unwrap_err();
        let is_broken = world.mend(4);
        assert_eq!(may_pass(&first), is_broken, "after {after}: {first:?}");
        let until = waits_until(moving.proven(&world, 3).await);
        assert_eq!(
            waits_until(moving.proven(&world, 4).await),
            until,
            "after {after}"
        );
        assert_eq!(told(&world, 1, &moving.old).await, Some(until));
        let own = &listed(&world, 4, &moving.old).await[0];
        assert!(own.verified && own.reset_at_ms == Some(until), "{own:?}");
        let shown = found(&world, 2, &anna, &moving.phone).await;
        assert_eq!(shown, Some(moving.old_box()), "after {after}");
        moves.push(moving);
        if !is_broken {
            break;
        }
    }
    let stranger = TestDevice::new(200).register(&moves[0].phone, true);
    let refused = world.plain::<_, v1::RegisterResponse>(3, RpcPath::Register, &stranger);
    let refused = refused.await.unwrap_err();
    assert_eq!(code(&refused), Code::IdentifierTaken.as_str());

    world.pass(2 * BRIEF_MS).await;
    let mut is_broken = true;
    for (moving, after) in moves.iter_mut().zip(0..) {
        moving.ask(&world).await;
        world.break_off(4, after);
        let proven = moving.prove(&world, 4).await;
        is_broken = world.mend(4);
        if let Err(refused) = &proven {
            assert!(is_broken && may_pass(refused), "after {after}: {refused:?}");
        }
        let owner = moving.owner(&world);
        let is_moved = owner == moving.box_id;
        assert!(is_moved || owner == moving.old_box(), "after {after}");
        assert!(is_moved || proven.is_err(), "after {after}");
        let is_alive = moving.is_alive(&world);
        match found(&world, 2, &anna, &moving.phone).await {
            Some(shown) => assert_eq!(shown, owner, "after {after}"),
            None => assert!(is_moved && !is_alive, "after {after}"),
        }
        // Of those that have moved, every other one is left to the leader of the new box's group.
        if !is_moved || after % 2 == 0 {
            moving.proven(&world, 3).await.unwrap();
        }
    }
    assert!(!is_broken, "there are more places to break off at");
    let all_live = || moves.iter().all(|moving| moving.is_alive(&world));
    world
        .eventually("all new boxes come to life", all_live)
        .await;
    for (moving, at) in moves.iter().zip((1..=4).cycle()) {
        let shown = found(&world, at, &anna, &moving.phone).await;
        assert_eq!(shown, Some(moving.box_id.clone()));
        let own = listed(&world, at, &moving.old).await;
        assert!(own.iter().all(|own| !own.verified), "{own:?}");
        moving.assert_moved(&world, (at, &anna)).await;
    }
}

#[tokio::test]
async fn a_reset_and_a_no_come_to_their_end_though_each_group_can_decide_nothing_for_a_time() {
    let world = World::with_limits(limits()).await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let mut phones = world.phones(THREE);
    let mut numbers = (10..).step_by(2);
    let mut next = || (phones.next().unwrap(), numbers.next().unwrap());
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let (phone, number) = next();
        let moving = Move::asked(&world, phone, number).await;
        waits_until(moving.prove(&world, 4).await);
        waiting.push(moving);
    }
    world.pass(ALL_MS).await;
    for (silent, pair) in [ONE, TWO, THREE].into_iter().zip(waiting.chunks_mut(2)) {
        let [completing, kept] = pair else { panic!() };
        let (phone, number) = next();
        let beginning = Move::asked(&world, phone, number).await;
        completing.ask(&world).await;
        let serial = kept.serial(&world).await;
        world.silence(silent).await;
        let begun = beginning.prove(&world, 4).await.unwrap_err();
        assert!(may_pass(&begun), "{begun:?}");
        // It waits for nobody but the directory and the new box; a "no", for the directory and the old one.
        match completing.prove(&world, 4).await {
            Ok(_) => assert_eq!(silent, TWO),
            Err(refused) => assert!(silent != TWO && may_pass(&refused), "{refused:?}"),
        }
        match kept.keep(&world, 1, serial).await {
            Ok(()) => assert_eq!(silent, ONE),
            Err(refused) => assert!(silent != ONE && may_pass(&refused), "{refused:?}"),
        }
        world.heal(silent).await;
        let until = waits_until(beginning.proven(&world, 3).await);
        assert_eq!(told(&world, 1, &beginning.old).await, Some(until));
        completing.proven(&world, 1).await.unwrap();
        completing.assert_moved(&world, (2, &anna)).await;
        let keeping = as_devices_do(async || kept.keep(&world, 3, serial).await);
        keeping.await.unwrap();
        let vetoed = kept.proven(&world, 4).await.unwrap_err();
        assert_eq!(code(&vetoed), Code::ResetVetoed.as_str());
        assert_eq!(told(&world, 4, &kept.old).await, None);
        for moving in [&beginning, &*kept] {
            let shown = found(&world, 4, &anna, &moving.phone).await;
            assert_eq!(shown, Some(moving.old_box()), "{silent}");
        }
    }
}

#[tokio::test]
async fn a_no_that_breaks_off_on_its_way_counts_once_the_directory_has_it() {
    let world = World::with_limits(brief()).await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let mut phones = world.phones(THREE);
    let mut moves = Vec::new();
    for (number, is_heard) in [(10, false), (12, true)] {
        let moving = Move::asked(&world, phones.next().unwrap(), number).await;
        waits_until(moving.prove(&world, 4).await);
        let serial = moving.serial(&world).await;
        // Node 2 leads the old box's group, wherever its device asks.
        world.break_off(2, usize::from(is_heard));
        let lost = moving.keep(&world, 1, serial).await.unwrap_err();
        assert!(world.mend(2) && may_pass(&lost), "{lost:?}");
        let refused = moving.prove(&world, 4).await.unwrap_err();
        let expected = if is_heard {
            Code::ResetVetoed
        } else {
            Code::ResetWaits
        };
        assert_eq!(code(&refused), expected.as_str());
        for at in [3, 4] {
            let keeping = as_devices_do(async || moving.keep(&world, at, serial).await);
            keeping.await.unwrap();
        }
        assert_eq!(told(&world, 1, &moving.old).await, None);
        moves.push(moving);
    }
    world.pass(BRIEF_MS / 2).await;
    for moving in &mut moves {
        moving.ask(&world).await;
        let refused = moving.proven(&world, 3).await.unwrap_err();
        assert_eq!(code(&refused), Code::ResetVetoed.as_str());
        let shown = found(&world, 4, &anna, &moving.phone).await;
        assert_eq!(shown, Some(moving.old_box()));
    }
}

/// Gives a box another phone.
async fn add(world: &World, who: &Resident, phone: &str) {
    let request = adding(who, phone, true);
    let added = world.signed(3, who, RpcPath::AddIdentifier, &request);
    let _: v1::AddIdentifierResponse = added.await.unwrap();
    let (box_id, code) = (who.address.box_id, world.next_code().await);
    let request = who.device.authorize(box_id.as_bytes(), phone, &code);
    let proven = world.plain(4, RpcPath::Authorize, &request);
    let _: v1::AuthorizeResponse = proven.await.unwrap();
}

#[tokio::test]
async fn a_box_says_no_and_lets_go_though_another_of_its_phones_is_where_nothing_can_be_decided() {
    let world = World::with_limits(limits()).await;
    let phone = world.phones(THREE).next().unwrap();
    let moving = Move::asked(&world, phone, 10).await;
    let spare: Vec<_> = world
        .phones(TWO)
        .take(1)
        .chain(world.phones(ONE).take(1))
        .collect();
    for phone in &spare {
        add(&world, &moving.old, phone).await;
    }
    waits_until(moving.prove(&world, 4).await);
    world.silence(ONE).await;
    let own = listed(&world, 4, &moving.old).await;
    let known: Vec<_> = own
        .iter()
        .map(|own| (own.verified, own.uncertain))
        .collect();
    assert_eq!(known, [(true, false), (true, false), (true, true)]);
    assert!(own[0].reset_at_ms.is_some(), "{own:?}");
    moving.keep(&world, 1, own[0].reset_serial).await.unwrap();
    let request = removing(&moving.old, &spare[0], own[1].generation);
    let removed = world.signed(3, &moving.old, RpcPath::RemoveIdentifier, &request);
    let _: v1::RemoveIdentifierResponse = removed.await.unwrap();
    world.heal(ONE).await;
    let vetoed = moving.proven(&world, 4).await.unwrap_err();
    assert_eq!(code(&vetoed), Code::ResetVetoed.as_str());
    assert_eq!(listed(&world, 3, &moving.old).await.len(), 2);
}

/// Somebody of group 2 with a phone in each group, and a letter that waits.
struct Leaver {
    who: Resident,
    phones: [String; 3],
}

impl Leaver {
    async fn new(world: &World, number: u8, phones: [String; 3], anna: &Resident) -> Self {
        let who = world.resident(2, 4, number, &phones[0]).await;
        for phone in &phones[1..] {
            add(world, &who, phone).await;
        }
        let letter = vec![envelope(&who, 1, b"unread")];
        let sent = world.send(1, anna, letter).await.unwrap();
        assert_eq!(sequence(&sent[0]), 1);
        Self { who, phones }
    }

    async fn delete(&self, world: &World, at: u64) -> Result<(), Status> {
        let request = deletion(&self.who, &self.who.device);
        let deleting = world.signed(at, &self.who, RpcPath::DeleteAccount, &request);
        deleting.await.map(|_: v1::DeleteAccountResponse| ())
    }

    /// It is not let in any more, and is told why by its key.
    async fn assert_deleted(&self, world: &World) {
        let again = self.delete(world, 1).await.unwrap_err();
        assert_eq!(code(&again), Code::Unauthenticated.as_str());
        let joining = joining(&self.who.device);
        let joined = world.plain::<_, v1::JoinBoxResponse>(3, RpcPath::JoinBox, &joining);
        let deleted = joined.await.unwrap_err();
        assert_eq!(code(&deleted), Code::BoxDeleted.as_str());
    }

    /// Whether nobody has its phones any more, and it knows.
    fn is_free_of_phones(&self, world: &World) -> bool {
        let box_id = self.who.address.box_id;
        let pending = Query::PendingBoxes {
            partition: box_id.partition(),
            after: None,
            limit: 100,
        };
        let Answer::PendingBoxes(pending) = world.applied(box_id.partition(), &pending) else {
            panic!()
        };
        let is_of = |pending: &PendingBox| pending.box_id == box_id;
        let mut phones = self.phones.iter();
        !pending.iter().any(is_of) && phones.all(|phone| claimed(world, phone).is_none())
    }

    /// Whether no mail is left of it, no device, and no more.
    fn is_gone(&self, world: &World) -> bool {
        let box_id = self.who.address.box_id;
        let query = Query::BoxView(box_id);
        let Answer::BoxView(Some(left)) = world.applied(box_id.partition(), &query) else {
            panic!()
        };
        let counts = [
            left.depth,
            left.bytes,
            left.devices.into(),
            left.identifiers.into(),
        ];
        counts == [0; 4] && !left.active && self.is_free_of_phones(world)
    }
}

#[tokio::test]
async fn an_account_goes_from_all_groups_wherever_its_deletion_breaks_off() {
    let mut world = World::with_limits(limits()).await;
    let anna = world.resident(1, 4, 1, ANNA).await;
    let mut phones = [TWO, ONE, THREE].map(|group| world.phones(group));
    let mut leavers = Vec::new();
    for number in 10..15 {
        let phones = phones.each_mut().map(|phones| phones.next().unwrap());
        leavers.push(Leaver::new(&world, number, phones, &anna).await);
    }
    drop(phones);
    // Whoever would make up for it rests.
    world.stop_workers();
    let late = leavers.pop().unwrap();
    for (after, leaver) in leavers.iter().enumerate() {
        // Node 2 leads the box's group, and has two others release its phones.
        world.break_off(2, after);
        leaver.delete(&world, 4).await.unwrap();
        assert_eq!(world.mend(2), after < 3, "after {after}");
        leaver.assert_deleted(&world).await;
        assert_eq!(found(&world, 3, &anna, &leaver.phones[0]).await, None);
        assert_eq!(
            leaver.is_free_of_phones(&world),
            after == 3,
            "after {after}"
        );
    }
    world.silence(THREE).await;
    late.delete(&world, 4).await.unwrap();
    let [free, also_free, held] = &late.phones;
    assert_eq!(
        [free, also_free].map(|phone| claimed(&world, phone)),
        [None, None]
    );
    world.heal(THREE).await;
    late.assert_deleted(&world).await;
    assert!(claimed(&world, held).is_some());
    assert_eq!(found(&world, 1, &anna, held).await, None);
    leavers.push(late);

    world.start_workers();
    let all_gone = || leavers.iter().all(|leaver| leaver.is_gone(&world));
    world.eventually("nothing is left", all_gone).await;
    let held = &leavers[4].phones[2];
    let next = world.resident(3, 1, 100, held).await;
    let box_id = next.address.box_id.as_bytes().to_vec();
    assert_eq!(found(&world, 2, &anna, held).await, Some(box_id));
    assert!(world.fetch(4, &next, 0).await.is_empty());
}
