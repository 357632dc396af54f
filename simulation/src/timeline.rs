//! What happened last, for people: aligned columns of time, who and what.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::observe::{Observation, ReplicaEvent, What};

/// How many observations are kept.
const KEPT: usize = 100;

/// The last observations that help to understand a violation.
#[derive(Debug, Default)]
pub struct Timeline {
    lines: VecDeque<Observation>,
    left_out: u64,
}

impl Timeline {
    /// Takes in what happened next. What only repeats what others say is left out.
    pub fn push(&mut self, observation: &Observation) {
        if !is_telling(&observation.what) {
            return;
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
            self.left_out += 1;
        }
        self.lines.push_back(observation.clone());
    }

    /// The text: one line for each observation, the oldest first.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if self.left_out > 0 {
            let _ = writeln!(text, "({} earlier lines are left out)", self.left_out);
        }
        let widest = |of: fn(&Observation) -> String| {
            let widths = self.lines.iter().map(|line| of(line).chars().count());
            widths.max().unwrap_or(0)
        };
        let time = widest(|line| line.at.to_string());
        let who = widest(|line| line.who.to_string());
        for line in &self.lines {
            let (at, whose, what) = (line.at, line.who, &line.what);
            let _ = writeln!(text, "{at:>time$}  {whose:<who$}  {what}");
        }
        text
    }
}

/// Entries appended, applied and made durable one by one would hide all the rest.
fn is_telling(what: &What) -> bool {
    let What::Replica { event, .. } = what else {
        return true;
    };
    !matches!(
        event,
        ReplicaEvent::State { .. }
            | ReplicaEvent::Ruled { .. }
            | ReplicaEvent::Applied { .. }
            | ReplicaEvent::Appended { .. }
            | ReplicaEvent::Committed { .. }
            | ReplicaEvent::Flushed { .. }
    )
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
    use rossby_storage::LogPosition;

    use super::*;
    use crate::observe::{CallId, ClientId, Digest, Loss, Request, SimTime, Who};

    fn at(ms: u64, who: Who, what: What) -> Observation {
        let at = SimTime(ms);
        Observation { at, who, what }
    }

    #[test]
    fn columns_are_aligned_and_noise_is_left_out() {
        let mut timeline = Timeline::default();
        let replica = |event| What::Replica {
            group: GroupId(1),
            replica: ReplicaId(101),
            event,
        };
        let position = LogPosition { term: 2, index: 7 };
        let request = Request::Other("register".into());
        let call = CallId(4);
        for line in [
            at(7, Who::World, What::FaultOn("node 1 is cut off".into())),
            at(
                12_045,
                Who::Client(ClientId(12)),
                What::Called { call, request },
            ),
            at(
                12_046,
                Who::Node(NodeId(1)),
                replica(ReplicaEvent::Applied {
                    position,
                    entry: Digest::of(b"entry"),
                }),
            ),
            at(
                12_050,
                Who::Node(NodeId(1)),
                replica(ReplicaEvent::CheckpointPublished { at: position }),
            ),
            at(
                12_051,
                Who::Node(NodeId(1)),
                What::Crashed { loss: Loss::Torn },
            ),
        ] {
            timeline.push(&line);
        }
        let expected = "\
             \u{20}0.007s  world      fault begins: node 1 is cut off\n\
             12.045s  client 12  call 4 begins: register\n\
             12.050s  node 1     replica 101 of group 1 publishes its checkpoint at 2.7\n\
             12.051s  node 1     loses power, and some of what was not synced\n";
        assert_eq!(timeline.render(), expected);
    }

    #[test]
    fn it_stays_bounded_and_says_what_it_left_out() {
        let mut timeline = Timeline::default();
        for ms in 0..KEPT as u64 + 5 {
            timeline.push(&at(ms, Who::World, What::Healed));
        }
        let text = timeline.render();
        assert!(
            text.starts_with("(5 earlier lines are left out)\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), KEPT + 1);
        assert!(
            text.contains("0.005s") && !text.contains("0.004s"),
            "{text}"
        );
    }
}
