//! Orders about the members: given again and again until they are done, saying how far they are.

use std::time::Duration;

use rossby_api::admin::{MembersOrder, MembersProgress, members_answer, members_request};
use rossby_domain::ids::GroupId;
use rossby_domain::placement::PLACEMENT_GROUP;
use rossby_proto::v1;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{TRY_AGAIN, connect, order};
use crate::cli::ChangeArgs;
use crate::exit::{Exit, Failure};
use crate::fleet::set_draining;
use crate::output;
use crate::serve::founding::FIRST_GROUP;

/// One call carries the order on for a while, or waits for the leader.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two lines about how far it is.
const REPORT_PERIOD: Duration = Duration::from_secs(2);

/// A step as JSON.
#[derive(Serialize, PartialEq, Eq)]
struct StepView {
    state: &'static str,
    replica: Option<u64>,
    behind_entries: Option<u64>,
    shipped_bytes: Option<u64>,
    leader_node: Option<u64>,
    voters: Option<usize>,
}

/// Carries an order out.
///
/// # Errors
/// If it is refused, or nothing has moved for as long as the arguments say.
pub(super) async fn change(args: &ChangeArgs, wanted: &MembersOrder) -> Result<(), Failure> {
    // A node that does not run will not be waited for.
    connect(&args.socket.path()).await?;
    let mut moved = Moved::new();
    let leaving = begin_leaving(args, wanted, &mut moved).await?;
    let done = match in_groups(args, wanted, &mut moved).await {
        Err(failure) if failure.exit == Exit::Refused && !moved.ever => {
            // It stays, so it is not to leave by itself later either.
            if let Some(node) = leaving {
                set_draining(&args.socket, node, false).await?;
            }
            return Err(failure);
        }
        done => done?,
    };
    settle(args, wanted, &mut moved).await?;
    if args.json {
        return output::json(&view(done));
    }
    output::line(words(wanted, done));
    Ok(())
}

/// Carries an order out in the group that it is for, or in all; what was said of the boxes' group when it
/// was done.
async fn in_groups(
    args: &ChangeArgs,
    wanted: &MembersOrder,
    moved: &mut Moved,
) -> Result<MembersProgress, Failure> {
    match args.group {
        Some(group) => in_group(args, group, false, wanted, moved).await,
        None => {
            let done = in_group(args, FIRST_GROUP.0, true, wanted, moved).await?;
            in_group(args, PLACEMENT_GROUP.0, true, wanted, moved).await?;
            Ok(done)
        }
    }
}

/// A node that is to leave the cluster is marked in the map first, so that nobody brings it back meanwhile;
/// the node, if it was not marked before.
async fn begin_leaving(
    args: &ChangeArgs,
    wanted: &MembersOrder,
    moved: &mut Moved,
) -> Result<Option<u64>, Failure> {
    let MembersOrder::Remove {
        node,
        half_added_only: false,
    } = wanted
    else {
        return Ok(None);
    };
    let mut client = connect(&args.socket.path()).await?;
    let status = order(CALL_TIMEOUT, client.status(v1::StatusRequest {})).await?;
    // With several groups of boxes the order is for one of them, or refused.
    if args.group.is_some() || status.data_groups > 1 {
        return Ok(None);
    }
    loop {
        match set_draining(&args.socket, node.0, true).await {
            Ok(set) => return Ok(set.changed.then_some(node.0)),
            // It is not in the map.
            Err(failure) if failure.exit == Exit::Usage => return Ok(None),
            Err(failure) if passing(&failure) => {
                if moved.at.elapsed() > Duration::from_secs(args.patience) {
                    return Err(gave_up(&failure.message, false, wanted));
                }
                moved.waits_for(&failure.message);
            }
            Err(failure) => return Err(failure),
        }
        sleep(PAUSE).await;
    }
}

/// Carries an order out in one group only.
///
/// # Errors
/// If it is refused, or nothing has moved for as long as the arguments say.
pub async fn in_one_group(
    args: &ChangeArgs,
    group: u32,
    wanted: &MembersOrder,
) -> Result<(), Failure> {
    let mut moved = Moved::new();
    in_group(args, group, false, wanted, &mut moved).await?;
    Ok(())
}

/// Carries an order out in one group; what was said when it was done.
async fn in_group(
    args: &ChangeArgs,
    group: u32,
    whole_node: bool,
    wanted: &MembersOrder,
    moved: &mut Moved,
) -> Result<MembersProgress, Failure> {
    let request = v1::ChangeMembersRequest {
        whole_node,
        ..members_request(GroupId(group), wanted)
    };
    let patience = Duration::from_secs(args.patience);
    loop {
        match one_call(args, &request).await {
            Ok(done @ MembersProgress::Done { .. }) => {
                moved.note(done);
                return Ok(done);
            }
            Ok(progress) => {
                moved.note(progress);
                show(args.json, wanted, progress, moved)?;
                if moved.at.elapsed() > patience {
                    let text = "nothing has moved for a while";
                    return Err(gave_up(text, moved.ever, wanted));
                }
            }
            Err(failure) if passing(&failure) => {
                moved.unknown |= failure.exit == Exit::OutcomeUnknown;
                if moved.at.elapsed() > patience {
                    let begun = moved.ever || moved.unknown;
                    return Err(gave_up(&failure.message, begun, wanted));
                }
                moved.waits_for(&failure.message);
            }
            Err(failure) => return Err(failure),
        }
        sleep(PAUSE).await;
    }
}

/// Has a node that left its groups taken out of the cluster map.
async fn settle(
    args: &ChangeArgs,
    wanted: &MembersOrder,
    moved: &mut Moved,
) -> Result<(), Failure> {
    let leaver = match wanted {
        MembersOrder::Remove { node, .. } => *node,
        MembersOrder::Replace { old, new, .. } if old != new => *old,
        MembersOrder::Replace { .. } | MembersOrder::Add(..) => return Ok(()),
    };
    moved.at = Instant::now();
    loop {
        let mut client = connect(&args.socket.path()).await?;
        let request = v1::SettleNodeRequest { node_id: leaver.0 };
        match order(CALL_TIMEOUT, client.settle_node(request)).await {
            Ok(settled) => {
                let is_partial = args.group.is_some() && !settled.gone;
                if is_partial {
                    output::note(format!(
                        "node {leaver} is in other groups still: give the order for each of them; `rossby \
                         placement show` lists them"
                    ));
                }
                return Ok(());
            }
            Err(failure) if passing(&failure) => {
                if moved.at.elapsed() > Duration::from_secs(args.patience) {
                    return Err(gave_up(&failure.message, true, wanted));
                }
                moved.waits_for(&failure.message);
            }
            Err(failure) => return Err(failure),
        }
        sleep(PAUSE).await;
    }
}

async fn one_call(
    args: &ChangeArgs,
    request: &v1::ChangeMembersRequest,
) -> Result<MembersProgress, Failure> {
    let mut client = connect(&args.socket.path()).await?;
    let call = client.change_members(request.clone());
    let answer = order(CALL_TIMEOUT, call).await?;
    Ok(members_answer(&answer))
}

/// Whether the same order may go better in a moment.
fn passing(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unavailable | Exit::OutcomeUnknown)
}

fn gave_up(text: &str, begun: bool, wanted: &MembersOrder) -> Failure {
    if !begun {
        return Failure::new(Exit::Unavailable, text).help(TRY_AGAIN);
    }
    let failure = Failure::new(Exit::OutcomeUnknown, text);
    match wanted {
        MembersOrder::Add(node, _) | MembersOrder::Replace { new: node, .. } => {
            failure.help(format!(
                "give the same order again to go on, or take it back with `rossby cluster remove-node \
                 {node} --half-added`; `rossby cluster status` shows what there is"
            ))
        }
        MembersOrder::Remove { .. } => failure.help(
            "give the same order again to go on; `rossby cluster status` shows what there is",
        ),
    }
}

/// When the order last came any further.
struct Moved {
    at: Instant,
    ever: bool,
    /// A call ended without an answer.
    unknown: bool,
    last: Option<MembersProgress>,
    shown: Option<Instant>,
    waits_for: Option<String>,
}

impl Moved {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            ever: false,
            unknown: false,
            last: None,
            shown: None,
            waits_for: None,
        }
    }

    fn note(&mut self, progress: MembersProgress) {
        self.ever = true;
        if self.last.as_ref() != Some(&progress) {
            self.last = Some(progress);
            self.at = Instant::now();
        }
    }

    /// Says once what it waits for.
    fn waits_for(&mut self, what: &str) {
        if self.waits_for.as_deref() != Some(what) {
            output::note(format!("waiting: {what}"));
            self.waits_for = Some(what.to_owned());
        }
    }

    fn is_due(&mut self) -> bool {
        let due = self
            .shown
            .is_none_or(|shown| shown.elapsed() >= REPORT_PERIOD);
        if due {
            self.shown = Some(Instant::now());
        }
        due
    }
}

fn show(
    json: bool,
    wanted: &MembersOrder,
    progress: MembersProgress,
    moved: &mut Moved,
) -> Result<(), Failure> {
    let due = moved.is_due();
    if matches!(progress, MembersProgress::CatchingUp { .. }) && !due {
        return Ok(());
    }
    if json {
        return output::json(&view(progress));
    }
    output::line(words(wanted, progress));
    Ok(())
}

fn view(progress: MembersProgress) -> StepView {
    let nothing = StepView {
        state: "done",
        replica: None,
        behind_entries: None,
        shipped_bytes: None,
        leader_node: None,
        voters: None,
    };
    match progress {
        MembersProgress::CatchingUp {
            replica,
            behind,
            shipped_bytes,
        } => StepView {
            state: "catching_up",
            replica: Some(replica.0),
            behind_entries: behind,
            shipped_bytes: Some(shipped_bytes),
            ..nothing
        },
        MembersProgress::HandedOver { leader } => StepView {
            state: "handed_over",
            leader_node: Some(leader.0),
            ..nothing
        },
        MembersProgress::Done { replica, voters } => StepView {
            replica: replica.map(|replica| replica.0),
            voters: (voters > 0).then_some(voters),
            ..nothing
        },
    }
}

fn words(wanted: &MembersOrder, progress: MembersProgress) -> String {
    let (replica, voters) = match progress {
        MembersProgress::CatchingUp {
            behind: Some(behind),
            ..
        } => return format!("The new copy is {behind} entries behind."),
        MembersProgress::CatchingUp {
            shipped_bytes: 0, ..
        } => return "The new copy has not answered yet.".to_owned(),
        MembersProgress::CatchingUp { shipped_bytes, .. } => {
            return format!(
                "The new copy is being filled: {shipped_bytes} bytes of checkpoints sent."
            );
        }
        MembersProgress::HandedOver { leader } => return format!("Node {leader} leads now."),
        MembersProgress::Done { replica, voters } => (replica, voters),
    };
    let now = match voters {
        0 => String::new(),
        1 => " One node has a vote now: its loss is the loss of the cluster.".to_owned(),
        even if even % 2 == 0 => format!(
            " {even} nodes have a vote now, and survive the loss of no more than {} do.",
            even - 1
        ),
        odd => format!(" {odd} nodes have a vote now."),
    };
    match (wanted, replica) {
        (MembersOrder::Remove { node, .. }, Some(_)) => {
            format!("Node {node} is a member; nothing of it is half added.{now}")
        }
        (MembersOrder::Remove { node, .. }, None) => format!("Node {node} is no member.{now}"),
        (MembersOrder::Add(node, _) | MembersOrder::Replace { new: node, .. }, _) => {
            format!("Node {node} is a member with a vote.{now}")
        }
    }
}
