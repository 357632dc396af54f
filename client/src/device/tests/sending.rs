//! Sending: nothing lost, nothing twice, in order.

use proptest::prelude::*;
use rossby_domain::chain::{Change, KemKey, KeyRecord, Link, SUITE_XWING, Signer as ChainSigner};
use rossby_domain::dedupe::WINDOW;
use rossby_domain::ids::Sequence;

use ed25519_dalek::{Signer as _, SigningKey};

use super::*;
use crate::connection::Retry;
use crate::crypto::kem::KemSecret;

impl Person {
    /// This person's record with one more device, which has no KEM key yet.
    pub fn record_with_device(&self, seed: u8) -> KeyRecord {
        self.with_device(self.device.identity().record(), seed)
    }

    /// A record of this person with one more device.
    fn with_device(&self, record: &KeyRecord, seed: u8) -> KeyRecord {
        let identity = self.device.identity();
        let key = SigningKey::from_bytes(&[seed; 32])
            .verifying_key()
            .to_bytes();
        let (version, previous) = (record.version() + 1, record.head());
        let (change, signer) = (
            Change::AddDevice { key },
            ChainSigner::Device(identity.device()),
        );
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        let signature = identity.signing_key().sign(&signed).to_bytes();
        record
            .extend(Link {
                version,
                previous,
                change,
                signer,
                signature,
            })
            .unwrap()
    }

    /// This person's record with another KEM key.
    pub fn record_with_kem(&self, counter: u64) -> KeyRecord {
        let identity = self.device.identity();
        let secret = KemSecret::generate(&SeededRandom::new(counter)).unwrap();
        let public = secret.public_key().unwrap();
        let statement = KemKey::statement(&identity.device(), SUITE_XWING, counter, &public);
        let signature = identity.signing_key().sign(&statement).to_bytes();
        let kem = KemKey {
            suite: SUITE_XWING,
            counter,
            public: public.into(),
            signature,
        };
        identity.record().with_kem(&identity.device(), kem).unwrap()
    }
}

fn delivered(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Delivered(_))
}

#[tokio::test(start_paused = true)]
async fn two_people_write_to_each_other() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    assert!(matches!(
        alice.say(&bob, "hello").await,
        Delivery::Delivered(Sequence(1))
    ));
    assert!(matches!(
        alice.say(&bob, "how are you?").await,
        Delivery::Delivered(Sequence(2))
    ));
    assert_eq!(bob.hear().await, ["hello", "how are you?"]);
    assert!(delivered(&bob.say(&alice, "well").await));
    assert_eq!(alice.hear().await, ["well"]);
    assert!(
        office.queue(&bob.box_id()).is_empty(),
        "acknowledged and purged"
    );
    let sent = alice.device.messages().unwrap();
    assert_eq!(texts(&sent), ["hello", "how are you?", "well"]);
    assert_eq!(sent[0].status, Status::Sent);
    assert_eq!(sent[0].peer(), bob.box_id());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_makes_no_second_envelope() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    office.fail_next("Send", Fault::ReplyLost);
    assert!(delivered(&alice.say(&bob, "once").await));
    assert_eq!(office.calls("Send"), 2);
    assert_eq!(bob.hear().await, ["once"]);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_sent_goes_out_later_under_the_same_id() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    // The first try arrives and its reply is lost; nobody answers after that.
    office.fail_next("Send", Fault::ReplyLost);
    (0..40).for_each(|_| office.fail_next("Send", Fault::NotSent));
    let delivery = alice.say(&bob, "one").await;
    assert!(matches!(&delivery, Delivery::Pending(error) if error.is_unreachable()));
    assert_eq!(alice.device.pending().unwrap(), 1);
    let body = office.queue(&bob.box_id())[1].body.clone();
    // The rest of the faults.
    let alice = alice.reopen(&office, 7);
    while !alice
        .device
        .resend()
        .await
        .unwrap()
        .iter()
        .all(|sent| delivered(&sent.delivery))
    {}
    assert_eq!(alice.device.pending().unwrap(), 0);
    let queue = office.queue(&bob.box_id());
    assert_eq!(queue.len(), 2, "no second envelope");
    assert_eq!(queue[1].body, body, "the very same bytes");
    assert_eq!(bob.hear().await, ["zero", "one"]);
    assert_eq!(alice.device.messages().unwrap()[1].status, Status::Sent);
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_holds_back_what_comes_after_it() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    for words in ["one", "two"] {
        office.fail_next("Send", Fault::Refused("QUEUE_FULL", Retry::Same));
        assert!(matches!(alice.say(&bob, words).await, Delivery::Pending(_)));
    }
    assert!(delivered(&alice.say(&bob, "three").await));
    assert_eq!(bob.hear().await, ["zero", "one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_is_there_a_message_waits_without_a_second_wait() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    office.clock.advance_millis(3_600_000);
    (0..200).for_each(|_| office.fail_next("LookupKey", Fault::NotSent));
    let sends = office.calls("Send");
    assert!(matches!(alice.say(&bob, "one").await, Delivery::Pending(_)));
    assert_eq!(office.calls("Send"), sends);
    assert_eq!(alice.device.pending().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn rationed_lookups_do_not_hold_up_a_message() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    office.clock.advance_millis(3_600_000);
    (0..200).for_each(|_| office.fail_next("LookupKey", Fault::Refused("OVERLOADED", Retry::Same)));
    assert!(delivered(&alice.say(&bob, "one").await));
}

#[tokio::test(start_paused = true)]
async fn a_message_to_nobody_is_not_kept() {
    let office = Office::new();
    let alice = person(&office, 1).await;
    let nobody = BoxId::derive(rossby_domain::ids::PartitionId::new(0).unwrap(), &[9; 32]);
    let sent = alice
        .device
        .send(&nobody, &Content::Text("hello?".to_owned()))
        .await;
    assert!(matches!(sent, Err(DeviceError::NoUser)));
    assert_eq!(alice.device.pending().unwrap(), 0);
    assert!(alice.device.messages().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_keys_of_the_recipient_are_verified_and_sealed_for() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "zero").await;
    let grown = bob.record_with_device(7);
    office.replace_record(&bob.box_id(), &grown);
    assert!(delivered(&alice.say(&bob, "one").await));
    let contact = alice.device.contact(&bob.box_id()).unwrap().unwrap();
    assert_eq!(contact.pinned.version, 1);
    let counters: Vec<u64> = office
        .queue(&bob.box_id())
        .iter()
        .map(|envelope| envelope.id.counter.0)
        .collect();
    assert_eq!(counters, [1, 2], "the refusal consumed no counter");
    // Bob's device did not know of the new link in its own chain, and looks it up.
    assert_eq!(bob.device.identity().record().version(), 0);
    assert_eq!(bob.hear().await, ["zero", "one"]);
    assert_eq!(bob.device.identity().record().version(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_do_not_grow_from_the_pinned_ones_are_never_sealed_for() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    office.replace_record(&bob.box_id(), &bob.record_with_device(7));
    alice.say(&bob, "zero").await;
    office.replace_record(&bob.box_id(), &bob.record_with_device(8));
    // The fork has the same version, so that the service finds nothing stale: a later one shows it.
    office.clock.advance_millis(3_600_000);
    let sent = alice
        .device
        .send(&bob.box_id(), &Content::Text("one".to_owned()))
        .await;
    assert!(matches!(sent, Err(DeviceError::IdentityChanged { .. })));
    assert_eq!(office.queue(&bob.box_id()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_contacts_changed_identity_holds_up_nobody_else() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    office.replace_record(&bob.box_id(), &bob.record_with_device(7));
    for other in [&bob, &carol] {
        assert!(delivered(&alice.say(other, "zero").await));
        office.fail_next("Send", Fault::Refused("QUEUE_FULL", Retry::Same));
        assert!(matches!(
            alice.say(other, "one").await,
            Delivery::Pending(_)
        ));
    }
    // A fork that is longer than the chain that Alice holds Bob to.
    let fork = bob.with_device(&bob.record_with_device(8), 9);
    office.replace_record(&bob.box_id(), &fork);
    let sent = alice.device.resend().await.unwrap();
    let to = |box_id| {
        &sent
            .iter()
            .find(|sent| sent.recipient == box_id)
            .unwrap()
            .delivery
    };
    assert!(delivered(to(carol.box_id())));
    assert!(matches!(
        to(bob.box_id()),
        Delivery::Pending(DeviceError::IdentityChanged { .. })
    ));
    assert_eq!(alice.device.pending().unwrap(), 1);
    assert_eq!(office.queue(&bob.box_id()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restored_home_loses_no_mail_and_repeats_none() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    let backup = alice.back_up();
    alice.say(&bob, "two").await;
    alice.say(&bob, "three").await;
    let alice = alice.restore(backup, &office, 7);
    // Its counter stands at one; the service's at three. It has compared lately, as it believes.
    assert!(delivered(&alice.say(&bob, "four").await));
    assert!(delivered(&alice.say(&bob, "five").await));
    assert_eq!(bob.hear().await, ["one", "two", "three", "four", "five"]);
    assert_eq!(
        office.calls("Send"),
        3 + 2 + 1,
        "one refusal, then the right counter"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restored_home_compares_its_counters_first() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    let backup = alice.back_up();
    alice.say(&bob, "two").await;
    office.clock.advance_millis(3_600_000);
    let alice = alice.restore(backup, &office, 7);
    assert!(delivered(&alice.say(&bob, "three").await));
    assert_eq!(office.calls("Send"), 3, "no refusal");
    assert_eq!(bob.hear().await, ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn a_restored_home_far_behind_still_sends_what_was_never_sent() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "first").await;
    let backup = alice.back_up();
    for n in 0..=WINDOW {
        alice.say(&bob, &n.to_string()).await;
    }
    let alice = alice.restore(backup, &office, 7);
    assert!(delivered(&alice.say(&bob, "last").await));
    assert_eq!(bob.hear().await.last().map(String::as_str), Some("last"));
}

#[tokio::test(start_paused = true)]
async fn a_pending_message_whose_fate_is_forgotten_is_doubtful_and_not_repeated() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "first").await;
    (0..200).for_each(|_| office.fail_next("Send", Fault::NotSent));
    assert!(matches!(
        alice.say(&bob, "maybe").await,
        Delivery::Pending(_)
    ));
    let backup = alice.back_up();
    while !alice
        .device
        .resend()
        .await
        .unwrap()
        .iter()
        .all(|sent| delivered(&sent.delivery))
    {}
    for n in 0..=WINDOW {
        alice.say(&bob, &n.to_string()).await;
    }
    let alice = alice.restore(backup, &office, 7);
    let sent = alice.device.resend().await.unwrap();
    assert!(matches!(
        sent[..],
        [Sent {
            delivery: Delivery::Doubtful,
            ..
        }]
    ));
    assert_eq!(alice.device.pending().unwrap(), 0);
    let heard = bob.hear().await;
    assert_eq!(heard.iter().filter(|text| *text == "maybe").count(), 1);
    let message = alice.device.messages().unwrap().pop().unwrap();
    assert_eq!(message.status, Status::Doubtful);
    assert_eq!(
        texts([&message]),
        ["maybe"],
        "its owner can still read what it was"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lie_about_counters_uses_none_up_and_loses_no_message() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    office.claim_next_counter(Some(u64::MAX));
    let content = Content::Text("one".to_owned());
    let refused = alice.device.send(&bob.box_id(), &content).await;
    assert!(
        matches!(refused, Err(DeviceError::Untrue(_))),
        "{refused:?}"
    );
    office.claim_next_counter(None);
    assert!(delivered(&alice.say(&bob, "two").await));
    assert!(delivered(&alice.say(&bob, "three").await));
    let sent = alice.device.messages().unwrap();
    assert_eq!(
        texts(&sent),
        ["two", "three"],
        "each kept under its own counter"
    );
    assert_eq!(sent[1].counter, 2);
    assert_eq!(bob.hear().await, ["two", "three"]);
}

#[derive(Debug, Clone)]
enum Step {
    Say,
    Fault(Fault),
    Receive,
    ReceiveFault(&'static str, Fault),
    Reopen,
    Resend,
    BackUp,
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        Just(Fault::NotSent),
        Just(Fault::RequestLost),
        Just(Fault::ReplyLost),
        Just(Fault::Refused("UNAVAILABLE", Retry::Same)),
        Just(Fault::Refused("OUTCOME_UNKNOWN", Retry::Same)),
        Just(Fault::Refused("QUEUE_FULL", Retry::Same)),
    ];
    let path = prop_oneof![Just("Fetch"), Just("Acknowledge")];
    let step = prop_oneof![
        6 => Just(Step::Say),
        4 => fault.clone().prop_map(Step::Fault),
        2 => Just(Step::Receive),
        2 => (path, fault).prop_map(|(path, fault)| Step::ReceiveFault(path, fault)),
        1 => Just(Step::Reopen),
        2 => Just(Step::Resend),
        1 => Just(Step::BackUp),
        1 => Just(Step::Restore),
    ];
    proptest::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if std::env::var_os("ROSSBY_LONG").is_some() { 1000 } else { 16 }
    ))]

    /// Whatever goes wrong on the way: what is said arrives once, in order; and what a restored
    /// home says is among it.
    #[test]
    fn everything_arrives_once_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps))?;
    }
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let office = Office::new();
    let (mut alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let mut said: Vec<String> = Vec::new();
    let mut backup: Option<(TempDir, usize)> = None;
    let mut seed = 100;
    for step in steps {
        seed += 1;
        match step {
            Step::Say => {
                let words = format!("{}", said.len());
                // The first message also looks Bob up, and can fail before it is kept.
                let content = Content::Text(words.clone());
                if alice.device.send(&bob.box_id(), &content).await.is_ok() {
                    said.push(words);
                }
            }
            Step::Fault(fault) => office.fail_next("Send", fault),
            Step::Receive => {
                let _ = bob.device.receive().await;
            }
            Step::ReceiveFault(path, fault) => office.fail_next(path, fault),
            Step::Reopen => alice = alice.reopen(&office, seed),
            Step::Resend => {
                alice.device.resend().await.unwrap();
            }
            Step::BackUp => backup = Some((alice.back_up(), said.len())),
            Step::Restore => {
                if let Some((home, _)) = backup.take() {
                    // What the lost home never got out is lost with it: let it get all out first.
                    settle(&alice).await;
                    alice = alice.restore(home, &office, seed);
                }
            }
        }
    }
    settle(&alice).await;
    for _ in 0..50 {
        let done = bob
            .device
            .receive()
            .await
            .is_ok_and(|received| received.interrupted.is_none());
        if done && office.queue(&bob.box_id()).is_empty() {
            break;
        }
    }
    prop_assert!(office.queue(&bob.box_id()).is_empty());
    prop_assert_eq!(bob.heard(), said);
    Ok(())
}

async fn settle(alice: &Person) {
    for _ in 0..100 {
        if alice.device.pending().unwrap() == 0 {
            return;
        }
        alice.device.resend().await.unwrap();
    }
    panic!("something is pending for ever");
}
