//! Messages in words, for a terminal. Every text of others goes through [`safe`].

use std::path::PathBuf;

use rossby_client::device::{Direction, GroupInfo, Message, Status};
use rossby_client::envelope::{Content, MessageId, ReceiptState};
use rossby_client::store::Outcome;

use super::data::degrees;
use super::{Around, safe};
use crate::output::utc;

/// A message for a terminal: when, its number, who, what.
pub fn message_line(message: &Message, around: &Around, saved: Option<&PathBuf>) -> String {
    let who = who(message, around);
    let what = match &message.content {
        _ if message.acts.deleted => "[deleted]".to_owned(),
        Some(content) => words(content, message, around, saved),
        None => String::new(),
    };
    let edited = if message.acts.edited { " [edited]" } else { "" };
    let fate = match &message.status {
        Status::Received | Status::Sent => String::new(),
        Status::Unreadable { code, reason } => {
            format!("[not readable: {} ({})]", safe(reason), safe(code))
        }
        Status::Pending if message.group.is_none() => " [waiting to be sent]".to_owned(),
        Status::Pending => String::new(),
        Status::Refused { code, reason } => {
            format!(" [refused: {} ({})]", safe(reason), safe(code))
        }
        Status::Doubtful => " [nobody can tell whether it arrived]".to_owned(),
        Status::Withdrawn => " [withdrawn]".to_owned(),
    };
    let fate = fate + &outcomes(message, around);
    let reactions = reactions(message, around) + &receipts(message, around);
    let (at, number) = (utc(message.at.as_millis()), message.order);
    format!("{at}  #{number}  {who}: {what}{edited}{fate}{reactions}")
}

fn who(message: &Message, around: &Around) -> String {
    let label = around.label_of(&message.peer());
    match (message.direction, &message.group) {
        (Direction::In, None) => label,
        (Direction::Out, None) => format!("you to {label}"),
        (Direction::Out, Some(group)) => format!("you to {}", around.label_of_group(group)),
        (Direction::In, Some(id)) => {
            let name = around.label_of_group(id);
            let is_member = around
                .group(id)
                .is_some_and(|group| group.members.contains(&message.peer()));
            // What they say may have been said before they left.
            let standing = if is_member { "" } else { ", not a member now," };
            format!("{label}{standing} in {name}")
        }
    }
}

/// For whom of a group a message is not stored.
fn outcomes(message: &Message, around: &Around) -> String {
    let outcomes = message.outcomes.iter();
    let words = outcomes.filter_map(|(who, outcome)| {
        let label = around.label_of(who);
        match outcome {
            Outcome::Sent(_) => None,
            Outcome::Pending => Some(format!(" [waiting to be sent to {label}]")),
            Outcome::Refused { code, .. } => {
                Some(format!(" [refused for {label} ({})]", safe(code)))
            }
            Outcome::Doubtful => Some(format!(" [nobody can tell whether {label} has it]")),
            Outcome::Withdrawn => Some(format!(" [withdrawn for {label}]")),
        }
    });
    words.collect()
}

/// How far a message has come with its recipients, by their word and their clocks.
fn receipts(message: &Message, around: &Around) -> String {
    let receipts = message.receipts.iter().map(|(who, progress)| {
        let (word, at) = match (progress.read, progress.delivered) {
            (Some(at), _) => ("read", Some(at)),
            (None, at) => ("delivered", at),
        };
        let at = at.map(|at| utc(at.as_millis())).unwrap_or_default();
        match message.group {
            Some(_) if word == "read" => format!(" [read by {} {at}]", around.label_of(who)),
            Some(_) => format!(" [delivered to {} {at}]", around.label_of(who)),
            None => format!(" [{word} {at}]"),
        }
    });
    receipts.collect()
}

/// Each step of a message that was sent, a line for each.
pub fn progress_lines(message: &Message, around: &Around) -> Vec<String> {
    if message.direction == Direction::In {
        return Vec::new();
    }
    let at = |what: &str, at: u64| format!("  {what} {}", utc(at));
    let mut lines = vec![at("written", message.at.as_millis())];
    for (who, progress) in &message.receipts {
        let label = around.label_of(who);
        if let Some(delivered) = progress.delivered {
            lines.push(at(&format!("delivered to {label}"), delivered.as_millis()));
        }
        if let Some(read) = progress.read {
            lines.push(at(&format!("read by {label}"), read.as_millis()));
        }
    }
    if message.receipts.is_empty() && message.status == Status::Sent {
        lines.push("  sent; nobody has told more of it".to_owned());
    }
    lines
}

/// A group for a terminal: its name, how its id begins, its members.
pub fn group_line(group: &GroupInfo, around: &Around) -> String {
    let members: Vec<_> = group
        .members
        .iter()
        .map(|who| around.label_of(who))
        .collect();
    let (name, id) = (around.label_of_group(&group.id), group.id.to_string());
    let id = id.get(..8).unwrap_or_default().to_owned();
    let left = if group.is_member {
        ""
    } else {
        "  (you are not in it any more)"
    };
    format!("{name}  {id}  {}{left}", members.join(", "))
}

fn reactions(message: &Message, around: &Around) -> String {
    let reactions = message.acts.reactions.iter();
    reactions
        .map(|(by, emoji)| format!(" [{} {}]", safe(emoji), around.label_of(by)))
        .collect()
}

fn words(content: &Content, message: &Message, around: &Around, saved: Option<&PathBuf>) -> String {
    let quote = |id: &MessageId| around.quote(&message.conversation(), id);
    // What a person who wants it has to do, or need not do.
    let kept = match saved {
        Some(path) => format!("saved as {}", safe(&path.display().to_string())),
        None => "--all --save DIR saves it".to_owned(),
    };
    let not_theirs = if content.counts_from(&message.sender.box_id) {
        ""
    } else {
        ", which changes nothing: it is not theirs"
    };
    match content {
        Content::Text(text) => safe(text),
        Content::File(file) => {
            format!(
                "[file {}, {} bytes; {kept}]",
                safe(file.name()),
                file.bytes().len()
            )
        }
        Content::Picture(picture) => {
            let (width, height) = picture.size();
            let (kind, bytes) = (safe(picture.media_type()), picture.bytes().len());
            let caption = match picture.caption() {
                "" => String::new(),
                caption => format!(" {}", safe(caption)),
            };
            format!("[picture {kind}, {width}x{height}, {bytes} bytes; {kept}]{caption}")
        }
        Content::Voice(voice) => {
            let length = match voice.duration_ms() {
                0 => String::new(),
                known => format!(" of {}", number_of_seconds(known)),
            };
            let (kind, bytes) = (safe(voice.media_type()), voice.bytes().len());
            format!("[voice message{length}, {kind}, {bytes} bytes; {kept}]")
        }
        Content::Location(location) => {
            let (latitude, longitude) =
                (degrees(location.latitude()), degrees(location.longitude()));
            let accuracy = match location.accuracy_m() {
                0 => String::new(),
                metres => format!(", within {metres} m"),
            };
            let label = match location.label() {
                "" => String::new(),
                label => format!(" {}", safe(label)),
            };
            format!("[location {latitude}, {longitude}{accuracy}]{label}")
        }
        Content::Reply(reply) => {
            let said = words(reply.content(), message, around, saved);
            format!("[in reply to {}] {said}", quote(reply.to()))
        }
        Content::Reaction(reaction) => match reaction.emoji() {
            "" => format!("[takes the reaction to {} back]", quote(reaction.to())),
            emoji => format!("[reacts with {} to {}]", safe(emoji), quote(reaction.to())),
        },
        Content::Edit(edit) => {
            let number = number(around, message, &edit.message);
            format!("[edits {number}{not_theirs}] {}", safe(&edit.text))
        }
        Content::Delete(id) => {
            format!("[deletes {}{not_theirs}]", number(around, message, id))
        }
        Content::Receipt(receipt) => {
            let state = match receipt.state() {
                ReceiptState::Delivered => "has received",
                ReceiptState::Read => "has read",
            };
            let messages = receipt.messages().iter();
            let messages: Vec<_> = messages.map(|id| number(around, message, id)).collect();
            format!("[{state} {}]", messages.join(", "))
        }
        Content::Control(control) => {
            format!("[word between devices, topic {}]", control.topic)
        }
        Content::Unknown { kind, .. } => {
            format!("[something that this version does not know, kind {kind}; it is kept]")
        }
    }
}

fn number(around: &Around, message: &Message, id: &MessageId) -> String {
    match around.number_of(&message.conversation(), id) {
        Some(order) => format!("#{order}"),
        None => "a message that is not here".to_owned(),
    }
}

/// A length of time as a player shows it: `1:05`.
fn number_of_seconds(duration_ms: u32) -> String {
    let seconds = duration_ms.div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use rossby_client::envelope::{
        Control, Edit, File, Location, Picture, Reaction, Receipt, Reply, Voice,
    };
    use rossby_domain::ids::{BoxId, PartitionId};

    use super::super::example::message;
    use super::*;

    #[test]
    fn nothing_of_any_kind_can_steer_the_terminal() {
        let evil = "\u{1b}[2J\u{202e}";
        let text = Content::Text(evil.to_owned());
        let id = message(text.clone()).id().unwrap();
        let name = File::new("\u{202e}gpj.exe", "", vec![]).unwrap();
        let picture = Picture::new("image/png", (1, 1), evil, vec![]).unwrap();
        let contents = [
            text.clone(),
            Content::File(name),
            Content::Picture(picture),
            Content::Location(Location::new(1, 1, 1, "\u{202e}here").unwrap()),
            Content::Reaction(Reaction::new(id, "\u{202e}x").unwrap()),
            Content::Reply(Reply::new(id, text).unwrap()),
            Content::Edit(Edit {
                message: id,
                text: evil.to_owned(),
            }),
        ];
        for content in contents {
            let mut message = message(content.clone());
            let reaction = (message.sender.box_id, "\u{202e}👍".to_owned());
            message.acts.reactions.extend([reaction]);
            let line = message_line(&message, &Around::default(), None);
            assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
            assert!(line.contains('\u{fffd}'), "{line:?}");
        }
    }

    #[test]
    fn every_kind_is_said_in_words() {
        let line = |content| message_line(&message(content), &Around::default(), None);
        let place = Location::new(525_200_066, -134_049_540, 12, "Alexanderplatz").unwrap();
        let shown = line(Content::Location(place));
        let wanted = "[location 52.5200066, -13.404954, within 12 m] Alexanderplatz";
        assert!(shown.ends_with(wanted), "{shown}");
        let voice = Voice::new("audio/ogg", 64_001, vec![1, 2]).unwrap();
        let shown = line(Content::Voice(voice));
        assert!(
            shown.contains("[voice message of 1:05, audio/ogg, 2 bytes"),
            "{shown}"
        );
        let picture = Picture::new("image/png", (640, 480), "a cat", vec![1]).unwrap();
        let shown = line(Content::Picture(picture));
        assert!(
            shown.contains("[picture image/png, 640x480, 1 bytes;"),
            "{shown}"
        );
        assert!(shown.ends_with("] a cat"), "{shown}");
        let mut id = message(Content::Text(String::new())).id().unwrap();
        assert!(line(Content::Delete(id)).ends_with("[deletes a message that is not here]"));
        id.sender.box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[2; 32]);
        let shown = line(Content::Delete(id));
        assert!(shown.contains("changes nothing"), "{shown}");
        let later = Content::Unknown {
            kind: 99,
            version: 3,
            body: vec![1, 2, 3],
        };
        let shown = line(later);
        assert!(
            shown.contains("does not know, kind 99; it is kept"),
            "{shown}"
        );
        let word = Control {
            topic: 77,
            body: vec![1, 2, 3],
        };
        let shown = line(Content::Control(word));
        assert!(
            shown.ends_with("[word between devices, topic 77]"),
            "{shown}"
        );
        for (state, said) in [
            (ReceiptState::Delivered, "has received"),
            (ReceiptState::Read, "has read"),
        ] {
            let receipt = Receipt::new(state, vec![id]).unwrap();
            let shown = line(Content::Receipt(receipt));
            let wanted = format!("[{said} a message that is not here]");
            assert!(shown.ends_with(&wanted), "{shown}");
        }
        let file = File::new("map.bin", "image/x-map", vec![7; 9]).unwrap();
        let shown = line(Content::File(file));
        assert!(
            shown.contains("map.bin") && shown.contains("9 bytes"),
            "{shown}"
        );
        id.sender.box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
        let shown = line(Content::Reaction(Reaction::new(id, "👍").unwrap()));
        assert!(shown.contains("👍"), "{shown}");
        let text = "said better".to_owned();
        let shown = line(Content::Edit(Edit { message: id, text }));
        assert!(
            shown.ends_with("[edits a message that is not here] said better"),
            "{shown}"
        );
        let mut deleted = message(Content::Text("gone".to_owned()));
        deleted.acts.deleted = true;
        let shown = message_line(&deleted, &Around::default(), None);
        assert!(shown.ends_with("[deleted]"), "{shown}");
    }
}
