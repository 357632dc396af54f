//! Registering, contacts, blocking.

use rossby_domain::time::Timestamp;
use rossby_seams::clock::ManualClock;

use super::*;
use crate::connection::{CallError, Retry};
use crate::store::StoreError;
use crate::store::WhatChanged;

#[tokio::test(start_paused = true)]
async fn a_device_registers_and_is_itself_after_opening_again() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let before = alice.device.who_am_i().unwrap();
    assert!(before.authorised);
    assert_eq!(before.box_id, Some(alice.box_id()));
    assert_eq!(before.identifier, Some(email(1)));
    let alice = alice.reopen(&office, 9);
    assert_eq!(alice.device.who_am_i().unwrap(), before);
    assert!(
        alice.hear().await.is_empty(),
        "the token still opens the door"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_code_is_told_and_the_right_one_still_works() {
    let office = Office::new();
    let home = tempfile::tempdir().unwrap();
    let device = new_device(&office, home.path(), 1);
    assert!(matches!(
        device.authorize("1").await,
        Err(DeviceError::NotRegistered)
    ));
    assert!(matches!(
        device.receive().await,
        Err(DeviceError::NotRegistered)
    ));
    let registered = device.register(&email(1), true).await.unwrap();
    assert!(matches!(
        device.receive().await,
        Err(DeviceError::NotAuthorised)
    ));
    let refused = device.authorize("00000000").await.unwrap_err();
    assert!(matches!(&refused, DeviceError::Call(error)
        if error.refusal().is_some_and(|refusal| refusal.code == "WRONG_CODE")));
    let code = office.code(&registered.box_id);
    let spaced = format!(" {} - {} ", &code[..4], &code[4..]);
    device.authorize(&spaced).await.unwrap();
    assert!(matches!(
        device.authorize(&code).await,
        Err(DeviceError::AlreadyRegistered)
    ));
    let again = device.register(&email(1), true).await;
    assert!(matches!(again, Err(DeviceError::AlreadyRegistered)));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_let_in_any_more_registers_again_and_keeps_its_box() {
    let office = Office::new();
    let home = tempfile::tempdir().unwrap();
    let device = new_device(&office, home.path(), 1);
    let first = device.register(&email(1), true).await.unwrap();
    device.authorize(&office.code(&first.box_id)).await.unwrap();
    // Not for a service that is away: it may know the device very well.
    for fault in [Fault::NotSent, Fault::Refused("UNAVAILABLE", Retry::Same)] {
        office.fail_next("Fetch", fault);
        let again = device.register(&email(1), true).await;
        assert!(again.is_err(), "{again:?}");
        assert!(device.receive().await.is_ok());
    }
    office.restore_and_revoke();
    // Codes are rationed.
    office.clock.advance_millis(3_600_000);
    let again = device.register(&email(1), true).await.unwrap();
    assert_eq!(again.box_id, first.box_id);
    assert!(matches!(
        device.receive().await,
        Err(DeviceError::NotAuthorised)
    ));
    device.authorize(&office.code(&first.box_id)).await.unwrap();
    assert!(device.receive().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_was_lost_costs_nothing() {
    let office = Office::new();
    let home = tempfile::tempdir().unwrap();
    let device = new_device(&office, home.path(), 1);
    office.fail_next("Authorize", Fault::ReplyLost);
    let registered = device.register(&email(1), true).await.unwrap();
    device
        .authorize(&office.code(&registered.box_id))
        .await
        .unwrap();
    assert_eq!(office.calls("Authorize"), 2);
    assert!(device.receive().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_passphrase_opens_nothing() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let home = alice.home;
    drop(alice.device);
    let wrong = Passphrase::new("open barley").unwrap();
    let opened = Device::open(home.path(), &wrong, environment(&office, 1));
    assert!(matches!(
        opened,
        Err(DeviceError::Store(StoreError::WrongPassphrase))
    ));
}

#[tokio::test(start_paused = true)]
async fn people_are_found_by_identifier_device_and_box() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    for by in [
        LookupBy::Identifier(email(2)),
        LookupBy::Device(bob.address.device),
        LookupBy::Box(bob.box_id()),
    ] {
        let found = alice.device.lookup(&by).await.unwrap();
        assert_eq!(found.box_id, bob.box_id());
    }
    let nobody = alice.device.lookup(&LookupBy::Identifier(email(3))).await;
    assert!(matches!(nobody, Err(DeviceError::NoUser)));
}

#[tokio::test(start_paused = true)]
async fn someone_who_is_not_discoverable_is_not_found_by_identifier() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let home = tempfile::tempdir().unwrap();
    let bob = new_device(&office, home.path(), 2);
    let registered = bob.register(&email(2), false).await.unwrap();
    bob.authorize(&office.code(&registered.box_id))
        .await
        .unwrap();
    let by_email = alice.device.lookup(&LookupBy::Identifier(email(2))).await;
    assert!(matches!(by_email, Err(DeviceError::NoUser)));
    assert!(
        alice
            .device
            .lookup(&LookupBy::Box(registered.box_id))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn contacts_are_kept_renamed_and_removed() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by = LookupBy::Identifier(email(2));
    alice
        .device
        .add_contact(&by, Some("Bob"), false)
        .await
        .unwrap();
    alice
        .device
        .add_contact(&by, Some("Robert"), false)
        .await
        .unwrap();
    let contacts = alice.device.contacts().unwrap();
    assert_eq!(contacts.len(), 1);
    assert_eq!(contacts[0].label(), "Robert");
    assert_eq!(
        contacts[0].identifier.as_deref(),
        Some("person2@example.org")
    );
    assert_eq!(
        contacts[0].pinned.hash,
        bob.device.identity().record().head()
    );
    alice.device.remove_contact(&bob.box_id()).await.unwrap();
    assert!(alice.device.contacts().unwrap().is_empty());
    let again = alice.device.remove_contact(&bob.box_id()).await;
    assert!(matches!(again, Err(DeviceError::NoUser)));
}

#[tokio::test(start_paused = true)]
async fn two_people_see_the_same_safety_number() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let unknown = alice.device.safety_number(&bob.box_id());
    assert!(matches!(unknown, Err(DeviceError::NoUser)));
    alice.say(&bob, "hello").await;
    bob.hear().await;
    let number = alice.device.safety_number(&bob.box_id()).unwrap();
    assert_eq!(number, bob.device.safety_number(&alice.box_id()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn another_identity_in_place_of_a_contacts_is_refused_loudly() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 3).await;
    let by = LookupBy::Box(bob.box_id());
    alice.device.add_contact(&by, None, false).await.unwrap();
    // A record of someone else can not even be passed off as the box's.
    office.show(bob.box_id(), mallory.device.identity().record().clone());
    let shown = alice.device.add_contact(&by, None, false).await;
    assert!(matches!(shown, Err(DeviceError::IdentityChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_does_not_grow_from_the_pinned_one_is_refused_loudly() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let (grown, fork) = (bob.record_with_device(7), bob.record_with_device(8));
    let by = LookupBy::Box(bob.box_id());
    office.show(bob.box_id(), grown.clone());
    alice.device.add_contact(&by, None, false).await.unwrap();
    office.show(bob.box_id(), fork);
    let changed = alice.device.add_contact(&by, None, false).await;
    assert!(
        matches!(changed, Err(DeviceError::IdentityChanged { what, .. })
        if what.starts_with("another identity chain"))
    );
    office.show(bob.box_id(), bob.device.identity().record().clone());
    let older = alice.device.add_contact(&by, None, false).await;
    assert!(
        matches!(older, Err(DeviceError::IdentityChanged { what, .. })
        if what.starts_with("an older identity chain"))
    );
    office.show(bob.box_id(), grown);
    alice.device.add_contact(&by, None, false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_encryption_key_is_refused_loudly() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by = LookupBy::Box(bob.box_id());
    office.show(bob.box_id(), bob.record_with_kem(2));
    alice.device.add_contact(&by, None, false).await.unwrap();
    office.show(bob.box_id(), bob.device.identity().record().clone());
    let older = alice.device.add_contact(&by, None, false).await;
    assert!(matches!(older, Err(DeviceError::IdentityChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_encryption_key_is_hidden_is_missed_loudly() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by = LookupBy::Box(bob.box_id());
    alice.device.add_contact(&by, None, false).await.unwrap();
    // Format, genesis and number of links of the real record, and no KEM keys.
    let real = bob.device.identity().record().encode();
    let hidden = KeyRecord::decode(&[&real[..99], &[0]].concat()).unwrap();
    assert_eq!(hidden.head(), bob.device.identity().record().head());
    office.show(bob.box_id(), hidden);
    let missed = alice.device.add_contact(&by, None, false).await;
    assert!(
        matches!(missed, Err(DeviceError::IdentityChanged { what, .. })
        if what.starts_with("a device without its encryption key"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_identifier_that_leads_to_someone_else_must_be_accepted_first() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by = LookupBy::Identifier(email(2));
    alice
        .device
        .add_contact(&by, Some("Bob"), false)
        .await
        .unwrap();
    // The office hands the identifier to another box.
    let other_office = Office::new();
    let home = tempfile::tempdir().unwrap();
    let other = new_device(&other_office, home.path(), 5);
    let registered = other.register(&email(2), true).await.unwrap();
    other
        .authorize(&other_office.code(&registered.box_id))
        .await
        .unwrap();
    let alice_home = alice.home;
    drop(alice.device);
    // Alice registers there too, with the contacts that she has.
    let alice = Device::open(
        alice_home.path(),
        &passphrase(),
        environment(&other_office, 6),
    );
    let alice = alice.unwrap();
    let mut account = alice.account().unwrap();
    account.access = None;
    alice.store.write(|batch| batch.put(&(), &account)).unwrap();
    let back = alice.register(&email(1), true).await.unwrap();
    alice
        .authorize(&other_office.code(&back.box_id))
        .await
        .unwrap();
    let moved = alice.add_contact(&by, None, false).await;
    assert!(
        matches!(moved, Err(DeviceError::IdentifierMoved { known, found })
        if known == bob.box_id() && found == registered.box_id)
    );
    // Bob was verified: the one who has his address now is told apart first.
    alice.verify(&bob.box_id(), None).unwrap();
    let accepted = alice.add_contact(&by, Some("New Bob"), true).await.unwrap();
    assert_eq!(accepted.box_id, registered.box_id);
    let changed = accepted.changed.unwrap();
    assert_eq!(changed.what, WhatChanged::MovedFrom(bob.box_id()));
    let content = Content::Text("is it you?".to_owned());
    let sent = alice.send(&accepted.box_id, &content).await;
    assert!(matches!(sent, Err(DeviceError::NotConfirmed { .. })));
    alice.accept_change(&accepted.box_id).unwrap();
    alice.send(&accepted.box_id, &content).await.unwrap();
    let old = alice.contact(&bob.box_id()).unwrap().unwrap();
    assert_eq!((old.label().as_str(), old.identifier), ("Bob", None));
}

#[tokio::test(start_paused = true)]
async fn to_a_blocked_sender_the_box_does_not_exist() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "hello").await;
    bob.hear().await;
    bob.device.block(&alice.box_id(), true).await.unwrap();
    assert!(
        bob.device
            .contact(&alice.box_id())
            .unwrap()
            .unwrap()
            .blocked
    );
    let delivery = alice.say(&bob, "are you there?").await;
    assert!(matches!(delivery, Delivery::Refused(refusal) if refusal.code == "UNKNOWN_RECIPIENT"));
    let lookup = alice.device.lookup(&LookupBy::Box(bob.box_id())).await;
    assert!(matches!(lookup, Err(DeviceError::NoUser)));
    bob.device.block(&alice.box_id(), false).await.unwrap();
    assert!(matches!(
        alice.say(&bob, "again").await,
        Delivery::Delivered(_)
    ));
    assert_eq!(bob.hear().await, ["again"]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_corrected_by_the_services() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let Person { home, device, .. } = alice;
    drop(device);
    for clock in [1_600_000_000_000, 1_900_000_000_000] {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(clock)));
        let environment = Environment {
            clock,
            ..environment(&office, 2)
        };
        let device = Device::open(home.path(), &passphrase(), environment).unwrap();
        assert!(device.receive().await.is_ok());
        let calls = office.calls("Fetch");
        assert!(device.receive().await.is_ok());
        assert_eq!(
            office.calls("Fetch"),
            calls + 1,
            "learned once, known from then on"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_the_service_did_not_sign_is_not_believed() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    office.fail_next("Fetch", Fault::Forged);
    let received = alice.device.receive().await;
    assert!(matches!(
        received,
        Err(DeviceError::Call(CallError::BadReply(_)))
    ));
}
