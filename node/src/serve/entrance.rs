//! The door for clients, which is there before the node belongs to a cluster.

use std::sync::OnceLock;

use async_trait::async_trait;
use rossby_api::{ApiError, Call, CallReply, CallStream, Code, Door, Relay};
use tonic::Status;

/// Refuses calls, with a typed error, until there is somebody to answer them.
#[derive(Default)]
pub struct Entrance(OnceLock<Relay>);

impl Entrance {
    /// From now on calls go to the mailbox service, here or at the leader.
    pub fn open(&self, relay: Relay) {
        // A second call would change nothing: a node enters one cluster, once.
        let _ = self.0.set(relay);
    }

    /// Ends all subscriptions with a word to each, and takes no more.
    pub fn end_subscriptions(&self) {
        if let Some(relay) = self.0.get() {
            relay.end_subscriptions();
        }
    }
}

#[async_trait]
impl Door for Entrance {
    async fn call(&self, call: Call) -> Result<CallReply, Status> {
        match self.0.get() {
            Some(relay) => relay.call(call).await,
            None => Err(ApiError::from(Code::NotInCluster).into()),
        }
    }

    async fn subscribe(&self, call: Call) -> Result<CallStream, Status> {
        match self.0.get() {
            Some(relay) => relay.subscribe(call).await,
            None => Err(ApiError::from(Code::NotInCluster).into()),
        }
    }
}
