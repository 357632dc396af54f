//! `rossby placement`: where the cluster's data is, what its loss would cost, and what is to be survived.
//! Orders to a running node over its admin socket.

pub(crate) mod explain;
mod history;
mod show;

use std::time::Duration;

use rossby_domain::placement::{ClusterMap, SurvivalGoal};
use rossby_proto::v1;
use serde::Serialize;
use serde_json::json;

use crate::cli::{PlacementArgs, PlacementCommand, SetCommand};
use crate::cluster::{connect, order};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::runtime;
use crate::watch;

/// A node asks all others, and waits for those that do not answer.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// A map with all that nodes can be in it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Runs `rossby placement ...`.
///
/// # Errors
/// If the node can't be reached, or refuses.
pub fn run(command: &PlacementCommand) -> Result<(), Failure> {
    runtime::one_thread()?.block_on(async {
        match command {
            PlacementCommand::Show(args) => {
                let ask = async || View::ask(&args.placement).await;
                watch::show(args.watch, ask, |view| {
                    show::text(view, args.placement.json)
                })
                .await
            }
            PlacementCommand::Explain(args) => explain::print(&View::ask(args).await?, args.json),
            PlacementCommand::History(args) => history(args).await,
            PlacementCommand::Set(SetCommand::Survive { placement, goal }) => {
                set_survive(placement, *goal).await
            }
        }
    })
}

/// The map, and what is known of the groups.
pub struct View {
    /// The newest map that the node knows.
    pub map: ClusterMap,
    /// What is known of each group.
    pub groups: Vec<Known>,
    /// Nodes that were asked and did not answer.
    pub silent: Vec<u64>,
    /// The steps that are under way, if whoever plans them answers.
    pub steps: Vec<v1::StepUnderWay>,
}

/// A step that is under way, as it is shown.
#[derive(Debug, Serialize)]
pub struct StepView<'a> {
    /// The group.
    pub group: u32,
    /// Which kind of step.
    pub kind: &'a str,
    /// The same in words.
    pub what: &'a str,
    /// Why it failed when it was last tried.
    pub failure: Option<&'a str>,
}

impl<'a> StepView<'a> {
    /// As a node told it.
    #[must_use]
    pub fn of(step: &'a v1::StepUnderWay) -> Self {
        Self {
            group: step.group_id,
            kind: &step.kind,
            what: &step.what,
            failure: (!step.failure.is_empty()).then_some(step.failure.as_str()),
        }
    }

    /// In words.
    #[must_use]
    pub fn text(&self) -> String {
        match self.failure {
            Some(failure) => format!("{}, tried again: {failure}", self.what),
            None => self.what.to_owned(),
        }
    }
}

/// What is known of a group.
pub struct Known {
    /// What was told of it.
    pub status: v1::GroupStatus,
    /// Whether its leader told it.
    pub from_leader: bool,
}

impl Known {
    /// The node that leads it, if one is known to.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        (self.status.leader_node_id != 0).then_some(self.status.leader_node_id)
    }
}

impl View {
    /// Asks a node.
    ///
    /// # Errors
    /// If it can't be reached, or refuses.
    pub async fn ask(args: &PlacementArgs) -> Result<Self, Failure> {
        let client = connect(&args.socket.path()).await?;
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let asked = client.placement(v1::PlacementRequest {});
        let answer = order(ORDER_TIMEOUT, asked).await?;
        let map = serde_json::from_slice(&answer.map).map_err(|error| unreadable(&error))?;
        let known = |known: v1::KnownGroup| {
            Some(Known {
                status: known.status?,
                from_leader: known.from_leader,
            })
        };
        Ok(Self {
            map,
            groups: answer.groups.into_iter().filter_map(known).collect(),
            silent: answer.silent_node_ids,
            steps: answer.steps,
        })
    }

    /// The step of a group that is under way.
    #[must_use]
    pub fn step(&self, group: u32) -> Option<StepView<'_>> {
        let step = self.steps.iter().find(|step| step.group_id == group);
        step.map(StepView::of)
    }

    /// What is known of a group.
    #[must_use]
    pub fn group(&self, group: u32) -> Option<&Known> {
        let mut groups = self.groups.iter();
        groups.find(|known| known.status.group_id == group)
    }
}

async fn history(args: &PlacementArgs) -> Result<(), Failure> {
    let client = connect(&args.socket.path()).await?;
    let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
    let asked = client.placement_history(v1::PlacementHistoryRequest {});
    let answer = order(ORDER_TIMEOUT, asked).await?;
    let rows: Vec<_> =
        serde_json::from_slice(&answer.history).map_err(|error| unreadable(&error))?;
    history::print(&rows, args.json)
}

async fn set_survive(args: &PlacementArgs, goal: SurvivalGoal) -> Result<(), Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let request = v1::SetSurviveRequest {
        survive: goal.to_string(),
    };
    let done = order(ORDER_TIMEOUT, client.set_survive(request)).await?;
    if args.json {
        return output::json(&json!({ "survive": goal, "version": done.map_version }));
    }
    output::line(format!(
        "The cluster is to survive the loss of a {goal}: version {} of the map.",
        done.map_version
    ));
    output::line(
        "Voters move by themselves until it is so: `rossby placement explain` says what would be survived now.",
    );
    Ok(())
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("the node sent what can't be read: {error}"),
    )
    .help("use the same release of rossby as the node")
}
