//! Contacts and messages, for people and for programs.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rossby_client::device::{Contact, Direction, Message, Status};
use rossby_client::envelope::Content;
use rossby_domain::ids::BoxId;
use serde_json::{Value, json};

use crate::output::{hex, utc};

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
    line
}

fn label_of(box_id: &BoxId, contacts: &[Contact]) -> String {
    let known = contacts.iter().find(|contact| contact.box_id == *box_id);
    known.map_or_else(|| box_id.to_string(), Contact::label)
}

/// A message as JSON. Bytes of a file are in base64.
pub fn message(message: &Message, contacts: &[Contact], saved: Option<&PathBuf>) -> Value {
    let peer = message.peer();
    let mut value = json!({
        "message": message.order,
        "direction": match message.direction {
            Direction::In => "in",
            Direction::Out => "out",
        },
        "box": peer.to_string(),
        "name": contacts.iter().find(|known| known.box_id == peer).and_then(|c| c.name.clone()),
        "sender_device": message.sender.device.to_string(),
        "counter": message.counter,
        "sequence": message.sequence.map(|sequence| sequence.0),
        "at_ms": message.at.as_millis(),
    });
    let parts = [
        content(message.content.as_ref(), saved),
        status(&message.status),
    ];
    if let Some(value) = value.as_object_mut() {
        for part in parts {
            if let Value::Object(part) = part {
                value.extend(part);
            }
        }
    }
    value
}

fn content(content: Option<&Content>, saved: Option<&PathBuf>) -> Value {
    match content {
        None => json!({}),
        Some(Content::Text(text)) => json!({ "text": text }),
        Some(Content::File(file)) => json!({ "file": {
            "name": file.name(),
            "media_type": file.media_type(),
            "bytes": file.bytes().len(),
            "base64": STANDARD.encode(file.bytes()),
            "saved": saved.map(|path| path.display().to_string()),
        }}),
        Some(Content::Unknown {
            kind,
            version,
            body,
        }) => json!({ "unknown": {
            "kind": kind,
            "version": version,
            "bytes": body.len(),
        }}),
    }
}

fn status(status: &Status) -> Value {
    match status {
        Status::Received => json!({ "status": "received" }),
        Status::Unreadable { code, reason } => {
            json!({ "status": "unreadable", "code": code, "reason": reason })
        }
        Status::Pending => json!({ "status": "pending" }),
        Status::Sent => json!({ "status": "sent" }),
        Status::Refused { code, reason } => {
            json!({ "status": "refused", "code": code, "reason": reason })
        }
        Status::Doubtful => json!({ "status": "doubtful" }),
    }
}

/// A message for a terminal: when, who, what.
pub fn message_line(message: &Message, contacts: &[Contact], saved: Option<&PathBuf>) -> String {
    let label = safe(&label_of(&message.peer(), contacts));
    let who = match message.direction {
        Direction::In => label,
        Direction::Out => format!("you to {label}"),
    };
    let what = match &message.content {
        Some(Content::Text(text)) => safe(text),
        Some(Content::File(file)) => {
            let kept = match saved {
                Some(path) => format!("saved as {}", safe(&path.display().to_string())),
                None => "--all --save DIR saves it".to_owned(),
            };
            format!(
                "[file {}, {} bytes; {kept}]",
                safe(file.name()),
                file.bytes().len()
            )
        }
        Some(Content::Unknown { kind, .. }) => {
            format!("[something that this version does not know, kind {kind}; it is kept]")
        }
        None => String::new(),
    };
    let fate = match &message.status {
        Status::Received | Status::Sent => String::new(),
        Status::Unreadable { code, reason } => {
            format!("[not readable: {} ({})]", safe(reason), safe(code))
        }
        Status::Pending => " [waiting to be sent]".to_owned(),
        Status::Refused { code, reason } => {
            format!(" [refused: {} ({})]", safe(reason), safe(code))
        }
        Status::Doubtful => " [nobody can tell whether it arrived]".to_owned(),
    };
    format!("{}  {who}: {what}{fate}", utc(message.at.as_millis()))
}

/// Text from others, for a terminal: nothing in it can move the cursor, change colours or look like
/// a line of ours.
pub fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\n    "),
            '\t' => safe.push(' '),
            // Direction marks can make a text read as another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => safe.push('\u{fffd}'),
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
        assert_eq!(safe("\u{202e}evil"), "\u{fffd}evil");
        assert_eq!(safe("für Élodie 🎈"), "für Élodie 🎈");
    }
}
