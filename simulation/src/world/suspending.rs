//! The operator suspends a box, and lets it send again.

use rossby_api::admin::{OperatorError, suspend};
use rossby_domain::Rejection;
use rossby_domain::ids::BoxId;

use super::wire::DeviceWire;
use crate::observe::{Failure, Request, Response};

impl DeviceWire {
    /// Has the operator suspend a box at some node, or let it send again; whether that is done, or there is no such box.
    pub async fn suspend(&self, box_id: BoxId, suspended: bool) -> bool {
        let request = Request::Suspend { box_id, suspended };
        let Some(life) = self.some_life() else {
            return false;
        };
        let done = self.beside_it(request, async {
            let ordering = suspend(&life.router, box_id, suspended);
            match life.gone.run_until_cancelled(ordering).await {
                Some(Ok(_)) => Ok(Response::Done),
                Some(Err(OperatorError::Unavailable(why))) => Err(Failure::Refused(why)),
                Some(Err(OperatorError::Invalid(_) | OperatorError::Refused(_))) => {
                    Err(Failure::Rejected(Rejection::UnknownBox))
                }
                Some(Err(OperatorError::Unknown(_) | OperatorError::Failed(_))) | None => {
                    Err(Failure::Unknown)
                }
            }
        });
        matches!(done.await, Ok(_) | Err(Failure::Rejected(_)))
    }
}
