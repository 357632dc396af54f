//! `rossby send`.

use std::io::Read;
use std::path::Path;

use rossby_client::conversation::Conversation;
use rossby_client::device::{Delivery, Sent};
use rossby_client::envelope::{Content, File, Location, layout};
use rossby_client::group::GroupId;
use rossby_client::{Device, DeviceError};
use serde_json::{Value, json};

use super::acting::find_message;
use super::args::{SendArgs, WhatArgs};
use super::failure::of_refusal;
use super::media::{picture_of, voice_of};
use super::open::open;
use super::person::find_box;
use super::show;
use crate::exit::{Exit, Failure};
use crate::output;

/// Sends a message, or again what is pending.
pub async fn run(args: &SendArgs) -> Result<(), Failure> {
    if args.retry {
        return retry(args).await;
    }
    let to = args.to.as_deref().unwrap_or_default();
    let content = content_of(args.text.as_deref(), &args.what)?;
    let device = open(&args.device)?;
    let recipient = Conversation::With(find_box(&device, to).await?);
    let sent = say(&device, &recipient, content, &args.what).await?;
    report(&device, &recipient, sent, args.device.json)
}

/// Sends something in a conversation, or answers with it.
pub async fn say(
    device: &Device,
    conversation: &Conversation,
    content: Content,
    what: &WhatArgs,
) -> Result<Vec<Sent>, Failure> {
    if let Some(which) = &what.reply_to {
        let message = find_message(device, which)?;
        if message.conversation() != *conversation {
            let what = "the message to answer is of another conversation";
            return Err(Failure::new(Exit::Usage, what));
        }
        return Ok(device.reply_for(&message, content, what.ttl).await?);
    }
    Ok(match conversation {
        Conversation::With(to) => vec![device.send_for(to, &content, what.ttl).await?],
        Conversation::In(group) => device.send_to_group_for(group, &content, what.ttl).await?,
    })
}

/// Says what became of a message, for each whom it went to.
pub fn report(
    device: &Device,
    conversation: &Conversation,
    sent: Vec<Sent>,
    as_json: bool,
) -> Result<(), Failure> {
    match (conversation, &sent[..]) {
        (Conversation::In(group), _) => report_of_group(device, group, &sent, as_json)?,
        (_, [sent]) if as_json => output::json(&json_of(sent))?,
        (_, [sent]) => {
            if let Delivery::Delivered(_) = &sent.delivery {
                output::line(format!("delivered to their box as #{}", sent.order));
            }
        }
        _ => {}
    }
    // The first thing that went wrong decides the exit code.
    match sent.into_iter().find_map(|sent| failure_of(sent.delivery)) {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

fn report_of_group(
    device: &Device,
    group: &GroupId,
    sent: &[Sent],
    as_json: bool,
) -> Result<(), Failure> {
    let order = sent.first().map(|sent| sent.order);
    if as_json {
        let outcomes: Vec<_> = sent.iter().map(json_of).collect();
        let group = group.to_string();
        return output::json(&json!({ "message": order, "group": group, "outcomes": outcomes }));
    }
    let around = show::Around::of(device, &[])?;
    for sent in sent {
        let what = match &sent.delivery {
            Delivery::Delivered(_) => "delivered to their box".to_owned(),
            Delivery::Pending(error) => {
                format!("waiting to be sent: {}", show::safe(&error.to_string()))
            }
            Delivery::Refused(refusal) => format!("refused: {}", show::safe(&refusal.message)),
            Delivery::Doubtful => "nobody can tell whether it arrived".to_owned(),
        };
        output::line(format!(
            "#{} {}: {what}",
            sent.order,
            around.label_of(&sent.recipient)
        ));
    }
    Ok(())
}

async fn retry(args: &SendArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    let sent = device.resend().await?;
    let waiting = device.pending()?;
    if args.device.json {
        let sent: Vec<_> = sent.iter().map(json_of).collect();
        output::json(&json!({ "sent": sent, "pending": waiting }))?;
    } else {
        output::line(summary(&sent, waiting));
    }
    // The first thing that went wrong decides the exit code.
    match sent.into_iter().find_map(|sent| failure_of(sent.delivery)) {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

fn summary(sent: &[Sent], waiting: usize) -> String {
    let delivered = sent
        .iter()
        .filter(|sent| matches!(sent.delivery, Delivery::Delivered(_)))
        .count();
    match (delivered, waiting) {
        (0, 0) => "nothing is waiting to be sent".to_owned(),
        (delivered, waiting) => format!("{delivered} delivered, {waiting} waiting"),
    }
}

/// Sends what is pending on the way to something else; says so only if there was any.
pub async fn resend_quietly(device: &Device) -> Result<(), Failure> {
    if device.pending()? == 0 {
        return Ok(());
    }
    match device.resend().await {
        Ok(sent) => {
            output::note(summary(&sent, device.pending()?));
            let failures = sent
                .into_iter()
                .filter_map(|sent| failure_of(sent.delivery));
            // The rest passes by itself; this does not.
            failures
                .filter(|failure| failure.exit == Exit::IdentityChanged)
                .for_each(output::note);
        }
        Err(error) => output::note(format!("rossby: not sent: {}", Failure::from(error))),
    }
    Ok(())
}

/// What is to be sent.
pub fn content_of(text: Option<&str>, args: &WhatArgs) -> Result<Content, Failure> {
    let text = match text {
        Some(text) => given_text(text)?,
        None => String::new(),
    };
    let media_type = args.media_type.as_deref();
    let content = if let Some(path) = &args.file {
        file_of(path, media_type.unwrap_or_default())?
    } else if let Some(path) = &args.picture {
        Content::Picture(picture_of(read_file(path)?, &text)?)
    } else if let Some(path) = &args.voice {
        Content::Voice(voice_of(read_file(path)?, media_type, args.duration)?)
    } else if let Some((latitude, longitude)) = args.location {
        let location = Location::new(latitude, longitude, args.accuracy, &args.label);
        Content::Location(location.map_err(DeviceError::from)?)
    } else {
        Content::Text(text)
    };
    content.encode().map_err(DeviceError::from)?;
    Ok(content)
}

/// A text of the command line, or of standard input. Never none at all.
pub fn given_text(text: &str) -> Result<String, Failure> {
    let text = match text {
        "-" => read_text(std::io::stdin())?,
        text => text.to_owned(),
    };
    if text.is_empty() {
        return Err(Failure::new(Exit::Usage, "there is nothing to send"));
    }
    Ok(text)
}

/// A text to its end, without the line breaks there. Never a part of it.
fn read_text(from: impl std::io::Read) -> Result<String, Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("cannot read standard input: {what}"))
    };
    let bytes = at_most_one_too_many(from).map_err(|error| failed(&error))?;
    if bytes.len() > layout::MAX_CONTENT_BYTES {
        return Err(too_large("the text", "a text"));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// All there is, but never much more than can be sent: what a pipe or a device holds has no end.
fn at_most_one_too_many(source: impl Read) -> std::io::Result<Vec<u8>> {
    let most = u64::try_from(layout::MAX_CONTENT_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    source
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_large(what: &str, kind: &str) -> Failure {
    let most = layout::MAX_CONTENT_BYTES / 1024;
    Failure::new(Exit::Refused, format!("{what} is too large to send")).help(format!(
        "{kind} in an envelope has at most about {most} KiB"
    ))
}

/// A file's bytes, if they can be sent at all.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(
            Exit::Failure,
            format!("cannot read {}: {error}", path.display()),
        )
    };
    let bytes = std::fs::File::open(path)
        .and_then(at_most_one_too_many)
        .map_err(unreadable)?;
    if bytes.len() > layout::MAX_CONTENT_BYTES {
        return Err(too_large(&path.display().to_string(), "a file"));
    }
    Ok(bytes)
}

fn file_of(path: &Path, media_type: &str) -> Result<Content, Failure> {
    let bytes = read_file(path)?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let file = File::new(&name, media_type, bytes).map_err(DeviceError::from)?;
    Ok(Content::File(file))
}

fn json_of(sent: &Sent) -> Value {
    let mut value = json!({ "message": sent.order, "to": sent.recipient.to_string() });
    let more = match &sent.delivery {
        Delivery::Delivered(sequence) => {
            json!({ "status": "delivered", "sequence": sequence.0 })
        }
        Delivery::Pending(error) => json!({ "status": "pending", "reason": error.to_string() }),
        Delivery::Refused(refusal) => {
            json!({ "status": "refused", "code": refusal.code, "reason": refusal.message })
        }
        Delivery::Doubtful => json!({ "status": "doubtful" }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

fn failure_of(delivery: Delivery) -> Option<Failure> {
    match delivery {
        Delivery::Delivered(_) => None,
        Delivery::Pending(error) => {
            let failure = Failure::from(error);
            let what = format!("not known to be delivered: {}", failure.message);
            let kept = "the message is kept; rossby send --retry, rossby inbox or the next message \
                        to them sends it, never twice";
            let help = match failure.help {
                Some(help) if matches!(failure.exit, Exit::IdentityChanged | Exit::Config) => {
                    format!("{help}. Meanwhile {kept}")
                }
                // Anything else would have them type it again.
                _ => kept.to_owned(),
            };
            Some(Failure::new(failure.exit, what).help(help))
        }
        Delivery::Refused(refusal) => Some(of_refusal(&refusal)),
        Delivery::Doubtful => Some(
            Failure::new(
                Exit::OutcomeUnknown,
                "nobody can tell whether this message arrived",
            )
            .help("ask them; it will not be sent again by itself"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_to_its_end_or_not_at_all() {
        assert_eq!(read_text(&b"one\ntwo\n\n"[..]).unwrap(), "one\ntwo");
        assert!(read_text(&b"\xff"[..]).is_err());
        // What is cut off must not be taken for line breaks at the end.
        let text = format!("start{}end", "\n".repeat(layout::MAX_CONTENT_BYTES));
        assert_eq!(read_text(text.as_bytes()).unwrap_err().exit, Exit::Refused);
    }
}
