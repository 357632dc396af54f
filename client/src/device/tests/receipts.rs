//! Receipts: who is told what of a message, by whom, and who never is.

use super::linking::linked;
use super::*;
use crate::connection::Retry;
use crate::device::sending::Draft;
use crate::envelope::{MessageId, Receipt, ReceiptState};
use crate::group::GroupName;
use crate::store::{OwedRow, PendingRow, ReceiptsRow};

impl Person {
    async fn add(&self, other: &Person) {
        let by = LookupBy::Box(other.box_id());
        self.device.add_contact(&by, None, false).await.unwrap();
    }

    /// Looks at what came in, and has its authors told.
    async fn look(&self) {
        let received = self.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{:?}", received.interrupted);
        self.device.mark_read(&received.messages).unwrap();
        assert_eq!(self.device.send_receipts().await.unwrap(), 0);
    }

    /// How far the messages of this person have come with somebody.
    fn progress(&self, with: &Person) -> Vec<Progress> {
        let messages = self.device.messages().unwrap().into_iter();
        let own = messages.filter(|message| message.direction == Direction::Out);
        let of_them = |message: Message| message.receipts.get(&with.box_id()).copied();
        own.map(|message| of_them(message).unwrap_or_default())
            .collect()
    }
}

fn reached(progress: &Progress) -> (bool, bool) {
    (progress.delivered.is_some(), progress.read.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_contact_is_told_when_messages_are_here_and_when_they_were_read() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.add(&bob).await;
    bob.add(&alice).await;
    for words in ["one", "two", "three"] {
        alice.say(&bob, words).await;
    }
    let received = bob.device.receive().await.unwrap();
    assert!(
        office.queue(&alice.box_id()).is_empty(),
        "it holds up nothing"
    );
    let there_at = office.clock.now();
    assert_eq!(bob.device.send_receipts().await.unwrap(), 0);
    assert_eq!(office.queue(&alice.box_id()).len(), 1, "one for all three");
    assert_eq!(bob.device.pending().unwrap(), 0);

    assert!(alice.hear().await.is_empty(), "a receipt is no message");
    let there = Progress {
        delivered: Some(there_at),
        read: None,
    };
    assert_eq!(alice.progress(&bob), [there; 3]);
    office.clock.advance_millis(60_000);
    bob.device.mark_read(&received.messages[..2]).unwrap();
    bob.device.mark_read(&received.messages[..2]).unwrap();
    bob.device.send_receipts().await.unwrap();
    assert_eq!(office.queue(&alice.box_id()).len(), 1);
    alice.look().await;
    let read = Progress {
        read: Some(office.clock.now()),
        ..there
    };
    assert_eq!(alice.progress(&bob), [read, read, there]);
    // Receipts call for none, nor do edits and the like; and nothing is told twice.
    let first = alice.device.messages().unwrap().remove(0);
    alice.device.edit(&first, "ONE").await.unwrap();
    bob.look().await;
    bob.look().await;
    assert!(office.queue(&alice.box_id()).is_empty());
    assert!(office.queue(&bob.box_id()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_was_not_added_or_is_blocked_learns_nothing_nor_does_anybody_of_what_is_turned_off() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let told = || office.queue(&alice.box_id()).len();
    alice.say(&bob, "from a stranger").await;
    bob.look().await;
    assert_eq!(told(), 0);
    bob.add(&alice).await;
    alice.say(&bob, "and blocked").await;
    bob.device.receive().await.unwrap();
    bob.device.block(&alice.box_id(), true).await.unwrap();
    bob.device.send_receipts().await.unwrap();
    assert_eq!(told(), 0);
    bob.device.block(&alice.box_id(), false).await.unwrap();

    let turn = |kind, on| bob.device.choose_receipts(kind, on).unwrap();
    turn(ReceiptState::Read, false);
    alice.say(&bob, "here").await;
    bob.look().await;
    alice.look().await;
    let reached_all = |alice: &Person| {
        let progress = alice.progress(&bob);
        progress.iter().map(reached).collect::<Vec<_>>()
    };
    let (nothing, here) = ((false, false), (true, false));
    assert_eq!(reached_all(&alice), [nothing, nothing, here]);
    // What was read meanwhile is not told later.
    turn(ReceiptState::Read, true);
    turn(ReceiptState::Delivered, false);
    bob.device
        .mark_read(&bob.device.messages().unwrap()[2..])
        .unwrap();
    alice.say(&bob, "read").await;
    bob.device.receive().await.unwrap();
    bob.device.send_receipts().await.unwrap();
    assert_eq!(told(), 0);
    bob.device
        .mark_read(&bob.device.messages().unwrap()[3..])
        .unwrap();
    bob.device.send_receipts().await.unwrap();
    alice.look().await;
    let read = (false, true);
    assert_eq!(reached_all(&alice), [nothing, nothing, here, read]);
    let choice = bob.device.receipt_choice().unwrap();
    assert!(choice.read && !choice.delivered);
}

#[tokio::test(start_paused = true)]
async fn in_a_group_the_author_alone_is_told_by_each() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    for (one, other) in [(&bob, &alice), (&carol, &alice), (&bob, &carol)] {
        one.add(other).await;
    }
    let members = [bob.box_id(), carol.box_id()];
    let name = GroupName::new("Friends").unwrap();
    let (id, _) = alice.device.create_group(name, &members).await.unwrap();
    bob.look().await;
    carol.look().await;
    let content = Content::Text("hello all".to_owned());
    alice.device.send_to_group(&id, &content).await.unwrap();
    bob.look().await;
    // That it is here, nobody tells in a group.
    let waiting = office.queue(&alice.box_id()).len();
    carol.device.receive().await.unwrap();
    carol.device.send_receipts().await.unwrap();
    assert_eq!(office.queue(&alice.box_id()).len(), waiting);
    assert!(office.queue(&carol.box_id()).is_empty());
    alice.look().await;
    assert_eq!(reached(&alice.progress(&bob)[0]), (false, true));
    assert_eq!(reached(&alice.progress(&carol)[0]), (false, false));
}

#[tokio::test(start_paused = true)]
async fn of_two_devices_one_tells_and_both_of_the_author_hear_it() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let tablet = linked(&office, &alice, 3).await;
    let laptop = linked(&office, &bob, 4).await;
    for device in [&bob, &laptop] {
        device.device.receive().await.unwrap();
        device.add(&alice).await;
    }
    alice.say(&bob, "one").await;
    let waiting = || office.queue(&alice.box_id()).len();
    let before = waiting();
    bob.look().await;
    assert_eq!(waiting(), before + 1);
    // The laptop sees the message and, behind it, that all is said.
    laptop.look().await;
    assert_eq!(waiting(), before + 1);
    for device in [&alice, &tablet] {
        device.device.receive().await.unwrap();
        assert_eq!(reached(&device.progress(&bob)[0]), (false, true));
    }
}

#[tokio::test(start_paused = true)]
async fn receipts_that_can_not_be_sent_hold_up_nothing_and_go_out_later() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    bob.add(&alice).await;
    alice.say(&bob, "one").await;
    office.fail_next("Send", Fault::Refused("SENDER_SHARE_FULL", Retry::Same));
    (0..40).for_each(|_| office.fail_next("Send", Fault::NotSent));
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(bob.device.send_receipts().await.unwrap(), 1);
    office.forget_faults();
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.device.send_receipts().await.unwrap(), 0);
    alice.look().await;
    assert_eq!(reached(&alice.progress(&bob)[0]), (true, false));
    // Stored and never sent, it goes with the next start as well.
    alice.say(&bob, "two").await;
    assert_eq!(bob.hear().await, ["two"]);
    let bob = bob.reopen(&office, 9);
    bob.device.send_receipts().await.unwrap();
    alice.look().await;
    assert_eq!(reached(&alice.progress(&bob)[1]), (true, false));
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_told_is_not_once_it_is_turned_off_or_its_author_blocked() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    bob.add(&alice).await;
    let told = || office.queue(&alice.box_id()).len();
    let mut number = 0;
    for stop in [true, false] {
        for is_sealed in [true, false] {
            number += 1;
            alice.say(&bob, &format!("number {number}")).await;
            let received = bob.device.receive().await.unwrap();
            bob.device.mark_read(&received.messages).unwrap();
            if is_sealed {
                (0..40).for_each(|_| office.fail_next("Send", Fault::NotSent));
                assert_eq!(bob.device.send_receipts().await.unwrap(), 1);
                office.forget_faults();
            }
            if stop {
                let turn = |on| bob.device.choose_receipts(ReceiptState::Read, on).unwrap();
                turn(false);
                turn(true);
            } else {
                bob.device.block(&alice.box_id(), true).await.unwrap();
                bob.device.block(&alice.box_id(), false).await.unwrap();
            }
            assert!(bob.device.store.all::<OwedRow>().unwrap().is_empty());
            assert!(bob.device.store.all::<PendingRow>().unwrap().is_empty());
            bob.device.resend().await.unwrap();
            bob.device.send_receipts().await.unwrap();
            assert_eq!(told(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_receipt_waits_three_days_at_most_and_in_large_groups_there_is_none() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    bob.add(&alice).await;
    alice.say(&bob, "one").await;
    bob.device.receive().await.unwrap();
    (0..40).for_each(|_| office.fail_next("Send", Fault::NotSent));
    bob.device.send_receipts().await.unwrap();
    office.forget_faults();
    let pending = bob.device.store.all::<PendingRow>().unwrap();
    let three_days = 3 * 24 * 3600 * 1000;
    assert!(
        pending
            .iter()
            .all(|(_, row)| row.ttl_ms == Some(three_days))
            && pending.len() == 1
    );
    bob.device.send_receipts().await.unwrap();

    let mut members = vec![bob.box_id()];
    for size in [32_u8, 33] {
        while members.len() + 1 < usize::from(size) {
            let seed = [u8::try_from(members.len()).unwrap(); 32];
            let partition = rossby_domain::ids::PartitionId::new(1).unwrap();
            members.push(BoxId::derive(partition, &seed));
        }
        let name = GroupName::new("Many").unwrap();
        let (id, _) = alice.device.create_group(name, &members).await.unwrap();
        bob.look().await;
        let content = Content::Text("hello all".to_owned());
        alice.device.send_to_group(&id, &content).await.unwrap();
        let before = office.queue(&alice.box_id()).len();
        bob.look().await;
        let told = office.queue(&alice.box_id()).len() - before;
        assert_eq!(told, usize::from(size == 32), "of {size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_tells_by_itself_while_nothing_comes() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    bob.add(&alice).await;
    let mut listener = bob.device.listen().unwrap();
    assert!(matches!(
        listener.next().await.unwrap(),
        Heard::Connected(_)
    ));
    alice.say(&bob, "one").await;
    let Heard::Received(messages) = listener.next().await.unwrap() else {
        panic!("no message")
    };
    bob.device.mark_read(&messages).unwrap();
    let told = async {
        while office.queue(&alice.box_id()).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        heard = listener.next() => panic!("{heard:?}"),
        () = told => {}
    }
    alice.look().await;
    assert_eq!(reached(&alice.progress(&bob)[0]), (false, true));
}

#[tokio::test(start_paused = true)]
async fn nobody_can_say_that_somebody_else_has_read_something() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 3).await;
    alice.say(&bob, "for Bob").await;
    bob.say(&alice, "for Alice").await;
    alice.device.receive().await.unwrap();
    let of = |person: &Person, direction| {
        let messages = person.device.messages().unwrap().into_iter();
        let mut found = messages.filter(|message| message.direction == direction);
        found.next().unwrap().id().unwrap()
    };
    mallory.forge(&alice, of(&alice, Direction::Out)).await;
    // Of what is no message of hers in that conversation, nothing is kept.
    let mut made_up = of(&alice, Direction::Out);
    made_up.written_at = made_up.written_at.plus_millis(1);
    bob.forge(&alice, made_up).await;
    alice.device.receive().await.unwrap();
    let rows = alice.device.store.all::<ReceiptsRow>().unwrap();
    assert!(rows.len() == 1 && rows[0].1 == ReceiptsRow::default());
    // A message that she did not write, by who did.
    bob.forge(&alice, of(&alice, Direction::In)).await;
    alice.device.receive().await.unwrap();
    let messages = alice.device.messages().unwrap();
    assert_eq!(messages.len(), 2);
    assert!(messages.iter().all(|message| message.receipts.is_empty()));
    bob.forge(&alice, of(&alice, Direction::Out)).await;
    alice.device.receive().await.unwrap();
    assert_eq!(reached(&alice.progress(&bob)[0]), (false, true));
    // Nor does a person's message pass for one.
    let receipt = Receipt::new(ReceiptState::Read, vec![of(&alice, Direction::In)]).unwrap();
    let (to, content) = (bob.box_id(), Content::Receipt(receipt));
    let refused = alice.device.send(&to, &content).await;
    assert!(matches!(refused, Err(DeviceError::NotForOthers)));
}

impl Person {
    /// Says that a message was read, whether it was or not.
    async fn forge(&self, to: &Person, message: MessageId) {
        let device = &self.device;
        let signer = device.signer().unwrap();
        if device.pinned_record(&to.box_id()).unwrap().is_none() {
            let found = device.lookup(&LookupBy::Box(to.box_id())).await.unwrap();
            device.hold(&found).unwrap();
        }
        let receipt = Receipt::new(ReceiptState::Read, vec![message]).unwrap();
        let content = Content::Receipt(receipt);
        let draft = Draft {
            content: &content,
            written_at: device.environment.clock.now(),
            order: 0,
            group: None,
            ttl_ms: None,
        };
        let to = to.box_id();
        device
            .store
            .write(|batch| device.post(batch, &signer, &to, &draft))
            .unwrap();
        device.resend().await.unwrap();
    }
}
