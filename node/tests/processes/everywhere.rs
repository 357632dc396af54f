//! Three people with two devices each, at home in three regions, talk in a group while a region is lost: every device ends
//! with the same conversation, whole and in the same order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rossby_client::DeviceError;
use rossby_client::conversation::Conversation;
use rossby_client::device::{Delivery, Message, Received, Sent};
use rossby_client::envelope::{Content, MessageId};
use rossby_client::group::{GroupId, GroupName};
use tokio::time::{sleep, timeout};

use crate::regions::wait_leaders;
use crate::support::people::{Person, email};
use crate::support::{Cluster, eventually};

/// Texts of each device.
const EACH: usize = 8;
/// Long enough that only a hang reaches it, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn every_device_ends_with_the_same_conversation_though_a_region_is_lost_while_they_talk() {
    let mut cluster = Cluster::in_regions(&["asia", "eu", "us"]);
    wait_leaders(&mut cluster, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (devices, group) = runtime.block_on(gather(&cluster));
    let devices = Arc::new(devices);
    let said = Arc::<AtomicUsize>::default();
    let talking: Vec<_> = (0..devices.len())
        .map(|me| runtime.spawn(talk(Arc::clone(&devices), me, group, Arc::clone(&said))))
        .collect();
    eventually("they talk", || {
        (said.load(Ordering::SeqCst) >= EACH).then_some(())
    });
    // Who is at home there goes on through the others. It does not come back.
    cluster.node(2).kill();
    runtime.block_on(async {
        for talk in talking {
            talk.await.expect("a device could not go on");
        }
    });
    let histories: Vec<Vec<Message>> = devices
        .iter()
        .map(|person| history(person, &group))
        .collect();
    let all: Vec<MessageId> = ids(&histories[0]);
    assert_eq!(all.len(), devices.len() * EACH);
    for (person, history) in devices.iter().zip(&histories) {
        assert_eq!(ids(history), all, "{}", person.home.display());
        // An answer stands after what it answers, and a device's texts as it wrote them.
        for (place, message) in history.iter().enumerate() {
            for about in message.content.iter().flat_map(Content::about) {
                assert!(all[..place].contains(about), "{message:?}");
            }
        }
        for writer in 0..devices.len() {
            let own = format!("{writer}: ");
            let texts = history.iter().filter_map(text);
            let texts: Vec<_> = texts.filter(|text| text.starts_with(&own)).collect();
            let expected: Vec<_> = (0..EACH).map(|number| format!("{own}{number}")).collect();
            assert_eq!(texts, expected);
        }
    }
}

/// Three people, two devices of each, and their group, of which all devices know.
async fn gather(cluster: &Cluster) -> (Vec<Person>, GroupId) {
    let mut devices = Vec::new();
    for (region, name) in ["ada", "ben", "cem"].into_iter().enumerate() {
        let person = Person::with_box(cluster, email(name), region).await;
        let further = person.linked(cluster, region).await;
        devices.extend([person, further]);
    }
    for other in [2, 4] {
        devices[0].add(&devices[other]).await;
    }
    let people = [2, 4].map(|other: usize| devices[other].box_id());
    let name = GroupName::new("Chorus").unwrap();
    let (group, _) = devices[0].device.create_group(name, &people).await.unwrap();
    for device in &devices {
        let meeting = async {
            let knows = || {
                device
                    .device
                    .group(&group)
                    .is_ok_and(|group| group.members.len() == 3)
            };
            while !knows() {
                device.device.receive().await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, meeting)
            .await
            .expect("it hears of no group");
    }
    (devices, group)
}

/// Says so many texts, every other one in answer to the last that is here, and reads until all are here that all say.
async fn talk(devices: Arc<Vec<Person>>, me: usize, group: GroupId, said: Arc<AtomicUsize>) {
    let person = &devices[me];
    for number in 0..EACH {
        let content = Content::Text(format!("{me}: {number}"));
        let last = history(person, &group).pop();
        let sent = match last.filter(|_| number % 2 == 1) {
            Some(last) => person.device.reply(&last, content).await,
            None => person.device.send_to_group(&group, &content).await,
        };
        taken(sent.expect("it could not even be kept"));
        said.fetch_add(1, Ordering::SeqCst);
        read(person).await;
    }
    let all = devices.len() * EACH;
    let ending = async {
        while history(person, &group).len() < all || person.device.pending().unwrap() > 0 {
            taken(person.device.resend().await.unwrap());
            read(person).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, ending).await.expect("not all arrives");
}

async fn read(person: &Person) {
    let passing = |error: &DeviceError| assert!(error.may_pass(), "{error}");
    match person.device.receive().await {
        Ok(Received { interrupted, .. }) => interrupted.iter().for_each(passing),
        Err(error) => passing(&error),
    }
}

fn taken(sent: Vec<Sent>) {
    for sent in sent {
        match sent.delivery {
            Delivery::Delivered(_) => {}
            Delivery::Pending(error) => assert!(error.may_pass(), "{error}"),
            other => panic!("refused: {other:?}"),
        }
    }
}

fn text(message: &Message) -> Option<&str> {
    match message.content.as_ref()?.said()? {
        Content::Text(text) => Some(text),
        _ => None,
    }
}

/// What was said in the group, as a device shows it.
fn history(person: &Person, group: &GroupId) -> Vec<Message> {
    let mut history = person.device.history(&Conversation::In(*group)).unwrap();
    history.retain(|message| text(message).is_some());
    history
}

fn ids(history: &[Message]) -> Vec<MessageId> {
    history.iter().filter_map(Message::id).collect()
}
