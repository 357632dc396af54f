//! Telling the placement group of groups that were recovered on this node while it was stopped.

use std::time::Duration;

use rossby_api::admin::OperatorError;
use rossby_domain::ids::{GroupId, NodeId};
use rossby_domain::placement::{Change, PLACEMENT_GROUP};
use rossby_proto::v1;
use tracing::{debug, error, info, warn};

use super::init::unavailable;
use super::node::Node;
use crate::recover::pending;

/// After so many refusals it is given up.
const REFUSED_OFTEN: u32 = 20;
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Node {
    /// Has the cluster map say what takes the place of the groups that were recovered here, if it does not yet, until
    /// this node stops.
    pub(super) async fn announce_recovery(&self) {
        let (disk, data) = (&*self.parts.disk, &self.parts.config.data);
        let change = match pending::read(disk, data) {
            Ok(Some(change)) => change,
            Ok(None) => return,
            Err(error) => {
                return error!(
                    error,
                    "what was recovered on this node can't be read: the cluster is not told"
                );
            }
        };
        let (mut told, mut refused) = (false, 0);
        while !self.is_announced(&change) {
            match self.announce(&change).await {
                Ok(()) => {}
                // Perhaps it was told already, and the map that says so is on its way.
                Err(OperatorError::Refused(_)) if refused < REFUSED_OFTEN => refused += 1,
                Err(OperatorError::Refused(reason)) => {
                    return error!(
                        reason,
                        "what was recovered on this node can't take its place: perhaps it was recovered elsewhere first"
                    );
                }
                Err(error) if !told => {
                    told = true;
                    warn!(
                        ?error,
                        "the placement group was not told yet what was recovered here"
                    );
                }
                Err(error) => debug!(?error, "the placement group was not told yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(TRY_AGAIN) => {}
                () = self.stop_tasks.cancelled() => return,
            }
        }
        info!("the cluster goes on with what was recovered on this node");
        if let Err(error) = pending::remove(disk, data) {
            // Found to be done again at the next start.
            debug!(%error, "the note of what was recovered could not be removed");
        }
    }

    fn is_announced(&self, change: &Change) -> bool {
        let (Some(membership), Change::Recover { groups, .. }) = (self.membership(), change) else {
            return false;
        };
        let map = membership.map.newest();
        let mut groups = groups.iter();
        groups.all(|(group, successor)| map.successors().get(group) == Some(successor))
    }

    async fn announce(&self, change: &Change) -> Result<(), OperatorError> {
        if let Change::Recover { groups, .. } = change {
            let (known, _) = self.known_groups().await?;
            let statuses = || {
                known
                    .iter()
                    .filter_map(|known| Some((known, known.status.as_ref()?)))
            };
            for group in groups.keys() {
                let told = statuses().filter(|(_, status)| status.group_id == group.0);
                refuse_alive(self.id(), *group, told)?;
            }
        }
        self.change_map_anywhere(change.clone()).await.map(drop)
    }
}

/// A group that is led after all has not lost its quorum; and what was recovered here is not the latest if it goes on
/// elsewhere among others, who came while this node was away.
fn refuse_alive<'a>(
    own: NodeId,
    group: GroupId,
    told: impl Iterator<Item = (&'a v1::KnownGroup, &'a v1::GroupStatus)>,
) -> Result<(), OperatorError> {
    for (known, status) in told {
        let mut members = status.members.iter();
        let is_among = status.members.is_empty() || members.any(|member| member.node_id == own.0);
        if group != PLACEMENT_GROUP && !is_among {
            return Err(OperatorError::Refused(format!(
                "a replica of group {group} is left elsewhere, and knows that this node was taken out of the group: \
                 recover it there"
            )));
        }
        // One that lost its quorum goes on as leader, and reaches nobody.
        let voters = status.members.iter().filter(|member| member.voter);
        let reached = voters.clone().filter(|member| member.trouble.is_empty());
        if known.from_leader && reached.count() > voters.count() / 2 {
            return Err(unavailable(format!("group {group} has a leader after all")));
        }
    }
    Ok(())
}
