//! Who is in a group and what it is called, as all its pages together say.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rossby_domain::ids::BoxId;

use super::{Group, GroupName, MAX_MEMBERS};

/// Who is in a group and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The members, those first who stand nearer to who made it.
    pub members: Vec<BoxId>,
    /// The name; `None` if nobody who counts has given one.
    pub name: Option<GroupName>,
    /// Whose word counts: the members, and who has left.
    pub(super) heard: Vec<BoxId>,
    /// How many names there were.
    pub(super) names: u64,
    /// What counts of each: how often they were put in or out.
    pub(super) counts: BTreeMap<BoxId, u32>,
}

impl View {
    /// Whether a box is a member.
    #[must_use]
    pub fn has(&self, box_id: &BoxId) -> bool {
        self.members.contains(box_id)
    }
}

impl Group {
    /// Who is in it and what it is called.
    ///
    /// From its maker outwards: each who is in says who else is in or out, and of each person the first word
    /// counts. Who has left is heard on about those whom they had added.
    #[must_use]
    pub fn view(&self) -> View {
        let maker = self.origin.maker;
        let (mut members, mut name) = (Vec::new(), None);
        let mut counts = BTreeMap::from([(maker, 1)]);
        let mut heard = vec![maker];
        let mut next = 0;
        while let Some(by) = heard.get(next).copied() {
            next += 1;
            let words = self.words_of(&by);
            let (count, left) = (counts.get(&by), words.get(&by));
            if count > left && members.len() < MAX_MEMBERS {
                members.push(by);
            }
            let names = self.pages_of(&by).filter_map(|page| page.name.clone());
            name = name.max(names.max());
            for (who, count) in words {
                if let Entry::Vacant(entry) = counts.entry(who) {
                    entry.insert(count);
                    heard.extend((count % 2 == 1).then_some(who));
                }
            }
        }
        let names = name.as_ref().map_or(0, |(stamp, _)| *stamp);
        View {
            members,
            name: name.map(|(_, name)| name),
            heard,
            names,
            counts,
        }
    }

    /// What a box's devices say together.
    pub(super) fn words_of(&self, box_id: &BoxId) -> BTreeMap<BoxId, u32> {
        let mut words = BTreeMap::new();
        for (who, count) in self.pages_of(box_id).flat_map(|page| &page.verdicts) {
            let word = words.entry(*who).or_insert(*count);
            *word = (*word).max(*count);
        }
        words
    }
}
