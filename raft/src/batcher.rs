//! One log entry for many callers: whatever waits when there is room for another entry goes into
//! it together. A command that nothing is ahead of goes at once; behind entries that are still on their
//! way, few commands wait a moment for more: an entry costs three nodes as much as its commands do.
//!
//! ```text
//!   propose ──┐                     ┌─ stamp, encode ─► openraft ─┐
//!   propose ──┼─► queue ─► drain ───┤   (several in flight)       ├─► replies, caller by caller
//!   propose ──┘                     └─────────────────────────────┘
//! ```
//!
//! Invariant: every caller is answered by its deadline, and told "nothing was proposed" only if
//! that is certain: a proposal is claimed by the drain or given up by its caller, never both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use rossby_domain::time::Timestamp;
use rossby_domain::{Reply, Routed};
use rossby_storage::codec::Batch;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::answers::ProposeError;
use crate::clock_quorum::{CLOCK_WAIT, Verdict};
use crate::core::Core;
use crate::types::{Proposal, TypeConfig};

/// The most commands in an entry.
const MAX_COMMANDS: usize = 1024;
/// The most bytes of commands in an entry, as far as their weights tell.
const MAX_WEIGHT: usize = 512 * 1024;
/// Entries that may be on their way through agreement.
const MAX_IN_FLIGHT: usize = 8;
/// Behind other entries an entry of fewer commands, and of fewer bytes, waits for more, but no longer than
/// this, and not once those ahead are through: where agreement takes long, others must not wait for it.
const FEW_COMMANDS: usize = 16;
const FEW_BYTES: usize = 16 * 1024;
/// The runtime's timer counts milliseconds, and ends this at the next of them or the one after: it lasts
/// 1 to 2 ms if nothing else ends it before.
const LINGER: Duration = Duration::from_micros(300);
/// Callers that may wait.
const QUEUE: usize = 8192;
/// Bytes of commands that may wait, as far as their weights tell.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// What a proposal waits as: in the queue, in the log, or not at all.
const QUEUED: u8 = 0;
const SUBMITTED: u8 = 1;
const GIVEN_UP: u8 = 2;

type Outcome = Result<Vec<Reply>, ProposeError>;

/// The commands of one caller.
struct Waiting {
    commands: Vec<Routed>,
    weight: usize,
    deadline: Instant,
    stage: Arc<AtomicU8>,
    answer: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    fn claim(&self) -> bool {
        let claimed =
            self.stage
                .compare_exchange(QUEUED, SUBMITTED, Ordering::AcqRel, Ordering::Acquire);
        claimed.is_ok()
    }
}

/// The queue of a group's proposals.
#[derive(Debug, Clone)]
pub(crate) struct Batcher {
    queue: mpsc::Sender<Waiting>,
    // One permit for each byte that may still wait.
    room: Arc<Semaphore>,
}

impl Batcher {
    /// Starts the drain of a group. It ends with the group.
    pub(crate) fn start(core: Arc<Core>) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let intake = Intake::new(receiver);
        let drain = Drain { core, intake };
        tokio::spawn(drain.run());
        Self::over(queue)
    }

    fn over(queue: mpsc::Sender<Waiting>) -> Self {
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        Self { queue, room }
    }

    /// Proposes commands and waits for their replies. Those of a call that are too many for one
    /// entry go into several, in order; if only some of them are known to have taken effect, the
    /// outcome of the call is unknown.
    pub(crate) async fn propose(
        &self,
        core: &Core,
        commands: Vec<Routed>,
        deadline: Instant,
    ) -> Outcome {
        let mut waiting = Vec::new();
        for part in split(commands)? {
            match self.enqueue(part, deadline) {
                Ok(queued) => waiting.push(queued),
                Err(error) if waiting.is_empty() => return Err(error),
                Err(error) => waiting.push(Queued::refused(error)),
            }
        }
        let outcomes = waiting
            .into_iter()
            .map(|queued| queued.outcome(core, deadline));
        combine(futures_util::future::join_all(outcomes).await)
    }

    /// Whether half of those who may wait do, or half of the bytes.
    pub(crate) fn is_busy(&self) -> bool {
        self.queue.capacity() < QUEUE / 2 || self.room.available_permits() < QUEUE_BYTES / 2
    }

    fn enqueue(&self, commands: Vec<Routed>, deadline: Instant) -> Result<Queued, ProposeError> {
        let (answer, replies) = oneshot::channel();
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let weight = commands.iter().map(Routed::weight_bytes).sum();
        let room = u32::try_from(weight).map_err(|_| ProposeError::Unencodable)?;
        let room = self.room.clone().try_acquire_many_owned(room);
        let waiting = Waiting {
            commands,
            weight,
            deadline,
            stage: stage.clone(),
            answer,
            _room: room.map_err(|_| ProposeError::Overloaded)?,
        };
        self.queue.try_send(waiting).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        Ok(Queued { stage, replies })
    }
}

/// Parts that each fit into an entry, in order.
fn split(commands: Vec<Routed>) -> Result<Vec<Vec<Routed>>, ProposeError> {
    let mut parts: Vec<Vec<Routed>> = Vec::new();
    let mut weight = 0;
    for command in commands {
        let own = command.weight_bytes();
        if own > MAX_WEIGHT {
            return Err(ProposeError::Unencodable);
        }
        weight += own;
        match parts.last_mut() {
            Some(part) if weight <= MAX_WEIGHT && part.len() < MAX_COMMANDS => part.push(command),
            _ => {
                weight = own;
                parts.push(vec![command]);
            }
        }
    }
    Ok(parts)
}

/// The outcome of a call from those of its parts.
fn combine(outcomes: Vec<Outcome>) -> Outcome {
    let certain = |outcome: &Outcome| !matches!(outcome, Ok(_) | Err(ProposeError::Unknown));
    if outcomes.iter().any(Result::is_err) && !outcomes.iter().all(certain) {
        return Err(ProposeError::Unknown);
    }
    let replies: Result<Vec<Vec<Reply>>, _> = outcomes.into_iter().collect();
    replies.map(|replies| replies.into_iter().flatten().collect())
}

/// What became of a proposal that was dropped without an answer.
fn unanswered(stage: &AtomicU8) -> ProposeError {
    match stage.load(Ordering::Acquire) {
        QUEUED => ProposeError::Stopped,
        _ => ProposeError::Unknown,
    }
}

/// A proposal in the queue, as its caller holds it.
struct Queued {
    stage: Arc<AtomicU8>,
    replies: oneshot::Receiver<Outcome>,
}

impl Queued {
    fn refused(error: ProposeError) -> Self {
        let (answer, replies) = oneshot::channel();
        let _ = answer.send(Err(error));
        Self {
            stage: Arc::new(AtomicU8::new(GIVEN_UP)),
            replies,
        }
    }

    async fn outcome(self, core: &Core, deadline: Instant) -> Outcome {
        match timeout_at(deadline, self.replies).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(unanswered(&self.stage)),
            Err(_elapsed) => {
                let given_up = self.stage.compare_exchange(
                    QUEUED,
                    GIVEN_UP,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                match given_up {
                    // It never left the queue: say what held it up.
                    Ok(_) => Err(core.admit().err().unwrap_or(ProposeError::Overloaded)),
                    Err(_) => Err(ProposeError::Unknown),
                }
            }
        }
    }
}

/// Takes proposals out of the queue and into the log.
struct Drain {
    core: Arc<Core>,
    intake: Intake,
}

/// Gathers what goes into an entry.
struct Intake {
    queue: mpsc::Receiver<Waiting>,
    // Taken out of the queue, but did not fit into the last entry.
    overflow: Option<Waiting>,
    slots: Arc<Semaphore>,
    // Told when the last entry that was under way is through.
    through: Arc<Notify>,
}

/// What goes into the next entry.
struct Gathered {
    batch: Vec<Waiting>,
    weight: usize,
    count: usize,
}

impl Gathered {
    fn of(first: Waiting) -> Self {
        Self {
            weight: first.weight,
            count: first.commands.len(),
            batch: vec![first],
        }
    }

    /// Takes one more in, or gives it back if it does not fit.
    fn add(&mut self, next: Waiting) -> Result<(), Waiting> {
        let (weight, count) = (self.weight + next.weight, self.count + next.commands.len());
        if weight > MAX_WEIGHT || count > MAX_COMMANDS {
            return Err(next);
        }
        (self.weight, self.count) = (weight, count);
        self.batch.push(next);
        Ok(())
    }

    fn is_small(&self) -> bool {
        self.count < FEW_COMMANDS && self.weight < FEW_BYTES
    }
}

/// An entry's place among those under way.
struct UnderWay {
    slot: Option<OwnedSemaphorePermit>,
    slots: Arc<Semaphore>,
    through: Arc<Notify>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.slot = None;
        // One may have been given to the entry that waits for this.
        if self.slots.available_permits() + 1 >= MAX_IN_FLIGHT {
            self.through.notify_one();
        }
    }
}

impl Intake {
    fn new(queue: mpsc::Receiver<Waiting>) -> Self {
        Self {
            queue,
            overflow: None,
            slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            through: Arc::default(),
        }
    }

    /// The callers of the next entry, once there is room for it; `None` if there will be none.
    async fn next(&mut self) -> Option<(Vec<Waiting>, UnderWay)> {
        let first = match self.overflow.take() {
            Some(first) => first,
            None => self.queue.recv().await?,
        };
        // More callers join while all slots are taken: entries grow with the load.
        let alone = self.slots.available_permits() == MAX_IN_FLIGHT;
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        let under_way = UnderWay {
            slot: Some(slot),
            slots: self.slots.clone(),
            through: self.through.clone(),
        };
        let mut gathered = Gathered::of(first);
        self.gather(&mut gathered);
        if !alone && gathered.is_small() {
            self.linger(&mut gathered).await;
        }
        Some((gathered.batch, under_way))
    }

    /// Takes in what waits already.
    fn gather(&mut self, gathered: &mut Gathered) {
        while self.overflow.is_none()
            && let Ok(next) = self.queue.try_recv()
        {
            self.overflow = gathered.add(next).err();
        }
    }

    /// Waits for more callers, for a moment.
    async fn linger(&mut self, gathered: &mut Gathered) {
        let until = Instant::now() + LINGER;
        while self.overflow.is_none() && gathered.is_small() {
            // This entry's own slot is one of them.
            if self.slots.available_permits() + 1 >= MAX_IN_FLIGHT {
                return;
            }
            tokio::select! {
                biased;
                next = self.queue.recv() => match next {
                    Some(next) => self.overflow = gathered.add(next).err(),
                    None => return,
                },
                () = self.through.notified() => {}
                () = sleep_until(until) => return,
            }
        }
    }
}

impl Drain {
    async fn run(mut self) {
        let stop = self.core.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.drain() => {}
        }
    }

    async fn drain(&mut self) {
        while let Some((batch, under_way)) = self.intake.next().await {
            self.submit(batch, under_way).await;
        }
    }

    async fn submit(&self, batch: Vec<Waiting>, under_way: UnderWay) {
        let own = match self.own_clock(&batch).await {
            Ok(own) => own,
            Err(error) => return refuse(batch, &error),
        };
        let mut commands = Vec::new();
        let mut callers = Vec::new();
        let mut last_deadline = Instant::now();
        for mut waiting in batch {
            if waiting.claim() {
                last_deadline = last_deadline.max(waiting.deadline);
                callers.push((waiting.commands.len(), waiting.answer));
                commands.append(&mut waiting.commands);
            }
        }
        if callers.is_empty() {
            return;
        }
        let by_expiry = |routed: &Routed| routed.command.goes_by_expiry();
        let stamped = self.core.stamp(Some(own), commands.iter().any(by_expiry));
        let (stamp, may_expire) = stamped.unwrap_or((own, false));
        let proposal = match Proposal::new(&Batch {
            stamp,
            may_expire,
            commands,
        }) {
            Ok(proposal) => proposal,
            Err(error) => {
                tracing::error!(group = %self.core.id, %error, "commands could not be encoded");
                return answer_all(callers, &ProposeError::Unencodable);
            }
        };
        let (responder, outcome) = ProgressResponder::complete_only();
        if self
            .core
            .raft
            .client_write_ff(proposal, Some(responder))
            .await
            .is_err()
        {
            return answer_all(callers, &ProposeError::Stopped);
        }
        let core = self.core.clone();
        tokio::spawn(async move {
            // Beyond the last deadline nobody waits: the slot is free for others again.
            let outcome = timeout_at(last_deadline, outcome).await;
            drop(under_way);
            match outcome {
                Ok(Ok(result)) => core.hand_out(callers, stamp, result),
                Ok(Err(_)) | Err(_) => answer_all(callers, &ProposeError::Unknown),
            }
        });
    }

    /// This node's clock, if it may lead and stamp now.
    async fn own_clock(&self, batch: &[Waiting]) -> Result<Timestamp, ProposeError> {
        self.core.admit()?;
        let patience = Instant::now() + CLOCK_WAIT;
        let first = batch.iter().map(|waiting| waiting.deadline).min();
        let deadline = first.map_or(patience, |first| first.min(patience));
        self.core.rouse(deadline).await?;
        let voters = self.core.voter_nodes();
        match self.core.clocks.judge_by(&voters, deadline).await {
            (now, Verdict::InStep) => Ok(now),
            (_, Verdict::OutOfStep | Verdict::Unknown) => Err(ProposeError::ClockUnsafe),
        }
    }
}

impl Core {
    fn hand_out(
        &self,
        callers: Vec<(usize, oneshot::Sender<Outcome>)>,
        stamp: Timestamp,
        result: ClientWriteResult<TypeConfig>,
    ) {
        match result {
            Ok(written) => {
                self.note_committed(&written, stamp);
                let mut replies = written.data.0.into_iter();
                for (count, answer) in callers {
                    let own: Vec<Reply> = replies.by_ref().take(count).collect();
                    let outcome = if own.len() == count {
                        Ok(own)
                    } else {
                        Err(ProposeError::Unknown)
                    };
                    let _ = answer.send(outcome);
                }
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                answer_all(
                    callers,
                    &ProposeError::NotLeader {
                        leader: forward.leader_node,
                    },
                );
            }
            // Leadership was lost after the entry went into the log.
            Err(_) => answer_all(callers, &ProposeError::Unknown),
        }
    }
}

fn refuse(batch: Vec<Waiting>, error: &ProposeError) {
    for waiting in batch {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}

fn answer_all(callers: Vec<(usize, oneshot::Sender<Outcome>)>, error: &ProposeError) {
    for (_, answer) in callers {
        // A caller whose deadline has passed no longer listens.
        let _ = answer.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rossby_domain::Outcome as Done;
    use rossby_domain::command::{Command, Enqueue, EnvelopeDigest};
    use rossby_domain::ids::{
        BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, Epoch, PartitionId, Sequence,
    };

    use super::*;

    fn letter(counter: u64, bytes: usize) -> Routed {
        let partition = PartitionId::new(1).unwrap();
        let box_id = BoxId::derive(partition, &[1; 32]);
        let sender = DeviceAddress {
            box_id,
            device: DeviceId::of_key(&[1; 32]),
        };
        let command = Command::Enqueue(Enqueue {
            recipient: box_id,
            id: EnvelopeId {
                sender,
                counter: Counter(counter),
            },
            chain_version: 0,
            ttl_ms: None,
            digest: EnvelopeDigest([0; 16]),
            body: Bytes::from(vec![0; bytes]),
        });
        Routed {
            partition,
            epoch: Epoch(1),
            command,
        }
    }

    proptest! {
        #[test]
        fn parts_fit_and_keep_all_commands_in_order(
            sizes in proptest::collection::vec(0..200_000usize, 0..30)
        ) {
            let commands: Vec<_> = (0..).zip(&sizes).map(|(n, size)| letter(n, *size)).collect();
            let parts = split(commands.clone()).unwrap();
            for part in &parts {
                prop_assert!(!part.is_empty());
                prop_assert!(part.iter().map(Routed::weight_bytes).sum::<usize>() <= MAX_WEIGHT);
            }
            prop_assert_eq!(parts.concat(), commands);
        }
    }

    #[test]
    fn an_entry_of_any_part_fits_into_a_frame() {
        let letters: Vec<_> = (0..5).map(|n| letter(n, 100_000)).collect();
        let many: Vec<_> = (0..1024).map(|n| letter(n, 0)).collect();
        for commands in [letters, many] {
            for commands in split(commands).unwrap() {
                let weight: usize = commands.iter().map(Routed::weight_bytes).sum();
                let stamp = Timestamp::default();
                let proposal = Proposal::new(&Batch {
                    stamp,
                    may_expire: true,
                    commands,
                })
                .unwrap();
                assert!(proposal.batch().len() <= weight, "weights are too light");
            }
        }
        assert!(MAX_WEIGHT + crate::log_store::MAX_APPEND_BYTES as usize <= crate::MAX_FRAME_BYTES);
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_too() {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let batcher = Batcher::over(queue);
        let fill = || {
            let all = (1..).map(|n| batcher.enqueue(vec![letter(n, 400_000)], Instant::now()));
            all.take_while(Result::is_ok).count()
        };
        let bound = QUEUE_BYTES / 400_000;
        assert!((1..=bound).contains(&fill()));
        let refused = batcher.enqueue(vec![letter(1, 400_000)], Instant::now());
        assert_eq!(refused.err(), Some(ProposeError::Overloaded));
        drop(waiting.try_recv());
        assert_eq!(fill(), 1);
    }

    #[test]
    fn it_is_busy_long_before_it_refuses_anything() {
        for letter_bytes in [10, 400_000] {
            let (queue, mut waiting) = mpsc::channel(QUEUE);
            let batcher = Batcher::over(queue);
            let put = |n| batcher.enqueue(vec![letter(n, letter_bytes)], Instant::now());
            let mut until_busy = (1..).take_while(|n| !batcher.is_busy() && put(*n).is_ok());
            let taken = until_busy.by_ref().count() as u64;
            assert!(batcher.is_busy());
            // Half as many go in after that without a refusal.
            assert!(taken > 2);
            assert!((0..taken / 2).all(|n| put(n).is_ok()));
            while waiting.try_recv().is_ok() {}
            assert!(!batcher.is_busy());
        }
    }

    /// A batcher and the intake behind it, and one entry that is under way.
    async fn with_one_under_way() -> (Batcher, Intake, UnderWay) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (batcher, mut intake) = (Batcher::over(queue), Intake::new(receiver));
        let _ahead = put(&batcher);
        let (_, under_way) = intake.next().await.unwrap();
        (batcher, intake, under_way)
    }

    fn put(batcher: &Batcher) -> Queued {
        let queued = batcher.enqueue(vec![letter(1, 10)], Instant::now());
        queued.unwrap()
    }

    /// The time that passes until the next entry, and its callers.
    async fn next_entry(intake: &mut Intake) -> (Duration, usize) {
        let begun = Instant::now();
        let (batch, _) = intake.next().await.unwrap();
        (begun.elapsed(), batch.len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_nothing_is_ahead_of_goes_at_once() {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (batcher, mut intake) = (Batcher::over(queue), Intake::new(receiver));
        for _ in 0..3 {
            let _queued = put(&batcher);
            assert_eq!(next_entry(&mut intake).await, (Duration::ZERO, 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn behind_others_a_command_waits_for_more_but_not_for_long() {
        let (batcher, mut intake, _under_way) = with_one_under_way().await;
        let _queued = put(&batcher);
        let (waited, callers) = next_entry(&mut intake).await;
        assert_eq!(callers, 1);
        assert!(
            waited >= LINGER && waited <= Duration::from_millis(2),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_once_those_ahead_are_through() {
        let (batcher, mut intake, under_way) = with_one_under_way().await;
        let _queued = put(&batcher);
        let through = async {
            tokio::task::yield_now().await;
            drop(under_way);
        };
        let ((waited, callers), ()) = tokio::join!(next_entry(&mut intake), through);
        assert_eq!((waited, callers), (Duration::ZERO, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_once_there_are_enough() {
        let (batcher, mut intake, _under_way) = with_one_under_way().await;
        let _queued = put(&batcher);
        let others = async {
            tokio::task::yield_now().await;
            (1..FEW_COMMANDS).map(|_| put(&batcher)).collect::<Vec<_>>()
        };
        let ((waited, callers), _others) = tokio::join!(next_entry(&mut intake), others);
        assert_eq!((waited, callers), (Duration::ZERO, FEW_COMMANDS));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_more_while_the_group_stops_is_told_that_it_stopped() {
        let (batcher, mut intake, _under_way) = with_one_under_way().await;
        let queued = put(&batcher);
        {
            let next = intake.next();
            tokio::pin!(next);
            assert!(futures_util::poll!(&mut next).is_pending());
            // It was taken out of the queue, and is held by who waits.
            assert_eq!(batcher.queue.capacity(), QUEUE);
        }
        drop(intake);
        let Queued { stage, replies } = queued;
        assert!(replies.await.is_err());
        assert_eq!(unanswered(&stage), ProposeError::Stopped);
    }

    #[test]
    fn a_command_too_large_for_any_entry_is_refused() {
        assert_eq!(
            split(vec![letter(1, MAX_WEIGHT)]),
            Err(ProposeError::Unencodable)
        );
    }

    #[test]
    fn a_call_of_several_parts_is_certain_only_if_all_parts_are() {
        let done = |n| {
            Ok(vec![Ok(Done::Enqueued {
                sequence: Sequence(n),
            })])
        };
        let refused = || Err(ProposeError::NoQuorum);
        let both = combine(vec![done(1), done(2)]).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(combine(vec![refused(), refused()]), refused());
        assert_eq!(
            combine(vec![done(1), refused()]),
            Err(ProposeError::Unknown)
        );
        assert_eq!(
            combine(vec![refused(), Err(ProposeError::Unknown)]),
            Err(ProposeError::Unknown)
        );
        assert_eq!(
            combine(vec![Err(ProposeError::Unknown), done(1)]),
            Err(ProposeError::Unknown)
        );
    }
}
