//! Reaching any group from any node.
//!
//! ```text
//!   partition ─► Directory: group ─┬─ its replica here leads ──────────────────► Group::propose / read
//!                                  └─ Search: who may lead ─► Peers::execute ─► that node's Router ─► Group
//!                                        ▲                        │
//!                                        └── "not me, X leads" ◄──┘   followed until the deadline
//! ```
//!
//! Invariants: commands go to one node at a time, and to another only if it is certain that nothing was
//! done; what is not known is told as unknown. A query may be asked again. Whoever is asked by a peer
//! answers by itself or not at all: work is never passed on twice.

mod directory;
mod port;
mod search;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;

use rossby_domain::ids::{GroupId, NodeId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query, Rejection, Reply};
use rossby_raft::{Group, Leadership, Member, ProposeError};
use tokio::time::Instant;

use crate::error::{ApiError, Code};
use crate::signals::{Fate, MAX_BYTES as MAX_SIGNAL_BYTES, Signal, Signals};

pub use directory::{Directory, SoleGroup};
pub use port::{Alone, Execute, ExecuteError, Executed, Peers};
pub(crate) use search::ANSWER_MARGIN;
pub use search::{Next, Search};
pub(crate) use work::MAX_BYTES as WORK_BYTES_MAX;
#[cfg(any(test, fuzzing))]
pub(crate) use work::{Done, Work};
#[cfg(not(any(test, fuzzing)))]
use work::{Done, Work};

use search::{Hints, Silent};

/// Reaches the groups of the cluster, those that are led here and those that are not.
pub struct Router {
    node: NodeId,
    directory: Arc<dyn Directory>,
    peers: Arc<dyn Peers>,
    hints: Hints,
    silent: Silent,
    signals: Signals,
}

/// Replies of a group, and where they came from.
#[derive(Debug)]
pub struct Proposed {
    /// One for each command, in order.
    pub replies: Vec<Reply>,
    /// The group's replica, if it is led here.
    pub(crate) here: Option<Arc<Group>>,
    told: Timestamp,
}

impl Proposed {
    /// The time of the group, by which its rejections are told.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.here
            .as_ref()
            .map_or(self.told, |group| group.service_time())
    }

    /// What a client is told of a rejection: [`ApiError::of_rejection`] by the group's time.
    #[must_use]
    pub fn refusal(&self, rejection: &Rejection, unknown: Code) -> ApiError {
        ApiError::of_rejection(rejection, unknown, self.now())
    }
}

impl Router {
    /// The router of a node.
    #[must_use]
    pub fn new(node: NodeId, directory: Arc<dyn Directory>, peers: Arc<dyn Peers>) -> Arc<Self> {
        Arc::new(Self {
            node,
            directory,
            peers,
            hints: Hints::default(),
            silent: Silent::default(),
            signals: Signals::default(),
        })
    }

    /// Who listens on this node.
    pub(crate) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// How many signals came to which end at this node, by the names of these ends: each is counted where that was seen.
    pub fn signal_fates(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.signals.fates()
    }

    /// Has a signal given to whoever listens to its box, wherever its group is led.
    ///
    /// # Errors
    /// If it could not be; nobody is told.
    pub(crate) async fn signal(
        &self,
        group: GroupId,
        partition: PartitionId,
        signal: Signal,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let work = Work::Signals(vec![(partition, signal)]);
        self.dispatch(group, work, deadline).await.map(drop)
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// What this node knows of placement.
    #[must_use]
    pub fn directory(&self) -> &dyn Directory {
        &*self.directory
    }

    /// Who leads a group, as far as can be told here without asking.
    pub(crate) fn likely_leader(&self, group: GroupId) -> Option<Member> {
        let first = || self.directory.nodes(group).into_iter().next();
        self.hints.get(group).or_else(first)
    }

    /// A search for the leader of a group.
    #[must_use]
    pub fn search(&self, group: GroupId, deadline: Instant) -> Search<'_> {
        Search::new(self, group, deadline)
    }

    /// Proposes commands to a group, wherever it is led. `commands` makes them, again if the leader here
    /// was none.
    ///
    /// # Errors
    /// [`Code::OutcomeUnknown`] if they may have taken effect; with all others nothing was done.
    pub async fn propose(
        &self,
        group: GroupId,
        commands: impl Fn() -> Vec<(PartitionId, Command)> + Send + Sync,
        deadline: Instant,
    ) -> Result<Proposed, ApiError> {
        if let Some(replica) = self.directory.replica(group)
            && replica.leads()
        {
            match replica.propose(commands(), deadline).await {
                Ok(replies) => {
                    return Ok(Proposed {
                        replies,
                        here: Some(replica),
                        told: Timestamp::default(),
                    });
                }
                // Nothing was proposed, and another may lead by now.
                Err(ProposeError::NotLeader { .. } | ProposeError::Stopped) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Boxed, so that the future of the usual way stays small.
        let work = Work::Commands(commands());
        let (done, told, here) = Box::pin(self.dispatch(group, work, deadline)).await?;
        match done {
            Done::Replies(replies) => Ok(Proposed {
                replies,
                here,
                told,
            }),
            Done::Answers(_) | Done::Signalled => Err(ApiError::internal("answers to commands")),
        }
    }

    /// Asks a group about one of its partitions, linearizably, wherever it is led.
    ///
    /// # Errors
    /// If nobody answers in time, or the group does not own the partition.
    pub async fn ask(
        &self,
        group: GroupId,
        partition: PartitionId,
        query: Query,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        let answers = self.ask_all(group, vec![(partition, query)], deadline);
        let answer = answers.await?.pop();
        answer.ok_or_else(|| ApiError::internal("a query without an answer"))
    }

    /// Asks a group several questions about its partitions in one go, as [`Self::ask`]; answers in order.
    ///
    /// # Errors
    /// As [`Self::ask`], if it holds for any of them.
    pub async fn ask_all(
        &self,
        group: GroupId,
        queries: Vec<(PartitionId, Query)>,
        deadline: Instant,
    ) -> Result<Vec<Answer>, ApiError> {
        let work = Work::Queries(queries);
        let (done, ..) = Box::pin(self.dispatch(group, work, deadline)).await?;
        match done {
            Done::Answers(answers) => Ok(answers),
            Done::Replies(_) | Done::Signalled => Err(ApiError::internal("replies to queries")),
        }
    }

    /// Has work done by whoever leads the group.
    async fn dispatch(
        &self,
        group: GroupId,
        work: Work,
        deadline: Instant,
    ) -> Result<(Done, Timestamp, Option<Arc<Group>>), ApiError> {
        let may_repeat = work.is_query();
        let mut encoded = None;
        let mut search = self.search(group, deadline);
        loop {
            let next = search.next().await?;
            let member = match next {
                Next::Here(replica) => {
                    match self.perform(&replica, work.clone(), search.give_up()).await {
                        Ok((done, time)) => return Ok((done, time, Some(replica))),
                        Err(error) => search.failed(None, error, may_repeat)?,
                    }
                    continue;
                }
                Next::At(member) => member,
            };
            let bytes = match &encoded {
                Some(bytes) => bytes,
                None => encoded.insert(work.encode().map_err(unencodable)?),
            };
            let request = Execute {
                group,
                work: bytes.clone(),
            };
            let asked = self.peers.execute(&member, request, search.give_up()).await;
            match asked.and_then(|executed| {
                let done = Done::decode(&executed.done, &work);
                let done = done.map_err(|error| ExecuteError::Lost(error.to_string()))?;
                Ok((done, executed.time))
            }) {
                Ok((done, time)) => {
                    search.found(&member);
                    return Ok((done, time, None));
                }
                Err(error) => search.failed(Some(&member), error, may_repeat)?,
            }
        }
    }

    /// Does for a peer what it asks of a group that is led here.
    ///
    /// # Errors
    /// [`ExecuteError`]; with [`ExecuteError::NotLeading`] nothing was done.
    pub async fn execute(
        &self,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError> {
        let work = Work::decode(&request.work).map_err(|_| ExecuteError::Malformed)?;
        let Some(replica) = self.directory.replica(request.group) else {
            let leader = self.hints.get(request.group);
            return Err(ExecuteError::NotLeading { leader });
        };
        let (done, time) = match self.perform(&replica, work, deadline).await {
            Ok(done) => done,
            // openraft goes on naming a leader that it has not heard from for long.
            Err(ExecuteError::NotLeading { .. }) => {
                let leader = match replica.leadership() {
                    Leadership::Elsewhere(member) => Some(member),
                    Leadership::Here { .. } | Leadership::Unknown => None,
                };
                return Err(ExecuteError::NotLeading { leader });
            }
            Err(error) => return Err(error),
        };
        // Commands have taken effect, whatever their replies weigh.
        let done = done.encode().map_err(|_| ExecuteError::OutcomeUnknown)?;
        Ok(Executed { done, time })
    }

    /// Does work at a replica, if it leads; the group's time with it.
    async fn perform(
        &self,
        replica: &Group,
        work: Work,
        deadline: Instant,
    ) -> Result<(Done, Timestamp), ExecuteError> {
        let done = match work {
            Work::Commands(commands) => Done::Replies(replica.propose(commands, deadline).await?),
            Work::Queries(queries) => Done::Answers(answer(replica, &queries, deadline).await?),
            Work::Signals(signals) => {
                self.deliver(replica, &signals)?;
                Done::Signalled
            }
        };
        Ok((done, replica.service_time()))
    }

    /// Gives signals to who listens here, from those whom their boxes hear. By what is applied: no quorum is asked, and nothing is
    /// written. Not while the group is busy: signals are dropped before anything else is.
    fn deliver(
        &self,
        replica: &Group,
        signals: &[(PartitionId, Signal)],
    ) -> Result<(), ExecuteError> {
        if !replica.leads() {
            return Err(ExecuteError::NotLeading { leader: None });
        }
        if replica.is_busy() {
            for _ in signals {
                self.signals.count(Fate::Busy);
            }
            return Ok(());
        }
        for (partition, signal) in signals {
            let query = Query::KeyRecord {
                box_id: signal.recipient,
                sender: signal.sender,
            };
            let heard = replica.read_local(*partition, &query)?;
            if signal.body.len() <= MAX_SIGNAL_BYTES && matches!(heard, Answer::KeyRecord(Some(_)))
            {
                self.signals.deliver(signal);
            } else {
                self.signals.count(Fate::Unheard);
            }
        }
        Ok(())
    }
}

/// Answers queries by what was applied after one look whether this replica leads.
async fn answer(
    replica: &Group,
    queries: &[(PartitionId, Query)],
    deadline: Instant,
) -> Result<Vec<Answer>, ExecuteError> {
    replica.linearize(deadline).await?;
    let mut answers = Vec::with_capacity(queries.len());
    for (partition, query) in queries {
        let answer = if query.depends_on_time() {
            replica.read(*partition, query, deadline).await?
        } else {
            replica.read_local(*partition, query)?
        };
        // Somebody's map is wrong, or the partition was not taken over yet: what is not there may be
        // elsewhere.
        if replica.epoch(*partition).is_none() {
            return Err(ExecuteError::NotOwner);
        }
        answers.push(answer);
    }
    Ok(answers)
}

fn unencodable(error: rossby_storage::codec::CodecError) -> ApiError {
    ApiError::internal(format!("work for a peer: {error}"))
}
