//! Deleting the account, on the service and here.

use super::linking::linked;
use super::*;

fn is_refused(error: &DeviceError, code: &str) -> bool {
    super::super::devices::is_refused(error, code)
}

#[tokio::test(start_paused = true)]
async fn a_deleted_account_is_gone_on_the_service_and_here_and_others_are_told_of_nobody() {
    let office = Office::new();
    let (alice, bob) = (person(&office, 1).await, person(&office, 2).await);
    let laptop = linked(&office, &bob, 3).await;
    alice.say(&bob, "one").await;
    let Person { home, device, .. } = bob;
    // Done, and no reply comes: it asks by its key what became of it.
    office.fail_next("DeleteAccount", Fault::ReplyLost);
    device.delete_account().await.unwrap();
    assert!(!home.path().exists());

    let content = Content::Text("two".to_owned());
    let sent = alice.device.send(&laptop.box_id(), &content).await.unwrap();
    match sent.delivery {
        Delivery::Refused(refusal) => assert_eq!(refusal.code, "UNKNOWN_RECIPIENT"),
        other => panic!("{other:?}"),
    }
    let found = alice.device.lookup(&LookupBy::Identifier(email(2))).await;
    assert!(matches!(found, Err(DeviceError::NoUser)), "{found:?}");
    // The other device is told, keeps what it has, and goes the same way.
    let told = laptop.device.receive().await.unwrap_err();
    assert!(is_refused(&told, "BOX_DELETED"), "{told}");
    let laptop = laptop.reopen(&office, 9);
    let Person { home, device, .. } = laptop;
    device.delete_account().await.unwrap();
    assert!(!Device::is_in(home.path()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_erased_here_while_the_service_has_not_said_that_it_is_done() {
    let office = Office::new();
    let bob = person(&office, 2).await;
    (0..40).for_each(|_| office.fail_next("DeleteAccount", Fault::NotSent));
    let Person { home, device, .. } = bob;
    assert!(device.delete_account().await.is_err());
    office.forget_faults();
    let device = Device::open(home.path(), &passphrase(), environment(&office, 9)).unwrap();
    assert!(device.receive().await.is_ok());
    // Nor by a device that is shut out and whose box is there.
    office.restore_and_revoke();
    let refused = device.delete_account().await.unwrap_err();
    assert!(is_refused(&refused, "UNAUTHENTICATED"), "{refused}");
    assert!(Device::is_in(home.path()));
}
