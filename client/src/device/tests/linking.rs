//! Several devices of one person: linked, each told what the other sends, and revoked.

use rossby_domain::ids::Sequence;
use rossby_seams::clock::Clock as _;

use super::super::sending::Draft;
use super::*;
use crate::connection::Retry;
use crate::linking::{DeviceName, LinkCode};

fn draft(content: &Content, written_at: rossby_domain::time::Timestamp) -> Draft<'_> {
    Draft {
        content,
        written_at,
        order: 0,
        group: None,
        ttl_ms: None,
    }
}

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

pub fn newcomer(office: &Arc<Office>, home: &Path, seed: u64) -> Linking {
    let environment = environment(office, seed);
    let (passphrase, servers) = (passphrase(), servers());
    let name = name("laptop");
    Linking::create(
        home,
        &passphrase,
        KdfCost::NONE,
        &servers,
        name,
        environment,
    )
    .unwrap()
}

/// A further device of a person, in its place.
pub async fn linked(office: &Arc<Office>, first: &Person, seed: u64) -> Person {
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(office, home.path(), seed);
    first.device.approve(&new.code()).await.unwrap();
    let welcome = new.ask().await.unwrap().unwrap();
    let address = welcome.address();
    let device = new.accept(welcome).await.unwrap();
    Person {
        home,
        device,
        address,
    }
}

impl Person {
    /// All that was said by this person, whichever of their devices it was written on.
    fn said(&self) -> Vec<String> {
        let messages = self.device.messages().unwrap();
        let out = |message: &&Message| message.direction == Direction::Out;
        texts(messages.iter().filter(out))
    }

    fn names(&self) -> Vec<Option<String>> {
        let devices = self.device.devices().unwrap().into_iter();
        let text = |name: DeviceName| name.as_str().to_owned();
        devices.map(|device| device.name.map(text)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn both_devices_get_what_comes_and_see_what_the_other_sends() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "before").await;
    let laptop = linked(&office, &bob, 3).await;
    assert_eq!(laptop.box_id(), bob.box_id());

    // Alice knows one device only: she is told, and seals for both.
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["before", "one"]);
    assert_eq!(laptop.hear().await, ["one"]);
    laptop.say(&alice, "from the laptop").await;
    bob.device.receive().await.unwrap();
    bob.say(&alice, "from the first").await;
    assert_eq!(alice.hear().await, ["from the laptop", "from the first"]);
    bob.device.receive().await.unwrap();
    laptop.device.receive().await.unwrap();
    for device in [&bob, &laptop] {
        assert_eq!(device.said(), ["from the laptop", "from the first"]);
        assert_eq!(device.device.pending().unwrap(), 0);
    }
    let copied = laptop.device.messages().unwrap();
    let copied = copied.iter().find(|message| message.sender == bob.address);
    let copied = copied.unwrap();
    assert_eq!(
        (copied.peer(), copied.status.clone()),
        (alice.box_id(), Status::Sent)
    );
    assert_eq!(copied.sequence, Some(Sequence(2)));
    // Once each, however often it is asked for, and nothing goes round.
    let sends = office.calls("Send");
    for device in [&bob, &laptop, &bob] {
        let received = device.device.receive().await.unwrap();
        assert!(received.messages.is_empty(), "{:?}", received.messages);
    }
    assert_eq!(office.calls("Send"), sends);
    assert!(
        office.queue(&bob.box_id()).is_empty(),
        "both have acknowledged all"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_alone_says_nothing_to_itself() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    bob.hear().await;
    bob.say(&alice, "two").await;
    assert_eq!(office.calls("Send"), 2);
    assert!(office.queue(&bob.box_id()).is_empty());
    let longest = Content::Text("a".repeat(crate::envelope::MAX_COPIED_BYTES));
    let too_long = bob.device.send(&alice.box_id(), &longest).await;
    assert!(matches!(too_long, Err(DeviceError::Seal(_))));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_can_not_go_out_harms_no_message_and_goes_out_later() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    bob.device.receive().await.unwrap();
    laptop.device.receive().await.unwrap();
    // The message itself is the first Send.
    office.fail_next("Send", Fault::ReplyLost);
    bob.say(&alice, "one").await;
    let full = Fault::Refused("OVERLOADED", Retry::Same);
    let at_once = office.calls("Send");
    let delivered = bob.say(&alice, "two").await;
    assert!(matches!(delivered, Delivery::Delivered(_)));
    assert!(office.calls("Send") > at_once);
    // From here on nothing reaches the own box for a while.
    let content = Content::Text("three".to_owned());
    let sent = bob.device.send(&alice.box_id(), &content).await;
    let delivered = sent.unwrap().delivery;
    assert!(matches!(delivered, Delivery::Delivered(_)));
    (0..40).for_each(|_| office.fail_next("Send", full.clone()));
    let pending = bob.say(&alice, "four").await;
    assert!(matches!(pending, Delivery::Pending(_)), "{pending:?}");
    while bob.device.pending().unwrap() > 0 {
        bob.device.resend().await.unwrap();
    }
    laptop.device.receive().await.unwrap();
    assert_eq!(laptop.said(), ["one", "two", "three", "four"]);
    assert_eq!(alice.hear().await, ["one", "two", "three", "four"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_crash_is_copied_after_it() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    bob.device.receive().await.unwrap();
    laptop.device.receive().await.unwrap();
    // All tries of the copy fail, those of the message do not.
    let content = Content::Text("one".to_owned());
    let to = alice.box_id();
    let mut sending = Box::pin(bob.device.send(&to, &content));
    // Cut off once the message is stored in Alice's box.
    while office.queue(&to).is_empty() {
        let _ = tokio::time::timeout(std::time::Duration::ZERO, &mut sending).await;
    }
    drop(sending);
    let bob = bob.reopen(&office, 9);
    bob.device.resend().await.unwrap();
    laptop.device.receive().await.unwrap();
    assert_eq!(laptop.said(), ["one"]);
    assert_eq!(alice.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn linking_that_was_cut_off_goes_on_with_the_same_keys() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 3);
    let code = new.code();
    assert!(new.ask().await.unwrap().is_none());
    drop(new);
    let waiting = Device::open(home.path(), &passphrase(), environment(&office, 4));
    assert!(matches!(waiting, Err(DeviceError::NotLinked)));
    let new = Linking::open(home.path(), &passphrase(), environment(&office, 4)).unwrap();
    assert_eq!(new.code(), code);
    assert_eq!(LinkCode::from_text(&code.to_text()), Ok(code.clone()));

    // The link is taken, and its reply lost.
    (0..40).for_each(|_| office.fail_next("ExtendChain", Fault::ReplyLost));
    assert!(bob.device.approve(&code).await.is_err());
    office.forget_faults();
    let again = bob.device.approve(&code).await;
    assert!(
        matches!(again, Err(DeviceError::LinkedAlready)),
        "{again:?}"
    );
    // So is the device's place.
    (0..40).for_each(|_| office.fail_next("JoinBox", Fault::ReplyLost));
    assert!(new.ask().await.is_err());
    drop(new);
    let new = Linking::open(home.path(), &passphrase(), environment(&office, 5)).unwrap();
    let welcome = loop {
        if let Ok(Some(welcome)) = new.ask().await {
            break welcome;
        }
    };
    assert_eq!(welcome.record().version(), 1);
    let device = new.accept(welcome).await.unwrap();
    assert_eq!(device.who_am_i().unwrap().box_id, Some(bob.box_id()));
    assert!(device.recovery_seed().is_none(), "no private key moves");
    drop(device);
    let device = Device::open(home.path(), &passphrase(), environment(&office, 6)).unwrap();
    assert!(device.receive().await.is_ok());
    drop(device);
    let over = Linking::open(home.path(), &passphrase(), environment(&office, 7));
    assert!(matches!(over, Err(DeviceError::AlreadyRegistered)));
}

#[tokio::test(start_paused = true)]
async fn who_approves_again_has_the_device_whoever_else_has_seen_its_code() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 3);
    bob.device.approve(&new.code()).await.unwrap();
    alice.device.approve(&new.code()).await.unwrap();
    let again = bob.device.approve(&new.code()).await;
    assert!(matches!(again, Err(DeviceError::LinkedAlready)));
    let welcome = new.ask().await.unwrap().unwrap();
    assert_eq!(welcome.address().box_id, bob.box_id());
    // It has come, and stays.
    let again = alice.device.approve(&new.code()).await;
    assert!(matches!(again, Err(DeviceError::Call(_))), "{again:?}");
    let welcome = new.ask().await.unwrap().unwrap();
    assert_eq!(welcome.address().box_id, bob.box_id());
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_after_an_approval_without_a_reply_is_copied_too() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let home = tempfile::tempdir().unwrap();
    let new = newcomer(&office, home.path(), 3);
    (0..40).for_each(|_| office.fail_next("ExtendChain", Fault::ReplyLost));
    assert!(bob.device.approve(&new.code()).await.is_err());
    office.forget_faults();
    let bob = bob.reopen(&office, 9);
    assert_eq!(bob.device.devices().unwrap().len(), 1, "it has not heard");
    let welcome = new.ask().await.unwrap().unwrap();
    let laptop = new.accept(welcome).await.unwrap();
    bob.say(&alice, "one").await;
    laptop.receive().await.unwrap();
    assert_eq!(texts(&laptop.messages().unwrap()), ["one"]);
    assert_eq!(bob.device.devices().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_was_refused_leaves_a_device_alone() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let taken = LinkCode {
        key: alice
            .device
            .identity()
            .signing_key()
            .verifying_key()
            .to_bytes(),
        name: name("laptop"),
    };
    assert!(bob.device.approve(&taken).await.is_err());
    let sends = office.calls("Send");
    bob.say(&alice, "one").await;
    assert_eq!(office.calls("Send"), sends + 1);
}

#[tokio::test(start_paused = true)]
async fn devices_learn_what_the_others_are_called() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    assert_eq!(bob.names(), [None, Some("laptop".to_owned())]);
    bob.device.receive().await.unwrap();
    assert!(
        bob.device
            .rename(&bob.address.device, &name("phone"))
            .await
            .unwrap()
    );
    laptop.device.receive().await.unwrap();
    let tablet = linked(&office, &laptop, 4).await;
    laptop
        .device
        .rename(&tablet.address.device, &name("tablet"))
        .await
        .unwrap();
    let all = ["phone", "laptop", "tablet"].map(|name| Some(name.to_owned()));
    for _ in 0..2 {
        for device in [&bob, &laptop, &tablet] {
            device.device.receive().await.unwrap();
        }
    }
    for device in [&bob, &laptop, &tablet] {
        assert_eq!(device.names(), all);
        assert!(device.device.messages().unwrap().is_empty());
    }
    let unknown = DeviceId::from_bytes([9; 16]);
    let refused = bob.device.rename(&unknown, &name("x")).await;
    assert!(matches!(refused, Err(DeviceError::NoSuchDevice)));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_device_is_told_and_nothing_is_sealed_for_it_any_more() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    alice.say(&bob, "for both").await;
    assert_eq!(bob.hear().await, ["for both"]);
    assert!(
        !office.queue(&bob.box_id()).is_empty(),
        "the laptop has read nothing"
    );
    bob.device.revoke(&laptop.address.device).await.unwrap();
    let waiting = office.queue(&bob.box_id());
    assert!(waiting.is_empty(), "{} wait", waiting.len());

    let refused = laptop.device.receive().await.unwrap_err();
    let DeviceError::Call(error) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(error.refusal().unwrap().code, "DEVICE_REVOKED");
    alice.say(&bob, "for one").await;
    let record = alice.device.pinned_record(&bob.box_id()).unwrap().unwrap();
    assert!(record.device(&laptop.address.device).is_none());
    assert_eq!(bob.hear().await, ["for one"]);
    let again = bob.device.revoke(&laptop.address.device).await;
    assert!(matches!(again, Err(DeviceError::NoSuchDevice)));
    // Neither can the last one be, nor one come back.
    let last = bob.device.revoke(&bob.address.device).await;
    assert!(matches!(last, Err(DeviceError::LinkRefused(_))), "{last:?}");
    let code = LinkCode {
        key: laptop
            .device
            .identity()
            .signing_key()
            .verifying_key()
            .to_bytes(),
        name: name("laptop"),
    };
    let back = bob.device.approve(&code).await;
    assert!(matches!(back, Err(DeviceError::LinkRefused(_))), "{back:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_devices_that_sign_at_once_the_slower_signs_again() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (
        newcomer(&office, one.path(), 4),
        newcomer(&office, two.path(), 5),
    );
    let (one, two) = (one.code(), two.code());
    let both = tokio::join!(bob.device.approve(&one), laptop.device.approve(&two));
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert_eq!(bob.device.renew_devices().await.unwrap().len(), 4);
    assert_eq!(laptop.device.renew_devices().await.unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_restored_is_told_again_who_was_revoked_and_lets_the_others_in() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    let restore = office.back_up();
    bob.device.revoke(&laptop.address.device).await.unwrap();
    let tablet = linked(&office, &bob, 4).await;
    restore();
    // The backup knows the laptop, and not the tablet.
    let shut_out = tablet.device.receive().await;
    assert!(shut_out.is_err());
    bob.device.receive().await.unwrap();
    let refused = laptop.device.receive().await.unwrap_err();
    let is_revoked = |error: &DeviceError| {
        matches!(error, DeviceError::Call(error)
            if error.refusal().is_some_and(|refusal| refusal.code == "DEVICE_REVOKED"))
    };
    assert!(is_revoked(&refused), "{refused:?}");
    tablet.device.receive().await.unwrap();
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(tablet.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_box_that_a_restored_service_never_knew_is_made_again_with_its_devices() {
    let office = Office::new();
    let restore = office.back_up();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    bob.device.rotate_keys().await.unwrap();
    restore();
    // The laptop can not make it: the box is named after its first device.
    let refused = laptop.device.register(&email(3), true).await;
    assert!(matches!(refused, Err(DeviceError::Call(_))), "{refused:?}");
    let registered = bob.device.register(&email(2), true).await.unwrap();
    assert_eq!(registered.box_id, bob.box_id());
    let code = office.code(&registered.box_id);
    bob.device.authorize(&code).await.unwrap();
    laptop.device.receive().await.unwrap();
    let alice = person(&office, 1).await;
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(laptop.hear().await, ["one"]);
}

/// Alice, who writes to Bob's two devices, both of which have rotated since the backup that the service
/// was restored from.
async fn restored_to_before_both_rotated(office: &Arc<Office>) -> (Person, Person, Person) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    let laptop = linked(office, &bob, 3).await;
    let restore = office.back_up();
    for device in [&bob, &laptop] {
        // Twice: the key in the backup is no longer there.
        for _ in 0..2 {
            device.device.rotate_keys().await.unwrap();
        }
        device.device.catch_up().await.unwrap();
        device.device.receive().await.unwrap();
    }
    bob.device.catch_up().await.unwrap();
    restore();
    (alice, bob, laptop)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_restored_gets_the_keys_of_all_devices_again_whoever_comes_first() {
    let office = Office::new();
    let (alice, bob, laptop) = restored_to_before_both_rotated(&office).await;
    for device in [&bob, &laptop] {
        device.device.receive().await.unwrap();
    }
    let shown = alice.device.lookup(&LookupBy::Box(bob.box_id())).await;
    let shown = shown.unwrap().record;
    for device in [&bob, &laptop] {
        let published = device.device.identity().published_counter();
        let keys = shown.device(&device.address.device).unwrap();
        assert_eq!(keys.kem.counter, published);
    }
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
    assert_eq!(laptop.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_rotated_and_went_silent_can_be_revoked_after_a_restore() {
    let office = Office::new();
    let (alice, bob, laptop) = restored_to_before_both_rotated(&office).await;
    bob.device.revoke(&laptop.address.device).await.unwrap();
    assert!(laptop.device.receive().await.is_err());
    bob.device.receive().await.unwrap();
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_gets_a_new_token_by_its_key_when_all_were_refused() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    office.restore_and_revoke();
    laptop.device.receive().await.unwrap();
    bob.device.receive().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_device_is_let_in_again_by_whichever_of_its_keys_the_service_has() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    // The service has the laptop's second key, and the laptop has not heard of it.
    (0..40).for_each(|_| office.fail_next("UpdateKey", Fault::ReplyLost));
    assert!(laptop.device.rotate_keys().await.is_err());
    office.forget_faults();
    office.restore_and_revoke();
    laptop.device.rejoin().await.unwrap();
    assert_eq!(laptop.device.identity().published_counter(), 2);
    // A home that is older than two rotations.
    let backup = laptop.back_up();
    for _ in 0..2 {
        laptop.device.rotate_keys().await.unwrap();
    }
    let laptop = laptop.restore(backup, &office, 8);
    office.restore_and_revoke();
    laptop.device.rejoin().await.unwrap();
    assert_eq!(laptop.device.identity().published_counter(), 5);
    bob.device.receive().await.unwrap();
    let alice = person(&office, 1).await;
    alice.say(&bob, "one").await;
    assert_eq!(laptop.hear().await, ["one"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_let_in_again_keeps_its_token_whatever_the_record() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    let laptop = linked(&office, &bob, 3).await;
    let restore = office.back_up();
    // A third device, and rotations, that the backup does not know.
    let tablet = linked(&office, &bob, 4).await;
    tablet.device.rotate_keys().await.unwrap();
    for device in [&bob, &laptop] {
        device.device.catch_up().await.unwrap();
    }
    restore();
    office.restore_and_revoke();
    drop(tablet);
    for device in [&laptop, &bob] {
        device.device.receive().await.unwrap();
        assert_eq!(device.device.renew_devices().await.unwrap().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_send_under_the_kind_of_a_copy_is_only_shown_as_unknown() {
    use crate::envelope::{Between, Named};
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let names = Between::Names(vec![Named {
        device: bob.address.device,
        at: office.clock.now(),
        name: name("mallory"),
    }]);
    let content = names.to_content();
    let refused = alice.device.send(&bob.box_id(), &content).await;
    assert!(matches!(refused, Err(DeviceError::NotForOthers)));
    // Another program of hers does it all the same.
    let to = bob.box_id();
    let record = bob.device.identity().record().clone();
    let (signer, now) = (alice.device.signer().unwrap(), office.clock.now());
    let counter = rossby_domain::ids::Counter(1);
    let body = alice
        .device
        .seal(&signer, &to, &record, counter, &draft(&content, now));
    office.inject(alice.address, to, 1, &body.unwrap());
    let received = bob.device.receive().await.unwrap();
    let [message] = &received.messages[..] else {
        panic!("{received:?}")
    };
    assert!(matches!(message.content, Some(Content::Unknown { .. })));
    assert_eq!(bob.names(), [None]);
}

#[tokio::test(start_paused = true)]
async fn what_one_of_the_own_devices_says_can_not_hide_any_message_from_the_others() {
    use crate::crypto::secret::SecretBytes;
    use crate::envelope::{Between, ChainPoint, ConversationId, SentCopy};
    use crate::store::{MessageRow, MessageState};
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    alice.say(&bob, "before").await;
    let (own, now) = (bob.box_id(), office.clock.now());
    let signer = laptop.device.signer().unwrap();
    let record = laptop.device.identity().record().clone();
    // A text that is none, as a stolen device may claim to have sent it, is kept as what it is: a later
    // version may know it. What is not even of a kind is not.
    for (counter, content) in [(101, vec![0, 1, 1, 0xff]), (102, vec![0])] {
        let copy = SentCopy {
            recipient: alice.box_id(),
            counter: rossby_domain::ids::Counter(counter),
            sequence: Sequence(counter),
            written_at: now,
            conversation: ConversationId::direct(&own, &alice.box_id()),
            recipient_chain: ChainPoint::head(alice.device.identity().record()),
            label: String::new(),
            content: SecretBytes::new(content),
        };
        let content = Between::Copy(copy).to_content();
        let at = rossby_domain::ids::Counter(counter);
        let body = laptop
            .device
            .seal(&signer, &own, &record, at, &draft(&content, now))
            .unwrap();
        office.inject(laptop.address, own, counter, &body);
    }
    alice.say(&bob, "after").await;
    bob.device.receive().await.unwrap();
    assert_eq!(bob.heard(), ["before", "after"]);
    let messages = bob.device.messages().unwrap();
    let out = messages
        .iter()
        .filter(|message| message.direction == Direction::Out);
    let kept: Vec<_> = out.map(|message| message.content.clone()).collect();
    assert!(
        matches!(kept[..], [Some(Content::Unknown { kind: 1, .. })]),
        "{kept:?}"
    );

    // Nor does a row that is damaged, however it came to be there.
    let (key, row) = {
        let rows = bob.device.store.all::<MessageRow>().unwrap();
        rows.into_iter().min_by_key(|(_, row)| row.order).unwrap()
    };
    let state = MessageState::Received {
        content: SecretBytes::new(vec![0]),
        conversation: ConversationId::direct(&own, &alice.box_id()),
        written_at: now,
    };
    let damaged = MessageRow { state, ..row };
    let stored: Result<(), DeviceError> = bob.device.store.write(|batch| {
        batch.put(&key, &damaged)?;
        Ok(())
    });
    stored.unwrap();
    assert_eq!(bob.device.messages().unwrap().len(), messages.len());
    assert_eq!(bob.heard(), ["<DAMAGED>", "after"]);
}

#[tokio::test(start_paused = true)]
async fn what_others_do_to_the_boxs_devices_is_told_each_device_once() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    assert_eq!(
        bob.device.device_news().unwrap(),
        [],
        "it was bob's own doing"
    );
    assert_eq!(
        laptop.device.device_news().unwrap(),
        [],
        "it came with its place"
    );
    // Whoever has the laptop lets in a device of theirs, and says nothing.
    let thief = linked(&office, &laptop, 4).await;
    assert_eq!(laptop.device.device_news().unwrap(), []);
    alice.say(&bob, "hello").await;
    bob.hear().await;
    let news = bob.device.device_news().unwrap();
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(news[0].added);
    assert_eq!(news[0].device, thief.address.device);
    assert_eq!(news[0].by, Some(laptop.address.device));
    assert_eq!(
        bob.device.device_news().unwrap(),
        news,
        "nobody has shown it yet"
    );
    bob.device.mark_told(&news).unwrap();
    assert_eq!(bob.device.device_news().unwrap(), [], "told once");

    // To remove the laptop is not enough, and that can be seen.
    bob.device.revoke(&laptop.address.device).await.unwrap();
    let left = bob.device.devices().unwrap();
    let added_by_it = |device: &&OwnDevice| device.added_by == Some(laptop.address.device);
    let children: Vec<_> = left.iter().filter(added_by_it).collect();
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].device, thief.address.device);
    bob.device.revoke(&children[0].device).await.unwrap();
    alice.say(&bob, "alone again").await;
    assert_eq!(bob.hear().await, ["alone again"]);
    assert!(thief.device.receive().await.is_err());
    assert_eq!(bob.device.device_news().unwrap(), []);
}
