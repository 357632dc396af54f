//! Messages as JSON.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rossby_client::device::{Contact, Direction, Message, Status};
use rossby_client::envelope::{Content, MessageId, PER_DEGREE, ReceiptState};
use rossby_domain::ids::BoxId;
use serde_json::{Value, json};

use super::Around;

/// A message as JSON. What a file, a picture or a voice message is made of is in base64.
pub fn message(message: &Message, around: &Around, saved: Option<&PathBuf>) -> Value {
    let peer = message.peer();
    let name_of = |box_id: &BoxId| around.contact(box_id).and_then(|known| known.name.clone());
    let reactions: Vec<_> = message
        .acts
        .reactions
        .iter()
        .map(|(by, emoji)| json!({"box": by.to_string(), "name": name_of(by), "emoji": emoji}))
        .collect();
    let mut value = json!({
        "message": message.order,
        "id": message.id().map(|id| id.to_string()),
        "direction": match message.direction {
            Direction::In => "in",
            Direction::Out => "out",
        },
        "box": peer.to_string(),
        "name": around.contact(&peer).and_then(|Contact { name, .. }| name.clone()),
        "sender_device": message.sender.device.to_string(),
        "counter": message.counter,
        "sequence": message.sequence.map(|sequence| sequence.0),
        "at_ms": message.at.as_millis(),
        "edited": message.acts.edited,
        "deleted": message.acts.deleted,
        "reactions": reactions,
        "identity_alarm": message.is_alarm(),
    });
    let shown = message.content.as_ref();
    let content = shown.map_or_else(|| json!({}), |shown| content(shown, message, around, saved));
    for part in [content, status(&message.status)] {
        join(&mut value, part);
    }
    value
}

/// Puts the fields of one object into another.
fn join(value: &mut Value, part: Value) {
    if let (Some(value), Value::Object(part)) = (value.as_object_mut(), part) {
        value.extend(part);
    }
}

fn content(
    content: &Content,
    message: &Message,
    around: &Around,
    saved: Option<&PathBuf>,
) -> Value {
    let kept = saved.map(|path| path.display().to_string());
    let named = |id: &MessageId| json!({ "id": id.to_string(), "message": around.number_of(&message.peer(), id) });
    let act = |id: &MessageId, more: Value| {
        let mut value = named(id);
        join(&mut value, more);
        value
    };
    let counts = content.counts_from(&message.sender.box_id);
    match content {
        Content::Text(text) => json!({ "text": text }),
        Content::File(file) => json!({ "file": {
            "name": file.name(),
            "media_type": file.media_type(),
            "bytes": file.bytes().len(),
            "base64": STANDARD.encode(file.bytes()),
            "saved": kept,
        }}),
        Content::Picture(picture) => json!({ "picture": {
            "media_type": picture.media_type(),
            "width": picture.size().0,
            "height": picture.size().1,
            "caption": picture.caption(),
            "bytes": picture.bytes().len(),
            "base64": STANDARD.encode(picture.bytes()),
            "saved": kept,
        }}),
        Content::Voice(voice) => json!({ "voice": {
            "media_type": voice.media_type(),
            "duration_ms": match voice.duration_ms() {
                0 => None,
                known => Some(known),
            },
            "bytes": voice.bytes().len(),
            "base64": STANDARD.encode(voice.bytes()),
            "saved": kept,
        }}),
        Content::Location(location) => json!({ "location": {
            "latitude": degrees(location.latitude()),
            "longitude": degrees(location.longitude()),
            "accuracy_m": match location.accuracy_m() {
                0 => None,
                known => Some(known),
            },
            "label": location.label(),
        }}),
        Content::Reply(reply) => {
            let mut value = self::content(reply.content(), message, around, saved);
            join(&mut value, json!({ "reply_to": named(reply.to()) }));
            value
        }
        Content::Reaction(reaction) => {
            json!({ "reaction": act(reaction.to(), json!({ "emoji": reaction.emoji() })) })
        }
        Content::Edit(edit) => {
            json!({ "edit": act(&edit.message, json!({ "text": edit.text, "counts": counts })) })
        }
        Content::Delete(id) => json!({ "delete": act(id, json!({ "counts": counts })) }),
        Content::Receipt(receipt) => json!({ "receipt": {
            "state": match receipt.state() {
                ReceiptState::Delivered => "delivered",
                ReceiptState::Read => "read",
            },
            "messages": receipt.messages().iter().map(named).collect::<Vec<_>>(),
        }}),
        Content::Control(control) => json!({ "control": {
            "topic": control.topic,
            "bytes": control.body.len(),
        }}),
        Content::Unknown {
            kind,
            version,
            body,
        } => json!({ "unknown": {
            "kind": kind,
            "version": version,
            "bytes": body.len(),
        }}),
    }
}

/// Degrees, as people write them.
pub(super) fn degrees(value: i32) -> f64 {
    f64::from(value) / f64::from(PER_DEGREE)
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
        Status::Withdrawn => json!({ "status": "withdrawn" }),
    }
}
