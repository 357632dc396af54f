//! Answers, reactions, edits and deletions, between real devices.

use proptest::prelude::*;

use super::*;
use crate::envelope::{Edit, MessageId, Picture};

/// An envelope as it comes to a device, at this place of its box.
fn as_wire(
    envelope: &rossby_domain::envelope::Envelope,
    sequence: u64,
) -> rossby_proto::v1::Envelope {
    let sender = &envelope.id.sender;
    rossby_proto::v1::Envelope {
        sequence,
        sender_box_id: bytes::Bytes::copy_from_slice(sender.box_id.as_bytes()),
        sender_device_id: bytes::Bytes::copy_from_slice(sender.device.as_bytes()),
        counter: envelope.id.counter.0,
        enqueued_at_ms: envelope.enqueued_at.as_millis(),
        expires_at_ms: envelope.expires_at.as_millis(),
        body: envelope.body.clone(),
    }
}

/// Whether any row of a device's messages, or of what was done to them, has these words.
fn says(person: &Person, words: &str) -> bool {
    use crate::store::{ActsRow, MessageRow, MessageState};
    let store = &person.device.store;
    let has = |bytes: &[u8]| {
        bytes
            .windows(words.len())
            .any(|part| part == words.as_bytes())
    };
    let messages = store.all::<MessageRow>().unwrap();
    let acts = store.all::<ActsRow>().unwrap();
    let in_message = |(_, row): &(_, MessageRow)| match &row.state {
        MessageState::Received { content, .. }
        | MessageState::Sent { content }
        | MessageState::Pending { content } => has(content.expose()),
        MessageState::Withdrawn => false,
        other => panic!("{other:?}"),
    };
    let in_edit = |(_, row): &(_, ActsRow)| {
        let edit = row.edit.as_ref();
        edit.is_some_and(|edit| has(edit.text.expose()))
    };
    messages.iter().any(in_message) || acts.iter().any(in_edit)
}

/// The last message that came in or went out.
fn last(person: &Person) -> Message {
    person.device.messages().unwrap().pop().unwrap()
}

fn text_of(message: &Message) -> Option<&str> {
    match message.content.as_ref().and_then(Content::said) {
        Some(Content::Text(text)) => Some(text),
        _ => None,
    }
}

async fn fetch(person: &Person) -> Vec<Message> {
    person.device.receive().await.unwrap().messages
}

#[tokio::test(start_paused = true)]
async fn a_message_is_named_alike_on_both_sides_and_no_two_are_named_the_same() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    // The office's clock stands still.
    for words in ["one", "two", "three"] {
        alice.say(&bob, words).await;
    }
    bob.hear().await;
    let ids = |person: &Person| -> Vec<MessageId> {
        let messages = person.device.messages().unwrap();
        messages.iter().map(|one| one.id().unwrap()).collect()
    };
    assert_eq!(ids(&alice), ids(&bob));
    let mut different = ids(&alice);
    different.dedup();
    assert_eq!(different.len(), 3);
    let second = bob.device.message_by_id(&different[1]).unwrap();
    assert_eq!(text_of(&second), Some("two"));
    assert_eq!(bob.device.message(second.order).unwrap(), second);
    let missing = bob.device.message(99);
    assert!(matches!(missing, Err(DeviceError::NoMessage)));
}

#[tokio::test(start_paused = true)]
async fn a_name_outlasts_another_counter() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    let backup = alice.back_up();
    alice.say(&bob, "one").await;
    // The device in the backup would use the second counter again, and is given the third.
    let alice = alice.restore(backup, &office, 9);
    office.clock.advance_millis(1000);
    alice.say(&bob, "two").await;
    assert_eq!(last(&alice).counter, 3);
    let edited = alice.device.edit(&last(&alice), "two again").await.unwrap();
    assert!(matches!(edited[0].delivery, Delivery::Delivered(_)));
    let heard = fetch(&bob).await;
    let texts: Vec<_> = heard.iter().filter_map(text_of).collect();
    assert_eq!(texts, ["zero", "one", "two again"]);
}

#[tokio::test(start_paused = true)]
async fn edits_reactions_and_answers_stand_with_their_message_on_both_sides() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "see you at eihgt").await;
    let written = last(&alice);
    alice
        .device
        .edit(&written, "see you at eight")
        .await
        .unwrap();
    let heard = fetch(&bob).await;
    assert_eq!(text_of(&heard[0]), Some("see you at eight"));
    assert!(heard[0].acts.edited && !heard[0].acts.deleted);
    assert!(matches!(heard[1].content, Some(Content::Edit(_))));

    bob.device.react(&heard[0], Some("👎")).await.unwrap();
    bob.device.react(&heard[0], Some("👍")).await.unwrap();
    let answer = Content::Text("fine".to_owned());
    bob.device.reply(&heard[0], answer).await.unwrap();
    let came = fetch(&alice).await;
    let Some(Content::Reply(reply)) = &came[2].content else {
        panic!("{came:?}");
    };
    assert_eq!(Some(*reply.to()), written.id());
    for person in [&alice, &bob] {
        let message = person.device.message_by_id(&written.id().unwrap()).unwrap();
        assert_eq!(text_of(&message), Some("see you at eight"));
        let reactions: Vec<_> = message.acts.reactions.into_iter().collect();
        assert_eq!(reactions, [(bob.box_id(), "👍".to_owned())]);
    }
    bob.device.react(&heard[0], None).await.unwrap();
    fetch(&alice).await;
    let message = alice.device.message_by_id(&written.id().unwrap()).unwrap();
    assert!(message.acts.reactions.is_empty());

    assert!(says(&alice, "eight") && says(&bob, "eihgt"));
    alice.device.delete(&message).await.unwrap();
    fetch(&bob).await;
    for person in [&alice, &bob] {
        let message = person.device.message_by_id(&written.id().unwrap()).unwrap();
        assert!(message.acts.deleted);
        assert_eq!(message.content, None);
        assert!(
            !says(person, "eight") && !says(person, "eihgt"),
            "it is erased"
        );
        // And nothing can be done with it any more.
        let react = person.device.react(&message, Some("👍")).await;
        assert!(matches!(react, Err(DeviceError::Unfit(_))), "{react:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_else_can_change_a_message_whatever_their_device_sends() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 3).await;
    alice.say(&bob, "mine").await;
    let heard = fetch(&bob).await;
    let id = heard[0].id().unwrap();
    assert!(matches!(
        bob.device.edit(&heard[0], "yours").await,
        Err(DeviceError::NotTheAuthor)
    ));
    assert!(matches!(
        bob.device.delete(&heard[0]).await,
        Err(DeviceError::NotTheAuthor)
    ));
    // Devices that do not ask whether they may.
    let edit = Content::Edit(Edit {
        message: id,
        text: "yours".to_owned(),
    });
    for act in [&edit, &Content::Delete(id)] {
        bob.device.send(&alice.box_id(), act).await.unwrap();
        for to in [&alice, &bob] {
            mallory.device.send(&to.box_id(), act).await.unwrap();
        }
    }
    // A stranger's reaction is of another conversation.
    let reaction = crate::envelope::Reaction::new(id, "👎").unwrap();
    let reaction = Content::Reaction(reaction);
    mallory.device.send(&bob.box_id(), &reaction).await.unwrap();
    for person in [&alice, &bob] {
        assert!(!fetch(person).await.is_empty());
        let message = person.device.message_by_id(&id).unwrap();
        assert_eq!(text_of(&message), Some("mine"));
        assert_eq!(message.acts, Acts::default());
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_what_was_said_to_one_person_changes_nothing_said_to_another() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    alice.say(&bob, "mine").await;
    let id = last(&alice).id().unwrap();
    let edit = Content::Edit(Edit {
        message: id,
        text: "other".to_owned(),
    });
    alice.device.send(&carol.box_id(), &edit).await.unwrap();
    let message = alice.device.message_by_id(&id).unwrap();
    assert_eq!(text_of(&message), Some("mine"), "Bob was never told");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_delivered_has_no_effect_yet() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "old").await;
    let written = last(&alice);
    office.fail_next(
        "Send",
        Fault::Refused("QUEUE_FULL", crate::connection::Retry::Same),
    );
    let sent = alice.device.edit(&written, "new").await.unwrap();
    assert!(matches!(sent[0].delivery, Delivery::Pending(_)));
    assert_eq!(text_of(&alice.device.message(0).unwrap()), Some("old"));
    alice.device.resend().await.unwrap();
    assert_eq!(text_of(&alice.device.message(0).unwrap()), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn captions_can_be_changed_and_acts_can_not_be_acted_on() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let picture = Picture::new("image/png", (1, 1), "a dog", vec![7; 80_000]).unwrap();
    let content = Content::Picture(picture.clone());
    alice.device.send(&bob.box_id(), &content).await.unwrap();
    let written = last(&alice);
    alice.device.edit(&written, "a cat").await.unwrap();
    let heard = fetch(&bob).await;
    let wanted = Content::Picture(picture.with_caption("a cat").unwrap());
    assert_eq!(heard[0].content.as_ref(), Some(&wanted));
    let too_long = alice.device.edit(&written, &"c".repeat(5000)).await;
    assert!(matches!(too_long, Err(DeviceError::Unfit(_))));
    bob.device.react(&heard[0], Some("🐈")).await.unwrap();
    let came = fetch(&alice).await;
    let react = alice.device.react(&came[0], Some("👍")).await;
    assert!(matches!(react, Err(DeviceError::Unfit(_))), "{react:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_version_kept_as_unknown_spoils_no_list() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "hello").await;
    bob.hear().await;
    // A malformed picture, which a version that knows no pictures keeps.
    let rows = bob.device.store.all::<crate::store::MessageRow>().unwrap();
    let (key, mut row) = rows.into_iter().next().unwrap();
    if let crate::store::MessageState::Received { content, .. } = &mut row.state {
        *content = crate::crypto::secret::SecretBytes::new(vec![0, 3, 1, 255]);
    }
    bob.device
        .store
        .write::<_, StoreError>(|batch| batch.put(&key, &row))
        .unwrap();
    let messages = bob.device.messages().unwrap();
    assert!(matches!(
        messages[0].content,
        Some(Content::Unknown { kind: 3, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("ROSSBY_LONG").is_some() { 60 } else { 3 }
    ))]

    /// Mail of two devices of one person would come like this: the acts of the one before the messages of
    /// the other.
    #[test]
    fn it_does_not_matter_whether_an_act_or_its_message_comes_first(
        order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let office = Office::new();
            let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
            alice.say(&bob, "first").await;
            alice.say(&bob, "second").await;
            let (first, second) = (alice.device.message(0).unwrap(), alice.device.message(1).unwrap());
            alice.device.edit(&first, "edited once").await.unwrap();
            alice.device.edit(&first, "edited").await.unwrap();
            alice.device.delete(&second).await.unwrap();
            let envelopes = office.queue(&bob.box_id());
            // The same envelopes, in a box that got them in another order.
            let shuffled = order.iter().map(|at| &envelopes[*at]).zip(1_u64..);
            let letters = shuffled
                .map(|(envelope, sequence)| as_wire(envelope, sequence))
                .collect();
            let mut received = Received {
                messages: Vec::new(),
                status: QueueStatus::default(),
                interrupted: None,
            };
            let signer = bob.device.signer().unwrap();
            bob.device
                .store_page(&signer, letters, rossby_domain::ids::Sequence(0), &mut received)
                .await
                .unwrap();
            let first = bob.device.message_by_id(&first.id().unwrap()).unwrap();
            assert_eq!(text_of(&first), Some("edited"));
            let second = bob.device.message_by_id(&second.id().unwrap()).unwrap();
            assert!(second.acts.deleted && second.content.is_none());
            assert!(!says(&bob, "second"), "it is erased");
            assert!(says(&bob, "first"), "the search finds it");
        });
    }
}
