//! The closed loop: so many clients, each beginning its next operation when the last is over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use rossby_client::connection::{CallError, Refusal, WireError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::BenchError;

/// When what is measured begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What ended before this was warming up.
    pub begin: Instant,
    /// No operation begins after this.
    pub end: Instant,
}

impl Plan {
    /// Begins to warm up now.
    #[must_use]
    pub fn from_now(warm_up: Duration, measured: Duration) -> Self {
        let begin = Instant::now() + warm_up;
        Self {
            begin,
            end: begin + measured,
        }
    }

    /// How long is measured.
    #[must_use]
    pub fn measured(&self) -> Duration {
        self.end.saturating_duration_since(self.begin)
    }
}

/// An operation that did not succeed: a stable code, or what happened to the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub Cow<'static, str>);

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => (*refusal).into(),
            CallError::Unavailable(_) => Self("UNAVAILABLE".into()),
            CallError::NotTheService(_) => Self("NOT_THE_SERVICE".into()),
            CallError::OutcomeUnknown(_) => Self("OUTCOME_UNKNOWN".into()),
            CallError::BadReply(_) => Self("BAD_REPLY".into()),
            CallError::Sign | CallError::Random(_) => Self("NOT_SIGNED".into()),
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.code.into())
    }
}

/// The code that a failed try is counted under.
pub(crate) fn code_of_wire(error: &WireError) -> &str {
    match error {
        WireError::Refused(refusal) => &refusal.code,
        WireError::NotSent(_) => "NOT_SENT",
        WireError::NotTheService(_) => "NOT_THE_SERVICE",
        WireError::Lost(_) => "LOST",
    }
}

/// Somebody who does one thing after the other.
pub trait Client: Send + 'static {
    /// Does the next thing, to its end.
    fn step(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// One operation that succeeded in the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it ended, in milliseconds since the measuring began.
    pub ended_ms: u32,
    /// How long it took, in microseconds.
    pub took_us: u32,
}

/// What the clients did in the measured time.
#[derive(Debug, Default)]
pub struct Tally {
    /// What succeeded.
    pub samples: Vec<Sample>,
    /// What did not, by code.
    pub faults: BTreeMap<String, u64>,
    /// What was still under way at the end, however it went on.
    pub under_way: UnderWay,
}

/// Operations that the measured time was over for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// How many.
    pub count: u64,
    /// How long the oldest of them had been under way at the end.
    pub oldest: Duration,
}

impl Tally {
    fn take_in(&mut self, other: Self) {
        self.samples.extend(other.samples);
        for (code, count) in other.faults {
            *self.faults.entry(code).or_default() += count;
        }
        self.under_way.count += other.under_way.count;
        self.under_way.oldest = self.under_way.oldest.max(other.under_way.oldest);
    }
}

/// Runs all clients until the plan is over. Those that are not done by then end what they began, which
/// counts as under way only.
///
/// # Errors
/// If a client broke off.
pub async fn drive<C: Client>(clients: Vec<C>, plan: Plan) -> Result<Tally, BenchError> {
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(run(client, plan));
    }
    let mut tally = Tally::default();
    while let Some(ended) = running.join_next().await {
        tally.take_in(ended.map_err(|_| BenchError::BrokeOff)?);
    }
    Ok(tally)
}

async fn run<C: Client>(mut client: C, plan: Plan) -> Tally {
    let mut tally = Tally::default();
    loop {
        let began = Instant::now();
        if began >= plan.end {
            return tally;
        }
        let result = client.step().await;
        let ended = Instant::now();
        if ended >= plan.end {
            tally.under_way = UnderWay {
                count: 1,
                oldest: plan.end - began,
            };
            return tally;
        }
        if ended < plan.begin {
            continue;
        }
        match result {
            Ok(()) => tally.samples.push(Sample {
                ended_ms: saturating((ended - plan.begin).as_millis()),
                took_us: saturating((ended - began).as_micros()),
            }),
            Err(Fault(code)) => *tally.faults.entry(code.into_owned()).or_default() += 1,
        }
    }
}

fn saturating(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a fixed time, and fails each third time.
    struct Steady {
        steps: u32,
        takes: Duration,
    }

    impl Client for Steady {
        async fn step(&mut self) -> Result<(), Fault> {
            self.steps += 1;
            tokio::time::sleep(self.takes).await;
            match self.steps % 3 {
                0 => Err(Fault("THIRD".into())),
                _ => Ok(()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_ends_in_the_measured_time_is_counted() {
        let plan = Plan::from_now(Duration::from_millis(95), Duration::from_millis(60));
        let takes = Duration::from_millis(10);
        let clients = vec![Steady { steps: 0, takes }, Steady { steps: 0, takes }];
        let tally = drive(clients, plan).await.unwrap();
        // Steps 10 to 15 of each end at 100, 110 .. 150 ms; 12 and 15 fail.
        assert_eq!(tally.samples.len(), 2 * 4);
        assert_eq!(tally.faults, BTreeMap::from([("THIRD".to_owned(), 4)]));
        assert!(tally.samples.iter().all(|sample| sample.took_us >= 10_000));
        assert!(tally.samples.iter().all(|sample| sample.ended_ms < 60));
        // Step 16 begins at 150 ms, and the end is at 155.
        let oldest = Duration::from_millis(5);
        assert_eq!(tally.under_way, UnderWay { count: 2, oldest });
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_outlasts_all_the_measured_time_is_told() {
        let plan = Plan::from_now(Duration::from_millis(20), Duration::from_millis(60));
        let takes = Duration::from_millis(500);
        let quick = Duration::from_millis(7);
        let clients = vec![
            Steady { steps: 0, takes },
            Steady {
                steps: 0,
                takes: quick,
            },
        ];
        let tally = drive(clients, plan).await.unwrap();
        assert!(!tally.samples.is_empty());
        let oldest = Duration::from_millis(80);
        assert_eq!(tally.under_way, UnderWay { count: 2, oldest });
    }
}
