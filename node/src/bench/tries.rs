//! Tries that failed: those of the measured time apart from those before.

use std::collections::BTreeMap;

use rossby_bench::drive::Plan;
use rossby_bench::service::Service;
use tokio::time::sleep_until;

/// How many failed, by code.
type Counts = BTreeMap<String, u64>;

/// Tries that failed and may have been made good.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tries {
    pub(super) before: Counts,
    pub(super) measured: Counts,
}

impl Tries {
    fn of(before: Counts, until_end: Counts) -> Self {
        let earlier = |code: &String| before.get(code).copied().unwrap_or_default();
        let since = |(code, count): (String, u64)| {
            let more = count.saturating_sub(earlier(&code));
            (more > 0).then_some((code, more))
        };
        let measured = until_end.into_iter().filter_map(since).collect();
        Self { before, measured }
    }
}

/// Counts them until the plan is over.
pub(super) async fn count(services: &[&Service], plan: Plan) -> Tries {
    sleep_until(plan.begin).await;
    let before = together(services);
    sleep_until(plan.end).await;
    Tries::of(before, together(services))
}

fn together(services: &[&Service]) -> Counts {
    let mut all = Counts::new();
    for (code, count) in services.iter().flat_map(|service| service.failed_tries()) {
        *all.entry(code).or_default() += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_before_is_not_counted_again() {
        let counts = |all: &[(&str, u64)]| -> Counts {
            let owned = all.iter().map(|(code, count)| ((*code).to_owned(), *count));
            owned.collect()
        };
        let before = counts(&[("LOST", 3), ("OVERLOADED", 1)]);
        let tries = Tries::of(
            before.clone(),
            counts(&[("LOST", 3), ("NOT_SENT", 2), ("OVERLOADED", 5)]),
        );
        assert_eq!(tries.before, before);
        assert_eq!(
            tries.measured,
            counts(&[("NOT_SENT", 2), ("OVERLOADED", 4)])
        );
    }
}
