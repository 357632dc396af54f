//! Rotating keys: whatever is lost on the way, one key at a time, and no mail is lost by it.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::connection::Retry;

const LONG: Duration = Duration::from_secs(120);

impl Person {
    /// The counters of the private keys that the device has.
    fn kept(&self) -> Vec<u64> {
        let identity = self.device.identity();
        identity.kem_keys().iter().map(|(of, _)| *of).collect()
    }

    async fn rotate(&self) -> u64 {
        self.device.rotate_keys().await.unwrap().counter
    }
}

#[tokio::test(start_paused = true)]
async fn mail_for_the_key_before_opens_and_the_next_is_sealed_for_the_new_one() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    assert_eq!(bob.rotate().await, 2);
    // Alice knows only the key before, which is still taken.
    alice.say(&bob, "one").await;
    assert_eq!(bob.kept(), [1, 2], "the key before is still sealed to");
    assert_eq!(bob.hear().await, ["zero", "one"]);
    assert_eq!(bob.kept(), [1, 2]);
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.rotate().await, 3);
    // Now hers is too old: she is told, and seals again.
    let sends = office.calls("Send");
    alice.say(&bob, "two").await;
    assert_eq!(office.calls("Send"), sends + 2);
    assert_eq!(bob.hear().await, ["two"]);
    assert_eq!(bob.kept(), [2, 3], "what nobody seals to is erased");
    let record = bob.device.identity().record().clone();
    assert_eq!(KeyRecord::decode(&record.encode()).unwrap(), record);
    assert_eq!(bob.reopen(&office, 9).kept(), [2, 3], "on the disk too");
}

#[tokio::test(start_paused = true)]
async fn an_old_key_is_kept_until_all_that_may_be_sealed_to_it_is_acknowledged() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    for counter in 2..5 {
        assert_eq!(bob.rotate().await, counter);
    }
    assert_eq!(bob.kept(), [1, 2, 3, 4]);
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.kept(), [1, 2, 3, 4]);
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(bob.kept(), [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_was_cut_off_goes_on_with_the_same_key() {
    for fault in [Fault::NotSent, Fault::RequestLost, Fault::ReplyLost] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        (0..40).for_each(|_| office.fail_next("UpdateKey", fault.clone()));
        assert!(bob.device.rotate_keys().await.is_err());
        assert_eq!(bob.kept(), [1, 2], "it was stored before it was sent");
        // Whether the service has it or not, mail for either key opens.
        alice.say(&bob, "one").await;
        let bob = bob.reopen(&office, 8);
        assert_eq!(bob.hear().await, ["one"]);
        let counter = loop {
            if let Ok(rotated) = bob.device.rotate_keys().await {
                break rotated.counter;
            }
        };
        assert_eq!(counter, 2, "{fault:?}");
        assert_eq!(bob.kept(), [1, 2]);
        alice.say(&bob, "two").await;
        assert_eq!(bob.hear().await, ["two"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restored_home_takes_up_its_record_and_rotates_on() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let backup = bob.back_up();
    assert_eq!(bob.rotate().await, 2);
    let bob = bob.restore(backup, &office, 8);
    assert_eq!(
        bob.rotate().await,
        3,
        "the counter that was used is passed over"
    );
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_rotation_is_told_and_changes_nothing_else() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    office.fail_next("UpdateKey", Fault::Refused("BAD_SIGNATURE", Retry::No));
    let refused = bob.device.rotate_keys().await;
    assert!(matches!(refused, Err(DeviceError::Call(_))));
    assert_eq!(bob.device.identity().published_counter(), 1);
    assert_eq!(bob.rotate().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_restored_is_given_the_keys_again_and_no_new_mail_is_lost() {
    for is_listening in [false, true] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        alice.say(&bob, "one").await;
        assert_eq!(bob.hear().await, ["one"]);
        let restore = office.back_up();
        assert_eq!((bob.rotate().await, bob.rotate().await), (2, 3));
        alice.say(&bob, "two").await;
        assert_eq!(bob.hear().await, ["two"]);
        assert_eq!(bob.kept(), [2, 3], "the key in the backup is erased");
        restore();
        if is_listening {
            let mut listener = bob.device.listen().unwrap();
            while timeout(LONG, listener.next()).await.is_ok() {}
        } else {
            bob.device.receive().await.unwrap();
        }
        // Carol never knew of any key; Alice knows only the one that was erased meanwhile.
        let carol = person(&office, 3).await;
        carol.say(&bob, "from carol").await;
        alice.say(&bob, "from alice").await;
        let heard = bob.hear().await;
        assert!(heard.contains(&"from carol".to_owned()), "{heard:?}");
        assert!(heard.contains(&"from alice".to_owned()), "{heard:?}");
        let asked = office.calls("UpdateKey");
        bob.device.receive().await.unwrap();
        assert_eq!(office.calls("UpdateKey"), asked, "once is enough");
    }
}

const HOUR_MS: u64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_key_is_rotated_when_it_is_a_day_old_and_its_history_is_kept() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    bob.hear().await;
    let first_since = office.clock.now();
    office.clock.advance_millis(23 * HOUR_MS);
    bob.hear().await;
    assert_eq!(bob.kept(), [1], "it is not due yet");
    office.clock.advance_millis(HOUR_MS);
    alice.say(&bob, "one").await;
    let second_since = office.clock.now();
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(bob.kept(), [1, 2]);
    bob.hear().await;
    assert_eq!(bob.kept(), [1, 2], "once");
    office.clock.advance_millis(24 * HOUR_MS);
    let third_since = office.clock.now();
    bob.hear().await;
    let bob = bob.reopen(&office, 8);
    let history = bob.device.key_history().unwrap();
    let states: Vec<_> = history.iter().map(|key| key.state).collect();
    let since: Vec<_> = history.iter().filter_map(|key| key.since).collect();
    assert_eq!(since, [first_since, second_since, third_since]);
    assert_eq!(
        states,
        [
            KeyState::Erased(third_since),
            KeyState::Previous,
            KeyState::Current
        ]
    );
    assert_eq!(bob.hear().await, [""; 0]);
    alice.say(&bob, "two").await;
    assert_eq!(bob.hear().await, ["two"]);
}

#[tokio::test(start_paused = true)]
async fn the_owner_says_how_often_keys_are_rotated_and_a_wrong_clock_does_not_stop_it() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(alice.device.key_schedule().unwrap(), day);
    alice.device.set_key_schedule(None).unwrap();
    alice.hear().await;
    office.clock.advance_millis(1000 * HOUR_MS);
    alice.hear().await;
    assert_eq!(alice.kept(), [1]);
    let hour = Some(Duration::from_millis(HOUR_MS));
    alice.device.set_key_schedule(hour).unwrap();
    let alice = alice.reopen(&office, 8);
    assert_eq!(alice.device.key_schedule().unwrap(), hour);
    // Dated by a clock that was a year ahead.
    let wrong = office.clock.now().plus_millis(8766 * HOUR_MS);
    let noted: Result<(), StoreError> = alice
        .device
        .store
        .write(|batch| super::super::key_times::note_new(batch, 1, wrong));
    noted.unwrap();
    alice.hear().await;
    assert_eq!(alice.kept(), [1]);
    office.clock.advance_millis(HOUR_MS);
    alice.hear().await;
    assert_eq!(alice.kept(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_lasts_for_days_rotates_too() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mut listener = bob.device.listen().unwrap();
    for _ in 0..3 {
        alice.say(&bob, "hello").await;
        loop {
            let heard = timeout(LONG, listener.next()).await.unwrap().unwrap();
            if matches!(heard, Heard::Received(_)) {
                break;
            }
        }
        office.clock.advance_millis(25 * HOUR_MS);
    }
    alice.say(&bob, "last").await;
    loop {
        let heard = timeout(LONG, listener.next()).await.unwrap().unwrap();
        if matches!(heard, Heard::Received(_)) {
            break;
        }
    }
    assert!(bob.device.identity().published_counter() >= 3);
}
