//! The recovery key, where devices are lost or stolen.

use super::linking::{linked, newcomer};
use super::*;
use crate::connection::Retry;
use crate::linking::RecoverBy;

/// A new device of a person, by their recovery key.
async fn recovered(office: &Arc<Office>, of: &Person, seed: u64, alone: bool) -> Person {
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(office, home.path(), seed);
    let by = RecoverBy::Identifier(email(2));
    let key = of.device.recovery_seed().unwrap();
    let device = new.recover(&by, &key, alone).await.unwrap();
    let me = device.who_am_i().unwrap();
    let address = DeviceAddress {
        box_id: me.box_id.unwrap(),
        device: me.device,
    };
    Person {
        home,
        device,
        address,
    }
}

fn is_refused(error: &DeviceError, code: &str) -> bool {
    super::super::devices::is_refused(error, code)
}

#[tokio::test(start_paused = true)]
async fn a_new_device_takes_the_place_of_stolen_ones_and_contacts_see_the_same_identity() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    alice.say(&bob, "before").await;
    assert_eq!(laptop.hear().await, ["before"]);
    alice
        .device
        .verify(&bob.box_id(), None)
        .expect("they have compared their numbers");
    let new = recovered(&office, &bob, 4, true).await;
    assert_eq!(new.box_id(), bob.box_id());
    for stolen in [&bob, &laptop] {
        let shut_out = stolen.device.receive().await.unwrap_err();
        assert!(is_refused(&shut_out, "DEVICE_REVOKED"), "{shut_out}");
    }
    // Nothing stops, though she has verified them: the chain itself says that the device may read.
    let delivered = alice.say(&bob, "since then").await;
    assert!(matches!(delivered, Delivery::Delivered(_)), "{delivered:?}");
    assert_eq!(new.hear().await, ["since then"]);
    new.say(&alice, "it is me").await;
    assert_eq!(alice.hear().await, ["it is me"]);
    assert!(
        new.device.recovery_seed().is_none(),
        "the words are not kept"
    );
    assert_eq!(new.device.devices().unwrap().len(), 1);
    let new = new.reopen(&office, 9);
    assert!(new.device.receive().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_was_cut_off_or_outrun_goes_on() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let key = bob.device.recovery_seed().unwrap();
    let by = RecoverBy::Box(bob.box_id());
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 3);
    let device = new.code().device();
    // It is done, and no reply comes.
    (0..40).for_each(|_| office.fail_next("Recover", Fault::ReplyLost));
    assert!(new.recover(&by, &key, false).await.is_err());
    office.forget_faults();
    // Another time it is to be alone, and a device that is to go is quicker.
    let open = |seed| Linking::open(home.path(), &passphrase(), environment(&office, seed));
    office.fail_next("Recover", Fault::Refused("CHAIN_CHANGED", Retry::Changed));
    let new = open(4).unwrap().recover(&by, &key, true).await.unwrap();
    assert_eq!(new.who_am_i().unwrap().device, device, "the same keys");
    let live = new.devices().unwrap();
    assert!(matches!(&live[..], [one] if one.device == device && one.added_by.is_none()));
    alice.say(&bob, "hello").await;
    let received = new.receive().await.unwrap();
    assert_eq!(texts(&received.messages), ["hello"]);
    drop(new);
    assert!(matches!(open(5), Err(DeviceError::AlreadyRegistered)));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_a_thief_removed_at_once_comes_with_other_keys() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let key = bob.device.recovery_seed().unwrap();
    let by = RecoverBy::Box(bob.box_id());
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 3);
    let device = new.code().device();
    (0..40).for_each(|_| office.fail_next("Recover", Fault::ReplyLost));
    assert!(new.recover(&by, &key, false).await.is_err());
    office.forget_faults();
    // The thief holds Bob's own device, and sees another one come.
    bob.device.revoke(&device).await.unwrap();
    let new = Linking::open(home.path(), &passphrase(), environment(&office, 4)).unwrap();
    let new = new.recover(&by, &key, true).await.unwrap();
    assert_ne!(new.who_am_i().unwrap().device, device);
    let shut_out = bob.device.receive().await.unwrap_err();
    assert!(is_refused(&shut_out, "DEVICE_REVOKED"), "{shut_out}");
}

#[tokio::test(start_paused = true)]
async fn the_key_of_another_box_recovers_nothing_and_is_told_from_the_own_one() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    let (hers, his) = (
        alice.device.recovery_seed().unwrap(),
        bob.device.recovery_seed().unwrap(),
    );
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 4);
    let by = RecoverBy::Identifier(email(2));
    let refused = new.recover(&by, &hers, true).await.unwrap_err();
    assert!(is_refused(&refused, "NOT_RECOVERABLE"), "{refused}");
    assert!(bob.device.receive().await.is_ok());
    // Any device of the box knows the key when it sees it; only the first has it, until it forgets.
    for device in [&bob.device, &laptop.device] {
        assert!(device.is_recovery_key(&his) && !device.is_recovery_key(&hers));
    }
    assert!(!laptop.device.forget_recovery_key().unwrap());
    assert!(bob.device.forget_recovery_key().unwrap());
    let bob = bob.reopen(&office, 9);
    assert!(bob.device.recovery_seed().is_none());
    assert!(bob.device.is_recovery_key(&his));
    let delivered = bob.say(&alice, "goes on").await;
    assert!(matches!(delivered, Delivery::Delivered(_)), "{delivered:?}");
}

/// What somebody who has stolen a device reads out of it.
async fn comes_back(office: &Arc<Office>, stolen: &Person, by: &RecoverBy, seed: u64) -> bool {
    let Some(key) = stolen.device.recovery_seed() else {
        return false;
    };
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(office, home.path(), seed);
    new.recover(by, &key, true).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_stolen_first_device_is_shut_out_for_good_only_if_the_words_had_been_taken_from_it() {
    for confirmed in [true, false] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        let by = RecoverBy::Box(bob.box_id());
        if confirmed {
            assert!(bob.device.forget_recovery_key().unwrap());
        }
        let bob = bob.reopen(&office, 8);
        let laptop = linked(&office, &bob, 3).await;
        laptop.device.revoke(&bob.address.device).await.unwrap();
        // It can not let itself in, nor another one.
        assert!(bob.device.receive().await.is_err());
        assert!(bob.device.rejoin().await.is_err());
        let home = tempfile::tempdir().unwrap();
        let other = newcomer(&office, home.path(), 6);
        assert!(bob.device.approve(&other.code()).await.is_err());
        let mail = Content::Text("hello".to_owned());
        assert!(bob.device.send(&alice.box_id(), &mail).await.is_err());

        let is_back = comes_back(&office, &bob, &by, 7).await;
        assert_eq!(is_back, !confirmed);
        assert_eq!(laptop.device.receive().await.is_ok(), confirmed);
    }
}
