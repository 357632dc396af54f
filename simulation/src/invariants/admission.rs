//! Admission: no node becomes a member by a token that was revoked, that another try has used or that has expired,
//! nor without one, unless the operator puts it in the map by himself; and a number is given out once.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{MapVersion, NodeId};
use rossby_domain::time::Timestamp;

use super::Invariant;
use crate::known::Known;
use crate::observe::{AdmissionEvent, Digest, Observation, SimTime, What, Who};

/// How far a clock may be from a quorum's and still stamp, in milliseconds.
const SKEW_MS: i64 = 10_000;

/// What is known of a node's number that is not one of the first.
#[derive(Debug, Default)]
struct Number {
    /// The operator put it in the map by himself.
    put: bool,
    /// He did so, or may have, when it had been in the map before.
    put_again: bool,
    token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    expires_at: Timestamp,
    revoked: bool,
    /// Who has shown it, and whether some clock of the cluster took it for good then, or after.
    tries: BTreeMap<Digest, bool>,
    let_in: Option<Digest>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Admission {
    wall: Timestamp,
    /// How far clocks are from the world's time at least.
    offsets: BTreeMap<Who, i64>,
    founders: Option<BTreeSet<NodeId>>,
    numbers: BTreeMap<NodeId, Number>,
    maps: BTreeMap<MapVersion, BTreeSet<NodeId>>,
}

impl Admission {
    /// The latest time that every clock of the cluster has surely passed.
    fn surely_passed(&self, at: SimTime) -> Timestamp {
        // One that nobody has set shows the world's time.
        let lowest = self.offsets.values().copied().fold(0, i64::min);
        let now = self.wall.as_millis().saturating_add(at.0);
        Timestamp::from_millis(now.saturating_add_signed(lowest.saturating_sub(SKEW_MS)))
    }

    /// A clock was set: an earlier try may be judged by it yet.
    fn set_clock(&mut self, who: Who, offset_ms: i64, at: SimTime) {
        self.offsets.insert(who, offset_ms);
        let passed = self.surely_passed(at);
        let tokens = self
            .numbers
            .values_mut()
            .filter_map(|number| number.token.as_mut());
        for token in tokens.filter(|token| passed < token.expires_at) {
            token.tries.values_mut().for_each(|good| *good = true);
        }
    }

    fn happened(
        &mut self,
        node: NodeId,
        event: &AdmissionEvent,
        at: SimTime,
    ) -> Result<(), String> {
        let was_in = self.maps.values().any(|nodes| nodes.contains(&node));
        let passed = self.surely_passed(at);
        let number = self.numbers.entry(node).or_default();
        match (event, &mut number.token) {
            (AdmissionEvent::Put, _) => {
                number.put |= !was_in;
                number.put_again |= was_in;
                Ok(())
            }
            (AdmissionEvent::Issued { .. }, Some(_)) => {
                Err(format!("number {node} is given out with two tokens"))
            }
            (AdmissionEvent::Issued { .. }, None) if was_in && !number.put => Err(format!(
                "number {node} is given out with a token, and a node had it before"
            )),
            (AdmissionEvent::Issued { expires_at }, None) => {
                number.token = Some(Token {
                    expires_at: *expires_at,
                    revoked: false,
                    tries: BTreeMap::new(),
                    let_in: None,
                });
                Ok(())
            }
            (_, None) => Err(format!("nobody was given a token for node {node}")),
            (AdmissionEvent::Revoked, Some(token)) => {
                token.revoked = true;
                match token.let_in.is_some() || (was_in && !number.put) {
                    true => Err(format!(
                        "the token of node {node} is revoked, and it was let in"
                    )),
                    false => Ok(()),
                }
            }
            (AdmissionEvent::Shown { attempt }, Some(token)) => {
                *token.tries.entry(*attempt).or_default() |= passed < token.expires_at;
                Ok(())
            }
            (AdmissionEvent::LetIn { attempt }, Some(token)) => token.let_in(node, *attempt),
            (AdmissionEvent::TurnedAway { .. }, Some(_)) => Ok(()),
        }
    }

    fn knows(&mut self, version: MapVersion, nodes: &BTreeSet<NodeId>) -> Result<(), String> {
        self.founders.get_or_insert_with(|| nodes.clone());
        if self.maps.contains_key(&version) {
            return Ok(());
        }
        self.maps.insert(version, nodes.clone());
        let founders = self.founders.iter().flatten();
        let founders: BTreeSet<NodeId> = founders.copied().collect();
        for node in nodes.difference(&founders) {
            let number = self.numbers.get(node);
            let number = number.ok_or_else(|| unasked(version, *node))?;
            match &number.token {
                _ if number.put => {}
                None => return Err(unasked(version, *node)),
                Some(token) => {
                    token
                        .lets_in()
                        .map_err(|why| format!("node {node} is in map {version}, and {why}"))?;
                    if !number.put_again && self.comings(*node) > 1 {
                        return Err(format!(
                            "node {node} came by a token, left, and is in map {version} again"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// How often a node came into the map, as far as its versions are known.
    fn comings(&self, node: NodeId) -> usize {
        let is_in: Vec<bool> = self
            .maps
            .values()
            .map(|nodes| nodes.contains(&node))
            .collect();
        let first = usize::from(is_in.first() == Some(&true));
        first
            + is_in
                .windows(2)
                .filter(|pair| *pair == [false, true])
                .count()
    }
}

impl Token {
    /// Whether a node may be in the map by it.
    fn lets_in(&self) -> Result<(), &'static str> {
        match self.tries.values().any(|good| *good) {
            _ if self.revoked => Err("its token was revoked"),
            true => Ok(()),
            false if self.tries.is_empty() => Err("nobody has shown its token"),
            false => Err("its token had expired when it was shown"),
        }
    }

    fn let_in(&mut self, node: NodeId, attempt: Digest) -> Result<(), String> {
        let by = |why: &str| Err(format!("try {attempt} of node {node} is let in, and {why}"));
        let earlier = *self.let_in.get_or_insert(attempt);
        match self.tries.get(&attempt) {
            _ if self.revoked => by("its token was revoked"),
            _ if earlier != attempt => by(&format!("try {earlier} had used its token")),
            None => by("has not shown its token"),
            Some(false) => by("its token had expired"),
            Some(true) => Ok(()),
        }
    }
}

fn unasked(version: MapVersion, node: NodeId) -> String {
    format!("node {node} is in map {version}, and nobody let it in")
}

impl Invariant for Admission {
    fn name(&self) -> &'static str {
        "admission"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let (at, who) = (observation.at, observation.who);
        match &observation.what {
            What::Began { wall, .. } => self.wall = *wall,
            What::ClockSet { offset_ms } => self.set_clock(who, *offset_ms, at),
            What::ClockDrifts { upto_ms, .. } => {
                let known = self.offsets.get(&who).copied().unwrap_or_default();
                self.set_clock(who, known.min(*upto_ms), at);
            }
            What::Admission { node, event } => return self.happened(*node, event, at),
            What::KnowsMap { version, nodes, .. } => return self.knows(*version, nodes),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught, node};

    const TRY: Digest = Digest([1; 16]);
    const OTHER: Digest = Digest([2; 16]);
    const EXPIRES_MS: u64 = 60_000;

    /// Nodes 1 to 3 found the cluster at time 0, and a token is issued for node 4.
    fn issued() -> Story {
        let mut story = Story::default();
        let wall = Timestamp::from_millis(0);
        let envelope_ttl_ms = 1;
        story.push(
            Who::World,
            What::Began {
                wall,
                envelope_ttl_ms,
                reset_delay_ms: 0,
            },
        );
        knows(&mut story, 1, &[1, 2, 3]);
        let expires_at = Timestamp::from_millis(EXPIRES_MS);
        tell(&mut story, AdmissionEvent::Issued { expires_at });
        story
    }

    fn tell(story: &mut Story, event: AdmissionEvent) {
        let node = NodeId(4);
        story.push(Who::World, What::Admission { node, event });
    }

    fn shown(story: &mut Story, attempt: Digest) {
        tell(story, AdmissionEvent::Shown { attempt });
    }

    fn let_in(story: &mut Story, attempt: Digest) {
        tell(story, AdmissionEvent::LetIn { attempt });
    }

    fn knows(story: &mut Story, version: u64, nodes: &[u64]) {
        let what = What::KnowsMap {
            version: MapVersion(version),
            nodes: nodes.iter().copied().map(NodeId).collect(),
            content: Digest([0; 16]),
        };
        story.push(node(1), what);
    }

    fn what(story: &Story) -> String {
        caught(Admission::default(), story).unwrap().what
    }

    #[test]
    fn a_node_comes_by_a_token_that_it_may_show_again_and_others_may_not() {
        let mut story = issued();
        for _ in 0..2 {
            shown(&mut story, TRY);
            let_in(&mut story, TRY);
            knows(&mut story, 2, &[1, 2, 3, 4]);
        }
        shown(&mut story, OTHER);
        let (attempt, reason) = (OTHER, "used".to_owned());
        tell(&mut story, AdmissionEvent::TurnedAway { attempt, reason });
        knows(&mut story, 3, &[1, 2, 3]);
        assert_eq!(caught(Admission::default(), &story), None);
        knows(&mut story, 5, &[1, 2, 3, 4]);
        assert!(what(&story).contains("again"), "{}", what(&story));
    }

    #[test]
    fn a_node_that_the_operator_puts_in_needs_no_token() {
        let mut story = issued();
        let (put, node) = (AdmissionEvent::Put, NodeId(5));
        story.push(Who::World, What::Admission { node, event: put });
        knows(&mut story, 2, &[1, 2, 3, 5]);
        knows(&mut story, 3, &[1, 2, 3]);
        knows(&mut story, 4, &[1, 2, 3, 5]);
        assert_eq!(caught(Admission::default(), &story), None);
        knows(&mut story, 5, &[1, 2, 3, 5, 6]);
        assert!(
            what(&story).contains("nobody let it in"),
            "{}",
            what(&story)
        );
    }

    #[test]
    fn a_token_that_was_used_lets_no_other_try_in() {
        let mut story = issued();
        for attempt in [TRY, OTHER] {
            shown(&mut story, attempt);
            let_in(&mut story, attempt);
        }
        assert!(what(&story).contains("had used"), "{}", what(&story));
    }

    #[test]
    fn a_token_that_was_revoked_lets_nobody_in_whatever_is_heard_first() {
        let mut story = issued();
        shown(&mut story, TRY);
        let mut late = story.clone();
        tell(&mut story, AdmissionEvent::Revoked);
        let mut mapped = story.clone();
        let_in(&mut story, TRY);
        assert!(what(&story).contains("was revoked"), "{}", what(&story));
        knows(&mut mapped, 2, &[1, 2, 3, 4]);
        assert!(what(&mapped).contains("was revoked"), "{}", what(&mapped));
        let_in(&mut late, TRY);
        tell(&mut late, AdmissionEvent::Revoked);
        assert!(what(&late).contains("is revoked"), "{}", what(&late));
    }

    #[test]
    fn a_token_that_has_surely_expired_lets_nobody_in() {
        for (late_ms, is_caught) in [(5_000, false), (11_000, true)] {
            let mut story = issued();
            story.wait(EXPIRES_MS + late_ms);
            shown(&mut story, TRY);
            let mut mapped = story.clone();
            let_in(&mut story, TRY);
            knows(&mut mapped, 2, &[1, 2, 3, 4]);
            for story in [story, mapped] {
                let caught = caught(Admission::default(), &story);
                assert_eq!(caught.is_some(), is_caught, "{late_ms}: {caught:?}");
            }
        }
        // By a clock that is behind it is good still.
        let mut story = issued();
        story.push(node(1), What::ClockSet { offset_ms: -9_000 });
        story.wait(EXPIRES_MS + 11_000);
        shown(&mut story, TRY);
        let_in(&mut story, TRY);
        assert_eq!(caught(Admission::default(), &story), None);
    }

    #[test]
    fn a_number_is_given_out_once() {
        let mut story = issued();
        let expires_at = Timestamp::from_millis(EXPIRES_MS);
        tell(&mut story, AdmissionEvent::Issued { expires_at });
        assert!(what(&story).contains("two tokens"), "{}", what(&story));
        let mut had = issued();
        let (issued, node) = (AdmissionEvent::Issued { expires_at }, NodeId(3));
        had.push(
            Who::World,
            What::Admission {
                node,
                event: issued,
            },
        );
        assert!(what(&had).contains("had it before"), "{}", what(&had));
    }
}
