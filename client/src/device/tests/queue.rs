//! How long messages wait, and what their owner is told of those that do.

use std::time::Duration;

use super::linking::linked;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(start_paused = true)]
async fn a_message_waits_for_no_longer_than_its_sender_and_its_recipient_want() {
    let office = Office::new();
    let (anna, bert) = (person(&office, 1).await, person(&office, 2).await);
    let say = async |words: &str, ttl| {
        let content = Content::Text(words.to_owned());
        let sent = anna.device.send_for(&bert.box_id(), &content, ttl).await;
        assert!(matches!(sent.unwrap().delivery, Delivery::Delivered(_)));
    };
    assert_eq!(bert.device.set_ttl(Some(DAY)).await.unwrap(), DAY);
    say("for an hour", Some(HOUR)).await;
    say("for a day", None).await;
    say("for a month, if it may", Some(30 * DAY)).await;
    let came = office.clock.now();
    let status = bert.device.queue_status().await.unwrap();
    assert_eq!((status.depth, status.expired_total), (3, 0));
    assert!(status.bytes > 0 && status.oldest == Some(came) && status.ttl == DAY);
    // To look moves nothing.
    assert_eq!((status.cursor.0, status.last.0), (0, 3));
    office.clock.advance_millis(3_600_000);
    assert_eq!(bert.hear().await, ["for a day", "for a month, if it may"]);
    let status = bert.device.queue_status().await.unwrap();
    assert_eq!((status.depth, status.expired_total), (0, 1));
    say("unheard", None).await;
    office.clock.advance_millis(24 * 3_600_000);
    assert!(bert.hear().await.is_empty());
    let longest = bert.device.set_ttl(None).await.unwrap();
    assert_eq!(longest, 30 * DAY);
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_keeps_the_time_that_it_was_given() {
    let office = Office::new();
    let (anna, bert) = (person(&office, 1).await, person(&office, 2).await);
    anna.say(&bert, "hello").await;
    let full = Fault::Refused("QUEUE_FULL", crate::connection::Retry::Same);
    office.fail_next("Send", full);
    let content = Content::Text("for an hour".to_owned());
    let sent = anna
        .device
        .send_for(&bert.box_id(), &content, Some(HOUR))
        .await;
    assert!(matches!(sent.unwrap().delivery, Delivery::Pending(_)));
    // The time counts from when it is stored in the box.
    office.clock.advance_millis(2 * 3_600_000);
    let anna = anna.reopen(&office, 7);
    anna.device.resend().await.unwrap();
    assert_eq!(bert.device.queue_status().await.unwrap().depth, 2);
    office.clock.advance_millis(3_600_000);
    assert_eq!(bert.hear().await, ["hello"]);
}

#[tokio::test(start_paused = true)]
async fn a_device_is_told_once_that_another_one_lets_mail_wait_for_another_time() {
    let office = Office::new();
    let phone = person(&office, 1).await;
    let laptop = linked(&office, &phone, 2).await;
    for device in [&phone.device, &laptop.device] {
        device.receive().await.unwrap();
        assert_eq!(device.changed_ttl().unwrap(), None);
    }
    for longest in [HOUR, DAY] {
        laptop.device.set_ttl(Some(longest)).await.unwrap();
        phone.device.receive().await.unwrap();
        assert_eq!(phone.device.changed_ttl().unwrap(), Some(longest));
        for device in [&phone.device, &laptop.device] {
            device.receive().await.unwrap();
            assert_eq!(device.changed_ttl().unwrap(), None);
        }
    }
    // A listener hears of it too, and whoever has set it last knows.
    laptop.device.set_ttl(None).await.unwrap();
    let mut listener = phone.device.listen().unwrap();
    assert!(matches!(listener.next().await, Ok(Heard::Connected(_))));
    assert_eq!(phone.device.changed_ttl().unwrap(), Some(30 * DAY));
    phone.device.set_ttl(Some(DAY)).await.unwrap();
    phone.device.receive().await.unwrap();
    assert_eq!(phone.device.changed_ttl().unwrap(), None);
}
