//! Contacts and messages, for people and for programs.
//!
//! ```text
//!   messages ──► around.rs: what they refer to, and who is who ──► words.rs: a line for a person
//!                                                             └──► data.rs: JSON
//! ```

mod around;
mod data;
#[cfg(test)]
pub(super) mod example;
mod words;

use rossby_client::device::{Contact, Message};
use rossby_client::store::WhatChanged;
use rossby_domain::ids::BoxId;
use rossby_domain::time::Timestamp;
use serde_json::{Value, json};

pub use self::around::Around;
pub use self::data::{claimed, group, message, typing};
pub use self::words::{group_line, message_line, progress_lines};
use crate::output::{hex, utc};

/// What the owner of a box must be told loudly whose phone or email is to go to another.
pub fn contested(at: Timestamp) -> String {
    format!(
        "\nSOMEBODY HAS PROVEN THAT THEY CAN READ what is sent to a phone or email of this box, and gets it on {}. \
         If that is not you:\n  rossby identifiers list shows which; rossby identifiers keep --phone NUMBER (or \
         --email ADDRESS) keeps it\n",
        utc(at.as_millis())
    )
}

/// A contact as JSON.
pub fn contact(contact: &Contact) -> Value {
    json!({
        "box": contact.box_id.to_string(),
        "name": contact.name,
        "identifier": contact.identifier,
        "chain_version": contact.pinned.version,
        "chain_hash": hex(&contact.pinned.hash),
        "since_ms": contact.since.as_millis(),
        "added": contact.added,
        "blocked": contact.blocked,
        "verified": contact.is_verified(),
        "verified_at_ms": contact.verified.map(|at| at.as_millis()),
        "identity_change": contact.changed.as_ref().map(|change| json!({
            "code": change.what.code(),
            "reason": change.what.to_string(),
            "at_ms": change.at.as_millis(),
            "stops_sending": change.stops_sending,
        })),
    })
}

/// A contact on one line.
pub fn contact_line(contact: &Contact) -> String {
    let mut line = format!("{}  {}", contact.box_id, safe(&contact.label()));
    if let (Some(_), Some(identifier)) = (&contact.name, &contact.identifier) {
        line.push_str(&format!(" <{}>", safe(identifier)));
    }
    if !contact.added {
        line.push_str("  (wrote first)");
    }
    if contact.blocked {
        line.push_str("  (blocked)");
    }
    if contact.is_verified() {
        line.push_str("  (verified)");
    }
    if contact.changed.is_some() {
        line.push_str("  (IDENTITY CHANGED)");
    }
    line
}

/// What a person must be told loudly about a contact, if anything.
pub fn change(contact: &Contact) -> Option<String> {
    let change = contact.changed.as_ref()?;
    let (label, box_id) = (safe(&contact.label()), contact.box_id);
    let stopped = if change.stops_sending {
        "Nothing is sent to them until you have dealt with it.\n"
    } else {
        ""
    };
    Some(format!(
        "WARNING: the identity of {label} changed: {}.\nThey may have begun anew, or somebody may be posing as \
         them. {stopped}{}",
        safe(&change.what.to_string()),
        what_to_do(&change.what, &box_id),
    ))
}

/// What a person can do about a change of somebody's identity.
pub fn what_to_do(what: &WhatChanged, box_id: &BoxId) -> String {
    if what.is_seen_in_number() {
        format!(
            "Ask them by other means, and compare the safety number: rossby safety show {box_id}, then rossby safety \
             verify {box_id}; without comparing, rossby safety accept {box_id}. rossby delete takes back what waits"
        )
    } else {
        format!(
            "The safety number can't tell: it is that of the first keys. Ask them by other means whether their \
             devices (rossby devices list, there) are all theirs; then rossby safety accept {box_id}. rossby \
             delete takes back what waits"
        )
    }
}

/// What a person must be told loudly about a message, if anything.
pub fn alarm(message: &Message, around: &Around) -> Option<String> {
    let (label, box_id) = (around.label_of(&message.peer()), message.peer());
    message.is_alarm().then(|| {
        format!(
            "WARNING: what came from {label} names another identity than the one known, of theirs or of yours.\n\
             Somebody may stand between you. Ask them by other means. rossby contacts show {box_id} shows what is known"
        )
    })
}

/// Text from others, for a terminal: nothing in it can move the cursor, change colours or look like
/// a line of ours.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\n    "),
            '\t' => safe.push(' '),
            // Direction marks can make a text read as another; the others end lines, or are not seen.
            '\u{61c}'
            | '\u{200b}'
            | '\u{200c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => safe.push('\u{fffd}'),
            character if character.is_control() => safe.push('\u{fffd}'),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_others_can_not_steer_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(safe("one\ntwo"), "one\n    two");
        assert_eq!(safe("\u{202e}evil\u{200f}"), "\u{fffd}evil\u{fffd}");
        assert_eq!(safe("one\u{2028}two"), "one\u{fffd}two");
        assert_eq!(safe("für Élodie 🎈"), "für Élodie 🎈");
    }
}
