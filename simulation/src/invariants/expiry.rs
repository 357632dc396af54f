//! P6, of the time that letters have: a letter may wait as long as its sender, its box and the service let it, whichever is
//! shortest, from when it was stored; and a box is said to let letters wait as long as its devices have said.

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, Request, Response, Seen};
use crate::oracle::{BoxStory, Finished, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Expiry;

fn letter(
    oracle: &Oracle,
    finished: &Finished<'_>,
    (mailbox, seen): (&BoxStory, &Seen),
) -> Result<(), String> {
    let known = mailbox.letters.get(&seen.id);
    let bounds = known.and_then(|letter| oracle.expires(mailbox, letter, finished.ended_at));
    match bounds {
        Some((earliest, latest)) if seen.expires_at < earliest || seen.expires_at > latest => {
            Err(format!(
                "letter {} is said to expire at {} ms, but it can be no earlier than {} and no later \
                 than {}",
                seen.sequence,
                seen.expires_at.as_millis(),
                earliest.as_millis(),
                latest.as_millis()
            ))
        }
        _ => Ok(()),
    }
}

fn check(oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
    let (
        Request::Fetch { device, .. },
        Ok(Response::Page {
            envelopes, status, ..
        }),
    ) = (&finished.call.request, finished.result)
    else {
        return Ok(());
    };
    let Some(mailbox) = oracle.mailbox(&device.box_id) else {
        return Ok(());
    };
    let (shortest, longest) = oracle.box_ttls(mailbox, finished.call.began);
    // A status that says nothing of it is made up.
    if status.ttl_ms > 0 && !(shortest..=longest).contains(&status.ttl_ms) {
        return Err(format!(
            "letters are said to wait {} ms, but it can be no less than {shortest} and no more than \
             {longest}",
            status.ttl_ms
        ));
    }
    let mut letters = envelopes.iter();
    letters.try_for_each(|seen| letter(oracle, finished, (mailbox, seen)))
}

impl Invariant for Expiry {
    fn name(&self) -> &'static str {
        "P6 letters wait as long as was said"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::limits::Limits;

    use super::*;
    use crate::invariants::no_send_lost::NoSendLost;
    use crate::invariants::story::{Story, caught, legal};
    use crate::observe::Failure;

    const MINUTE_MS: u64 = 60_000;

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(Expiry, &story), None);
        }
    }

    /// Whether a page is caught on which a letter, sent with this time to live, is said to expire so long after it was sent.
    fn shown(story: &Story, ttl_ms: Option<u64>, after_ms: u64) -> bool {
        let mut story = story.clone();
        // The call that stores it begins next.
        let expires_at = story.shown_now().plus_millis(after_ms + 1);
        story.sent_for(1, 1, "text", ttl_ms, 1);
        let mut seen = story.seen(1, 1, 1, "text");
        seen.expires_at = expires_at;
        story.page(1, 0, vec![seen], 1);
        caught(Expiry, &story).is_some()
    }

    fn set() -> Result<Response, Failure> {
        Ok(Response::Done)
    }

    #[test]
    fn the_shortest_of_what_sender_box_and_service_say_counts() {
        let longest = Limits::default().envelope_ttl_ms;
        let plain = Story::default();
        let mut short = Story::default();
        short.sets_ttl(1, Some(MINUTE_MS), set());
        for (story, asked, due) in [
            (&plain, None, longest),
            (&plain, Some(1_000), 1_000),
            (&plain, Some(2 * longest), longest),
            (&short, None, MINUTE_MS),
            (&short, Some(1_000), 1_000),
            (&short, Some(2 * MINUTE_MS), MINUTE_MS),
        ] {
            assert!(!shown(story, asked, due), "{asked:?} {due}");
            assert!(shown(story, asked, due - 1), "{asked:?} {due}");
            assert!(shown(story, asked, due + 10), "{asked:?} {due}");
        }
    }

    #[test]
    fn what_was_set_holds_until_something_else_was_and_may_hold_if_nobody_knows() {
        let longest = Limits::default().envelope_ttl_ms;
        let mut story = Story::default();
        story.sets_ttl(1, Some(MINUTE_MS), Err(Failure::Unknown));
        assert!(!shown(&story, None, MINUTE_MS) && !shown(&story, None, longest));
        story.sets_ttl(1, Some(2 * MINUTE_MS), set());
        assert!(!shown(&story, None, 2 * MINUTE_MS));
        assert!(shown(&story, None, MINUTE_MS) && shown(&story, None, longest));
        story.sets_ttl(1, None, set());
        assert!(!shown(&story, None, longest) && shown(&story, None, 2 * MINUTE_MS));
    }

    #[test]
    fn a_box_that_is_said_to_let_letters_wait_otherwise_than_it_was_told_is_caught() {
        let mut story = Story::default();
        story.sets_ttl(1, Some(MINUTE_MS), set());
        story.page(1, 0, vec![], 0);
        story.change_last_status(|status| status.ttl_ms = MINUTE_MS);
        assert_eq!(caught(Expiry, &story), None);
        story.change_last_status(|status| status.ttl_ms = 2 * MINUTE_MS);
        assert!(caught(Expiry, &story).is_some());
    }

    #[test]
    fn a_letter_whose_box_lets_it_wait_so_long_may_be_gone_then_and_not_before() {
        let mut story = Story::default();
        story.sets_ttl(1, Some(MINUTE_MS), set());
        story.sent(1, 1, "text", 1);
        let mut early = story.clone();
        for (story, wait) in [(&mut story, MINUTE_MS), (&mut early, MINUTE_MS - 10)] {
            story.wait(wait);
            story.page(1, 0, vec![], 1);
        }
        assert_eq!(caught(NoSendLost::default(), &story), None);
        assert!(caught(NoSendLost::default(), &early).is_some());
    }
}
