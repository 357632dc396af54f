//! What waits to be sent, taken back.

use super::*;
use crate::connection::Retry;
use crate::store::{MessageRow, MessageState};

/// Somebody with a message that waits, and which one.
async fn one_waiting(office: &Arc<Office>) -> (Person, Person, Message) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    alice.say(&bob, "zero").await;
    office.fail_next("Send", Fault::Refused("QUEUE_FULL", Retry::Same));
    let delivery = alice.say(&bob, "regretted").await;
    assert!(matches!(delivery, Delivery::Pending(_)), "{delivery:?}");
    let waiting = alice.device.message(1).unwrap();
    (alice, bob, waiting)
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_is_never_sent_and_holds_nothing_up() {
    let office = Office::new();
    let (alice, bob, waiting) = one_waiting(&office).await;
    alice.device.withdraw(&waiting).await.unwrap();
    let withdrawn = alice.device.message(1).unwrap();
    assert_eq!(withdrawn.status, Status::Withdrawn);
    assert_eq!((withdrawn.id(), withdrawn.content), (waiting.id(), None));
    assert_eq!(alice.device.pending().unwrap(), 0);
    let rows = alice.device.store.all::<MessageRow>().unwrap();
    let said = |row: &MessageRow| matches!(row.state, MessageState::Withdrawn);
    assert!(
        rows.iter().any(|(_, row)| said(row)),
        "nothing of it is left"
    );
    let again = alice.device.withdraw(&waiting).await;
    assert!(matches!(again, Err(DeviceError::Unfit(_))), "{again:?}");

    let alice = alice.reopen(&office, 9);
    assert!(alice.device.resend().await.unwrap().is_empty());
    alice.say(&bob, "two").await;
    assert_eq!(bob.hear().await, ["zero", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_too_late_is_taken_back_where_it_arrived() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    // Stored, and nobody says so, however often it is tried.
    (0..40).for_each(|_| office.fail_next("Send", Fault::ReplyLost));
    let delivery = alice.say(&bob, "regretted").await;
    assert!(matches!(delivery, Delivery::Pending(_)), "{delivery:?}");
    let waiting = alice.device.message(1).unwrap();
    alice.device.withdraw(&waiting).await.unwrap();
    let withdrawn = alice.device.message(1).unwrap();
    while !matches!(
        alice.device.delete(&withdrawn).await.unwrap()[0].delivery,
        Delivery::Delivered(_)
    ) {}
    bob.device.receive().await.unwrap();
    let there = bob.device.message_by_id(&waiting.id().unwrap()).unwrap();
    assert!(there.acts.deleted && there.content.is_none(), "{there:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_identitys_change_has_stopped_can_be_withdrawn() {
    let office = Office::new();
    let (alice, bob, waiting) = one_waiting(&office).await;
    alice.device.verify(&bob.box_id(), None).unwrap();
    office.show(bob.box_id(), bob.record_with_kem(2));
    let by = LookupBy::Box(bob.box_id());
    alice.device.add_contact(&by, None, false).await.unwrap();
    office.show(bob.box_id(), bob.device.identity().record().clone());
    let changed = alice.device.add_contact(&by, None, false).await;
    assert!(matches!(changed, Err(DeviceError::IdentityChanged { .. })));
    let sends = office.calls("Send");
    alice.device.withdraw(&waiting).await.unwrap();
    alice.device.accept_change(&bob.box_id()).unwrap();
    assert!(alice.device.resend().await.unwrap().is_empty());
    assert_eq!(office.calls("Send"), sends);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_waits_goes_to_somebody_who_was_forgotten() {
    let office = Office::new();
    let (alice, bob, _) = one_waiting(&office).await;
    alice.device.remove_contact(&bob.box_id()).await.unwrap();
    assert_eq!(alice.device.message(1).unwrap().status, Status::Withdrawn);
    let sends = office.calls("Send");
    assert!(alice.device.resend().await.unwrap().is_empty());
    assert_eq!(office.calls("Send"), sends);
    assert_eq!(bob.hear().await, ["zero"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_in_a_group_is_withdrawn_from_those_who_do_not_have_it() {
    use crate::group::GroupName;
    use crate::store::Outcome;
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    for other in [&bob, &carol] {
        let by = LookupBy::Box(other.box_id());
        alice.device.add_contact(&by, None, false).await.unwrap();
    }
    let (name, to) = (
        GroupName::new("three").unwrap(),
        [bob.box_id(), carol.box_id()],
    );
    let (group, _) = alice.device.create_group(name, &to).await.unwrap();
    // Carol's identity is in doubt: what is for her waits.
    alice.device.verify(&carol.box_id(), None).unwrap();
    let doubt = crate::store::WhatChanged::OwnChain;
    alice.device.note_change(&carol.box_id(), doubt).unwrap();
    let content = Content::Text("regretted".to_owned());
    alice.device.send_to_group(&group, &content).await.unwrap();
    let sent = alice.device.messages().unwrap().pop().unwrap();
    assert_eq!(sent.status, Status::Pending);
    alice.device.withdraw(&sent).await.unwrap();
    let withdrawn = alice.device.message(sent.order).unwrap();
    assert_eq!(withdrawn.status, Status::Sent, "Bob has it");
    assert_eq!(withdrawn.outcomes[&carol.box_id()], Outcome::Withdrawn);
    alice.device.accept_change(&carol.box_id()).unwrap();
    alice.device.resend().await.unwrap();
    assert_eq!(bob.hear().await, ["regretted"]);
    assert_eq!(carol.hear().await, [""; 0]);
}
