//! Verified contacts, and what stops when their identity changes.

use super::*;

async fn two_verified(office: &Arc<Office>) -> (Person, Person) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    let by = LookupBy::Box(bob.box_id());
    alice.device.add_contact(&by, None, false).await.unwrap();
    let number = alice.device.safety_number(&bob.box_id()).unwrap();
    alice.device.verify(&bob.box_id(), Some(&number)).unwrap();
    (alice, bob)
}

fn contact(of: &Person, about: &Person) -> Contact {
    of.device.contact(&about.box_id()).unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_number_is_taken_however_it_is_written_and_no_other() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let unknown = alice.device.verify(&bob.box_id(), None);
    assert!(matches!(unknown, Err(DeviceError::NoUser)));
    alice.say(&bob, "hello").await;
    let number = alice.device.safety_number(&bob.box_id()).unwrap();
    let digits = number.replace(' ', "");
    let turned: String = digits.chars().rev().collect();
    for wrong in ["", "12345", &digits[1..], &format!("{digits}1"), "x"] {
        let verified = alice.device.verify(&bob.box_id(), Some(wrong));
        assert!(
            matches!(verified, Err(DeviceError::NotASafetyNumber)),
            "{wrong}"
        );
    }
    let verified = alice.device.verify(&bob.box_id(), Some(&turned));
    assert!(matches!(verified, Err(DeviceError::SafetyNumberDiffers(_))));
    assert!(!contact(&alice, &bob).is_verified());
    for right in [&digits, &number.replace(' ', "-"), &format!(" {number}\n")] {
        let verified = alice.device.verify(&bob.box_id(), Some(right)).unwrap();
        assert!(verified.is_verified());
    }
    let alice = alice.reopen(&office, 8);
    assert!(contact(&alice, &bob).is_verified(), "it is kept");
}

#[tokio::test(start_paused = true)]
async fn a_fork_stops_sending_to_a_verified_contact_until_it_is_dealt_with() {
    let office = Office::new();
    let (alice, bob) = two_verified(&office).await;
    let (grown, fork) = (bob.record_with_device(7), bob.record_with_device(8));
    office.show(bob.box_id(), grown.clone());
    office.replace_record(&bob.box_id(), &grown);
    alice.say(&bob, "zero").await;
    office.clock.advance_millis(3_600_000);
    office.show(bob.box_id(), fork);
    let content = Content::Text("one".to_owned());
    let sent = alice.device.send(&bob.box_id(), &content).await;
    assert!(
        matches!(sent, Err(DeviceError::IdentityChanged { .. })),
        "{sent:?}"
    );
    // The right one is shown again, and nothing goes on as if nothing had been.
    office.show(bob.box_id(), grown);
    let sends = office.calls("Send");
    let sent = alice.device.send(&bob.box_id(), &content).await;
    assert!(
        matches!(&sent, Err(DeviceError::NotConfirmed { box_id, .. }) if *box_id == bob.box_id()),
        "{sent:?}"
    );
    assert_eq!(office.calls("Send"), sends);
    assert_eq!(alice.device.pending().unwrap(), 0);
    let changed = contact(&alice, &bob);
    assert!(!changed.is_verified() && changed.verified.is_some());
    assert_eq!(changed.changed.unwrap().what.code(), "CHAIN_CHANGED");

    // The number is of the first keys, which both chains have: that it agrees says nothing.
    let number = alice.device.safety_number(&bob.box_id()).unwrap();
    let verified = alice.device.verify(&bob.box_id(), Some(&number));
    assert!(matches!(verified, Err(DeviceError::NotConfirmed { .. })));
    let removed = alice.device.remove_contact(&bob.box_id()).await;
    assert!(matches!(removed, Err(DeviceError::NotConfirmed { .. })));
    let contact = alice.device.accept_change(&bob.box_id()).unwrap();
    assert!(contact.is_verified());
    let sent = alice.device.send(&bob.box_id(), &content).await.unwrap();
    assert!(matches!(sent.delivery, Delivery::Delivered(_)));
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_waits_for_the_owners_word_too() {
    let office = Office::new();
    let (alice, bob) = two_verified(&office).await;
    alice.say(&bob, "zero").await;
    office.fail_next(
        "Send",
        Fault::Refused("QUEUE_FULL", crate::connection::Retry::Same),
    );
    assert!(matches!(alice.say(&bob, "one").await, Delivery::Pending(_)));
    let older = bob.record_with_kem(2);
    office.show(bob.box_id(), older);
    let by = LookupBy::Box(bob.box_id());
    alice.device.add_contact(&by, None, false).await.unwrap();
    office.show(bob.box_id(), bob.device.identity().record().clone());
    let added = alice.device.add_contact(&by, None, false).await;
    assert!(matches!(added, Err(DeviceError::IdentityChanged { .. })));
    let sent = alice.device.resend().await.unwrap();
    assert!(
        matches!(
            &sent[0].delivery,
            Delivery::Pending(DeviceError::NotConfirmed { .. })
        ),
        "{sent:?}"
    );
    let contact = alice.device.accept_change(&bob.box_id()).unwrap();
    assert!(contact.is_verified());
    let sent = alice.device.resend().await.unwrap();
    assert!(!matches!(
        &sent[0].delivery,
        Delivery::Pending(DeviceError::NotConfirmed { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_somebody_who_is_not_verified_is_kept_and_stops_nothing() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let (grown, fork) = (bob.record_with_device(7), bob.record_with_device(8));
    let by = LookupBy::Box(bob.box_id());
    office.show(bob.box_id(), grown.clone());
    alice.device.add_contact(&by, None, false).await.unwrap();
    office.show(bob.box_id(), fork);
    let changed = alice.device.add_contact(&by, None, false).await;
    assert!(matches!(changed, Err(DeviceError::IdentityChanged { .. })));
    assert!(!contact(&alice, &bob).changed.unwrap().stops_sending);
    office.show(bob.box_id(), grown.clone());
    office.replace_record(&bob.box_id(), &grown);
    assert!(matches!(
        alice.say(&bob, "hello").await,
        Delivery::Delivered(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_was_shown_another_identity_of_ours_is_an_alarm() {
    let office = Office::new();
    let (alice, bob) = two_verified(&office).await;
    bob.say(&alice, "zero").await;
    alice.hear().await;
    // Bob is shown a chain of Alice's that she knows another one of.
    let (real, fork) = (alice.record_with_device(7), alice.record_with_device(8));
    office.replace_record(&alice.box_id(), &fork);
    office.show(alice.box_id(), fork);
    bob.say(&alice, "one").await;
    let with_real = alice.device.identity().with_record(real);
    *alice.device.identity.write() = Arc::new(with_real);
    let received = alice.device.receive().await.unwrap();
    let came = &received.messages[0];
    assert!(came.is_alarm(), "{came:?}");
    let changed = contact(&alice, &bob).changed.unwrap();
    assert_eq!(changed.what.code(), "OWN_CHAIN_CHANGED");
    assert!(changed.stops_sending);
    let sent = alice
        .device
        .send(&bob.box_id(), &Content::Text("two".to_owned()))
        .await;
    assert!(matches!(sent, Err(DeviceError::NotConfirmed { .. })));
}
