//! Join tokens as a member has the placement group issue, revoke and take them: its log has the digests only.
//!
//! All commands may be given again, so what is not known is asked again.

use std::time::Duration;

use rossby_domain::command::{Admit, IssueToken, RevokeToken};
use rossby_domain::ids::{MapVersion, NodeId};
use rossby_domain::placement::{
    AdmissionRefusal, Joiner, PLACEMENT_GROUP, PLACEMENT_PARTITION, TokenDigest, TokenWanted,
};
use rossby_domain::time::Timestamp;
use rossby_domain::{Command, Outcome, Rejection};
use rossby_seams::random::{self, Random};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::admin::OperatorError;
use crate::error::{ApiError, Code, Retry};
use crate::router::Router;

/// How long it may take until a command is in the placement group's log.
pub const ADMISSION_WITHIN: Duration = Duration::from_secs(12);
/// How long one try may take.
const ONE_TRY: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// A token that was issued.
pub struct Issued {
    /// What proves that it is one.
    pub secret: Zeroizing<[u8; 32]>,
    /// The node that it is for.
    pub node: NodeId,
    /// From then on it is good no more.
    pub expires_at: Timestamp,
}

/// Has a token issued by which one node can join.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn issue_token(
    router: &Router,
    random: &dyn Random,
    wanted: TokenWanted,
) -> Result<Issued, OperatorError> {
    let secret = random::bytes(random);
    let secret = Zeroizing::new(secret.map_err(|error| failed(error.to_string()))?);
    let digest = TokenDigest::of(&secret);
    let command = Command::IssueToken(IssueToken { digest, wanted });
    match propose(router, command).await? {
        Outcome::TokenIssued { node, expires_at } => Ok(Issued {
            secret,
            node,
            expires_at,
        }),
        other => Err(unexpected(&other)),
    }
}

/// Takes the token back that is for this node. Every member asks the placement group about each token that it is
/// shown, so none takes it from then on.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn revoke_token(router: &Router, node: NodeId) -> Result<(), OperatorError> {
    let command = Command::RevokeToken(RevokeToken { node });
    match propose(router, command).await? {
        Outcome::TokenRevoked => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Has a node let in that shows a token; the map from which on it is in.
///
/// # Errors
/// [`OperatorError`], saying what is to be done.
pub async fn admit(router: &Router, joiner: Joiner) -> Result<MapVersion, OperatorError> {
    let command = Command::Admit(Admit { joiner });
    match propose(router, command).await? {
        Outcome::Placed { version } => Ok(version),
        other => Err(unexpected(&other)),
    }
}

/// Has a command of admission carried out by the placement group, wherever it is led.
async fn propose(router: &Router, command: Command) -> Result<Outcome, OperatorError> {
    let deadline = Instant::now() + ADMISSION_WITHIN;
    loop {
        let one_try = deadline.min(Instant::now() + ONE_TRY);
        let commands = || vec![(PLACEMENT_PARTITION, command.clone())];
        let proposed = router.propose(PLACEMENT_GROUP, commands, one_try).await;
        let error = match proposed {
            Ok(proposed) => match proposed.replies.into_iter().next() {
                Some(Ok(outcome)) => return Ok(outcome),
                Some(Err(Rejection::AdmissionRefused(refusal))) => {
                    return Err(of_refusal(&refusal));
                }
                Some(Err(Rejection::NotOwner { .. })) => {
                    OperatorError::Unavailable("the placement group is just beginning".to_owned())
                }
                other => return Err(failed(format!("unexpected reply: {other:?}"))),
            },
            Err(error) => of_placement_group(&error),
        };
        let may_pass = matches!(
            error,
            OperatorError::Unavailable(_) | OperatorError::Unknown(_)
        );
        if !may_pass || Instant::now() >= deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

/// What the operator can do about a refusal is told by whoever speaks to the operator.
fn of_refusal(refusal: &AdmissionRefusal) -> OperatorError {
    match refusal {
        AdmissionRefusal::Validity | AdmissionRefusal::NoToken(_) => {
            OperatorError::Invalid(refusal.to_string())
        }
        AdmissionRefusal::Joined(node) => OperatorError::Refused(format!(
            "{refusal}: `rossby node decommission {node}` takes the node out of the cluster"
        )),
        refusal => OperatorError::Refused(refusal.to_string()),
    }
}

/// Why the placement group did not answer.
#[must_use]
pub fn of_placement_group(error: &ApiError) -> OperatorError {
    let text = format!("the placement group: {}", error.code().message());
    match (error.code(), error.code().retry()) {
        (Code::OutcomeUnknown, _) => OperatorError::Unknown(text),
        (_, Retry::Same) => OperatorError::Unavailable(text),
        _ => OperatorError::Failed(text),
    }
}

fn unexpected(outcome: &Outcome) -> OperatorError {
    failed(format!("unexpected outcome: {outcome:?}"))
}

fn failed(text: String) -> OperatorError {
    OperatorError::Failed(text)
}
