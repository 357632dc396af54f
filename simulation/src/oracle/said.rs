//! What was said of a box, time and again: what may hold at a moment.

use super::Moment;
use crate::observe::{Failure, Response};

/// A try to set how long letters may wait in a box.
#[derive(Debug, Clone, Copy)]
pub(super) struct TtlSet {
    pub(super) ttl_ms: Option<u64>,
    pub(super) began: Moment,
    /// When it was answered that it holds. One of unknown outcome may hold, but not after a later one.
    pub(super) ended: Option<Moment>,
}

/// What was said of something that is so or is not; at first it is not.
#[derive(Debug, Clone, Default)]
pub(super) struct Switch(Vec<Said>);

/// One time that it was said.
#[derive(Debug, Clone, Copy)]
struct Said {
    is_so: bool,
    began: Moment,
    /// When it was answered that it is so. One of unknown outcome may come late.
    ended: Option<Moment>,
}

impl Switch {
    pub(super) fn says(&mut self, is_so: bool, began: Moment) {
        let ended = None;
        self.0.push(Said {
            is_so,
            began,
            ended,
        });
    }

    /// What became of what was said then.
    pub(super) fn ends(&mut self, began: Moment, result: &Result<Response, Failure>, now: Moment) {
        match result {
            Ok(_) => {
                let mut said = self.0.iter_mut();
                if let Some(said) = said.find(|said| said.began == began) {
                    said.ended = Some(now);
                }
            }
            Err(Failure::Unknown) => {}
            // Nothing happened.
            Err(_) => self.0.retain(|said| said.began != began),
        }
    }

    /// Whether it may be so, or not so, at some point between two moments.
    pub(super) fn may_be(&self, is_so: bool, from: Moment, upto: Moment) -> bool {
        let is_past = |at: Moment| {
            let mut later = self.0.iter().filter(|later| later.began > at);
            later.any(|later| later.ended.is_some_and(|ended| ended < from))
        };
        let mut all = self.0.iter().filter(|said| said.began < upto);
        let said =
            all.any(|said| said.is_so == is_so && !(said.ended.is_some() && is_past(said.began)));
        let replaced = self
            .0
            .iter()
            .any(|said| said.ended.is_some_and(|ended| ended < from));
        said || (!is_so && !replaced)
    }
}
