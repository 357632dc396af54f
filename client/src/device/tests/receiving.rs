//! Receiving: stored before it is acknowledged, and nothing blocks the queue.

use bytes::Bytes;

use super::*;
use crate::connection::Retry;
use crate::envelope::File;

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_brings_nothing_twice() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    (0..40).for_each(|_| office.fail_next("Acknowledge", Fault::RequestLost));
    let received = bob.device.receive().await.unwrap();
    assert_eq!(texts(&received.messages), ["one"]);
    assert!(received.interrupted.is_some());
    assert_eq!(office.queue(&bob.box_id()).len(), 1);
    let bob = bob.reopen(&office, 8);
    while bob.device.receive().await.is_err() {}
    assert!(bob.hear().await.is_empty());
    assert!(office.queue(&bob.box_id()).is_empty());
    assert_eq!(bob.heard(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn an_envelope_that_comes_again_is_recognised() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    // Once after it is stored, and once before the next fetch: it stays in the queue.
    (0..2).for_each(|_| office.fail_next("Acknowledge", Fault::Refused("BUSY", Retry::No)));
    assert_eq!(
        texts(&bob.device.receive().await.unwrap().messages),
        ["one"]
    );
    alice.say(&bob, "two").await;
    assert_eq!(office.queue(&bob.box_id()).len(), 2);
    assert_eq!(bob.hear().await, ["two"]);
    assert_eq!(bob.heard(), ["one", "two"]);
    assert!(office.queue(&bob.box_id()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_whose_reply_was_lost_brings_nothing_twice() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    office.fail_next("Acknowledge", Fault::ReplyLost);
    assert_eq!(bob.hear().await, ["one"]);
    alice.say(&bob, "two").await;
    assert_eq!(bob.hear().await, ["two"]);
    assert_eq!(bob.heard(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_not_acknowledged_again() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    assert_eq!(bob.hear().await, ["one"]);
    let calls = office.calls("Acknowledge");
    assert!(bob.hear().await.is_empty());
    let bob = bob.reopen(&office, 8);
    assert!(bob.hear().await.is_empty());
    assert_eq!(office.calls("Acknowledge"), calls);
}

#[tokio::test(start_paused = true)]
async fn many_pages_are_read_to_the_end() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    office.set_page(3);
    let said: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    for words in &said {
        alice.say(&bob, words).await;
    }
    assert_eq!(bob.hear().await, said);
    assert!(office.queue(&bob.box_id()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_is_kept_with_its_reason_and_blocks_nothing() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let carol = person(&office, 3).await;
    alice.say(&bob, "one").await;
    let genuine = office.queue(&bob.box_id())[0].body.clone();
    office.inject(alice.address, bob.box_id(), 2, b"not an envelope");
    office.inject(alice.address, bob.box_id(), 3, &genuine);
    office.inject(carol.address, bob.box_id(), 1, &genuine);
    let mut damaged = genuine.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    office.inject(alice.address, bob.box_id(), 4, &damaged);
    alice.say(&bob, "two").await;
    let expected = [
        "one",
        "<UNKNOWN_VERSION>",
        "<WRONG_COUNTER>",
        "<WRONG_SENDER>",
        "<CANNOT_DECRYPT>",
        "two",
    ];
    assert_eq!(bob.hear().await, expected);
    assert!(office.queue(&bob.box_id()).is_empty());
    let bob = bob.reopen(&office, 8);
    assert_eq!(bob.heard(), expected, "kept");
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_is_shown_although_nonsense_follows() {
    for page in [1, 256] {
        let office = Office::new();
        let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
        office.set_page(page);
        alice.say(&bob, "one").await;
        alice.say(&bob, "two").await;
        office.tamper(Some(Arc::new(|page| {
            let second = page.envelopes.iter_mut().filter(|it| it.sequence >= 2);
            second.for_each(|it| it.sender_device_id = Bytes::from_static(b"nobody"));
        })));
        let received = bob.device.receive().await.unwrap();
        assert_eq!(texts(&received.messages), ["one"], "{page} in a page");
        assert!(matches!(received.interrupted, Some(DeviceError::Untrue(_))));
        assert_eq!(office.queue(&bob.box_id()).len(), 1, "{page} in a page");
        office.tamper(None);
        assert_eq!(bob.hear().await, ["two"]);
    }
}

#[tokio::test(start_paused = true)]
async fn two_tasks_that_receive_at_once_show_nothing_twice() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    alice.say(&bob, "two").await;
    // Each lookup of the sender is a moment in which the other task runs.
    (0..2).for_each(|_| office.fail_next("LookupKey", Fault::NotSent));
    let (here, there) = tokio::join!(bob.device.receive(), bob.device.receive());
    let mut shown = texts(&here.unwrap().messages);
    shown.extend(texts(&there.unwrap().messages));
    assert_eq!(shown, ["one", "two"]);
    assert_eq!(bob.heard(), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_who_can_not_be_looked_up_now_is_waited_for() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "one").await;
    (0..40).for_each(|_| office.fail_next("LookupKey", Fault::NotSent));
    let received = bob.device.receive().await.unwrap();
    assert!(received.messages.is_empty());
    assert!(received.interrupted.is_some());
    assert_eq!(office.queue(&bob.box_id()).len(), 1, "not acknowledged");
    while bob.device.receive().await.unwrap().interrupted.is_some() {}
    assert_eq!(bob.heard(), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_first_is_known_from_then_on_but_not_added() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "hello").await;
    bob.hear().await;
    let contact = bob.device.contact(&alice.box_id()).unwrap().unwrap();
    assert!(!contact.added);
    assert_eq!(contact.label(), alice.box_id().to_string());
    assert_eq!(contact.pinned.hash, alice.device.identity().record().head());
}

#[tokio::test(start_paused = true)]
async fn a_sender_whose_box_is_gone_for_us_is_kept_as_unreadable() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    alice.say(&bob, "hello").await;
    alice.device.block(&bob.box_id(), true).await.unwrap();
    assert_eq!(bob.hear().await, ["<NO_SENDER_RECORD>"]);
}

#[tokio::test(start_paused = true)]
async fn files_and_unknown_kinds_arrive_whole() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let file = Content::File(File::new("cat.png", "image/png", vec![7; 50_000]).unwrap());
    let unknown = Content::Unknown {
        kind: 77,
        version: 1,
        body: b"from the future".to_vec(),
    };
    for content in [&file, &unknown] {
        alice.device.send(&bob.box_id(), content).await.unwrap();
    }
    let received = bob.device.receive().await.unwrap().messages;
    assert_eq!(received[0].content.as_ref(), Some(&file));
    assert_eq!(received[1].content.as_ref(), Some(&unknown));
    assert_eq!(
        bob.device.messages().unwrap()[0].content.as_ref(),
        Some(&file)
    );
}

#[tokio::test(start_paused = true)]
async fn debug_shows_nothing_that_was_said_or_by_whom() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let by = LookupBy::Identifier(email(2));
    let contact = alice
        .device
        .add_contact(&by, Some("canary"), false)
        .await
        .unwrap();
    alice.say(&bob, "canary").await;
    let file = Content::File(File::new("canary", "", b"canary".to_vec()).unwrap());
    alice.device.send(&bob.box_id(), &file).await.unwrap();
    bob.hear().await;
    let rows = alice
        .device
        .store
        .all::<crate::store::MessageRow>()
        .unwrap();
    let contacts = alice
        .device
        .store
        .all::<crate::store::ContactRow>()
        .unwrap();
    let messages = bob.device.messages().unwrap();
    let shown = format!("{by:?} {contact:?} {rows:?} {contacts:?} {messages:?} {file:?}");
    let bytes = format!("{:?}", b"canary").replace(['[', ']'], "");
    for secret in ["canary", "person2", bytes.as_str()] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(
        format!("{:?}", b"a canary").contains(&bytes),
        "the search finds it"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_conversation_is_in_clear_on_the_way_or_at_rest() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let canary = "canary 4711 in the coal mine";
    alice.say(&bob, canary).await;
    let contains = |bytes: &[u8]| bytes.windows(canary.len()).any(|w| w == canary.as_bytes());
    assert!(!contains(&office.queue(&bob.box_id())[0].body));
    bob.hear().await;
    for person in [&alice, &bob] {
        let file = std::fs::read(person.home.path().join("device.redb")).unwrap();
        assert!(!contains(&file));
    }
    assert!(
        contains(format!("..{canary}..").as_bytes()),
        "the search would find it"
    );
}
