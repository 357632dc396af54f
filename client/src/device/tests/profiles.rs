//! Profiles: who sees what somebody shows of themselves, and that the service neither reads nor changes it.

use super::linking::linked;
use super::*;
use crate::profile::{Portrait, Profile};

fn named(name: &str) -> Profile {
    Profile::new(name, "about me", None).unwrap()
}

impl Person {
    async fn add_person(&self, other: &Person) {
        let by = LookupBy::Box(other.box_id());
        self.device.add_contact(&by, None, false).await.unwrap();
    }

    async fn shows(&self, name: &str) {
        assert_eq!(self.device.set_profile(&named(name)).await.unwrap(), 0);
    }

    /// What somebody calls themselves, once all that waits has come; and whether it is held back.
    async fn sees_of(&self, other: &Person) -> Option<(String, bool)> {
        self.device.receive().await.unwrap();
        let claimed = self.device.profile_of(&other.box_id()).unwrap()?;
        Some((claimed.profile.name().to_owned(), claimed.is_withheld))
    }
}

fn seen(name: &str) -> Option<(String, bool)> {
    Some((name.to_owned(), false))
}

#[tokio::test(start_paused = true)]
async fn a_contact_sees_it_with_the_first_message_and_each_change() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    alice.add_person(&bob).await;
    let picture = Portrait::new("image/png", vec![5; 3000]).unwrap();
    let profile = Profile::new("Anna B.", "mostly harmless", Some(picture)).unwrap();
    alice.device.set_profile(&profile).await.unwrap();
    assert_eq!(bob.sees_of(&alice).await, None);
    alice.say(&bob, "hello").await;
    alice.say(&carol, "a stranger is not told").await;
    assert_eq!(bob.sees_of(&alice).await, seen("Anna B."));
    assert_eq!(carol.sees_of(&alice).await, None);
    let claimed = bob.device.profile_of(&alice.box_id()).unwrap().unwrap();
    assert_eq!(claimed.profile, profile);
    assert_eq!(bob.heard(), ["hello"], "the key is no message");
    let kept = office.profile(&alice.box_id()).sealed;
    let reads = |words: &[u8]| kept.windows(words.len()).any(|bytes| bytes == words);
    assert!(!reads(b"Anna") && !reads(&[5; 8]));

    let lookups = office.calls("LookupKey");
    alice.say(&bob, "again").await;
    bob.device.receive().await.unwrap();
    assert_eq!(office.calls("LookupKey"), lookups, "told once is enough");
    alice.shows("Anna C.").await;
    assert_eq!(bob.sees_of(&alice).await, seen("Anna C."));
    alice.device.set_profile(&Profile::default()).await.unwrap();
    assert_eq!(bob.sees_of(&alice).await, seen(""));
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.sees_of(&alice).await, seen(""));
}

#[tokio::test(start_paused = true)]
async fn who_is_blocked_or_forgotten_sees_nothing_that_comes_later() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    for other in [&bob, &carol] {
        alice.add_person(other).await;
        alice.say(other, "hello").await;
    }
    alice.shows("before").await;
    alice.say(&bob, "hello").await;
    alice.say(&carol, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("before"));
    assert_eq!(carol.sees_of(&alice).await, seen("before"));
    let key = |person: &Person| {
        let row = person
            .device
            .store
            .get::<crate::store::ProfileRow>(&alice.box_id());
        row.unwrap().unwrap().key.unwrap()
    };
    let before = key(&alice);
    alice.device.block(&bob.box_id(), true).await.unwrap();
    alice.device.block(&bob.box_id(), false).await.unwrap();
    assert_ne!(key(&alice), before);
    alice.shows("after").await;
    assert_eq!(carol.sees_of(&alice).await, seen("after"));
    assert_eq!(bob.sees_of(&alice).await, seen("before"));
    assert_eq!(
        (key(&carol) == key(&alice), key(&bob) == before),
        (true, true)
    );

    alice.device.remove_contact(&carol.box_id()).await.unwrap();
    alice.shows("for nobody").await;
    assert_eq!(carol.sees_of(&alice).await, seen("after"));
    // As contacts again, they are told with the next message.
    alice.add_person(&carol).await;
    alice.say(&carol, "hello again").await;
    assert_eq!(carol.sees_of(&alice).await, seen("for nobody"));
}

#[tokio::test(start_paused = true)]
async fn an_older_or_another_profile_in_place_of_the_newest_is_noticed() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mallory = person(&office, 3).await;
    alice.add_person(&bob).await;
    alice.shows("first").await;
    alice.say(&bob, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("first"));
    let first = office.profile(&alice.box_id());
    alice.shows("second").await;
    office.show_profile(Some(first));
    let held_back = Some(("first".to_owned(), true));
    assert_eq!(bob.sees_of(&alice).await, held_back);
    // Another's, as if it were hers; and hers under a version that she never gave it.
    mallory.shows("second").await;
    let mut forged = office.profile(&mallory.box_id());
    forged.version = 2;
    office.show_profile(Some(forged));
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.sees_of(&alice).await, held_back);
    let mut renamed = office.profile(&alice.box_id());
    renamed.version = 9;
    office.show_profile(Some(renamed));
    let bob = bob.reopen(&office, 9);
    assert_eq!(bob.sees_of(&alice).await, held_back);
    office.show_profile(None);
    let bob = bob.reopen(&office, 10);
    assert_eq!(bob.sees_of(&alice).await, seen("second"));
}

#[tokio::test(start_paused = true)]
async fn own_devices_show_the_same_and_one_that_is_removed_loses_the_key() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.shows("one").await;
    let laptop = linked(&office, &alice, 3).await;
    alice.device.receive().await.unwrap();
    assert_eq!(laptop.sees_of(&alice).await, seen("one"));
    laptop.shows("two").await;
    // Not having heard of it, she takes the next version all the same.
    alice.shows("three").await;
    assert_eq!(alice.sees_of(&alice).await, seen("three"));
    assert_eq!(laptop.sees_of(&alice).await, seen("three"));
    laptop.add_person(&bob).await;
    laptop.say(&bob, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("three"));

    let known = office.profile(&alice.box_id());
    alice.device.revoke(&laptop.address.device).await.unwrap();
    let rotated = office.profile(&alice.box_id());
    assert!(rotated.version > known.version);
    assert_ne!(rotated.sealed[1..17], known.sealed[1..17], "the key's id");
    assert_eq!(alice.sees_of(&alice).await, seen("three"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_restored_is_given_it_again() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.add_person(&bob).await;
    alice.shows("old").await;
    let restore = office.back_up();
    alice.shows("new").await;
    restore();
    alice.device.receive().await.unwrap();
    alice.say(&bob, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("new"));
}
