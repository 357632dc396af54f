//! Messages as JSON.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rossby_client::device::{Claimed, Direction, GroupInfo, Message, Status, Typing};
use rossby_client::envelope::{Content, MessageId, PER_DEGREE, ReceiptState};
use rossby_client::group::{GroupId, GroupName};
use rossby_client::store::Outcome;
use rossby_domain::ids::BoxId;
use serde_json::{Value, json};

use super::Around;

/// A message as JSON. What a file, a picture or a voice message is made of is in base64.
pub fn message(message: &Message, around: &Around, saved: Option<&PathBuf>) -> Value {
    // What was sent to a group went to several.
    let peer = match (message.direction, message.group) {
        (Direction::Out, Some(_)) => None,
        _ => Some(message.peer()),
    };
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
        "box": peer.map(|peer| peer.to_string()),
        "name": peer.and_then(|peer| name_of(&peer)),
        "claimed_name": peer.and_then(|peer| around.claimed_name(&peer).map(str::to_owned)),
        "group": message.group.map(|id| group_of(message, &id, around)),
        "outcomes": outcomes(message),
        "receipts": receipts(message, around),
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

fn group_of(message: &Message, id: &GroupId, around: &Around) -> Value {
    let known = around.group(id);
    json!({
        "id": id.to_string(),
        "name": known.and_then(|group| group.name.as_ref()).map(GroupName::as_str),
        "sender_is_member": known.is_some_and(|group| group.members.contains(&message.sender.box_id)),
    })
}

/// What became of a message for each member of a group.
fn outcomes(message: &Message) -> Value {
    let outcomes = message.outcomes.iter().map(|(who, outcome)| {
        let mut value = json!({ "box": who.to_string() });
        join(
            &mut value,
            match outcome {
                Outcome::Pending => json!({ "status": "pending" }),
                Outcome::Sent(sequence) => json!({ "status": "sent", "sequence": sequence.0 }),
                Outcome::Refused { code, reason } => {
                    json!({ "status": "refused", "code": code, "reason": reason })
                }
                Outcome::Doubtful => json!({ "status": "doubtful" }),
                Outcome::Withdrawn => json!({ "status": "withdrawn" }),
            },
        );
        value
    });
    outcomes.collect()
}

/// How far a message has come with each recipient who tells.
fn receipts(message: &Message, around: &Around) -> Value {
    let receipts = message.receipts.iter().map(|(who, progress)| {
        json!({
            "box": who.to_string(),
            "name": around.contact(who).and_then(|known| known.name.clone()),
            "state": if progress.read.is_some() { "read" } else { "delivered" },
            "delivered_at_ms": progress.delivered.map(|at| at.as_millis()),
            "read_at_ms": progress.read.map(|at| at.as_millis()),
        })
    });
    receipts.collect()
}

/// What somebody shows of themselves as JSON; the picture in base64.
pub fn claimed(claimed: &Claimed) -> Value {
    let profile = &claimed.profile;
    json!({
        "name": profile.name(),
        "about": profile.about(),
        "picture": profile.picture().map(|picture| json!({
            "media_type": picture.media_type(),
            "bytes": picture.bytes().len(),
            "base64": STANDARD.encode(picture.bytes()),
        })),
        "version": claimed.version,
        "withheld": claimed.is_withheld,
    })
}

/// That somebody types, or has stopped, as JSON.
pub fn typing(typing: &Typing, around: &Around) -> Value {
    json!({
        "typing": typing.is_typing,
        "box": typing.by.to_string(),
        "name": around.contact(&typing.by).and_then(|known| known.name.clone()),
    })
}

/// A group as JSON.
pub fn group(group: &GroupInfo, around: &Around) -> Value {
    let member = |who: &BoxId| {
        let name = around.contact(who).and_then(|known| known.name.clone());
        json!({ "box": who.to_string(), "name": name })
    };
    json!({
        "group": group.id.to_string(),
        "name": group.name.as_ref().map(GroupName::as_str),
        "is_member": group.is_member,
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
    })
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
    let named = |id: &MessageId| json!({ "id": id.to_string(), "message": around.number_of(&message.conversation(), id) });
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

#[cfg(test)]
mod tests {
    use rossby_client::envelope::{
        Control, Edit, File, Location, Picture, Reaction, Receipt, Reply, Voice,
    };

    use super::super::example::message as example;
    use super::*;

    /// The fields of a message with this in it that one with nothing in it does not have.
    fn shown(content: Content) -> Value {
        let json = |content| message(&example(content), &Around::default(), None);
        let mut shown = json(content);
        let plain = json(Content::Text(String::new()));
        let fields = shown.as_object_mut().unwrap();
        fields.retain(|name, _| name == "text" || plain.get(name).is_none());
        shown
    }

    #[test]
    fn every_kind_has_its_field() {
        let id = example(Content::Text(String::new())).id().unwrap();
        let named = |more: Value| {
            let mut value = json!({ "id": id.to_string(), "message": null });
            join(&mut value, more);
            value
        };
        let text = || Content::Text("hello".to_owned());
        let base64 = "AQID";
        let bytes = || vec![1, 2, 3];
        let receipt = |state| Receipt::new(state, vec![id]).unwrap();
        let counts = json!({ "text": "better", "counts": true });
        let kinds = [
            (text(), json!({ "text": "hello" })),
            (
                Content::File(File::new("map.bin", "image/x-map", bytes()).unwrap()),
                json!({ "file": { "name": "map.bin", "media_type": "image/x-map", "bytes": 3, "base64": base64, "saved": null } }),
            ),
            (
                Content::Picture(Picture::new("image/png", (640, 480), "a cat", bytes()).unwrap()),
                json!({ "picture": {
                    "media_type": "image/png", "width": 640, "height": 480, "caption": "a cat", "bytes": 3, "base64": base64, "saved": null,
                } }),
            ),
            (
                Content::Voice(Voice::new("audio/ogg", 0, bytes()).unwrap()),
                json!({ "voice": { "media_type": "audio/ogg", "duration_ms": null, "bytes": 3, "base64": base64, "saved": null } }),
            ),
            (
                Content::Location(Location::new(525_000_000, -134_000_000, 0, "here").unwrap()),
                json!({ "location": { "latitude": 52.5, "longitude": -13.4, "accuracy_m": null, "label": "here" } }),
            ),
            (
                Content::Reply(Reply::new(id, text()).unwrap()),
                json!({ "text": "hello", "reply_to": named(json!({})) }),
            ),
            (
                Content::Reaction(Reaction::new(id, "👍").unwrap()),
                json!({ "reaction": named(json!({ "emoji": "👍" })) }),
            ),
            (
                Content::Edit(Edit {
                    message: id,
                    text: "better".to_owned(),
                }),
                json!({ "edit": named(counts) }),
            ),
            (
                Content::Delete(id),
                json!({ "delete": named(json!({ "counts": true })) }),
            ),
            (
                Content::Receipt(receipt(ReceiptState::Delivered)),
                json!({ "receipt": { "state": "delivered", "messages": [named(json!({}))] } }),
            ),
            (
                Content::Receipt(receipt(ReceiptState::Read)),
                json!({ "receipt": { "state": "read", "messages": [named(json!({}))] } }),
            ),
            (
                Content::Control(Control {
                    topic: 77,
                    body: bytes(),
                }),
                json!({ "control": { "topic": 77, "bytes": 3 } }),
            ),
            (
                Content::Unknown {
                    kind: 99,
                    version: 3,
                    body: bytes(),
                },
                json!({ "unknown": { "kind": 99, "version": 3, "bytes": 3 } }),
            ),
        ];
        for (content, expected) in kinds {
            assert_eq!(shown(content), expected);
        }
    }
}
