//! New groups, as `rossby group add` has them come: the order and what it comes to are the real ones, on any node.

use futures_util::FutureExt as _;
use rossby_api::admin::{NewGroup, OperatorError};
use rossby_api::placement::grow;
use rossby_domain::placement::RegionName;
use tokio::time::sleep;

use super::operator::{AGAIN, Operator};
use crate::observe::What;

impl Operator {
    /// Adds a group of boxes, from any node, again and again until it serves, or makes no sense, or nobody
    /// knows. Dropped, it leaves the group where it is.
    pub async fn add_group(&self, home: &RegionName, partitions: Option<u16>) {
        let what = format!("order to add a group in region {home}");
        self.saw(What::FaultOn(what.clone()));
        let ended = loop {
            match self.add_group_once(home, partitions).await {
                Some(Ok(added)) => break format!("{what}: group {}", added.group),
                Some(Err(
                    error @ (OperatorError::Refused(_)
                    | OperatorError::Invalid(_)
                    | OperatorError::Unknown(_)),
                )) => break format!("{what}: {error}"),
                _ => sleep(AGAIN).await,
            }
        };
        self.saw(What::FaultOff(ended));
    }

    /// The same once; `None` if no process runs, or it ends.
    pub(super) async fn add_group_once(
        &self,
        home: &RegionName,
        partitions: Option<u16>,
    ) -> Option<Result<NewGroup, OperatorError>> {
        let life = self.any_life()?;
        let ground = life.ground();
        let growing = grow(&ground, home.clone(), partitions).boxed();
        life.gone.run_until_cancelled(growing).await
    }

    /// The home of a group that was left in the map before any founder heard of it. The cluster brings to life only
    /// those of which one did.
    #[must_use]
    pub fn left_unborn(&self) -> Option<RegionName> {
        let map = self.newest_map();
        let mut groups = map.groups().iter();
        let unborn = groups.find(|(group, _)| {
            let mut lives = self.common.lives();
            lives.all(|life| life.replicas.get(**group).is_none())
        });
        unborn.map(|(_, entry)| entry.home.clone())
    }
}
