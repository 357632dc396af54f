//! Learning the way beside the calls: no call waits for a map.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rossby_proto::v1;
use tokio::time::{Instant, timeout};

use super::route::{Route, Tries};
use super::{Connection, Exchange, GetMap, Patience, Rpc, ServerAddress, Wire, WireError};

/// Servers that are asked for a map, one after the other.
const MAX_ASKED: usize = 3;
/// Servers whose distance is measured with each map.
const MAX_MEASURED: usize = 4;

impl Connection {
    /// The same, but one that learns where boxes are led and goes there: from maps that it asks servers for
    /// beside its calls, and from what they say of calls that they had to relay. `map` is what it knew before
    /// ([`Connection::map`]).
    #[must_use]
    pub fn learning(self, map: Option<Bytes>) -> Self {
        {
            let mut route = self.route.lock();
            route.learns = true;
            if let Some(map) = map {
                let _ = route.take_in(&map);
            }
        }
        self
    }

    /// The map that it knows, to be kept for [`Connection::learning`].
    #[must_use]
    pub fn map(&self) -> Option<Bytes> {
        self.route.lock().map_bytes()
    }

    /// Asks for a map, if it is time to, and waits for nothing.
    pub(super) fn learn(&self) {
        let Some(known) = self.route.lock().wants_map() else {
            return;
        };
        let learner = Learner {
            wire: Arc::clone(&self.wire),
            route: Arc::clone(&self.route),
            patience: self.patience,
        };
        tokio::spawn(learner.run(known));
    }
}

struct Learner {
    wire: Arc<dyn Wire>,
    route: Arc<Mutex<Route>>,
    patience: Patience,
}

impl Learner {
    async fn run(self, known: u64) {
        let mut tries = Tries::default();
        for _ in 0..MAX_ASKED {
            let next = self.route.lock().next(None, &mut tries);
            let Some((index, server)) = next else { return };
            if let Some(map) = self.ask(index, &server, known).await {
                let _ = self.route.lock().take_in(&map);
                break;
            }
            tries.unreached();
        }
        let unmeasured = self.route.lock().unmeasured(MAX_MEASURED);
        for (index, server) in unmeasured {
            // Nobody knows as new a map as this: the answer is short.
            let _ = self.ask(index, &server, u64::MAX).await;
        }
    }

    /// What a server answered.
    async fn ask(&self, index: usize, server: &ServerAddress, known: u64) -> Option<Bytes> {
        let request = v1::GetMapRequest {
            known_version: known,
        };
        let exchange = Exchange {
            server,
            path: GetMap::PATH,
            message: request.encode_to_vec().into(),
            authorization: None,
            timeout: self.patience.attempt,
        };
        let began = Instant::now();
        let answer = timeout(self.patience.attempt, self.wire.exchange(exchange)).await;
        match answer {
            Ok(Ok(reply)) => {
                self.route.lock().measured(index, began.elapsed());
                Some(reply.message)
            }
            Ok(Err(WireError::NotSent(_))) => {
                self.route.lock().failed(index);
                None
            }
            // One of another version, perhaps.
            Ok(Err(_)) | Err(_) => None,
        }
    }
}
