//! Conversations as all devices show them.

use std::time::Duration;

use rossby_seams::clock::{Clock, ManualClock};

use super::linking::linked;
use super::*;
use crate::conversation::Conversation;

/// The texts of a conversation, in the order that a device shows.
fn history(person: &Person, with: &BoxId) -> Vec<String> {
    let history = person.device.history(&Conversation::With(*with)).unwrap();
    texts(&history)
}

impl Person {
    /// The same device, by a clock of its own.
    fn by(self, clock: &ManualClock, office: &Arc<Office>, seed: u64) -> Self {
        self.reopen_in(Environment {
            clock: Arc::new(clock.clone()),
            ..environment(office, seed)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_stands_after_what_it_answers_on_every_device_whatever_their_clocks() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    let now = office.clock.now();
    let ahead = ManualClock::new(now.plus_millis(300_000));
    let alice = alice.by(&ahead, &office, 4);
    let behind = ManualClock::new(now);
    let laptop = laptop.by(&behind, &office, 5);

    alice.say(&bob, "one").await;
    laptop.hear().await;
    laptop.say(&alice, "two").await;
    bob.hear().await;
    bob.say(&alice, "three").await;
    alice.hear().await;
    alice.say(&bob, "four").await;
    for person in [&alice, &bob, &laptop] {
        person.device.receive().await.unwrap();
        let other = match person.box_id() == alice.box_id() {
            true => bob.box_id(),
            false => alice.box_id(),
        };
        assert_eq!(history(person, &other), ["one", "two", "three", "four"]);
    }
    let all = bob
        .device
        .history(&Conversation::With(alice.box_id()))
        .unwrap();
    let at: Vec<_> = all
        .iter()
        .filter_map(|message| message.written_at)
        .collect();
    assert_eq!(
        at[1],
        at[0].plus_millis(1),
        "the clock of the laptop is behind"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_makes_a_device_date_its_messages_into_next_week() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let week = Duration::from_secs(7 * 24 * 3600);
    let far = ManualClock::new(office.clock.now().plus_millis(week.as_millis() as u64));
    let alice = alice.by(&far, &office, 3);
    alice.say(&bob, "from next week").await;
    bob.hear().await;
    bob.say(&alice, "from today").await;
    let messages = bob.device.messages().unwrap();
    let own = messages
        .iter()
        .find(|message| message.sender == bob.address);
    assert_eq!(own.unwrap().written_at, Some(office.clock.now()));
}
