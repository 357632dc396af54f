//! Typing: who hears of it, and that nobody else can make it heard, nor twice.

use bytes::Bytes;
use rossby_domain::ids::Counter;
use rossby_proto::v1;

use super::*;
use crate::device::sending::Draft;
use crate::envelope::{Content, Control};

async fn acquainted(office: &Arc<Office>) -> (Person, Person) {
    let (alice, bob) = (person(office, 1).await, person(office, 2).await);
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        let by = LookupBy::Box(other.box_id());
        one.device.add_contact(&by, None, false).await.unwrap();
    }
    (alice, bob)
}

async fn listening<'a>(person: &'a Person) -> Listener<'a> {
    let mut listener = person.device.listen().unwrap();
    let connected = listener.next().await.unwrap();
    assert!(matches!(connected, Heard::Connected(_)));
    listener
}

/// What is heard before a message with these words.
async fn until(listener: &mut Listener<'_>, words: &str) -> Vec<Typing> {
    let mut heard = Vec::new();
    loop {
        match listener.next().await.unwrap() {
            Heard::Typing(typing) => heard.push(typing),
            Heard::Received(messages) if texts(&messages) == [words] => return heard,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_contact_who_listens_hears_that_somebody_types_and_nothing_is_stored() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    alice.device.typing(&bob.box_id(), true).await.unwrap();
    let mut listener = listening(&bob).await;
    office.clock.advance_millis(5);
    alice.device.typing(&bob.box_id(), true).await.unwrap();
    let Heard::Typing(typing) = listener.next().await.unwrap() else {
        panic!("not a signal")
    };
    let by = alice.box_id();
    assert_eq!(
        typing,
        Typing {
            by,
            is_typing: true
        }
    );
    office.clock.advance_millis(5);
    alice.device.typing(&bob.box_id(), false).await.unwrap();
    let stopped = listener.next().await.unwrap();
    assert!(matches!(stopped, Heard::Typing(typing) if !typing.is_typing));
    assert!(office.queue(&bob.box_id()).is_empty());
    assert!(bob.device.messages().unwrap().is_empty());
    // No counter is used up.
    alice.say(&bob, "done").await;
    assert!(until(&mut listener, "done").await.is_empty());
    assert_eq!(office.calls("Notify"), 3);
    alice.device.block(&bob.box_id(), true).await.unwrap();
    let blocked = alice.device.typing(&bob.box_id(), true).await;
    assert!(matches!(blocked, Err(DeviceError::NotAContact)));
    assert_eq!(office.calls("Notify"), 3);
    let stranger = person(&office, 4).await;
    let unknown = alice.device.typing(&stranger.box_id(), true).await;
    assert!(matches!(unknown, Err(DeviceError::NoUser)));
}

/// A signal that is not sent.
fn sealed(from: &Person, to: &Person) -> Bytes {
    let device = &from.device;
    let record = device.pinned_record(&to.box_id()).unwrap().unwrap();
    let content = Content::Control(Control {
        topic: Control::TYPING,
        body: vec![1, 1],
    });
    let draft = Draft {
        content: &content,
        written_at: device.environment.clock.now(),
        order: 0,
        group: None,
        ttl_ms: None,
    };
    let signer = device.signer().unwrap();
    let body = device.seal(&signer, &to.box_id(), &record, Counter(0), &draft);
    body.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_repeated_late_forged_or_not_from_a_contact_is_not_heard() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    let mallory = person(&office, 3).await;
    mallory.say(&bob, "so that he knows her").await;
    bob.device.receive().await.unwrap();
    let mut listener = listening(&bob).await;
    alice.device.typing(&bob.box_id(), true).await.unwrap();
    let first = listener.next().await.unwrap();
    assert!(matches!(first, Heard::Typing(_)));
    let signal = office.signals().pop().unwrap();
    // By the service: again, as another's, with other bytes, to another, as an envelope.
    office.signal(bob.box_id(), signal.clone());
    let of = |person: &Person| v1::Signal {
        sender_box_id: Bytes::copy_from_slice(person.box_id().as_bytes()),
        sender_device_id: Bytes::copy_from_slice(person.address.device.as_bytes()),
        ..signal.clone()
    };
    office.signal(bob.box_id(), of(&mallory));
    let mut broken = signal.clone();
    let mut body = broken.body.to_vec();
    *body.last_mut().unwrap() ^= 1;
    broken.body = body.into();
    office.signal(bob.box_id(), broken);
    let nonsense = v1::Signal::default();
    office.signal(bob.box_id(), nonsense);
    office.inject(alice.address, bob.box_id(), 77, &signal.body);
    // Of somebody whom he has not added.
    let by = LookupBy::Box(bob.box_id());
    mallory.device.add_contact(&by, None, false).await.unwrap();
    mallory.device.typing(&bob.box_id(), true).await.unwrap();
    // A message that is shown as a signal.
    alice.say(&bob, "a message").await;
    let sent = office.queue(&bob.box_id()).pop().unwrap();
    office.signal(
        bob.box_id(),
        v1::Signal {
            body: sent.body,
            ..signal.clone()
        },
    );
    // What was held back for too long.
    office.clock.advance_millis(5);
    let late = v1::Signal {
        body: sealed(&alice, &bob),
        ..signal
    };
    let heard = async {
        let mut heard = Vec::new();
        loop {
            match listener.next().await.unwrap() {
                Heard::Typing(typing) => heard.push(typing),
                Heard::Received(messages) => {
                    let words = texts(&messages);
                    if words.iter().any(|words| words == "the end") {
                        return heard;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    office.clock.advance_millis(31_000);
    office.signal(bob.box_id(), late);
    alice.say(&bob, "the end").await;
    assert!(heard.await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn somebody_who_is_blocked_is_not_heard_and_a_person_can_not_send_it_as_a_message() {
    let office = Office::new();
    let (alice, bob) = acquainted(&office).await;
    let carol = person(&office, 3).await;
    let mut listener = listening(&bob).await;
    // A service that does not keep to the block.
    bob.device.block(&alice.box_id(), true).await.unwrap();
    alice.device.typing(&bob.box_id(), true).await.unwrap();
    carol.say(&bob, "meanwhile").await;
    assert!(until(&mut listener, "meanwhile").await.is_empty());
    bob.device.block(&alice.box_id(), false).await.unwrap();
    office.clock.advance_millis(5);
    alice.device.typing(&bob.box_id(), true).await.unwrap();
    carol.say(&bob, "and now").await;
    assert_eq!(until(&mut listener, "and now").await.len(), 1);
    let content = Content::Control(Control {
        topic: Control::TYPING,
        body: vec![1, 1],
    });
    let refused = alice.device.send(&bob.box_id(), &content).await;
    assert!(matches!(refused, Err(DeviceError::NotForOthers)));
}
