//! More than one phone or email: added, proven, found by, removed.

use super::*;
use crate::device::{LookupBy, OwnIdentifier};

fn phone(digits: &str) -> Identifier {
    Identifier::phone(digits).unwrap()
}

async fn listed(person: &Person) -> Vec<(Identifier, bool, bool)> {
    let own = person.device.identifiers().await.unwrap().into_iter();
    own.map(|own: OwnIdentifier| (own.identifier, own.verified, own.discoverable))
        .collect()
}

fn is_refused(error: DeviceError, code: &str) -> bool {
    super::super::devices::is_refused(&error, code)
}

#[tokio::test]
async fn a_second_identifier_is_found_by_once_it_is_proven_and_until_it_is_removed() {
    let office = Office::new();
    let (anna, bert) = (person(&office, 1).await, person(&office, 2).await);
    let new = phone("+49 170 1234567");
    let by = LookupBy::Identifier(new.clone());
    anna.device.add_identifier(&new, true).await.unwrap();
    assert_eq!(
        listed(&anna).await,
        [(email(1), true, true), (new.clone(), false, true)]
    );
    let found = bert.device.lookup(&by).await;
    assert!(matches!(found, Err(DeviceError::NoUser)));
    let wrong = anna.device.confirm_identifier(&new, "00000000").await;
    assert!(is_refused(wrong.unwrap_err(), "WRONG_CODE"));
    let code = office.code(&anna.box_id());
    let code = format!("{} {}", &code[..4], &code[4..]);
    for _ in 0..2 {
        // The second is the retry of a lost reply.
        anna.device.confirm_identifier(&new, &code).await.unwrap();
    }
    assert_eq!(
        listed(&anna).await,
        [(email(1), true, true), (new.clone(), true, true)]
    );
    let found = bert.device.lookup(&by).await.unwrap();
    assert_eq!(found.box_id, anna.box_id());
    anna.say(&bert, "the token is still good").await;

    anna.device.remove_identifier(&email(1)).await.unwrap();
    assert_eq!(
        anna.device.who_am_i().unwrap().identifier,
        Some(new.clone())
    );
    let by_email = LookupBy::Identifier(email(1));
    let found = bert.device.lookup(&by_email).await;
    assert!(matches!(found, Err(DeviceError::NoUser)));
    let last = anna.device.remove_identifier(&new).await;
    assert!(is_refused(last.unwrap_err(), "LAST_IDENTIFIER"));
    let gone = anna.device.remove_identifier(&email(1)).await;
    assert!(matches!(gone, Err(DeviceError::NoSuchIdentifier)));
    assert_eq!(listed(&anna).await, [(new, true, true)]);
}

#[tokio::test]
async fn a_reply_that_is_lost_changes_nothing_of_the_outcome() {
    let office = Office::new();
    let anna = person(&office, 1).await;
    let new = phone("+491701234567");
    anna.device.add_identifier(&new, false).await.unwrap();
    let code = office.code(&anna.box_id());
    office.fail_next("Authorize", Fault::ReplyLost);
    anna.device.confirm_identifier(&new, &code).await.unwrap();
    office.fail_next("RemoveIdentifier", Fault::ReplyLost);
    anna.device.remove_identifier(&new).await.unwrap();
    assert_eq!(listed(&anna).await, [(email(1), true, true)]);
}
