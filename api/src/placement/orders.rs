//! Which groups have their members changed here, and by whom: an operator's orders come before the plan's
//! steps, and neither undoes what the other has begun.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use rossby_domain::ids::GroupId;
use tokio::time::Instant;

/// An operator's order that was not finished is given again; for so long nothing is planned meanwhile.
const UNFINISHED: Duration = Duration::from_secs(60);
/// After one that was, the order for the node's next group comes at once.
const FINISHED: Duration = Duration::from_secs(5);
/// A step of the plan is given again each second, until it is done.
const PLANNED: Duration = Duration::from_secs(10);

/// Who wants members changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An operator.
    Operator,
    /// The plan.
    Plan,
}

/// What runs in one group.
#[derive(Debug, Default, Clone, Copy)]
struct Running {
    orders: u32,
    steps: u32,
    /// Until then an operator's order may be given again.
    held_until: Option<Instant>,
    planned_until: Option<Instant>,
}

/// What runs in the groups that this node leads.
#[derive(Debug, Default)]
pub struct Orders(Mutex<BTreeMap<GroupId, Running>>);

impl Orders {
    /// An operator's order begins to be carried on; not while a step of the plan is.
    #[must_use]
    pub fn begin_order(&self, group: GroupId) -> Option<OrderGuard<'_>> {
        let mut running = self.0.lock();
        let running = running.entry(group).or_default();
        if running.steps > 0 {
            return None;
        }
        running.orders += 1;
        Some(OrderGuard {
            orders: self,
            group,
            hold: Some(UNFINISHED),
        })
    }

    /// A step of the plan begins to be carried on; not while an operator's order does.
    #[must_use]
    pub fn begin_step(&self, group: GroupId) -> Option<StepGuard<'_>> {
        let mut running = self.0.lock();
        let running = running.entry(group).or_default();
        if running.is_ordered() || running.steps > 0 {
            return None;
        }
        running.steps += 1;
        Some(StepGuard {
            orders: self,
            group,
        })
    }

    /// Whether anybody is at it, or an operator is about to go on.
    #[must_use]
    pub fn is_busy(&self, group: GroupId) -> bool {
        let running = self.0.lock().get(&group).copied().unwrap_or_default();
        running.is_ordered() || running.steps > 0
    }

    /// Whether a step of the plan is carried on, or was a moment ago.
    #[must_use]
    pub fn is_planned(&self, group: GroupId) -> bool {
        let running = self.0.lock().get(&group).copied().unwrap_or_default();
        let lately = |until| Instant::now() < until;
        running.steps > 0 || running.planned_until.is_some_and(lately)
    }
}

impl Running {
    fn is_ordered(&self) -> bool {
        self.orders > 0 || self.held_until.is_some_and(|until| Instant::now() < until)
    }
}

/// An operator's order that is carried on.
pub struct OrderGuard<'a> {
    orders: &'a Orders,
    group: GroupId,
    hold: Option<Duration>,
}

impl OrderGuard<'_> {
    /// It came to its end.
    pub fn done(mut self) {
        self.hold = Some(FINISHED);
    }

    /// It was not begun.
    pub fn forget(mut self) {
        self.hold = None;
    }
}

impl Drop for OrderGuard<'_> {
    fn drop(&mut self) {
        let mut running = self.orders.0.lock();
        let running = running.entry(self.group).or_default();
        running.orders = running.orders.saturating_sub(1);
        if let Some(hold) = self.hold {
            running.held_until = Some(Instant::now() + hold);
        }
    }
}

/// A step of the plan that is carried on.
pub struct StepGuard<'a> {
    orders: &'a Orders,
    group: GroupId,
}

impl Drop for StepGuard<'_> {
    fn drop(&mut self) {
        let mut running = self.orders.0.lock();
        let running = running.entry(self.group).or_default();
        running.steps = running.steps.saturating_sub(1);
        running.planned_until = Some(Instant::now() + PLANNED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    #[tokio::test(start_paused = true)]
    async fn an_operators_order_keeps_the_plan_away_until_it_is_not_given_again() {
        let orders = Orders::default();
        let running = orders.begin_order(GROUP);
        assert!(running.is_some());
        assert!(orders.begin_step(GROUP).is_none());
        assert!(orders.is_busy(GROUP) && !orders.is_busy(GroupId(2)));
        drop(running);
        assert!(orders.is_busy(GROUP), "it is given again");
        tokio::time::advance(UNFINISHED).await;
        assert!(!orders.is_busy(GROUP));
        orders.begin_order(GROUP).unwrap().done();
        tokio::time::advance(FINISHED).await;
        assert!(!orders.is_busy(GROUP));
        orders.begin_order(GROUP).unwrap().forget();
        assert!(!orders.is_busy(GROUP));
    }

    #[tokio::test(start_paused = true)]
    async fn one_step_of_a_group_is_carried_on_at_a_time_and_remembered_for_a_while() {
        let orders = Orders::default();
        let step = orders.begin_step(GROUP);
        assert!(step.is_some() && orders.begin_step(GROUP).is_none());
        assert!(orders.begin_order(GROUP).is_none());
        assert!(orders.is_busy(GROUP) && orders.is_planned(GROUP));
        drop(step);
        assert!(!orders.is_busy(GROUP) && orders.is_planned(GROUP));
        tokio::time::advance(PLANNED).await;
        assert!(!orders.is_planned(GROUP));
    }
}
