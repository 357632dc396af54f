//! What there must be before the load begins: boxes, and readers of them.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rossby_bench::BenchError;
use rossby_bench::account::{Account, Addresses, NewBox};
use rossby_bench::births::Births;
use rossby_bench::codes::Codes;
use rossby_bench::drive::Fault;
use rossby_bench::service::Service;
use rossby_bench::workload::letters::Recipient;
use rossby_bench::workload::reader::{Heard, Inbox, Reader, Readers};
use rossby_bench::workload::register::Registry;
use rossby_client::connection::{Connection, Signer};

use super::progress::Step;
use super::target::Target;
use crate::exit::{Exit, Failure};

/// Registrations under way at a time.
const REGISTERING: usize = 256;
/// Addresses that are tried for each box.
const ADDRESSES: usize = 5;
/// Streams that are being opened at a time.
const OPENING: usize = 128;
/// A node takes 256 calls at a time on a connection, and a stream is a call that does not end.
const STREAMS_PER_CONNECTION: usize = 200;

/// Registered boxes.
#[derive(Debug)]
pub(super) struct Boxes {
    /// The first of them, with their devices.
    pub(super) accounts: Vec<Account>,
    /// All of them.
    pub(super) recipients: Vec<Recipient>,
}

/// Codes of the service, and addresses to register for.
pub(super) fn registry(target: &Target) -> Result<Registry, Failure> {
    Ok(Registry::new(
        Codes::follow(&target.codes)?,
        Addresses::new()?,
    ))
}

/// Registers so many boxes and keeps the devices of the first `keep`.
pub(super) async fn boxes(
    target: &Target,
    service: &Service,
    count: usize,
    keep: usize,
    with_records: bool,
) -> Result<Boxes, Failure> {
    let registry = registry(target)?;
    let births = Births::evenly(target.births(), count);
    let step = Step::of("Registering boxes", count as u64);
    let register = |number: usize| {
        let (connection, registry, births) = (service.connection(number), &registry, &births);
        async move {
            let new = register(registry, &connection, births, number).await?;
            Ok::<_, BenchError>((number, new))
        }
    };
    let mut registered = stream::iter((0..count).map(register)).buffer_unordered(REGISTERING);
    let mut accounts = Vec::with_capacity(keep.min(count));
    let mut recipients = Vec::with_capacity(count);
    while let Some((number, new)) = registered.try_next().await? {
        recipients.push((number, Recipient::of(&new, with_records)));
        if number < keep {
            accounts.push((number, new.open()?));
        }
        step.done(1);
    }
    Ok(Boxes {
        accounts: in_order(accounts),
        recipients: in_order(recipients),
    })
}

fn in_order<T>(mut numbered: Vec<(usize, T)>) -> Vec<T> {
    numbered.sort_unstable_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, one)| one).collect()
}

/// Registers a box; for another address if an answer came too late on a busy machine: the service saw that
/// address, and has it wait for its next code, while nobody waits for that box.
async fn register(
    registry: &Registry,
    connection: &Connection,
    births: &Births,
    number: usize,
) -> Result<NewBox, BenchError> {
    for _ in 1..ADDRESSES {
        let identity = births.identity(number)?;
        match registry.register(connection, identity).await {
            Err(BenchError::Call(error)) if error.may_pass() => {}
            decided => return decided,
        }
    }
    registry
        .register(connection, births.identity(number)?)
        .await
}

/// Devices that read their boxes.
#[derive(Debug)]
pub(super) struct Reading {
    /// In the order of the boxes.
    pub(super) inboxes: Arc<[Arc<Inbox>]>,
    pub(super) readers: Readers,
    pub(super) heard: Heard,
    /// The connections of their streams, which have little room for other calls.
    streams: Service,
    /// Those that they acknowledge on.
    acknowledging: Service,
}

impl Reading {
    /// Has each of these boxes read.
    pub(super) async fn begin(
        target: &Target,
        boxes: &[Account],
        connections: usize,
    ) -> Result<Self, Failure> {
        let for_streams = boxes.len().div_ceil(STREAMS_PER_CONNECTION);
        let streams = Service::new(&target.place(), for_streams, false);
        let acknowledging = Service::new(&target.place(), connections, false);
        let inboxes: Arc<[Arc<Inbox>]> = boxes.iter().map(|_| Arc::default()).collect();
        let heard = Heard::default();
        let step = Step::of("Opening streams", boxes.len() as u64);
        let open = |(number, (signer, inbox)): (usize, (Signer, Arc<Inbox>))| {
            let (stream, calls) = (streams.connection(number), acknowledging.connection(number));
            Reader::open(stream, calls, signer, inbox, heard.clone())
        };
        let all: Vec<(Signer, Arc<Inbox>)> = boxes
            .iter()
            .map(|account| account.signer.clone())
            .zip(inboxes.iter().cloned())
            .collect();
        let mut opened =
            stream::iter(all.into_iter().enumerate().map(open)).buffer_unordered(OPENING);
        let mut readers = Readers::default();
        while let Some(reader) = opened.try_next().await.map_err(refused)? {
            readers.add(reader);
            step.done(1);
        }
        drop(opened);
        Ok(Self {
            inboxes,
            readers,
            heard,
            streams,
            acknowledging,
        })
    }

    /// The ways to the service that they use.
    pub(super) fn services(&self) -> [&Service; 2] {
        [&self.streams, &self.acknowledging]
    }
}

/// What everything else needs was refused.
pub(super) fn refused(Fault(code): Fault) -> Failure {
    let what = format!("the load can't be prepared: the service says {code}");
    Failure::new(Exit::Refused, what)
}
