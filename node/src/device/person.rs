//! Who is meant: a contact's name, a phone or email, a box or a device.

use rossby_client::Device;
use rossby_client::device::{Contact, LookupBy};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceId};

use crate::exit::{Exit, Failure};

/// Who is meant, as far as this device knows.
#[derive(Debug)]
pub enum Person {
    /// Someone known, or a box by its id.
    Known(BoxId),
    /// Someone to be looked up first.
    Stranger(LookupBy),
}

/// What a text can be looked up by, beside a contact's name.
pub fn lookup_of(text: &str) -> Result<Option<LookupBy>, Failure> {
    if let Ok(box_id) = text.parse::<BoxId>() {
        return Ok(Some(LookupBy::Box(box_id)));
    }
    if let Ok(device) = text.parse::<DeviceId>() {
        return Ok(Some(LookupBy::Device(device)));
    }
    let identifier = if text.contains('@') {
        Identifier::email(text)
    } else if text.starts_with('+') || text.starts_with("00") {
        Identifier::phone(text)
    } else {
        return Ok(None);
    };
    match identifier {
        Ok(identifier) => Ok(Some(LookupBy::Identifier(identifier))),
        Err(error) => Err(Failure::new(Exit::Usage, error)),
    }
}

/// Finds out who is meant. Contacts' names come first, without regard to case.
pub fn find(device: &Device, text: &str) -> Result<Person, Failure> {
    let contacts = device.contacts()?;
    if let Some(contact) = by_name(&contacts, text)? {
        return Ok(Person::Known(contact.box_id));
    }
    match lookup_of(text)? {
        Some(LookupBy::Box(box_id)) => Ok(Person::Known(box_id)),
        Some(LookupBy::Identifier(identifier)) => {
            let known = contacts
                .iter()
                .find(|contact| contact.identifier.as_deref() == Some(identifier.as_str()));
            Ok(match known {
                Some(contact) => Person::Known(contact.box_id),
                None => Person::Stranger(LookupBy::Identifier(identifier)),
            })
        }
        Some(by) => Ok(Person::Stranger(by)),
        None => Err(Failure::new(
            Exit::NotFound,
            format!("there is no contact called {text:?}"),
        )
        .help("give a phone number with +, an email address or a box id, or add a contact")),
    }
}

/// The box that is meant; a stranger is looked up and becomes a contact.
pub async fn find_box(device: &Device, text: &str) -> Result<BoxId, Failure> {
    match find(device, text)? {
        Person::Known(box_id) => Ok(box_id),
        Person::Stranger(by) => Ok(device.add_contact(&by, None, false).await?.box_id),
    }
}

fn by_name<'a>(contacts: &'a [Contact], text: &str) -> Result<Option<&'a Contact>, Failure> {
    let named = |contact: &&Contact| {
        contact
            .name
            .as_deref()
            .is_some_and(|name| name.to_lowercase() == text.to_lowercase())
    };
    let mut found = contacts.iter().filter(named);
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::NotFound,
            format!("several contacts are called {text:?}"),
        )
        .help("give the box id; rossby contacts list shows it")),
        (None, Some(_)) => Ok(None),
    }
}
