//! What a message is shown with: who is who, and which message another one refers to.

use std::collections::BTreeMap;

use rossby_client::Device;
use rossby_client::conversation::Conversation;
use rossby_client::device::{Claimed, Contact, GroupInfo, Message};
use rossby_client::envelope::{Content, MessageId};
use rossby_client::group::{GroupId, GroupName};
use rossby_domain::ids::BoxId;

use super::safe;
use crate::exit::Failure;

/// Characters of a message that another one refers to.
const EXCERPT: usize = 40;

/// What messages are shown with.
#[derive(Debug, Default)]
pub struct Around {
    contacts: Vec<Contact>,
    /// This device's own box.
    own: Option<BoxId>,
    groups: Vec<GroupInfo>,
    /// What people call themselves who have said so.
    claimed: BTreeMap<BoxId, String>,
    /// Messages by their conversation and id. Without an own number if they are not here.
    named: BTreeMap<(Conversation, MessageId), (u64, String)>,
}

impl Around {
    /// What these messages are shown with.
    ///
    /// # Errors
    /// If the device's store can't be read.
    pub fn of(device: &Device, messages: &[Message]) -> Result<Self, Failure> {
        let refers = |message: &Message| {
            let content = message.content.as_ref();
            content.is_some_and(|content| !content.about().is_empty())
        };
        let mut around = Self {
            contacts: device.contacts()?,
            own: device.who_am_i()?.box_id,
            groups: device.groups()?,
            claimed: device.profiles()?.into_iter().filter_map(name_in).collect(),
            named: BTreeMap::new(),
        };
        // Reading all of them is for nothing most of the time.
        if messages.iter().any(refers) {
            let all = device.messages()?;
            around.named = all.iter().filter_map(named).collect();
        }
        Ok(around)
    }

    /// What to call somebody.
    pub fn label_of(&self, box_id: &BoxId) -> String {
        if self.own.as_ref() == Some(box_id) {
            return "you".to_owned();
        }
        let known = self.contact(box_id).map(Contact::label);
        let known = known.unwrap_or_else(|| box_id.to_string());
        match self.claimed_name(box_id).filter(|name| *name != known) {
            Some(name) => format!("{} (says: {})", safe(&known), safe(name)),
            None => safe(&known),
        }
    }

    /// What somebody calls themselves.
    pub fn claimed_name(&self, box_id: &BoxId) -> Option<&str> {
        self.claimed.get(box_id).map(String::as_str)
    }

    /// A group that is known.
    pub fn group(&self, id: &GroupId) -> Option<&GroupInfo> {
        self.groups.iter().find(|group| group.id == *id)
    }

    /// What to call a group.
    pub fn label_of_group(&self, id: &GroupId) -> String {
        let name = self.group(id).and_then(|group| group.name.as_ref());
        safe(name.map_or("a group without a name", GroupName::as_str))
    }

    /// Somebody known.
    pub fn contact(&self, box_id: &BoxId) -> Option<&Contact> {
        self.contacts
            .iter()
            .find(|contact| contact.box_id == *box_id)
    }

    /// The number on this device of a message in a conversation.
    pub fn number_of(&self, conversation: &Conversation, id: &MessageId) -> Option<u64> {
        self.named
            .get(&(*conversation, *id))
            .map(|(order, _)| *order)
    }

    /// The same in words, with how the message begins.
    pub fn quote(&self, conversation: &Conversation, id: &MessageId) -> String {
        match self.named.get(&(*conversation, *id)) {
            Some((order, excerpt)) if excerpt.is_empty() => format!("#{order}"),
            Some((order, excerpt)) => format!("#{order} \"{excerpt}\""),
            None => "a message that is not here".to_owned(),
        }
    }
}

fn name_in((box_id, claimed): (BoxId, Claimed)) -> Option<(BoxId, String)> {
    let name = claimed.profile.name().to_owned();
    (!name.is_empty()).then_some((box_id, name))
}

fn named(message: &Message) -> Option<((Conversation, MessageId), (u64, String))> {
    let key = (message.conversation(), message.id()?);
    let excerpt = message.content.as_ref().map(excerpt).unwrap_or_default();
    Some((key, (message.order, excerpt)))
}

/// How a message begins.
fn excerpt(content: &Content) -> String {
    let text = match content.said() {
        Some(Content::Text(text)) => text.as_str(),
        Some(Content::Picture(picture)) => picture.caption(),
        Some(Content::Location(location)) => location.label(),
        Some(Content::File(file)) => file.name(),
        _ => "",
    };
    let line = text.lines().next().unwrap_or_default();
    let mut excerpt: String = safe(line).chars().take(EXCERPT).collect();
    if excerpt.len() < text.len() && !excerpt.is_empty() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_of_a_text_is_quoted() {
        let quoted = |text: &str| excerpt(&Content::Text(text.to_owned()));
        assert_eq!(quoted("short"), "short");
        assert_eq!(quoted("one\ntwo"), "one…");
        assert_eq!(
            quoted(&"é".repeat(100)),
            format!("{}…", "é".repeat(EXCERPT))
        );
        assert_eq!(quoted("\u{1b}[2J"), "\u{fffd}[2J");
    }
}
