//! Profiles: who sees what somebody shows of themselves, and that the service neither reads nor changes it.

use rossby_domain::profile::MAX_PROFILE_STEP;

use super::linking::linked;
use super::*;
use crate::connection::Retry;
use crate::envelope::Between;
use crate::profile::ProfileWord;
use crate::profile::{Portrait, Profile, ProfileKey};
use crate::store::ProfileRow;

fn named(name: &str) -> Profile {
    Profile::new(name, "about me", None).unwrap()
}

impl Person {
    async fn add_person(&self, other: &Person) {
        let by = LookupBy::Box(other.box_id());
        self.device.add_contact(&by, None, false).await.unwrap();
    }

    fn row_of(&self, other: &Person) -> ProfileRow {
        let row = self.device.store.get::<ProfileRow>(&other.box_id());
        row.unwrap().unwrap()
    }

    fn key_of(&self, other: &Person) -> ProfileKey {
        self.row_of(other).key.unwrap()
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

/// Two who have added one another.
async fn acquainted(office: &Arc<Office>) -> (Person, Person) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    alice.add_person(&bob).await;
    bob.add_person(&alice).await;
    (alice, bob)
}

fn seen(name: &str) -> Option<(String, bool)> {
    Some((name.to_owned(), false))
}

#[tokio::test(start_paused = true)]
async fn a_contact_sees_it_with_the_first_message_and_each_change() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    let carol = person(&office, 3).await;
    carol.add_person(&alice).await;
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
        other.add_person(&alice).await;
        alice.say(other, "hello").await;
    }
    alice.shows("before").await;
    alice.say(&bob, "hello").await;
    alice.say(&carol, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("before"));
    assert_eq!(carol.sees_of(&alice).await, seen("before"));
    let key = |person: &Person| person.key_of(&alice);
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
    let (alice, bob) = acquainted(&office).await;
    let mallory = person(&office, 3).await;
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
    // The version without the profile; under a version above what was told, something that nobody can open.
    let mut empty = office.profile(&alice.box_id());
    empty.sealed = bytes::Bytes::new();
    office.show_profile(Some(empty));
    let bob = bob.reopen(&office, 10);
    assert_eq!(bob.sees_of(&alice).await, held_back);
    let mut other = office.profile(&mallory.box_id());
    other.version = 999;
    office.show_profile(Some(other));
    let bob = bob.reopen(&office, 11);
    assert_eq!(bob.sees_of(&alice).await, held_back);
    office.show_profile(None);
    let bob = bob.reopen(&office, 12);
    assert_eq!(bob.sees_of(&alice).await, seen("second"));
    // That there is nobody.
    alice.shows("third").await;
    office.fail_next("LookupKey", Fault::Refused("NO_USER", Retry::No));
    let held_back = Some(("second".to_owned(), true));
    assert_eq!(bob.sees_of(&alice).await, held_back);
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
    // Not having heard of it, she goes on from it all the same.
    let before = alice.key_of(&alice);
    alice.shows("three").await;
    assert!(alice.key_of(&alice) == before);
    assert_eq!(alice.sees_of(&alice).await, seen("three"));
    assert_eq!(laptop.sees_of(&alice).await, seen("three"));
    laptop.add_person(&bob).await;
    bob.add_person(&alice).await;
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
    let (alice, bob) = acquainted(&office).await;
    alice.shows("old").await;
    let restore = office.back_up();
    alice.shows("new").await;
    restore();
    alice.device.receive().await.unwrap();
    alice.say(&bob, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("new"));
}

#[tokio::test(start_paused = true)]
async fn another_key_is_not_undone_by_an_own_device_that_has_not_heard_of_it() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    let mallory = person(&office, 4).await;
    alice.shows("one").await;
    alice.say(&bob, "hello").await;
    let laptop = linked(&office, &alice, 3).await;
    alice.device.receive().await.unwrap();
    assert_eq!(laptop.sees_of(&alice).await, seen("one"));
    let stolen = alice.key_of(&alice);
    // The laptop has told her nothing: the other may have.
    laptop.device.block(&mallory.box_id(), true).await.unwrap();
    let rotated = laptop.key_of(&alice);
    assert!(rotated != stolen);
    alice.shows("two").await;
    let key = alice.key_of(&alice);
    assert!(
        key != stolen && key != rotated,
        "it has never had the rotated one"
    );
    assert_eq!(laptop.sees_of(&alice).await, seen("two"));
    assert_eq!(bob.sees_of(&alice).await, seen("two"));
    assert!(laptop.key_of(&alice) == key && bob.key_of(&alice) == key);
    // Nor is what the one shows undone by the other's rotation.
    alice.shows("three").await;
    laptop.device.block(&mallory.box_id(), true).await.unwrap();
    assert_eq!(
        laptop.row_of(&alice).version,
        office.profile(&alice.box_id()).version
    );
    for person in [&alice, &laptop, &bob] {
        assert_eq!(person.sees_of(&alice).await, seen("three"));
    }
    assert!(alice.key_of(&alice) != key && laptop.key_of(&alice) == alice.key_of(&alice));
}

#[tokio::test(start_paused = true)]
async fn what_the_service_may_have_taken_is_given_again_as_it_is() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    alice.say(&bob, "hello").await;
    alice.shows("one").await;
    alice.say(&bob, "hello").await;
    (0..20).for_each(|_| office.fail_next("SetProfile", Fault::ReplyLost));
    assert!(alice.device.set_profile(&named("two")).await.is_err());
    office.forget_faults();
    let next = alice.row_of(&alice).next.unwrap();
    let alice = alice.reopen(&office, 8);
    assert_eq!(alice.sees_of(&alice).await, seen("two"));
    assert_eq!(office.profile(&alice.box_id()).sealed, next.sealed);
    assert_eq!(alice.row_of(&alice).next, None);
    assert_eq!(bob.sees_of(&alice).await, seen("two"));
    // Under another key too: what is at the service, nobody could open otherwise.
    let stranger = person(&office, 3).await.box_id();
    (0..20).for_each(|_| office.fail_next("SetProfile", Fault::ReplyLost));
    alice.device.block(&stranger, true).await.unwrap();
    office.forget_faults();
    let next = alice.row_of(&alice).next.unwrap();
    let alice = alice.reopen(&office, 9);
    assert_eq!(alice.sees_of(&alice).await, seen("two"));
    assert_eq!(office.profile(&alice.box_id()).sealed, next.sealed);
    assert!(alice.key_of(&alice) == next.key);
    assert_eq!(bob.sees_of(&alice).await, seen("two"));
}

#[tokio::test(start_paused = true)]
async fn who_is_blocked_while_it_is_published_is_told_of_nothing_later() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    alice.shows("one").await;
    alice.say(&bob, "hello").await;
    assert_eq!(bob.sees_of(&alice).await, seen("one"));
    (0..20).for_each(|_| office.fail_next("SetProfile", Fault::ReplyLost));
    assert!(alice.device.set_profile(&named("two")).await.is_err());
    alice.device.block(&bob.box_id(), true).await.unwrap();
    office.forget_faults();
    office.clock.advance_millis(120_000);
    alice.device.receive().await.unwrap();
    assert!(alice.key_of(&alice) != bob.key_of(&alice));
    assert!(!alice.row_of(&alice).must_rotate);
    assert_eq!(alice.sees_of(&alice).await, seen("two"));
}

#[tokio::test(start_paused = true)]
async fn the_key_is_another_once_a_device_is_gone_whoever_has_removed_it() {
    let office = Office::new();
    let (alice, laptop) = {
        let alice = person(&office, 1).await;
        alice.shows("one").await;
        let laptop = linked(&office, &alice, 3).await;
        (alice, laptop)
    };
    alice.device.receive().await.unwrap();
    let tablet = linked(&office, &alice, 4).await;
    alice.device.receive().await.unwrap();
    for person in [&laptop, &tablet] {
        assert_eq!(person.sees_of(&alice).await, seen("one"));
    }
    let stolen = tablet.key_of(&alice);
    // Whoever removes it comes no further than that.
    (0..200).for_each(|_| office.fail_next("SetProfile", Fault::NotSent));
    let _ = alice.device.revoke(&tablet.address.device).await;
    office.forget_faults();
    assert!(alice.key_of(&alice) == stolen);
    laptop.device.renew_devices().await.unwrap();
    laptop.device.receive().await.unwrap();
    assert!(laptop.key_of(&alice) != stolen);
    assert_eq!(laptop.sees_of(&alice).await, seen("one"));
}

#[tokio::test(start_paused = true)]
async fn a_strangers_word_is_not_followed_and_no_ones_beyond_all_measure() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.add_person(&bob).await;
    alice.shows("one").await;
    alice.say(&bob, "hello").await;
    bob.device.receive().await.unwrap();
    let lookups = office.calls("LookupKey");
    assert_eq!(bob.sees_of(&alice).await, None);
    assert_eq!(office.calls("LookupKey"), lookups);
    // What came before counts once she is a contact.
    bob.add_person(&alice).await;
    assert_eq!(bob.sees_of(&alice).await, seen("one"));
    let told = bob.row_of(&alice).told;
    for version in [told + MAX_PROFILE_STEP + 1, u64::MAX] {
        let key = ProfileKey::from_bytes([9; 32]);
        let word = ProfileWord { key, version };
        bob.device.hear_of_profile(&alice.box_id(), word).unwrap();
        assert_eq!(bob.row_of(&alice).told, told);
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_can_not_be_found_stand_in_nobodys_way() {
    let office = Office::new();
    let bob = person(&office, 1).await;
    let mut others = Vec::new();
    for seed in 2..8 {
        let other = person(&office, seed).await;
        other.add_person(&bob).await;
        bob.add_person(&other).await;
        other.shows("here").await;
        others.push(other);
    }
    others.sort_by_key(Person::box_id);
    let (honest, stuck) = others.split_last().unwrap();
    for other in stuck {
        let key = other.key_of(other);
        let word = ProfileWord { key, version: 99 };
        bob.device.hear_of_profile(&other.box_id(), word).unwrap();
    }
    honest.say(&bob, "hello").await;
    for _ in 0..2 {
        bob.device.receive().await.unwrap();
    }
    assert_eq!(bob.sees_of(honest).await, seen("here"));
    let lookups = office.calls("LookupKey");
    bob.device.receive().await.unwrap();
    assert_eq!(office.calls("LookupKey"), lookups, "in vain once is enough");
}

#[tokio::test(start_paused = true)]
async fn who_was_refused_the_word_is_told_with_the_next_message() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    alice.shows("one").await;
    bob.device.block(&alice.box_id(), true).await.unwrap();
    let refused = alice.say(&bob, "hello").await;
    assert!(matches!(refused, Delivery::Refused(_)), "{refused:?}");
    bob.device.block(&alice.box_id(), false).await.unwrap();
    alice.say(&bob, "hello again").await;
    assert_eq!(bob.sees_of(&alice).await, seen("one"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_says_nothing_of_the_profile() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let laptop = linked(&office, &alice, 3).await;
    alice.device.receive().await.unwrap();
    alice.shows("one").await;
    alice.device.revoke(&laptop.address.device).await.unwrap();
    let before = alice.row_of(&alice);
    let key = ProfileKey::from_bytes([9; 32]);
    let version = before.version + 1;
    let word = Between::Profile(ProfileWord { key, version }).to_content();
    let (signer, content) = (alice.device.signer().unwrap(), word.encode().unwrap());
    let heard = alice
        .device
        .hear(&signer, (laptop.address, office.clock.now()), &content)
        .await;
    assert!(heard.unwrap().is_none());
    assert_eq!(alice.row_of(&alice), before);
}
