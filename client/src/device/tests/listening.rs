//! Listening: each message once and in order, whatever becomes of the streams, and patience that fits.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::linking::linked;
use super::*;
use crate::connection::Retry;
use crate::device::{AcceptFrom, LookupBy};

/// Longer than a stream may be silent, or a listener wait before a try.
const LONG: Duration = Duration::from_secs(300);
const REPLACED: Cut = Cut::Refused("SUBSCRIPTION_REPLACED", Retry::No);

async fn next(listener: &mut Listener<'_>) -> Heard {
    timeout(LONG, listener.next())
        .await
        .expect("it heard nothing")
        .unwrap()
}

/// What is heard until nothing is, for as long as a device waits for a sign of life.
async fn until_quiet(listener: &mut Listener<'_>) -> Result<Vec<String>, DeviceError> {
    let mut heard = Vec::new();
    while let Ok(next) = timeout(Duration::from_secs(60), listener.next()).await {
        if let Heard::Received(messages) = next? {
            heard.extend(texts(&messages));
        }
    }
    Ok(heard)
}

async fn disconnected(listener: &mut Listener<'_>) -> Duration {
    match next(listener).await {
        Heard::Disconnected { retry_in, .. } => retry_in,
        other => panic!("{other:?}"),
    }
}

async fn connected(listener: &mut Listener<'_>) {
    let heard = next(listener).await;
    assert!(matches!(heard, Heard::Connected(_)), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_and_what_comes_is_heard_at_once_and_acknowledged() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "waiting").await;
    let mut listener = bob.device.listen().unwrap();
    connected(&mut listener).await;
    for words in ["waiting", "one", "two"] {
        if words != "waiting" {
            alice.say(&bob, words).await;
        }
        let began = Instant::now();
        match next(&mut listener).await {
            Heard::Received(messages) => assert_eq!(texts(&messages), [words]),
            other => panic!("{other:?}"),
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "it waited for a timer");
    }
    assert!(until_quiet(&mut listener).await.unwrap().is_empty());
    assert!(office.queue(&bob.box_id()).is_empty());
    assert_eq!(office.streams_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_whose_stream_was_long_quiet_is_soon_back_however_often_it_broke() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let mut listener = bob.device.listen().unwrap();
    let first_pause = Patience::default().first_pause;
    let cuts = [
        Cut::Lost,
        Cut::Silent,
        Cut::Refused("UNAVAILABLE", Retry::Same),
        REPLACED,
    ];
    for cut in cuts.into_iter().cycle().take(40) {
        connected(&mut listener).await;
        // Hours pass; no mail comes.
        assert!(timeout(LONG * 20, listener.next()).await.is_err());
        office.cut(cut);
        let retry_in = disconnected(&mut listener).await;
        assert!(retry_in <= first_pause, "{cut:?}: {retry_in:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_listeners_of_one_device_one_gives_up_also_while_mail_comes() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "first").await;
    let copy = bob.back_up();
    let twin = Device::open(copy.path(), &passphrase(), environment(&office, 9)).unwrap();
    let listen = async |device: &Device| -> DeviceError {
        let mut listener = device.listen().unwrap();
        loop {
            if let Err(error) = listener.next().await {
                return error;
            }
        }
    };
    let mail = async {
        loop {
            alice.say(&bob, "more").await;
            sleep(Duration::from_millis(20)).await;
        }
    };
    let quarrel = async {
        tokio::select! {
            error = listen(&bob.device) => error,
            error = listen(&twin) => error,
            () = mail => unreachable!(),
        }
    };
    let error = timeout(LONG, quarrel).await.expect("both go on for ever");
    assert!(matches!(error, DeviceError::Call(_)), "{error}");
    assert!(
        error.to_string().to_lowercase().contains("replaced"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_away_nothing_but_the_pause_delays_the_next_try() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mut listener = bob.device.listen().unwrap();
    connected(&mut listener).await;
    alice.say(&bob, "one").await;
    assert!(matches!(next(&mut listener).await, Heard::Received(_)));
    // What was heard is not acknowledged yet.
    office.cut(Cut::Lost);
    for path in ["Acknowledge", "Subscribe"] {
        (0..1000).for_each(|_| office.fail_next(path, Fault::NotSent));
    }
    let mut retry_in = disconnected(&mut listener).await;
    for _ in 0..5 {
        let began = Instant::now();
        let next = disconnected(&mut listener).await;
        let tried_after = began.elapsed();
        assert!(
            tried_after <= retry_in + Duration::from_millis(1),
            "{tried_after:?}"
        );
        retry_in = next;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_takes_the_time_it_named_is_said_to_be_away() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let mut listener = bob.device.listen().unwrap();
    (0..1000).for_each(|_| office.fail_next("Subscribe", Fault::WrongTime));
    disconnected(&mut listener).await;
    assert!(disconnected(&mut listener).await <= Patience::default().longest_pause);
}

/// A small random number generator, so that a failing seed can be tried again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn break_something(office: &Office, dice: &mut Dice) {
    let path = ["Acknowledge", "Subscribe", "LookupKey"][dice.below(3) as usize];
    match dice.below(9) {
        0 => office.fail_next(path, Fault::NotSent),
        1 => office.fail_next(path, Fault::RequestLost),
        2 => office.fail_next(path, Fault::ReplyLost),
        3 => office.fail_next(path, Fault::Refused("UNAVAILABLE", Retry::Same)),
        4 => office.fail_next(
            "Subscribe",
            Fault::Refused("TOO_MANY_SUBSCRIPTIONS", Retry::Same),
        ),
        5 => office.cut(Cut::Lost),
        6 => office.cut(Cut::Over),
        7 => office.cut(Cut::Refused("SUBSCRIPTION_NOT_READ", Retry::Same)),
        _ => office.cut(Cut::Silent),
    }
}

/// Lets a listener run for so many steps and then drops what it was waiting for.
async fn poll_for(listener: &mut Listener<'_>, steps: u64) -> Option<Heard> {
    let mut next = std::pin::pin!(listener.next());
    for _ in 0..steps {
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(next.as_mut().poll(context)));
        if let std::task::Poll::Ready(heard) = polled.await {
            return Some(heard.unwrap());
        }
        sleep(Duration::from_millis(5)).await;
    }
    None
}

async fn history(seed: u64) {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mut dice = Dice(seed);
    office.set_page(1 + dice.below(4) as u32);
    let (mut written, mut heard) = (VecDeque::new(), Vec::new());
    let mut listener = bob.device.listen().unwrap();
    let bob_id = bob.box_id();
    for number in 0..30 {
        for _ in 0..dice.below(3) {
            let words = format!("{number}.{}", written.len());
            alice.say(&bob, &words).await;
            written.push_back(words);
        }
        if dice.below(2) == 0 {
            break_something(&office, &mut dice);
        }
        if dice.below(8) == 0 {
            listener = bob.device.listen().unwrap();
        }
        if let Some(Heard::Received(messages)) = poll_for(&mut listener, dice.below(30)).await {
            heard.extend(texts(&messages));
        }
        // Only what is stored is acknowledged.
        let gone = written.len() - office.queue(&bob_id).len();
        assert!(
            gone <= bob.heard().len(),
            "seed {seed}: acknowledged before it was stored"
        );
    }
    heard.extend(until_quiet(&mut listener).await.unwrap());
    assert_eq!(heard, Vec::from(written), "seed {seed}");
    assert!(
        office.queue(&bob_id).is_empty(),
        "seed {seed}: not acknowledged"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_breaks_and_whenever_it_is_dropped_each_message_is_heard_once_in_order() {
    let seeds = if std::env::var_os("ROSSBY_LONG").is_some() {
        100
    } else {
        3
    };
    for seed in 0..seeds {
        history(seed).await;
    }
}

/// Another device of a person, which alone knows somebody.
async fn laptop_that_knows(office: &Arc<Office>, alice: &Person, carol: &Person) -> Person {
    let laptop = linked(office, alice, 3).await;
    let by = LookupBy::Box(carol.box_id());
    let added = laptop.device.add_contact(&by, Some("Carol"), false).await;
    added.unwrap();
    laptop
}

#[tokio::test(start_paused = true)]
async fn who_only_listens_tells_the_service_of_its_contacts_too() {
    let office = Office::new();
    let (alice, carol) = (person(&office, 1).await, person(&office, 4).await);
    let laptop = laptop_that_knows(&office, &alice, &carol).await;
    let mut listener = laptop.device.listen().unwrap();
    until_quiet(&mut listener).await.unwrap();
    let contacts = AcceptFrom::Contacts;
    alice.device.accept(contacts, &[]).await.unwrap();
    until_quiet(&mut listener).await.unwrap();
    carol.say(&alice, "here I am").await;
    assert_eq!(until_quiet(&mut listener).await.unwrap(), ["here I am"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_comes_while_another_listens_is_greeted_at_once() {
    let office = Office::new();
    let (alice, carol) = (person(&office, 1).await, person(&office, 4).await);
    let laptop = laptop_that_knows(&office, &alice, &carol).await;
    let mut listener = laptop.device.listen().unwrap();
    until_quiet(&mut listener).await.unwrap();
    let tablet = linked(&office, &alice, 5).await;
    // Something that is sealed for the new one tells the laptop of it.
    alice.say(&carol, "hello").await;
    until_quiet(&mut listener).await.unwrap();
    tablet.device.receive().await.unwrap();
    let known = tablet.device.contact(&carol.box_id()).unwrap().unwrap();
    assert_eq!(known.name.as_deref(), Some("Carol"));
}
