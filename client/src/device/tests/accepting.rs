//! Messages from contacts only.

use super::*;
use crate::device::{AcceptFrom, LookupBy};

#[tokio::test(start_paused = true)]
async fn a_box_that_accepts_contacts_only_hears_those_that_its_devices_added() {
    let office = Office::new();
    let (anna, bert) = (person(&office, 1).await, person(&office, 2).await);
    let carl = person(&office, 3).await;
    let to = |seed| LookupBy::Identifier(email(seed));
    anna.device.add_contact(&to(2), None, false).await.unwrap();
    carl.device.add_contact(&to(1), None, false).await.unwrap();
    let named = anna.device.accept(AcceptFrom::Contacts, &[]).await.unwrap();
    assert_eq!(named, 1);
    bert.say(&anna, "from a contact").await;
    let refused = carl.say(&anna, "from a stranger").await;
    assert!(matches!(refused, Delivery::Refused(_)), "{refused:?}");
    assert_eq!(anna.hear().await, ["from a contact"]);
    let unseen = carl.device.lookup(&to(1)).await;
    assert!(matches!(unseen, Err(DeviceError::NoUser)));

    // Who is added is a contact at once, and who is removed no more.
    anna.device.add_contact(&to(3), None, false).await.unwrap();
    carl.say(&anna, "now it comes").await;
    assert_eq!(anna.hear().await, ["now it comes"]);
    anna.device.remove_contact(&carl.box_id()).await.unwrap();
    let unseen = carl.device.lookup(&to(1)).await;
    assert!(matches!(unseen, Err(DeviceError::NoUser)));

    // Somebody who can't be looked up, since they take contacts only too, is named by their box.
    carl.device.accept(AcceptFrom::Contacts, &[]).await.unwrap();
    let named = anna
        .device
        .accept(AcceptFrom::Contacts, &[carl.box_id()])
        .await;
    assert_eq!(named.unwrap(), 2);
    assert!(carl.device.lookup(&to(1)).await.is_ok());
    anna.device.accept(AcceptFrom::Anyone, &[]).await.unwrap();
    let before = office.calls("Accept");
    anna.device.remove_contact(&bert.box_id()).await.unwrap();
    assert_eq!(
        office.calls("Accept"),
        before,
        "the service keeps no contacts"
    );
    bert.say(&anna, "from anyone").await;
    assert_eq!(anna.hear().await, ["from anyone"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_a_box_writes_to_can_read_it_although_it_accepts_contacts_only() {
    let office = Office::new();
    let (anna, bert) = (person(&office, 1).await, person(&office, 2).await);
    anna.device.accept(AcceptFrom::Contacts, &[]).await.unwrap();
    anna.say(&bert, "by the box alone").await;
    assert_eq!(bert.hear().await, ["by the box alone"]);
    bert.say(&anna, "an answer").await;
    assert_eq!(anna.hear().await, ["an answer"]);
    let told = office.calls("Accept");
    anna.say(&bert, "once more").await;
    anna.say(&bert, "and again").await;
    assert!(office.calls("Accept") <= told + 1, "it is told once");
}
