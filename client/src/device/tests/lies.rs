//! A service that lies about who somebody is and what is in a box: what notices it, and what it changes. docs/THREATS.md lists the
//! lies that nobody notices.

use rossby_domain::envelope::Envelope;
use rossby_proto::v1;

use super::linking::linked;
use super::office::Tampering;
use super::*;
use crate::device::Status;
use crate::envelope::ReceiptState;

fn wire(envelope: &Envelope, sequence: u64) -> v1::Envelope {
    v1::Envelope {
        sequence,
        sender_box_id: envelope.id.sender.box_id.as_bytes().to_vec().into(),
        sender_device_id: envelope.id.sender.device.as_bytes().to_vec().into(),
        counter: envelope.id.counter.0,
        enqueued_at_ms: envelope.enqueued_at.as_millis(),
        expires_at_ms: envelope.expires_at.as_millis(),
        body: envelope.body.clone(),
    }
}

/// Shows these envelopes behind what is in a box.
fn behind(envelopes: Vec<Envelope>) -> Tampering {
    Arc::new(move |page| {
        let last = page.envelopes.last().map_or(1_000, |last| last.sequence);
        let numbered = envelopes.iter().zip(last.saturating_add(1)..);
        let more = numbered.map(|(envelope, sequence)| wire(envelope, sequence));
        page.envelopes.extend(more);
    })
}

#[tokio::test(start_paused = true)]
async fn somebody_else_at_first_contact_has_another_number_and_is_noticed_once_the_truth_is_shown()
{
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 6).await;
    office.lead(&email(2), mallory.box_id());
    let by_email = LookupBy::Identifier(email(2));
    let added = alice.device.add_contact(&by_email, Some("Bob"), false);
    assert_eq!(
        added.await.unwrap().box_id,
        mallory.box_id(),
        "taken on trust"
    );
    bob.say(&alice, "hello").await;
    alice.hear().await;
    alice
        .device
        .send(&mallory.box_id(), &Content::Text("hello Bob".to_owned()))
        .await
        .unwrap();

    // What Bob's device shows for Alice is not what hers shows for "Bob".
    let by_box = LookupBy::Box(alice.box_id());
    bob.device.add_contact(&by_box, None, false).await.unwrap();
    let number = bob.device.safety_number(&alice.box_id()).unwrap();
    let compared = alice.device.verify(&mallory.box_id(), Some(&number));
    assert!(
        matches!(compared, Err(DeviceError::SafetyNumberDiffers(_))),
        "{compared:?}"
    );
    assert!(alice.device.verify(&bob.box_id(), Some(&number)).is_ok());

    office.lead(&email(2), bob.box_id());
    let again = alice.device.add_contact(&by_email, None, false).await;
    assert!(
        matches!(again, Err(DeviceError::IdentifierMoved { known, found })
            if known == mallory.box_id() && found == bob.box_id()),
        "{again:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn pages_in_the_wrong_order_or_without_end_are_noticed() {
    let lies: [(&str, Tampering); 3] = [
        ("reversed", Arc::new(|page| page.envelopes.reverse())),
        (
            "twice the same number",
            Arc::new(|page| {
                let first = page.envelopes[0].sequence;
                page.envelopes.iter_mut().for_each(|it| it.sequence = first);
            }),
        ),
        (
            "nothing, and more of it",
            Arc::new(|page| {
                page.envelopes.clear();
                page.more = true;
            }),
        ),
    ];
    for (what, lie) in lies {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        for words in ["one", "two", "three"] {
            alice.say(&bob, words).await;
        }
        office.tamper(Some(lie));
        let received = bob.device.receive().await.unwrap();
        assert!(
            matches!(received.interrupted, Some(DeviceError::Untrue(_))),
            "{what}: {:?}",
            received.interrupted
        );
        office.tamper(None);
        bob.device.receive().await.unwrap();
        let mut heard = bob.heard();
        heard.sort();
        let all = match what {
            // The last came first. A service that does not want to deliver the others needs no such trick.
            "reversed" => vec!["three"],
            _ => vec!["one", "three", "two"],
        };
        assert_eq!(heard, all, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_received_before_changes_nothing_under_another_number() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    let by_email = LookupBy::Identifier(email(1));
    let name = |name| laptop.device.add_contact(&by_email, Some(name), false);
    name("Alice").await.unwrap();
    laptop
        .device
        .choose_receipts(ReceiptState::Read, false)
        .unwrap();
    let alarm = crate::store::WhatChanged::OwnChain;
    laptop.device.note_change(&alice.box_id(), alarm).unwrap();
    laptop.device.tell_own_devices().await.unwrap();
    alice.say(&bob, "once").await;
    let earlier = office.queue(&bob.box_id());
    assert!(earlier.len() >= 3, "a message, and words of the laptop");
    assert_eq!(bob.hear().await, ["once"]);
    laptop.hear().await;
    // Since then it was all changed.
    let stopped = bob.device.accept_change(&alice.box_id()).unwrap();
    assert!(stopped.changed.is_none());
    bob.device
        .choose_receipts(ReceiptState::Read, true)
        .unwrap();
    let renamed = bob.device.add_contact(&by_email, Some("Ali"), false);
    renamed.await.unwrap();

    office.tamper(Some(behind(earlier)));
    let received = bob.device.receive().await.unwrap();
    assert_eq!(texts(&received.messages), [""; 0]);
    assert_eq!(bob.heard(), ["once"]);
    let contact = bob.device.contact(&alice.box_id()).unwrap().unwrap();
    assert_eq!(contact.name.as_deref(), Some("Ali"));
    assert_eq!(contact.changed, None, "it was dealt with");
    assert!(bob.device.receipt_choice().unwrap().read);
    assert_eq!(bob.device.devices().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_to_somebody_else_is_not_shown_as_written_to_this_box() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 4).await;
    alice.say(&bob, "for Bob alone").await;
    alice.say(&carol, "for Carol").await;
    let stolen = office.queue(&bob.box_id());
    office.tamper(Some(behind(stolen)));
    let received = carol.device.receive().await.unwrap();
    let believed: Vec<_> = received
        .messages
        .iter()
        .filter(|message| message.status == Status::Received)
        .collect();
    assert_eq!(texts(believed), ["for Carol"]);
}
