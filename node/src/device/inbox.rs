//! `rossby inbox`.

use std::collections::BTreeMap;

use rossby_client::conversation::Conversation;
use rossby_client::device::{Message, Status};
use rossby_client::envelope::{Content, MessageId};
use serde_json::json;

use super::accept;
use super::args::InboxArgs;
use super::devices::{news_json, note_news};
use super::open::open;
use super::queue;
use super::receipts::tell_read;
use super::saving::save_files;
use super::send::resend_quietly;
use super::show::{self, Around};
use crate::exit::Failure;
use crate::output;

/// Fetches what is new, and shows it.
pub async fn run(args: &InboxArgs) -> Result<(), Failure> {
    let device = open(&args.device)?;
    if args.status {
        return queue::status(&device, args.device.json).await;
    }
    resend_quietly(&device).await?;
    // What a listener stored and did not come to show.
    let mut new = device.unshown()?;
    let (received, status, interrupted) = match device.receive().await {
        Ok(received) => (
            received.messages,
            Some(received.status),
            received.interrupted,
        ),
        // What this device has already can be shown without the service.
        Err(error) if args.all => (Vec::new(), None, Some(error)),
        Err(error) => return Err(error.into()),
    };
    new.extend(received);
    let reset_at = status.and_then(|status| status.reset_at);
    let messages = if args.all { device.messages()? } else { new };
    let (saved, unsaved) = match &args.save {
        Some(folder) => save_files(folder, &messages, device.who_am_i()?.device),
        None => Default::default(),
    };
    let around = Around::of(&device, &messages)?;
    let changed = device.changed_groups()?;
    let news = note_news(&device)?;
    if args.device.json {
        let messages: Vec<_> = messages
            .iter()
            .map(|message| show::message(message, &around, saved.get(&message.order)))
            .collect();
        output::json(&json!({
            "messages": messages,
            "expired_unread": status.map(|status| status.expired_total),
            "identifier_goes_at_ms": reset_at.map(|at| at.as_millis()),
            "device_news": news.iter().map(news_json).collect::<Vec<_>>(),
            "changed_groups": changed.iter().map(|group| show::group(group, &around)).collect::<Vec<_>>(),
            "interrupted": interrupted.as_ref().map(ToString::to_string),
        }))?;
    } else {
        if messages.is_empty() && changed.is_empty() && interrupted.is_none() {
            output::note("nothing new");
        }
        for group in &changed {
            output::note(show::group_line(group, &around));
        }
        let shown: BTreeMap<_, _> = messages.iter().filter_map(named).collect();
        for message in &messages {
            if !is_seen_elsewhere(message, &shown) {
                let file = saved.get(&message.order);
                output::line(show::message_line(message, &around, file));
            }
        }
    }
    queue::note_changed_ttl(&device)?;
    accept::note_otherwise(&device)?;
    for message in &messages {
        if let Some(alarm) = show::alarm(message, &around) {
            output::note(alarm);
        }
    }
    if let Some(at) = reset_at {
        output::note(show::contested(at));
    }
    if let Some(last) = messages.last() {
        device.mark_shown(last.order.saturating_add(1))?;
    }
    tell_read(&device, &messages).await?;
    // Only now: the messages are shown, whatever became of their files.
    match (interrupted, unsaved) {
        (None, None) => Ok(()),
        (None, Some(failure)) => Err(failure),
        (Some(error), _) => {
            let failure = Failure::from(error);
            let what = format!("not all could be fetched: {}", failure.message);
            Err(Failure::new(failure.exit, what).help("what is shown is stored; try again"))
        }
    }
}

type Shown<'a> = BTreeMap<(Conversation, MessageId), &'a Message>;

fn named(message: &Message) -> Option<((Conversation, MessageId), &Message)> {
    message
        .id()
        .map(|id| ((message.conversation(), id), message))
}

/// Whether what a message does is seen from another one that is shown: it is a line too many then.
fn is_seen_elsewhere(message: &Message, shown: &Shown<'_>) -> bool {
    let took_effect = matches!(message.status, Status::Received | Status::Sent);
    let Some(act @ (Content::Edit(_) | Content::Delete(_) | Content::Reaction(_))) =
        &message.content
    else {
        return false;
    };
    let is_shown = |about: &MessageId| {
        let subject = shown.get(&(message.conversation(), *about));
        subject.is_some_and(|subject| match act {
            _ if subject.acts.deleted => true,
            Content::Edit(_) => subject.acts.edited,
            Content::Reaction(_) => subject.content.as_ref().and_then(Content::said).is_some(),
            _ => false,
        })
    };
    took_effect && act.counts_from(&message.sender.box_id) && act.about().iter().all(is_shown)
}
