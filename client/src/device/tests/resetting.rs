//! Beginning anew after everything is lost, as the person, their old devices and their contacts see it.

use rossby_domain::time::Timestamp;

use super::*;
use crate::store::WhatChanged;

/// Asks for a code for Bob's email, and gives it.
async fn prove(office: &Office, device: &Device) -> Result<DeviceAddress, DeviceError> {
    let registered = device.register_reset(&email(2), true).await.unwrap();
    device.authorize(&office.code(&registered.box_id)).await
}

/// A new device that has proven Bob's email, and when it can have it.
async fn proven(office: &Arc<Office>, seed: u64) -> (TempDir, Device, Timestamp) {
    let home = tempfile::tempdir().unwrap();
    let device = new_device(office, home.path(), seed);
    office.clock.advance_millis(60_000);
    let taken = device.register(&email(2), true).await.unwrap_err();
    assert!(super::super::devices::is_refused(
        &taken,
        "IDENTIFIER_TAKEN"
    ));
    let Err(DeviceError::ResetWaits(at)) = prove(office, &device).await else {
        panic!("not proven")
    };
    assert_eq!(device.waits_until().unwrap(), Some(at));
    (home, device, at)
}

#[tokio::test(start_paused = true)]
async fn who_lost_everything_has_a_new_box_after_the_delay_and_contacts_must_accept_it() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by_email = LookupBy::Identifier(email(2));
    alice
        .device
        .add_contact(&by_email, None, false)
        .await
        .unwrap();
    alice.device.verify(&bob.box_id(), None).unwrap();
    let (home, device, at) = proven(&office, 5).await;
    drop(device);
    let device = Device::open(home.path(), &passphrase(), environment(&office, 6)).unwrap();
    office.clock.advance_millis(120_000);
    let early = prove(&office, &device).await;
    assert!(
        matches!(early, Err(DeviceError::ResetWaits(when)) if when == at),
        "{early:?}"
    );
    office.clock.advance_millis(RESET_DELAY_MS);
    let address = prove(&office, &device).await.unwrap();
    assert_ne!(address.box_id, bob.box_id());
    assert_eq!(device.waits_until().unwrap(), None);
    assert!(device.receive().await.is_ok());

    // To her it is somebody else, and she was sure of Bob.
    let moved = alice.device.add_contact(&by_email, None, false).await;
    match moved {
        Err(DeviceError::IdentifierMoved { known, found }) => {
            assert_eq!((known, found), (bob.box_id(), address.box_id));
        }
        other => panic!("{other:?}"),
    }
    let known = alice.device.contact(&bob.box_id()).unwrap().unwrap();
    let changed = known.changed.unwrap();
    assert_eq!(changed.what, WhatChanged::MovedTo(address.box_id));
    let content = Content::Text("is it you?".to_owned());
    let stopped = alice.device.send(&bob.box_id(), &content).await;
    assert!(matches!(stopped, Err(DeviceError::NotConfirmed { .. })));
    let accepted = alice.device.add_contact(&by_email, None, true);
    accepted.await.unwrap();
    let stopped = alice.device.send(&address.box_id, &content).await;
    assert!(matches!(stopped, Err(DeviceError::NotConfirmed { .. })));
    alice.device.verify(&address.box_id, None).unwrap();
    alice.device.send(&address.box_id, &content).await.unwrap();
    let received = device.receive().await.unwrap();
    assert_eq!(texts(&received.messages), ["is it you?"]);
    // The old box is readable, and has no email any more.
    assert!(bob.device.receive().await.is_ok());
    assert_eq!(bob.device.identifiers().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_left_hears_of_it_and_keeps_the_email() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let kept = bob.device.keep_identifier(&email(2)).await;
    assert!(matches!(kept, Err(DeviceError::NotContested)));
    let mut listener = bob.device.listen().unwrap();
    assert!(matches!(
        listener.next().await.unwrap(),
        Heard::Connected(_)
    ));
    let (_home, device, at) = proven(&office, 5).await;
    let heard = listener.next().await.unwrap();
    assert!(
        matches!(heard, Heard::Contested(when) if when == at),
        "{heard:?}"
    );
    drop(listener);
    let received = bob.device.receive().await.unwrap();
    assert_eq!(received.status.reset_at, Some(at));
    assert_eq!(
        bob.device.identifiers().await.unwrap()[0].reset_at,
        Some(at)
    );
    bob.device.keep_identifier(&email(2)).await.unwrap();
    assert_eq!(bob.device.receive().await.unwrap().status.reset_at, None);
    office.clock.advance_millis(RESET_DELAY_MS / 2);
    let refused = prove(&office, &device).await.unwrap_err();
    assert!(super::super::devices::is_refused(&refused, "RESET_VETOED"));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_for_another_email_takes_nothing_that_was_proven_of_the_first_for_it() {
    let office = Office::new();
    let _bob = person(&office, 2).await;
    let _carol = person(&office, 3).await;
    let (_home, device, _) = proven(&office, 5).await;
    office.clock.advance_millis(120_000);
    device.register_reset(&email(3), true).await.unwrap();
    assert_eq!(device.waits_until().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_only_goes_on_writing_is_told_that_the_email_leads_elsewhere() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by_email = LookupBy::Identifier(email(2));
    let added = alice.device.add_contact(&by_email, Some("Bob"), false);
    added.await.unwrap();
    alice.say(&bob, "before").await;
    let (_home, device, _) = proven(&office, 5).await;
    office.clock.advance_millis(RESET_DELAY_MS);
    let new = prove(&office, &device).await.unwrap().box_id;

    // They were not verified, and yet nothing goes to a box that nobody reads any more.
    office.clock.advance_millis(24 * 60 * 60 * 1000);
    let content = Content::Text("are you there?".to_owned());
    for _ in 0..2 {
        let stopped = alice.device.send(&bob.box_id(), &content).await;
        assert!(
            matches!(&stopped, Err(DeviceError::NotConfirmed { what: WhatChanged::MovedTo(to), .. }) if *to == new),
            "{stopped:?}"
        );
    }
    // She knows better, and is told no more.
    alice.device.accept_change(&bob.box_id()).unwrap();
    office.clock.advance_millis(48 * 60 * 60 * 1000);
    alice.say(&bob, "to the old box").await;
    assert_eq!(bob.hear().await, ["before", "to the old box"]);
    let added = alice.device.add_contact(&by_email, Some("Bob anew"), true);
    assert_eq!(added.await.unwrap().box_id, new);
    alice.device.send(&new, &content).await.unwrap();
    let received = device.receive().await.unwrap();
    assert_eq!(texts(&received.messages), ["are you there?"]);
}
