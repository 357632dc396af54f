//! A device that reads its box as mail comes in, and acknowledges each page.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rossby_client::connection::{Acknowledge, Connection, OpenStream, Signer, StreamEnd};
use rossby_proto::v1;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::drive::Fault;

/// Tries at opening a stream before it is given up.
const MAX_TRIES: usize = 20;

/// What readers have in common with those who wait for them.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<HashMap<Mark, oneshot::Sender<()>>>,
}

/// What tells envelopes of a box apart: the sending device and its counter.
type Mark = (Vec<u8>, u64);

impl Inbox {
    /// Tells when the envelope of this device under this counter has been acknowledged.
    pub(super) fn expect(&self, device: &[u8], counter: u64) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mark = (device.to_vec(), counter);
        self.waiting.lock().insert(mark, tell);
        told
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, device: &[u8], counter: u64) {
        self.waiting.lock().remove(&(device.to_vec(), counter));
    }

    fn acknowledged(&self, envelopes: &[v1::Envelope]) {
        let mut waiting = self.waiting.lock();
        for envelope in envelopes {
            let mark = (envelope.sender_device_id.to_vec(), envelope.counter);
            if let Some(tell) = waiting.remove(&mark) {
                // Whoever waited may have given up.
                let _ = tell.send(());
            }
        }
    }
}

/// Pages that all readers have heard, signs of life included.
#[derive(Debug, Default, Clone)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// How many until now.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A device that reads.
#[derive(Debug)]
pub struct Reader {
    connection: Arc<Connection>,
    /// What it acknowledges on: many streams leave their connection little room.
    calls: Arc<Connection>,
    signer: Signer,
    inbox: Arc<Inbox>,
    heard: Heard,
    stream: OpenStream,
}

impl Reader {
    /// Opens the stream of a box on one connection, to acknowledge on the other.
    ///
    /// # Errors
    /// If the service refuses it again and again.
    pub async fn open(
        connection: Arc<Connection>,
        calls: Arc<Connection>,
        signer: Signer,
        inbox: Arc<Inbox>,
        heard: Heard,
    ) -> Result<Self, Fault> {
        let stream = subscribe(&connection, &signer).await?;
        Ok(Self {
            connection,
            calls,
            signer,
            inbox,
            heard,
            stream,
        })
    }

    /// Reads until the service does not let it any more.
    async fn run(mut self) {
        loop {
            let ended = self.read_stream().await;
            if matches!(ended, StreamEnd::Broken(_)) {
                self.connection.leave(&self.stream);
            }
            match subscribe(&self.connection, &self.signer).await {
                Ok(stream) => self.stream = stream,
                Err(_) => return,
            }
        }
    }

    async fn read_stream(&mut self) -> StreamEnd {
        loop {
            let page = match self.stream.next().await {
                Ok(page) => page,
                Err(end) => return end,
            };
            self.heard.0.fetch_add(1, Ordering::Relaxed);
            let Some(last) = page.envelopes.last() else {
                continue;
            };
            let request = v1::AcknowledgeRequest {
                upto: last.sequence,
            };
            let signer = Some(&self.signer);
            match self.calls.call::<Acknowledge>(&request, signer).await {
                Ok(_) => self.inbox.acknowledged(&page.envelopes),
                // What is not acknowledged comes again with the next stream.
                Err(error) => return StreamEnd::Broken(error),
            }
        }
    }
}

/// A stream that begins after the cursor that the service knows.
async fn subscribe(connection: &Connection, signer: &Signer) -> Result<OpenStream, Fault> {
    let request = v1::SubscribeRequest {
        after: 0,
        max_envelopes: 0,
    };
    let mut attempt = 0;
    loop {
        match connection.subscribe(&request, signer, attempt).await {
            Ok(stream) => return Ok(stream),
            Err((error, wait)) => {
                attempt += 1;
                if attempt > MAX_TRIES {
                    return Err(error.into());
                }
                let doublings = u32::try_from(attempt).unwrap_or(u32::MAX);
                let pause = connection.pause_before(doublings)?;
                sleep(wait.max(pause)).await;
            }
        }
    }
}

/// Readers at work, until this is dropped.
#[derive(Debug, Default)]
pub struct Readers(JoinSet<()>);

impl Readers {
    /// Has one more at work.
    pub fn add(&mut self, reader: Reader) {
        self.0.spawn(reader.run());
    }

    /// How many have stopped: the service does not let them read any more.
    pub fn stopped(&mut self) -> usize {
        std::iter::from_fn(|| self.0.try_join_next()).count()
    }
}
