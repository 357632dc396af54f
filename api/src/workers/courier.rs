//! Brings codes from the outbox to their people.
//!
//! ```text
//!   outbox row ─► due? ─► Courier::deliver, several at a time, each by itself
//!                 ▲              ├─ handed over ──────► MarkCodeSent
//!                 └── backoff ◄──┼─ not now ──────────► MarkCodeUnsent, once
//!                                └─ never ────────────► MarkCodeUnsent, gave up
//! ```
//!
//! Only the surely leading replica begins a delivery. What it had begun when it lost leadership goes
//! on, and the next leader begins it again: a code may come twice, and is never lost silently. Nothing
//! that waits for its next try, and no gateway that hangs, holds up other codes. Each kind of identifier
//! has its own places, and its own round over the partitions: a full one does not starve the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rossby_domain::command::{MarkCodeSent, MarkCodeUnsent};
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::query::OutboxItem;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::{More, Trouble, Worker, Workers};
use crate::courier::{CourierError, Kind};
use crate::metrics::CourierOutcome;
use crate::rpc::{SealedCode, code_context};
use crate::secrets::SealPurpose;

/// Codes read at a time from one partition.
const PAGE: u32 = 64;
/// Deliveries under way at a time, for each kind of identifier: one gateway that hangs must not hold
/// up the other.
const MAX_UNDER_WAY: usize = 16;
/// Outcomes told to the group at a time.
const MAX_NEWS: usize = 256;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A line about failures is logged at most this often: a gateway that is down fails for everybody.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Names one sending of a code.
type Sending = (IdentifierHash, BoxId, u64);

/// What this node knows of a sending.
struct Known {
    partition: PartitionId,
    failures: u32,
    /// Whoever waits for the code has been told that it is late.
    told: bool,
    expires_at: Timestamp,
    /// Once it was opened. So it is not opened again and again while its kind has no room.
    kind: Option<Kind>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    /// To be tried again then.
    Waiting(Instant),
    /// Handed over, or not and never. It stays so until the group has committed it: while it can't,
    /// nobody should get the same code again and again.
    Sent,
    GaveUp,
}

/// What a delivery ends in.
struct Done {
    sending: Sending,
    kind: Kind,
    result: Result<(), CourierError>,
}

#[derive(Default)]
pub(super) struct CourierWorker {
    known: BTreeMap<Sending, Known>,
    under_way: JoinSet<Done>,
    busy: BTreeMap<Kind, usize>,
    /// Kinds of which more may be due than there was room for.
    crowded: BTreeSet<Kind>,
    /// Kinds of which a delivery has ended since the last look.
    freed: BTreeSet<Kind>,
    /// Where a kind's last delivery was begun; the next look begins behind it.
    served: BTreeMap<Kind, PartitionId>,
    /// Partitions in which codes have come in since the last look.
    posted: BTreeSet<PartitionId>,
    /// When all partitions are looked through next.
    next_whole: Option<Instant>,
    warned: Option<Instant>,
    unsaid: u64,
}

#[async_trait]
impl Worker for CourierWorker {
    const NAME: &'static str = "courier";
    const PERIOD: Duration = Duration::from_millis(250);

    /// Somebody waits for a code.
    async fn called(&mut self, workers: &Workers) {
        let posted = workers.group.codes_posted().await;
        self.posted.extend(posted);
    }

    async fn pass(&mut self, workers: &Workers) -> Result<More, Trouble> {
        let posted = std::mem::take(&mut self.posted);
        let now = Instant::now();
        let mut whole = posted.is_empty() || self.next_whole.is_none_or(|next| next <= now);
        let mut partitions = (!whole).then_some(posted);
        loop {
            while let Some(done) = self.under_way.try_join_next() {
                self.take_in(workers, done);
            }
            let some = partitions.take();
            // Who waits for a code does not wait for what others' became of.
            if some.is_none() {
                self.tell(workers).await?;
            }
            let freed = std::mem::take(&mut self.freed);
            if whole {
                self.next_whole = Some(Instant::now() + Self::PERIOD);
            }
            let kinds = if whole || some.is_some() {
                BTreeSet::from(Kind::ALL)
            } else {
                &freed & &self.crowded
            };
            for kind in kinds {
                if !workers.group.leads_surely() {
                    return Ok(More::Yes);
                }
                self.look(workers, kind, some.as_ref()).await?;
            }
            let Some(next_whole) = self.next_whole.filter(|_| !self.crowded.is_empty()) else {
                return Ok(self.more());
            };
            // It goes on as soon as there is room, but not without a look at all kinds now and then.
            let ended = timeout_at(next_whole, self.under_way.join_next()).await;
            whole = match ended {
                Ok(Some(done)) => {
                    self.take_in(workers, done);
                    false
                }
                Ok(None) => return Ok(self.more()),
                Err(_) => true,
            };
        }
    }
}

impl CourierWorker {
    /// Notes how a delivery ended.
    fn take_in(&mut self, workers: &Workers, done: Result<Done, JoinError>) {
        match done {
            Ok(done) => self.settle(workers, &done),
            Err(_) => self.begin_anew(),
        }
    }

    fn is_full(&self, kind: Kind) -> bool {
        self.busy
            .get(&kind)
            .is_some_and(|busy| *busy >= MAX_UNDER_WAY)
    }

    /// Whether anything is under way, to be told or to be tried again.
    fn more(&self) -> More {
        if self.known.is_empty() && self.crowded.is_empty() {
            More::No
        } else {
            More::Yes
        }
    }

    /// Begins what is due of one kind, as far as there is room: in these partitions, or all.
    async fn look(
        &mut self,
        workers: &Workers,
        kind: Kind,
        some: Option<&BTreeSet<PartitionId>>,
    ) -> Result<(), Trouble> {
        self.crowded.remove(&kind);
        let served = self.served.get(&kind).copied();
        let (behind, up_to): (Vec<_>, Vec<_>) = workers
            .owned()
            .iter()
            .copied()
            .filter(|partition| some.is_none_or(|some| some.contains(partition)))
            .partition(|partition| Some(*partition) > served);
        let mut seen = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        for partition in behind.into_iter().chain(up_to) {
            if self.is_full(kind) || !self.look_through(workers, partition, kind, &mut waiting)? {
                self.crowded.insert(kind);
                break;
            }
            seen.insert(partition);
            tokio::task::yield_now().await;
        }
        let now = workers.group.service_time();
        self.known.retain(|sending, known| match known.state {
            State::UnderWay => true,
            State::Waiting(_) if known.expires_at <= now => false,
            // What is no longer in the outbox was settled, or its life is over.
            _ => !seen.contains(&known.partition) || waiting.contains(sending),
        });
        Ok(())
    }

    /// Begins what is due of one kind in one partition, and notes all that waits there; whether it came
    /// to the end before there was no more room.
    fn look_through(
        &mut self,
        workers: &Workers,
        partition: PartitionId,
        kind: Kind,
        waiting: &mut BTreeSet<Sending>,
    ) -> Result<bool, Trouble> {
        let mut after = None;
        let now = workers.group.service_time();
        loop {
            let query = Query::Outbox {
                partition,
                after,
                limit: PAGE,
            };
            let Answer::Outbox(items) = workers.group.read_local(partition, &query)? else {
                return Err(Trouble::Other("unexpected answer to Outbox"));
            };
            let Some(last) = items.last() else {
                return Ok(true);
            };
            after = Some((last.identifier, last.box_id));
            for item in items {
                let sending = (item.identifier, item.box_id, item.serial);
                waiting.insert(sending);
                if item.expires_at > now && self.is_due(&sending, kind) {
                    if self.is_full(kind) {
                        return Ok(false);
                    }
                    self.begin(workers, partition, kind, &item);
                }
            }
        }
    }

    /// Whether it is to be begun now, if it is of this kind.
    fn is_due(&self, sending: &Sending, kind: Kind) -> bool {
        let Some(known) = self.known.get(sending) else {
            return true;
        };
        let due = match known.state {
            State::Waiting(until) => until <= Instant::now(),
            State::UnderWay | State::Sent | State::GaveUp => false,
        };
        due && known.kind.is_none_or(|its| its == kind)
    }

    /// Begins a delivery, if it is of this kind.
    fn begin(&mut self, workers: &Workers, partition: PartitionId, kind: Kind, item: &OutboxItem) {
        let sending = (item.identifier, item.box_id, item.serial);
        let known = self.known.entry(sending).or_insert(Known {
            partition,
            failures: 0,
            told: false,
            expires_at: item.expires_at,
            kind: None,
            state: State::Waiting(Instant::now()),
        });
        let Some(SealedCode { identifier, code }) = open(workers, item) else {
            known.state = State::GaveUp;
            return;
        };
        let its = Kind::of(&identifier);
        known.kind = Some(its);
        if its != kind {
            return;
        }
        known.state = State::UnderWay;
        *self.busy.entry(kind).or_default() += 1;
        self.served.insert(kind, partition);
        let courier = Arc::clone(&workers.courier);
        self.under_way.spawn(async move {
            let result = courier.deliver(&identifier, &code).await;
            Done {
                sending,
                kind,
                result,
            }
        });
    }

    /// Notes what became of a delivery.
    fn settle(&mut self, workers: &Workers, done: &Done) {
        self.freed.insert(done.kind);
        if let Some(busy) = self.busy.get_mut(&done.kind) {
            *busy = busy.saturating_sub(1);
        }
        let outcome = match &done.result {
            Ok(()) => CourierOutcome::Sent,
            Err(error) if error.is_permanent() => CourierOutcome::Refused,
            Err(_) => CourierOutcome::Failed,
        };
        let courier = workers.courier.name(done.kind).unwrap_or("none");
        workers.metrics.courier(courier, outcome);
        if let Err(error) = &done.result {
            self.warn(courier, error);
        }
        let Some(known) = self.known.get_mut(&done.sending) else {
            return;
        };
        known.state = match outcome {
            CourierOutcome::Sent => State::Sent,
            CourierOutcome::Refused | CourierOutcome::Unreadable => State::GaveUp,
            CourierOutcome::Failed => {
                known.failures = known.failures.saturating_add(1);
                let doublings = known.failures.saturating_sub(1).min(10);
                let pause = (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE);
                State::Waiting(Instant::now() + workers.jittered(pause))
            }
        };
    }

    /// After a delivery that panicked: which one it was is not known, so all are begun again.
    fn begin_anew(&mut self) {
        self.under_way.abort_all();
        self.under_way = JoinSet::new();
        self.busy.clear();
        self.freed.extend(Kind::ALL);
        self.crowded.extend(Kind::ALL);
        self.known.retain(|_, known| known.state != State::UnderWay);
    }

    /// Has the group note what became of codes.
    async fn tell(&mut self, workers: &Workers) -> Result<(), Trouble> {
        let news: Vec<(Sending, (PartitionId, Command))> = self
            .known
            .iter()
            .filter_map(|(sending, known)| {
                Some((*sending, (known.partition, news(sending, known)?)))
            })
            .take(MAX_NEWS)
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        let commands = news.iter().map(|(_, command)| command.clone()).collect();
        workers.propose(commands).await?;
        for (sending, _) in news {
            match self.known.get_mut(&sending) {
                Some(known) if matches!(known.state, State::Waiting(_)) => known.told = true,
                _ => drop(self.known.remove(&sending)),
            }
        }
        Ok(())
    }

    /// For the operator: which courier, at which step, and why; never whose code.
    fn warn(&mut self, courier: &'static str, error: &CourierError) {
        let now = Instant::now();
        if self.warned.is_some_and(|warned| now < warned + WARN_EVERY) {
            self.unsaid += 1;
            return;
        }
        let more = std::mem::take(&mut self.unsaid);
        warn!(courier, %error, more, "a verification code could not be handed over");
        self.warned = Some(now);
    }
}

/// What the group should know of a sending, if anything.
fn news(sending: &Sending, known: &Known) -> Option<Command> {
    let (identifier, box_id, serial) = *sending;
    let unsent = |gave_up| {
        Command::MarkCodeUnsent(MarkCodeUnsent {
            identifier,
            box_id,
            serial,
            gave_up,
        })
    };
    match known.state {
        State::UnderWay => None,
        State::Waiting(_) => (known.failures > 0 && !known.told).then(|| unsent(false)),
        State::GaveUp => Some(unsent(true)),
        State::Sent => Some(Command::MarkCodeSent(MarkCodeSent {
            identifier,
            box_id,
            serial,
        })),
    }
}

/// Opens a code. One that does not open now never will: its key is gone.
fn open(workers: &Workers, item: &OutboxItem) -> Option<SealedCode> {
    let context = code_context(&item.identifier, &item.box_id);
    let opened = workers
        .secrets
        .open(SealPurpose::Code, &context, &item.sealed);
    let code = match opened {
        Ok(text) => SealedCode::decode(&text).ok(),
        Err(error) => {
            warn!(%error, "a verification code in the outbox does not open");
            None
        }
    };
    if code.is_none() {
        workers.metrics.courier("none", CourierOutcome::Unreadable);
    }
    code
}
