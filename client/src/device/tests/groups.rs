//! Groups of people on their devices, over the real rules of the service.

use std::time::Duration;

use rossby_domain::ids::Sequence;

use super::linking::linked;
use super::*;
use crate::connection::Retry;
use crate::envelope::{Control, ConversationId, Letter, Sender, seal};
use crate::group::{GroupError, GroupId, GroupName, Origin, Page, Word};
use crate::store::Outcome;

fn name(text: &str) -> GroupName {
    GroupName::new(text).unwrap()
}

async fn people<const N: usize>(office: &Arc<Office>) -> [Person; N] {
    let mut people = Vec::new();
    for seed in 1..=N {
        people.push(person(office, seed as u64).await);
    }
    people.try_into().ok().unwrap()
}

fn boxes(people: &[&Person]) -> Vec<BoxId> {
    people.iter().map(|person| person.box_id()).collect()
}

impl Person {
    async fn make(&self, text: &str, people: &[&Person]) -> GroupId {
        let made = self.device.create_group(name(text), &boxes(people)).await;
        made.unwrap().0
    }

    /// What the group looks like here, once all that waits has come.
    async fn sees(&self, id: &GroupId) -> (String, Vec<BoxId>) {
        self.device.receive().await.unwrap();
        let group = self.device.group(id).unwrap();
        let mut members = group.members;
        members.sort_unstable();
        (group.name.unwrap().as_str().to_owned(), members)
    }

    async fn tell(&self, id: &GroupId, words: &str) -> Vec<Sent> {
        let content = Content::Text(words.to_owned());
        self.device.send_to_group(id, &content).await.unwrap()
    }
}

fn group_of(text: &str, people: &[&Person]) -> (String, Vec<BoxId>) {
    let mut members = boxes(people);
    members.sort_unstable();
    (text.to_owned(), members)
}

fn is_delivered(sent: &Sent) -> bool {
    matches!(sent.delivery, Delivery::Delivered(_))
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_group_is_one_request_and_one_message() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    assert_eq!(
        bob.sees(&id).await,
        group_of("Friends", &[&alice, &bob, &carol])
    );
    assert_eq!(carol.sees(&id).await.1.len(), 3);

    // Bob has never met Carol: he looks her up, and both get it with one call.
    let sends = office.calls("Send");
    let sent = bob.tell(&id, "hello all").await;
    assert_eq!(office.calls("Send"), sends + 1);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(is_delivered), "{sent:?}");
    for person in [&alice, &carol] {
        let received = person.device.receive().await.unwrap();
        assert_eq!(texts(&received.messages), ["hello all"]);
        let message = &received.messages[0];
        assert_eq!((message.peer(), message.group), (bob.box_id(), Some(id)));
    }
    let own = bob.device.messages().unwrap();
    assert_eq!(texts(&own), ["hello all"]);
    assert_eq!(
        (own[0].direction, &own[0].status),
        (Direction::Out, &Status::Sent)
    );
    assert_eq!(own[0].outcomes.len(), 2);
    // What is done to it reaches the group, and nobody else's conversation.
    let heard = &carol.device.messages().unwrap()[0];
    carol.device.react(heard, Some("👍")).await.unwrap();
    for person in [&alice, &bob] {
        person.device.receive().await.unwrap();
        let messages = person.device.messages().unwrap();
        let first = messages
            .iter()
            .find(|message| message.id() == heard.id())
            .unwrap();
        assert_eq!(first.acts.reactions[&carol.box_id()], "👍");
    }
    bob.device.delete(&own[0]).await.unwrap();
    alice.device.receive().await.unwrap();
    assert!(alice.device.messages().unwrap()[0].acts.deleted);
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_to_a_group_comes_to_everybody_once() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    // The first try arrives and its reply is lost; nobody answers after that.
    office.fail_next("Send", Fault::ReplyLost);
    (0..40).for_each(|_| office.fail_next("Send", Fault::NotSent));
    let sent = alice.tell(&id, "one").await;
    let waits =
        |sent: &Sent| matches!(&sent.delivery, Delivery::Pending(error) if error.is_unreachable());
    assert!(sent.len() == 2 && sent.iter().all(waits), "{sent:?}");
    assert_eq!(alice.device.pending().unwrap(), 1);
    let message = alice.device.messages().unwrap().pop().unwrap();
    assert_eq!(message.status, Status::Pending);
    assert_eq!(message.outcomes[&bob.box_id()], Outcome::Pending);
    let body = office.queue(&bob.box_id()).pop().unwrap().body;

    office.forget_faults();
    let alice = alice.reopen(&office, 7);
    let sent = alice.device.resend().await.unwrap();
    assert!(sent.len() == 2 && sent.iter().all(is_delivered), "{sent:?}");
    assert_eq!(alice.device.pending().unwrap(), 0);
    assert_eq!(
        office.queue(&bob.box_id()).pop().unwrap().body,
        body,
        "the very same bytes"
    );
    for person in [&bob, &carol] {
        assert_eq!(person.hear().await, ["one"]);
    }
    let message = alice.device.messages().unwrap().pop().unwrap();
    assert_eq!(message.status, Status::Sent);
}

#[tokio::test(start_paused = true)]
async fn a_member_who_can_not_be_looked_up_now_loses_nothing() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    bob.device.receive().await.unwrap();
    (0..40).for_each(|_| {
        office.fail_next(
            "LookupKey",
            Fault::Refused("TOO_MANY_REQUESTS", Retry::Same),
        )
    });
    let sent = bob.tell(&id, "to both").await;
    let of = |person: &Person| {
        sent.iter()
            .find(|sent| sent.recipient == person.box_id())
            .unwrap()
    };
    assert!(is_delivered(of(&alice)));
    assert!(matches!(of(&carol).delivery, Delivery::Pending(_)));
    office.forget_faults();
    bob.device.resend().await.unwrap();
    assert_eq!(carol.hear().await, ["to both"]);
    assert_eq!(bob.device.pending().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn people_who_change_a_group_at_once_end_with_the_same_group() {
    let office = Office::new();
    let [alice, bob, carol, dave, erin] = people(&office).await;
    let id = alice.make("Friends", &[&bob]).await;
    bob.device.receive().await.unwrap();
    // Neither knows what the other does.
    alice
        .device
        .add_to_group(&id, &boxes(&[&carol]))
        .await
        .unwrap();
    bob.device
        .add_to_group(&id, &boxes(&[&dave]))
        .await
        .unwrap();
    bob.device
        .rename_group(&id, name("Old friends"))
        .await
        .unwrap();
    for _ in 0..2 {
        for person in [&alice, &bob, &carol, &dave] {
            person.device.receive().await.unwrap();
        }
    }
    let everybody = group_of("Old friends", &[&alice, &bob, &carol, &dave]);
    for person in [&alice, &bob, &carol, &dave] {
        assert_eq!(person.sees(&id).await, everybody);
    }
    // Alice puts Bob out while he brings Erin in: she is out with him.
    bob.device
        .add_to_group(&id, &boxes(&[&erin]))
        .await
        .unwrap();
    alice
        .device
        .remove_from_group(&id, &boxes(&[&bob]))
        .await
        .unwrap();
    for _ in 0..2 {
        for person in [&alice, &bob, &carol, &dave, &erin] {
            person.device.receive().await.unwrap();
        }
    }
    let rest = group_of("Old friends", &[&alice, &carol, &dave]);
    for person in [&alice, &carol, &dave, &bob] {
        assert_eq!(person.sees(&id).await, rest);
    }
    assert!(erin.device.groups().unwrap().is_empty());
    let words = Content::Text("am I in?".to_owned());
    for out in [&bob, &erin] {
        let sent = out.device.send_to_group(&id, &words).await;
        assert!(matches!(
            sent,
            Err(DeviceError::Group(GroupError::NotAMember))
        ));
        let added = out.device.add_to_group(&id, &boxes(&[out])).await;
        assert!(matches!(
            added,
            Err(DeviceError::Group(GroupError::NotAMember))
        ));
    }
    // Dave can not put out whom he did not bring in, and can leave.
    let removed = dave.device.remove_from_group(&id, &boxes(&[&carol])).await;
    assert!(matches!(
        removed,
        Err(DeviceError::Group(GroupError::NotYours(_)))
    ));
    assert_eq!(dave.sees(&id).await, rest);
    dave.device.leave_group(&id).await.unwrap();
    assert_eq!(
        carol.sees(&id).await,
        group_of("Old friends", &[&alice, &carol])
    );
    alice.device.receive().await.unwrap();
    assert_eq!(alice.tell(&id, "two of us").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_devices_of_a_member_have_the_group_and_its_messages() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    bob.device.receive().await.unwrap();
    // A device that comes later is told.
    let laptop = linked(&office, &bob, 9).await;
    bob.device.receive().await.unwrap();
    let all = group_of("Friends", &[&alice, &bob, &carol]);
    assert_eq!(laptop.sees(&id).await, all);
    laptop.tell(&id, "from the laptop").await;
    laptop
        .device
        .rename_group(&id, name("Bob's friends"))
        .await
        .unwrap();
    bob.device.receive().await.unwrap();
    let copied = bob.device.messages().unwrap().pop().unwrap();
    assert_eq!(texts([&copied]), ["from the laptop"]);
    assert_eq!((copied.direction, copied.group), (Direction::Out, Some(id)));
    assert_eq!(bob.sees(&id).await.0, "Bob's friends");
    assert_eq!(carol.hear().await, ["from the laptop"]);
    assert_eq!(carol.sees(&id).await.0, "Bob's friends");
    alice.device.receive().await.unwrap();
    alice.tell(&id, "to all").await;
    assert_eq!(laptop.hear().await, ["to all"]);
    assert_eq!(bob.hear().await, ["to all"]);

    // A device that is removed takes nothing with it: who comes later believes what it said.
    laptop
        .device
        .add_to_group(&id, &boxes(&[&person(&office, 8).await]))
        .await
        .unwrap();
    bob.device.receive().await.unwrap();
    bob.device.revoke(&laptop.address.device).await.unwrap();
    let late = person(&office, 7).await;
    alice.device.receive().await.unwrap();
    alice
        .device
        .add_to_group(&id, &boxes(&[&late]))
        .await
        .unwrap();
    assert_eq!(late.sees(&id).await, alice.sees(&id).await);
    assert_eq!(late.sees(&id).await.1.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_device_said_to_nobody_is_known_to_who_comes_later() {
    let office = Office::new();
    let [alice, bob] = people(&office).await;
    let laptop = linked(&office, &alice, 9).await;
    let id = laptop.make("Plans", &[]).await;
    alice.device.receive().await.unwrap();
    alice.device.revoke(&laptop.address.device).await.unwrap();
    alice
        .device
        .add_to_group(&id, &boxes(&[&bob]))
        .await
        .unwrap();
    let both = group_of("Plans", &[&alice, &bob]);
    assert_eq!(bob.sees(&id).await, both);
    assert_eq!(alice.sees(&id).await, both);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_to_a_member_whose_identity_is_in_doubt_and_the_others_get_it() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    alice.device.verify(&bob.box_id(), None).unwrap();
    let fork = bob.record_with_device(8);
    let grown = bob.record_with_device(7);
    office.show(bob.box_id(), grown.clone());
    office.replace_record(&bob.box_id(), &grown);
    alice.say(&bob, "zero").await;
    office.clock.advance_millis(3_600_000);
    office.show(bob.box_id(), fork);
    let text = Content::Text("one".to_owned());
    alice.device.send(&bob.box_id(), &text).await.unwrap_err();

    let sent = alice.tell(&id, "two").await;
    let of = |person: &Person| {
        sent.iter()
            .find(|sent| sent.recipient == person.box_id())
            .unwrap()
    };
    assert!(is_delivered(of(&carol)));
    let refused = &of(&bob).delivery;
    assert!(
        matches!(refused, Delivery::Pending(DeviceError::NotConfirmed { .. })),
        "{refused:?}"
    );
    alice.device.accept_change(&bob.box_id()).unwrap();
    let sent = alice.device.resend().await.unwrap();
    assert!(sent.iter().all(is_delivered), "{sent:?}");
}

/// Has somebody send a word about a group, whatever it says.
fn inject(
    office: &Office,
    from: &Person,
    to: &Person,
    conversation: ConversationId,
    counter: u64,
    body: Vec<u8>,
) {
    let identity = from.device.identity();
    let sender = Sender {
        address: from.address,
        signing_key: identity.signing_key(),
        record: identity.record(),
    };
    let content = Content::Control(Control {
        topic: Control::GROUPS,
        body,
    });
    let record = to.device.identity().record().clone();
    let letter = Letter {
        recipient: to.box_id(),
        recipient_record: &record,
        counter: rossby_domain::ids::Counter(counter),
        conversation,
        written_at: office.clock.clone().now(),
        content: &content,
    };
    let body = seal(&SeededRandom::new(counter), &sender, &letter).unwrap();
    office.inject(from.address, to.box_id(), counter, &body);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_says_who_is_not_in_it_or_in_anothers_name_changes_nothing() {
    let office = Office::new();
    let [alice, bob, mallory] = people(&office).await;
    let id = alice.make("Friends", &[&bob]).await;
    let before = bob.sees(&id).await;
    let row = bob
        .device
        .store
        .get::<crate::store::GroupRow>(&id)
        .unwrap()
        .unwrap();
    let origin = row.group().unwrap().origin();
    let mut own = Page::blank(mallory.address);
    own.verdicts.insert(mallory.box_id(), 1);
    own.name = Some((99, name("Mallory's")));
    // Alice's page, which Mallory says to be of a later version.
    let mut forged = row.group().unwrap().pages().next().unwrap().clone();
    forged.version = 9;
    forged.verdicts.insert(mallory.box_id(), 1);
    let word = |pages: Vec<Page>| Word {
        origin,
        to_all: true,
        pages,
    };
    let other = Origin {
        nonce: [1; 16],
        ..origin
    };
    let true_word = Word::all_of(&row.group().unwrap(), true).remove(0).encode();
    let bodies = [
        word(vec![own.clone()]).encode(),
        word(vec![forged.clone(), own]).encode(),
        Word {
            origin: other,
            to_all: true,
            pages: vec![forged],
        }
        .encode(),
        Vec::new(),
        vec![1; 70],
        vec![9, 9, 9],
        true_word[..true_word.len() - 1].to_vec(),
    ];
    for (counter, body) in (1..).zip(bodies) {
        inject(&office, &mallory, &bob, id.conversation(), counter, body);
    }
    // A true word, in a conversation that is not its own.
    inject(
        &office,
        &mallory,
        &bob,
        ConversationId::from_bytes([5; 16]),
        20,
        true_word,
    );
    alice.tell(&id, "after").await;
    assert_eq!(bob.hear().await, ["after"]);
    assert_eq!(bob.sees(&id).await, before);
    assert_eq!(bob.device.groups().unwrap().len(), 1);
    assert!(
        office.queue(&bob.box_id()).is_empty(),
        "none of it is in the way"
    );
    // A person can not say what devices say.
    let control = Content::Control(Control {
        topic: Control::GROUPS,
        body: Vec::new(),
    });
    let said = bob.device.send(&alice.box_id(), &control).await;
    assert!(matches!(said, Err(DeviceError::NotForOthers)));
}

#[tokio::test(start_paused = true)]
async fn a_large_group_is_sent_to_in_as_few_requests_as_it_fits() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    let sends = office.calls("Send");
    let most = Content::Text("x".repeat(crate::envelope::MAX_COPIED_BYTES - 3));
    let sent = alice.device.send_to_group(&id, &most).await.unwrap();
    assert!(sent.iter().all(is_delivered), "{sent:?}");
    assert_eq!(office.calls("Send"), sends + 1);
    assert!(matches!(sent[0].delivery, Delivery::Delivered(Sequence(2))));
    // One who is nobody is refused alone.
    let nobody = BoxId::derive(rossby_domain::ids::PartitionId::new(0).unwrap(), &[9; 32]);
    alice.device.add_to_group(&id, &[nobody]).await.unwrap();
    let sent = alice.tell(&id, "three").await;
    assert_eq!(sent.iter().filter(|sent| is_delivered(sent)).count(), 2);
    let refused = sent.iter().find(|sent| sent.recipient == nobody).unwrap();
    assert!(matches!(&refused.delivery, Delivery::Refused(refusal) if refusal.code == "NO_USER"));
}

#[tokio::test(start_paused = true)]
async fn pages_of_people_who_can_not_be_found_keep_no_group_from_changing() {
    let office = Office::new();
    let [alice, bob, mallory] = people(&office).await;
    let id = alice.make("Friends", &[&bob]).await;
    bob.sees(&id).await;
    let row = bob.device.store.get::<crate::store::GroupRow>(&id).unwrap();
    let origin = row.unwrap().group().unwrap().origin();
    let nobody = |number: u8| {
        let partition = rossby_domain::ids::PartitionId::new(1).unwrap();
        let mut page = Page::blank(DeviceAddress {
            box_id: BoxId::derive(partition, &[number; 32]),
            ..mallory.address
        });
        page.verdicts.insert(mallory.box_id(), 1);
        page
    };
    let word = Word {
        origin,
        to_all: false,
        pages: (0..40).map(nobody).collect(),
    };
    let conversation = id.conversation();
    inject(&office, &mallory, &bob, conversation, 1, word.encode());
    bob.device.receive().await.unwrap();
    alice
        .device
        .rename_group(&id, name("Friends all"))
        .await
        .unwrap();
    for _ in 0..3 {
        office.clock.advance_millis(600_000);
        bob.device.receive().await.unwrap();
    }
    assert_eq!(
        bob.sees(&id).await,
        group_of("Friends all", &[&alice, &bob])
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_that_waits_goes_to_a_member_who_was_removed() {
    let office = Office::new();
    let [alice, bob, carol] = people(&office).await;
    let id = alice.make("Friends", &[&bob, &carol]).await;
    alice.device.verify(&carol.box_id(), None).unwrap();
    let doubt = crate::store::WhatChanged::OwnChain;
    alice.device.note_change(&carol.box_id(), doubt).unwrap();
    alice.tell(&id, "not for her").await;
    alice
        .device
        .remove_from_group(&id, &[carol.box_id()])
        .await
        .unwrap();
    alice.device.accept_change(&carol.box_id()).unwrap();
    alice.device.resend().await.unwrap();
    assert_eq!(carol.hear().await, [""; 0]);
    assert_eq!(bob.hear().await, ["not for her"]);
    let sent = alice.device.messages().unwrap().pop().unwrap();
    assert_eq!(sent.outcomes[&carol.box_id()], Outcome::Withdrawn);
    assert_eq!(sent.status, Status::Sent);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_at_a_time_for_a_large_group_goes_out_in_the_same_call() {
    let office = Office::new();
    let [alice, others @ ..] = people::<9>(&office).await;
    let members: Vec<_> = others.iter().collect();
    let id = alice.make("Many", &members).await;
    office.limit(3, Duration::from_millis(300));
    let sends = office.calls("Send");
    for words in ["one", "two"] {
        let sent = alice.tell(&id, words).await;
        assert!(sent.len() == 8 && sent.iter().all(is_delivered), "{sent:?}");
    }
    // It does not ask again and again.
    let sends = office.calls("Send") - sends;
    assert!(sends <= 20, "{sends} requests");
    for person in &others {
        assert_eq!(person.hear().await, ["one", "two"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_for_one_call_goes_out_while_its_sender_listens() {
    let office = Office::new();
    let [alice, others @ ..] = people::<9>(&office).await;
    let members: Vec<_> = others.iter().collect();
    let id = alice.make("Many", &members).await;
    alice.device.receive().await.unwrap();
    office.limit(3, Duration::from_secs(7));
    let sent = alice.tell(&id, "hello all").await;
    assert!(!sent.iter().all(is_delivered), "{sent:?}");
    assert_eq!(alice.device.pending().unwrap(), 1);
    let mut listener = alice.device.listen().unwrap();
    let listening = async {
        loop {
            listener.next().await.unwrap();
        }
    };
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, listening).await.is_err());
    assert_eq!(alice.device.pending().unwrap(), 0);
    for person in &others {
        assert_eq!(person.hear().await, ["hello all"]);
    }
}
