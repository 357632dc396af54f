//! What the devices of one person know of each other's doings: edits, deletions, and whom they hold to what.

use super::linking::linked;
use super::*;
use crate::store::{MessageRow, MessageState};

/// Two people, one of them with two devices that know each other.
async fn bob_with_laptop(office: &Arc<Office>) -> (Person, Person, Person) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    let laptop = linked(office, &bob, 3).await;
    for device in [&bob, &laptop] {
        device.device.receive().await.unwrap();
    }
    (alice, bob, laptop)
}

fn last(person: &Person) -> Message {
    person.device.messages().unwrap().pop().unwrap()
}

fn text_of(message: &Message) -> Option<&str> {
    match message.content.as_ref().and_then(Content::said) {
        Some(Content::Text(text)) => Some(text),
        _ => None,
    }
}

async fn all_receive(people: &[&Person]) {
    for person in people {
        let received = person.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{:?}", received.interrupted);
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_device_wrote_the_other_can_edit_and_delete() {
    let office = Office::new();
    let (alice, bob, laptop) = bob_with_laptop(&office).await;
    bob.say(&alice, "see you at eihgt").await;
    all_receive(&[&laptop, &alice]).await;
    let id = last(&bob).id().unwrap();
    assert_eq!(last(&laptop).id(), Some(id), "it has one name");
    let edited = laptop
        .device
        .edit(&last(&laptop), "see you at eight")
        .await
        .unwrap();
    assert!(matches!(edited[0].delivery, Delivery::Delivered(_)));
    alice
        .device
        .react(&alice.device.message_by_id(&id).unwrap(), Some("👍"))
        .await
        .unwrap();
    all_receive(&[&alice, &bob, &laptop]).await;
    for person in [&alice, &bob, &laptop] {
        let message = person.device.message_by_id(&id).unwrap();
        assert_eq!(text_of(&message), Some("see you at eight"));
        assert_eq!(message.acts.reactions.len(), 1);
    }
    let written = bob.device.message_by_id(&id).unwrap();
    bob.device.delete(&written).await.unwrap();
    all_receive(&[&alice, &bob, &laptop]).await;
    for person in [&alice, &bob, &laptop] {
        let message = person.device.message_by_id(&id).unwrap();
        assert!(message.acts.deleted && message.content.is_none());
        let rows = person.device.store.all::<MessageRow>().unwrap();
        let says = |(_, row): &(_, MessageRow)| match &row.state {
            MessageState::Received { content, .. } | MessageState::Sent { content } => {
                String::from_utf8_lossy(content.expose()).contains("see you")
            }
            other => panic!("{other:?}"),
        };
        assert!(!rows.iter().any(says), "it is erased");
    }
}

#[tokio::test(start_paused = true)]
async fn a_note_to_oneself_can_be_changed_on_the_other_device() {
    let office = Office::new();
    let (_, bob, laptop) = bob_with_laptop(&office).await;
    bob.say(&bob, "milk").await;
    all_receive(&[&bob, &laptop]).await;
    let note = last(&laptop);
    assert_eq!(text_of(&note), Some("milk"));
    laptop.device.edit(&note, "milk and bread").await.unwrap();
    all_receive(&[&bob, &laptop]).await;
    for device in [&bob, &laptop] {
        let note = device.device.message_by_id(&note.id().unwrap()).unwrap();
        assert_eq!(text_of(&note), Some("milk and bread"));
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_is_held_to_the_chain_that_another_own_device_knows() {
    let office = Office::new();
    let (alice, bob, laptop) = bob_with_laptop(&office).await;
    let (older, newer) = (
        alice.device.identity().record().clone(),
        alice.record_with_device(7),
    );
    office.replace_record(&alice.box_id(), &newer);
    office.show(alice.box_id(), newer.clone());
    bob.say(&alice, "one").await;
    // The laptop is to believe that Alice's chain is shorter, as before a device of hers was revoked.
    office.show(alice.box_id(), older);
    all_receive(&[&laptop]).await;
    assert_eq!(text_of(&last(&laptop)), Some("one"));
    assert_eq!(laptop.device.contact(&alice.box_id()).unwrap(), None);
    let content = Content::Text("two".to_owned());
    let sent = laptop.device.send(&alice.box_id(), &content).await;
    assert!(
        matches!(sent, Err(DeviceError::IdentityChanged { .. })),
        "{sent:?}"
    );
    office.show(alice.box_id(), newer);
    let sent = laptop.device.send(&alice.box_id(), &content).await.unwrap();
    assert!(matches!(sent.delivery, Delivery::Delivered(_)));
}

#[tokio::test(start_paused = true)]
async fn a_copy_tells_that_a_contacts_chain_is_withheld() {
    let office = Office::new();
    let (alice, bob, laptop) = bob_with_laptop(&office).await;
    laptop.say(&alice, "zero").await;
    all_receive(&[&bob]).await;
    laptop.device.verify(&alice.box_id(), None).unwrap();
    let older = alice.device.identity().record().clone();
    let newer = alice.record_with_device(7);
    office.replace_record(&alice.box_id(), &newer);
    office.show(alice.box_id(), newer.clone());
    bob.say(&alice, "one").await;
    office.show(alice.box_id(), older);
    all_receive(&[&laptop]).await;
    let contact = laptop.device.contact(&alice.box_id()).unwrap().unwrap();
    assert!(contact.changed.unwrap().stops_sending);
    let content = Content::Text("two".to_owned());
    let sent = laptop.device.send(&alice.box_id(), &content).await;
    assert!(matches!(sent, Err(DeviceError::NotConfirmed { .. })));
}
