//! Signals of a group that has much to do: they are dropped before anything else is.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rossby_api::RpcPath;
use rossby_proto::v1;
use rossby_seams::base::{Base, BaseError, BaseRow, BaseWrite, MemoryBase};
use tokio::time::{Instant, timeout_at};

use crate::subscribe::open;
use crate::support::{Resident, World, envelope, sequence};

/// A base that takes nothing as long as it is held: what a group has applied then stays in its memory.
#[derive(Debug, Default)]
struct SlowBase {
    inner: MemoryBase,
    held: Mutex<bool>,
    released: Condvar,
}

impl Base for SlowBase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BaseError> {
        self.inner.get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<BaseRow>, BaseError> {
        self.inner.range(start, end, limit)
    }

    fn write(&self, changes: Vec<BaseWrite>) -> Result<(), BaseError> {
        let held = self.held.lock().unwrap();
        drop(self.released.wait_while(held, |held| *held).unwrap());
        self.inner.write(changes)
    }

    fn flush(&self) -> Result<(), BaseError> {
        self.inner.flush()
    }
}

/// Holds a base until it goes.
struct Held(Arc<SlowBase>);

impl Held {
    fn new(base: &Arc<SlowBase>) -> Self {
        *base.held.lock().unwrap() = true;
        Self(Arc::clone(base))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.held.lock().unwrap() = false;
        self.0.released.notify_all();
    }
}

async fn signal(world: &World, from: &Resident, to: &Resident, body: &'static [u8]) {
    let request = v1::NotifyRequest {
        recipient_box_id: to.address.box_id.as_bytes().to_vec().into(),
        body: body.into(),
    };
    let _: v1::NotifyResponse = world.signed(from, RpcPath::Notify, &request).await.unwrap();
}

#[tokio::test]
async fn a_group_that_has_much_to_do_drops_signals_and_still_takes_mail() {
    let base = Arc::new(SlowBase::default());
    let world = World::over_base(base.clone(), 256 * 1024).await;
    let anna = world.resident(1, "+491701111111", true).await;
    let bert = world.resident(2, "+491702222222", true).await;
    let carl = world.resident(3, "+491703333333", true).await;
    let mut berts = open(&world, &bert).await;
    assert!(berts.page().await.signals.is_empty());
    signal(&world, &anna, &bert, b"at ease").await;
    assert_eq!(berts.page().await.signals[0].body, &b"at ease"[..]);

    let held = Held::new(&base);
    let mut counter = 0;
    let mut letter = async || {
        counter += 1;
        let letter = envelope(&carl, counter, &[0; 4096]);
        let outcomes = world.send(&anna, vec![letter]).await.unwrap();
        assert_eq!(sequence(&outcomes[0]), counter);
    };
    while !world.group.is_busy() {
        letter().await;
    }
    let ended = |end: &str| {
        let mut ends = world.router().signal_fates();
        ends.find(|(name, _)| *name == end).unwrap().1
    };
    signal(&world, &anna, &bert, b"in a rush").await;
    let dropped = || ended("busy") == 1;
    world
        .eventually("it is dropped, and counted", dropped)
        .await;
    letter().await;
    assert!(world.group.is_busy());

    drop(held);
    let relieved = || !world.group.is_busy();
    world.eventually("memory is free again", relieved).await;
    signal(&world, &anna, &bert, b"at ease again").await;
    let soon = Instant::now() + Duration::from_secs(20);
    let heard = loop {
        let page = timeout_at(soon, berts.page()).await.unwrap();
        if let [signal, ..] = &page.signals[..] {
            break signal.body.clone();
        }
    };
    assert_eq!(heard, &b"at ease again"[..]);
    assert_eq!((ended("delivered"), ended("busy")), (2, 1));
}
