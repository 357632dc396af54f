//! What the owner says of others on one device holds on all of them.

use std::time::Duration;

use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_seams::clock::{Clock, ManualClock};
use rossby_seams::random::Random as _;

use super::linking::linked;
use super::*;
use crate::connection::Accept;
use crate::device::{AcceptFrom, Contact, LookupBy};
use crate::envelope::{Between, ReceiptState};
use crate::owner::{ContactWord, Entry, Said};
use crate::store::{ExpectedRow, IdentityChange, WhatChanged};

impl Person {
    /// Everybody known, as all devices are to show them.
    fn address_book(&self) -> Vec<Contact> {
        let contacts = self.device.contacts().unwrap().into_iter();
        // When they were first met here is this device's own.
        let since = Default::default();
        contacts
            .map(|contact| Contact { since, ..contact })
            .collect()
    }

    fn contact(&self, of: &Person) -> Option<Contact> {
        self.device.contact(&of.box_id()).unwrap()
    }

    async fn add_as(&self, whom: &Person, name: &str) {
        let by = LookupBy::Box(whom.box_id());
        let added = self.device.add_contact(&by, Some(name), false).await;
        assert_eq!(added.unwrap().name.as_deref(), Some(name));
    }
}

/// Both take what the other has said.
async fn talk(one: &Person, two: &Person) {
    for device in [one, two, one] {
        let _ = device.device.tell_own_devices().await;
        device.device.receive().await.unwrap();
    }
}

/// All hear what the others have said, also those who first had to be greeted.
async fn all_hear(devices: &[&Person]) {
    for _ in 0..2 {
        for device in devices {
            device.device.receive().await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_contact_on_one_device_is_said_on_all() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    let by = LookupBy::Identifier(email(2));
    let added = alice.device.add_contact(&by, Some("Bob"), false).await;
    added.unwrap();
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());
    let known = laptop.contact(&bob).unwrap();
    assert!(known.added);
    assert_eq!(known.identifier.as_deref(), Some("person2@example.org"));

    // The other way round, and each thing by itself.
    laptop.device.verify(&bob.box_id(), None).unwrap();
    laptop.device.block(&bob.box_id(), true).await.unwrap();
    alice.add_as(&bob, "Robert").await;
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());
    let known = alice.contact(&bob).unwrap();
    assert!(known.is_verified() && known.blocked && known.added);
    assert_eq!(known.name.as_deref(), Some("Robert"));

    laptop.device.remove_contact(&bob.box_id()).await.unwrap();
    talk(&alice, &laptop).await;
    assert_eq!((alice.contact(&bob), laptop.contact(&bob)), (None, None));
    // The service has not forgotten that: nor have they.
    alice.add_as(&bob, "Bob again").await;
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());
    let known = laptop.contact(&bob).unwrap();
    assert!(known.blocked && !known.is_verified());
    assert_eq!(laptop.device.pending().unwrap(), 0);
    assert!(office.queue(&alice.box_id()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_device_knows_whom_the_others_know() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let mut others = Vec::new();
    for seed in 10..16 {
        others.push(person(&office, seed).await);
    }
    for (other, name) in others.iter().zip(["a", "b", "c", "d", "e", "f"]) {
        alice.add_as(other, name).await;
    }
    alice.device.verify(&others[0].box_id(), None).unwrap();
    alice.device.block(&others[1].box_id(), true).await.unwrap();
    alice
        .device
        .remove_contact(&others[2].box_id())
        .await
        .unwrap();
    let laptop = linked(&office, &alice, 3).await;
    alice.say(&others[3], "hello").await;
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());
    assert_eq!(laptop.address_book().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_both_say_at_once_ends_alike() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "on the phone").await;
    laptop.add_as(&bob, "on the laptop").await;
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());

    // One says more of somebody whom the other forgets.
    laptop.device.remove_contact(&bob.box_id()).await.unwrap();
    alice.device.verify(&bob.box_id(), None).unwrap();
    talk(&alice, &laptop).await;
    assert_eq!(laptop.address_book(), alice.address_book());
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_says_nothing_of_others_any_more() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    talk(&alice, &laptop).await;
    // Stolen: what it says is on its way when it is removed.
    laptop.device.verify(&bob.box_id(), None).unwrap();
    laptop.device.tell_own_devices().await.unwrap();
    let stolen = laptop.address.device;
    alice.device.revoke(&stolen).await.unwrap();
    alice.device.receive().await.unwrap();
    assert!(!alice.contact(&bob).unwrap().is_verified());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_identity_that_one_device_saw_stops_all_until_the_owner_has_dealt_with_it_on_each()
 {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    alice.device.verify(&bob.box_id(), None).unwrap();
    talk(&alice, &laptop).await;
    let shown = chain_change("another chain");
    laptop.device.note_change(&bob.box_id(), shown).unwrap();
    talk(&laptop, &alice).await;
    let hello = Content::Text("hello".to_owned());
    for device in [&alice, &laptop] {
        let refused = device.device.send(&bob.box_id(), &hello).await;
        let refused = refused.err();
        assert!(
            matches!(refused, Some(DeviceError::NotConfirmed { .. })),
            "{refused:?}"
        );
    }
    // Whoever has the laptop does not silence the phone.
    laptop.device.accept_change(&bob.box_id()).unwrap();
    talk(&laptop, &alice).await;
    assert!(alice.device.send(&bob.box_id(), &hello).await.is_err());
    alice.device.accept_change(&bob.box_id()).unwrap();
    alice.say(&bob, "hello").await;
    laptop.say(&bob, "and hello").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_identity_that_one_device_saw_waits_there_for_the_owner() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    alice.device.verify(&bob.box_id(), None).unwrap();
    talk(&alice, &laptop).await;
    let shown = chain_change("another chain");
    laptop.device.note_change(&bob.box_id(), shown).unwrap();
    // On the phone nothing is known of that yet, and they are forgotten there.
    alice.device.remove_contact(&bob.box_id()).await.unwrap();
    talk(&alice, &laptop).await;
    assert_eq!(alice.contact(&bob), None);
    let kept = laptop.contact(&bob).unwrap();
    assert!(kept.changed.unwrap().stops_sending);
    // Once that is dealt with they are forgotten there too, and nowhere again.
    laptop.device.accept_change(&bob.box_id()).unwrap();
    talk(&alice, &laptop).await;
    assert_eq!((alice.contact(&bob), laptop.contact(&bob)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_chosen_on_one_device_is_chosen_on_all() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 4).await;
    let laptop = linked(&office, &alice, 3).await;
    let phone = &alice.device;
    phone.choose_receipts(ReceiptState::Read, false).unwrap();
    laptop.add_as(&carol, "Carol").await;
    phone.accept(AcceptFrom::Contacts, &[]).await.unwrap();
    talk(&alice, &laptop).await;
    let choice = laptop.device.receipt_choice().unwrap();
    assert!(choice.delivered && !choice.read);
    // Whom the laptop alone knew is heard too, and whom it writes to from now on can answer.
    carol.say(&alice, "here I am").await;
    laptop.say(&bob, "hello").await;
    bob.say(&alice, "hello yourself").await;
    let heard = laptop.hear().await;
    assert!(heard.contains(&"hello yourself".to_owned()), "{heard:?}");
    assert!(heard.contains(&"here I am".to_owned()), "{heard:?}");

    let late = linked(&office, &alice, 5).await;
    alice.say(&bob, "once more").await;
    talk(&alice, &late).await;
    let choice = late.device.receipt_choice().unwrap();
    assert!(choice.delivered && !choice.read);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_off_tells_a_new_one_nothing_that_is_over() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 4).await;
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    alice.add_as(&carol, "Carol").await;
    alice.device.block(&bob.box_id(), true).await.unwrap();
    talk(&alice, &laptop).await;
    // The laptop is off while this happens, and greets the tablet before it hears of it.
    alice.device.remove_contact(&bob.box_id()).await.unwrap();
    alice.add_as(&carol, "Caroline").await;
    let tablet = linked(&office, &alice, 5).await;
    talk(&alice, &tablet).await;
    laptop.device.receive().await.unwrap();
    for (one, two) in [(&laptop, &tablet), (&alice, &tablet), (&laptop, &alice)] {
        talk(one, two).await;
    }
    assert_eq!(alice.address_book().len(), 1);
    assert_eq!(laptop.address_book(), alice.address_book());
    assert_eq!(tablet.address_book(), alice.address_book());
    // That he is blocked the service knows, and so do they all.
    tablet.add_as(&bob, "Bob again").await;
    assert!(tablet.contact(&bob).unwrap().blocked);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_service_did_not_hear_of_is_told_again() {
    let office = Office::new();
    let (alice, carol) = (person(&office, 1).await, person(&office, 4).await);
    let laptop = linked(&office, &alice, 3).await;
    laptop.add_as(&carol, "Carol").await;
    alice
        .device
        .accept(AcceptFrom::Contacts, &[])
        .await
        .unwrap();
    alice.device.tell_own_devices().await.unwrap();
    for _ in 0..20 {
        let away = Fault::Refused("UNAVAILABLE", crate::connection::Retry::Same);
        office.fail_next("Accept", away);
    }
    let refused = carol.is_heard_by(&alice).await;
    assert!(!refused);
    for _ in 0..8 {
        laptop.device.receive().await.unwrap();
    }
    carol.say(&alice, "here I am").await;
    assert_eq!(laptop.hear().await, ["here I am"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_device_said_holds_on_all_or_on_none() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let phone = linked(&office, &alice, 3).await;
    let tablet = linked(&office, &alice, 5).await;
    for (one, two) in [(&alice, &phone), (&alice, &tablet)] {
        talk(one, two).await;
    }
    phone.add_as(&bob, "Bob").await;
    alice.device.receive().await.unwrap();
    assert!(alice.contact(&bob).is_some());
    // The phone is sold. The tablet was off, and hears what it said only now.
    alice.device.revoke(&phone.address.device).await.unwrap();
    for (one, two) in [(&alice, &tablet), (&tablet, &alice)] {
        talk(one, two).await;
    }
    assert_eq!(tablet.address_book(), alice.address_book());
    assert!(tablet.contact(&bob).is_some());
}

/// What three devices do at random, each hearing the others now and then, with clocks of their own, while a fourth comes and goes:
/// once all have heard all, they know the same, and the service hears whom they say.
#[tokio::test(start_paused = true)]
async fn whatever_is_done_on_three_devices_they_end_with_the_same_address_book() {
    for seed in 0..6_u64 {
        let office = Office::new();
        let alice = person(&office, 1).await;
        let mut others = Vec::new();
        for number in 10..13 {
            others.push(person(&office, number).await);
        }
        let mut devices = vec![
            linked(&office, &alice, 3).await,
            linked(&office, &alice, 4).await,
            alice,
        ];
        // Less than a minute is not noticed.
        for (number, millis) in [(0, 3 * DAY_MS), (1, -1500)] {
            let off = off_by(&office, 20 + seed, millis);
            let device = devices.remove(number).reopen_in(off);
            device.device.receive().await.unwrap();
            devices.insert(number, device);
        }
        let random = SeededRandom::new(seed);
        let hello = Content::Text("hello".to_owned());
        let mut said = Vec::new();
        for step in 0..60 {
            let mut dice = [0; 3];
            random.fill(&mut dice).unwrap();
            match step {
                20 => devices.push(linked(&office, &devices[2], 5).await),
                40 => {
                    let gone = devices.pop().unwrap();
                    let revoked = devices[2].device.revoke(&gone.address.device).await;
                    revoked.unwrap();
                }
                _ => {}
            }
            let device = &devices[usize::from(dice[0]) % devices.len()];
            let whom = &others[usize::from(dice[1]) % 3];
            let box_id = whom.box_id();
            said.push((dice, office.clock.now()));
            office.clock.advance_millis(1 + u64::from(dice[1]));
            let device_of_hers = &device.device;
            match dice[2] % 16 {
                0..=2 => device.add_as(whom, &format!("name {}", dice[1])).await,
                3 => drop(device_of_hers.remove_contact(&box_id).await),
                4 => drop(device_of_hers.verify(&box_id, None)),
                // Whom the one that is removed has blocked on the service alone nobody can know.
                5 => {
                    let stays = usize::from(dice[0]) % devices.len() < 3;
                    device_of_hers.block(&box_id, stays).await.unwrap();
                }
                6 => device_of_hers.block(&box_id, false).await.unwrap(),
                7 => drop(device_of_hers.send(&box_id, &hello).await),
                8 => drop(whom.device.send(&device.box_id(), &hello).await),
                9 => {
                    let noticed = chain_change("another chain");
                    device_of_hers.note_change(&box_id, noticed).unwrap();
                }
                10 => drop(device_of_hers.accept_change(&box_id)),
                11 => {
                    let from = [AcceptFrom::Contacts, AcceptFrom::Anyone];
                    let from = from[usize::from(dice[1]) / 3 % 2];
                    device_of_hers.accept(from, &[]).await.unwrap();
                }
                _ => {
                    device_of_hers.receive().await.unwrap();
                    device_of_hers.tell_own_devices().await.unwrap();
                }
            }
        }
        for round in 0..6 {
            for device in &devices {
                device.device.receive().await.unwrap();
                for whom in others.iter().filter(|_| round >= 2) {
                    // Each change waits on each device, and who was forgotten meanwhile goes then.
                    drop(device.device.accept_change(&whom.box_id()));
                }
                device.device.tell_own_devices().await.unwrap();
            }
        }
        let accepting = devices[0].device.accepting().await.unwrap();
        for device in &devices[1..] {
            // A stranger may be known to those alone whom they wrote to.
            let contacts = |person: &Person| {
                let mut known = person.address_book();
                known.retain(|contact| contact.added || contact.name.is_some());
                (known, person.device.blocked().unwrap())
            };
            assert_eq!(contacts(device), contacts(&devices[0]), "{seed}: {said:?}");
            let known = device.device.accepting().await.unwrap();
            assert_eq!(known, accepting, "{seed}: {said:?}");
        }
        for whom in &others {
            let contact = devices[0].contact(whom);
            let is_contact = contact.is_some_and(|contact| contact.added);
            let is_blocked = devices[0]
                .device
                .blocked()
                .unwrap()
                .contains(&whom.box_id());
            let all = accepting.service == AcceptFrom::Anyone;
            if is_contact || !all {
                let is_heard = whom.is_heard_by(&devices[0]).await;
                let expected = !is_blocked && is_contact;
                assert_eq!(is_heard, expected, "{seed}: {said:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_one_device_puts_nobody_in_the_place_of_a_verified_contact_on_the_others() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 6).await;
    let laptop = linked(&office, &alice, 3).await;
    let by_email = LookupBy::Identifier(email(2));
    let added = alice.device.add_contact(&by_email, Some("Bob"), false);
    added.await.unwrap();
    alice.device.verify(&bob.box_id(), None).unwrap();
    talk(&alice, &laptop).await;
    // With the laptop, and the help of the service.
    laptop.add_as(&mallory, "M").await;
    laptop.device.verify(&mallory.box_id(), None).unwrap();
    laptop.device.tell_own_devices().await.unwrap();
    office.lead(&email(2), mallory.box_id());
    let added = laptop.device.add_contact(&by_email, Some("Bob"), true);
    added.await.unwrap();
    talk(&laptop, &alice).await;
    let hello = Content::Text("hello".to_owned());
    let stopped = alice.device.send(&mallory.box_id(), &hello).await;
    assert!(
        matches!(stopped, Err(DeviceError::NotConfirmed { .. })),
        "{stopped:?}"
    );
}

/// The office's clock, but for so many milliseconds.
struct Off(ManualClock, i64);

impl Clock for Off {
    fn now(&self) -> Timestamp {
        let now = self.0.now().as_millis();
        Timestamp::from_millis(now.saturating_add_signed(self.1))
    }

    fn running(&self) -> Duration {
        self.0.running()
    }
}

/// The surroundings of a person's device whose clock is off.
fn off_by(office: &Arc<Office>, seed: u64, millis: i64) -> Environment {
    Environment {
        clock: Arc::new(Off(office.clock.clone(), millis)),
        ..environment(office, seed)
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[tokio::test(start_paused = true)]
async fn whatever_their_clocks_what_is_said_last_holds_on_all_devices() {
    for days in [3, 4000, -3, -4000] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        let laptop = linked(&office, &alice, 3).await;
        let tablet = linked(&office, &alice, 4).await;
        alice.add_as(&bob, "Bob").await;
        all_hear(&[&alice, &laptop, &tablet]).await;
        let laptop = laptop.reopen_in(off_by(&office, 3, days * DAY_MS));
        // It says this before it has asked the service.
        laptop.device.verify(&bob.box_id(), None).unwrap();
        laptop.device.tell_own_devices().await.unwrap();
        office.clock.advance_millis(1000);
        alice.device.receive().await.unwrap();
        assert!(alice.contact(&bob).unwrap().is_verified());
        alice.add_as(&bob, "Robert").await;
        alice.device.block(&bob.box_id(), true).await.unwrap();
        office.clock.advance_millis(1000);
        for device in [&laptop, &tablet] {
            device.device.receive().await.unwrap();
        }
        let robert = alice.contact(&bob).unwrap();
        assert!(robert.is_verified() && robert.blocked);
        assert_eq!(robert.name.as_deref(), Some("Robert"));
        for device in [&laptop, &tablet] {
            assert_eq!(device.address_book(), alice.address_book(), "{days} days");
        }
    }
}

/// What a sibling's word says that no clock can have shown is taken as said when it came in, by all alike, whenever they hear it.
#[tokio::test(start_paused = true)]
async fn a_word_from_the_future_is_dated_alike_by_all_who_hear_it() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    let tablet = linked(&office, &alice, 4).await;
    alice.add_as(&bob, "Bob").await;
    all_hear(&[&alice, &laptop, &tablet]).await;
    let mut entry = Entry::default();
    let future = Timestamp::from_millis(u64::MAX - 1);
    let said = Said {
        name: Some("from the future".to_owned()),
        added: true,
        ..Said::default()
    };
    entry.say(future, said, &[]);
    laptop.tells_of(&bob, entry, None).await;
    office.clock.advance_millis(1000);
    // One hears it before something later is said, the other after it.
    alice.device.receive().await.unwrap();
    assert_eq!(
        alice.contact(&bob).unwrap().name.as_deref(),
        Some("from the future")
    );
    office.clock.advance_millis(1000);
    alice.add_as(&bob, "Robert").await;
    office.clock.advance_millis(5 * 24 * 60 * 60 * 1000);
    tablet.device.receive().await.unwrap();
    let robert = Some("Robert".to_owned());
    assert_eq!(alice.contact(&bob).unwrap().name, robert);
    assert_eq!(tablet.contact(&bob).unwrap().name, robert);
}

impl Person {
    /// Says something to the own box that only a stolen device would say.
    async fn tells_of(&self, whom: &Person, entry: Entry, change: Option<IdentityChange>) {
        let word = ContactWord {
            box_id: whom.box_id(),
            record: Vec::new(),
            entry,
            change,
            profile: None,
        };
        let signer = self.device.signer().unwrap();
        let told = self.device.store.write::<_, DeviceError>(|batch| {
            let word = Between::Contacts(vec![word]);
            self.device.tell_own(batch, &signer, &word)
        });
        told.unwrap();
        self.device.tell_own_devices().await.unwrap();
    }

    async fn is_heard_by(&self, other: &Person) -> bool {
        let hello = Content::Text("hello".to_owned());
        let sent = self.device.send(&other.box_id(), &hello).await;
        sent.is_ok_and(|sent| matches!(sent.delivery, Delivery::Delivered(_)))
    }

    async fn is_stopped(&self, from: &Person) -> bool {
        let hello = Content::Text("hello".to_owned());
        match self.device.send(&from.box_id(), &hello).await {
            Err(DeviceError::NotConfirmed { .. }) => true,
            other => {
                other.unwrap();
                false
            }
        }
    }
}

fn chain_change(words: &str) -> WhatChanged {
    WhatChanged::Chain(words.to_owned())
}

#[tokio::test(start_paused = true)]
async fn whoever_accepts_one_change_hears_of_the_next_whatever_the_clocks() {
    for at in [1, u64::MAX] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        let laptop = linked(&office, &alice, 3).await;
        let tablet = linked(&office, &alice, 4).await;
        alice.add_as(&bob, "Bob").await;
        alice.device.verify(&bob.box_id(), None).unwrap();
        alice.device.tell_own_devices().await.unwrap();
        for device in [&laptop, &tablet] {
            device.device.receive().await.unwrap();
        }
        // The laptop is in strange hands, or its clock is wrong.
        let change = IdentityChange {
            what: chain_change("said on the laptop"),
            at: Timestamp::from_millis(at),
            stops_sending: true,
        };
        laptop.tells_of(&bob, Entry::default(), Some(change)).await;
        alice.device.receive().await.unwrap();
        assert!(alice.is_stopped(&bob).await);
        alice.device.accept_change(&bob.box_id()).unwrap();
        assert!(!alice.is_stopped(&bob).await);
        // The tablet is told the same, and what it then sees itself all hear.
        tablet.device.receive().await.unwrap();
        tablet.device.accept_change(&bob.box_id()).unwrap();
        let seen = chain_change("seen on the tablet");
        tablet.device.note_change(&bob.box_id(), seen).unwrap();
        tablet.device.tell_own_devices().await.unwrap();
        alice.device.receive().await.unwrap();
        assert!(alice.is_stopped(&bob).await, "{at}");
        // What is settled is not news again when all is told to somebody new.
        alice.device.accept_change(&bob.box_id()).unwrap();
        let late = linked(&office, &alice, 5).await;
        for device in [&alice, &tablet, &alice] {
            device.device.receive().await.unwrap();
            device.device.tell_own_devices().await.unwrap();
        }
        assert!(!alice.is_stopped(&bob).await, "{at}");
        // On the tablet it waits, and so it does on whom the tablet has greeted.
        late.device.receive().await.unwrap();
        assert!(tablet.is_stopped(&bob).await);
        assert!(late.is_stopped(&bob).await, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_by_a_word_stays_held_to_the_chain_that_was_pinned() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    let bobs_phone = linked(&office, &bob, 7).await;
    let with_phone = bob.device.identity().record().clone();
    bob.device.revoke(&bobs_phone.address.device).await.unwrap();
    alice.add_as(&bob, "Bob").await;
    for device in [&alice, &laptop] {
        device.device.receive().await.unwrap();
    }
    // The laptop forgets him, and the service shows the record in which the phone counts still.
    laptop.device.remove_contact(&bob.box_id()).await.unwrap();
    alice.device.receive().await.unwrap();
    assert_eq!(alice.contact(&bob), None);
    office.show(bob.box_id(), with_phone);
    let by = LookupBy::Box(bob.box_id());
    let refused = alice.device.add_contact(&by, Some("Bob"), false).await;
    assert!(
        matches!(refused, Err(DeviceError::IdentityChanged { .. })),
        "{refused:?}"
    );
    office.show(bob.box_id(), bob.device.identity().record().clone());
    alice.add_as(&bob, "Bob").await;
}

#[tokio::test(start_paused = true)]
async fn who_is_removed_where_it_was_not_known_that_contacts_only_are_heard_is_not_heard_either() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    for device in [&laptop, &alice] {
        device.device.receive().await.unwrap();
    }
    let contacts = AcceptFrom::Contacts;
    alice.device.accept(contacts, &[]).await.unwrap();
    bob.say(&alice, "still a contact").await;
    laptop.device.remove_contact(&bob.box_id()).await.unwrap();
    alice.device.receive().await.unwrap();
    assert!(!bob.is_heard_by(&alice).await);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_had_the_service_do_is_no_choice_of_the_owners() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 4).await;
    let laptop = linked(&office, &alice, 3).await;
    laptop.add_as(&carol, "Carol").await;
    talk(&alice, &laptop).await;
    // Whoever has a token can do this; no device of hers has said it.
    let only = v1::AcceptRequest {
        contacts_only: Some(true),
        ..Default::default()
    };
    let signer = alice.device.signer().unwrap();
    let call = alice.device.connection.call::<Accept>(&only, Some(&signer));
    assert!(call.await.unwrap().contacts_only);
    alice.add_as(&bob, "Bob").await;
    talk(&alice, &laptop).await;
    for device in [&alice, &laptop] {
        let found = device.device.accepting().await.unwrap();
        assert_eq!(
            (found.service, found.chosen),
            (AcceptFrom::Contacts, AcceptFrom::Anyone)
        );
        let otherwise = device.device.accepts_otherwise().unwrap();
        assert_eq!(otherwise, Some(AcceptFrom::Contacts));
    }
    // Not though a device goes, and what it may have asked is repeated.
    let device = laptop.address.device;
    alice.device.revoke(&device).await.unwrap();
    alice.device.receive().await.unwrap();
    // Nobody was named to the service for it, but whom she added herself.
    assert!(!carol.is_heard_by(&alice).await);
    bob.say(&alice, "hello").await;
    alice.device.accept(AcceptFrom::Anyone, &[]).await.unwrap();
    carol.say(&alice, "at last").await;
}

/// Alice, who has blocked Mallory and hears contacts only, Carol being one. A device of hers has asked the service for the opposite of
/// both, and was removed before anybody heard of that.
async fn after_a_theft(office: &Arc<Office>) -> (Person, Person, Person) {
    let (alice, mallory) = (person(office, 1).await, person(office, 2).await);
    let carol = person(office, 4).await;
    let stolen = linked(office, &alice, 3).await;
    let mallorys = mallory.box_id();
    alice.device.block(&mallorys, true).await.unwrap();
    alice.add_as(&carol, "Carol").await;
    let contacts = AcceptFrom::Contacts;
    alice.device.accept(contacts, &[]).await.unwrap();
    stolen.device.receive().await.unwrap();
    let anyone = AcceptFrom::Anyone;
    stolen.device.accept(anyone, &[]).await.unwrap();
    stolen.device.block(&mallorys, false).await.unwrap();
    assert!(mallory.is_heard_by(&alice).await);
    let device = stolen.address.device;
    alice.device.revoke(&device).await.unwrap();
    (alice, mallory, carol)
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_device_asked_of_the_service_is_asked_otherwise_again() {
    let office = Office::new();
    let (alice, mallory, carol) = after_a_theft(&office).await;
    alice.device.receive().await.unwrap();
    let found = alice.device.accepting().await.unwrap();
    let contacts = AcceptFrom::Contacts;
    assert_eq!((found.service, found.chosen), (contacts, contacts));
    assert!(!mallory.is_heard_by(&alice).await);
    carol.say(&alice, "still a contact").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_that_the_service_refuses_holds_up_what_else_it_is_told() {
    let office = Office::new();
    let (alice, _mallory, carol) = after_a_theft(&office).await;
    let full = Fault::Refused("TOO_MANY_BLOCKED", crate::connection::Retry::No);
    office.fail_next("Block", full);
    alice.device.receive().await.unwrap();
    let found = alice.device.accepting().await.unwrap();
    let contacts = AcceptFrom::Contacts;
    assert_eq!((found.service, found.chosen), (contacts, contacts));
    // And nothing is asked again and again.
    let asked = (office.calls("Block"), office.calls("Accept"));
    alice.device.receive().await.unwrap();
    assert_eq!((office.calls("Block"), office.calls("Accept")), asked);
    carol.say(&alice, "still a contact").await;
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_away_hears_all_before_it_tells_the_service_anything() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let (laptop, gone) = (
        linked(&office, &alice, 3).await,
        linked(&office, &alice, 5).await,
    );
    let bobs = bob.box_id();
    alice.device.block(&bobs, true).await.unwrap();
    alice
        .device
        .accept(AcceptFrom::Contacts, &[])
        .await
        .unwrap();
    all_hear(&[&alice, &laptop, &gone]).await;
    // The laptop is off while all of this is undone.
    alice.device.revoke(&gone.address.device).await.unwrap();
    for number in 10..16 {
        let other = person(&office, number).await;
        alice.add_as(&other, "somebody").await;
    }
    alice.device.block(&bobs, false).await.unwrap();
    alice.device.accept(AcceptFrom::Anyone, &[]).await.unwrap();
    alice.device.receive().await.unwrap();
    office.set_page(1);
    let asked = office.calls("Accept");
    laptop.device.receive().await.unwrap();
    assert!(bob.is_heard_by(&alice).await);
    let found = laptop.device.accepting().await.unwrap();
    assert_eq!(
        (found.service, found.chosen),
        (AcceptFrom::Anyone, AcceptFrom::Anyone)
    );
    assert!(
        office.calls("Accept") <= asked + 2,
        "once for all it heard, and once here"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waits_behind_another_is_shown_once_that_is_dealt_with() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    let tablet = linked(&office, &alice, 4).await;
    alice.add_as(&bob, "Bob").await;
    alice.device.verify(&bob.box_id(), None).unwrap();
    alice.device.tell_own_devices().await.unwrap();
    all_hear(&[&laptop, &tablet, &alice]).await;
    let change = IdentityChange {
        what: chain_change("made up on the laptop"),
        at: office.clock.now(),
        stops_sending: true,
    };
    laptop.tells_of(&bob, Entry::default(), Some(change)).await;
    office.clock.advance_millis(1000);
    let seen = chain_change("seen on the tablet");
    tablet.device.note_change(&bob.box_id(), seen).unwrap();
    tablet.device.tell_own_devices().await.unwrap();
    alice.device.receive().await.unwrap();
    alice.device.accept_change(&bob.box_id()).unwrap();
    assert!(!alice.is_stopped(&bob).await);
    // The laptop is removed, and all greet each other anew.
    let device = laptop.address.device;
    alice.device.revoke(&device).await.unwrap();
    all_hear(&[&tablet, &alice]).await;
    assert!(alice.is_stopped(&bob).await);
}

#[tokio::test(start_paused = true)]
async fn who_was_removed_by_a_word_can_be_let_go_of_and_met_anew() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &alice, 3).await;
    alice.add_as(&bob, "Bob").await;
    all_hear(&[&alice, &laptop]).await;
    laptop.device.remove_contact(&bob.box_id()).await.unwrap();
    alice.device.receive().await.unwrap();
    // What he was held to goes too, if the owner says so here.
    let expected = || {
        let row = alice.device.store.get::<ExpectedRow>(&bob.box_id());
        row.unwrap().is_some()
    };
    assert!(expected());
    alice.device.remove_contact(&bob.box_id()).await.unwrap();
    assert!(!expected());
    let nobody = alice.device.remove_contact(&bob.box_id()).await;
    assert!(matches!(nobody, Err(DeviceError::NoUser)), "{nobody:?}");
}
