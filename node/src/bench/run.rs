//! One run: find the service, make boxes, warm up, measure, report.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rossby_bench::BenchError;
use rossby_bench::account::{Account, Addresses};
use rossby_bench::codes::Codes;
use rossby_bench::drive::{Client, Plan, drive};
use rossby_bench::service::Service;
use rossby_bench::workload::send::{Recipient, Sender, opaque_body};

use super::args::{BenchCommand, LoadArgs, SendArgs};
use super::report::Report;
use super::target::Target;
use super::watch::watch;
use crate::exit::Failure;
use crate::output;

/// Registrations under way at a time.
const REGISTERING: usize = 256;

pub(super) async fn run(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Send(args) => send(args).await,
    }
}

async fn send(args: &SendArgs) -> Result<(), Failure> {
    let load = &args.load;
    let target = Target::find(&args.target).await?;
    let service = service_of(&target, load);
    let (clients, boxes) = (load.clients as usize, load.boxes as usize);
    let accounts = accounts(&target, &service, clients.max(boxes)).await?;
    let recipients: Arc<[Recipient]> = accounts.iter().take(boxes).map(recipient).collect();
    let body = opaque_body(args.body.bytes as usize);
    let senders = accounts.into_iter().take(clients).enumerate();
    let senders = senders.map(|(number, account)| {
        let connection = service.connection(number);
        let recipients = Arc::clone(&recipients);
        Sender::new(number, connection, account.signer, recipients, body.clone())
    });
    measure("send", load, &target, &service, senders.collect()).await
}

async fn measure<C: Client>(
    what: &'static str,
    load: &LoadArgs,
    target: &Target,
    service: &Service,
    clients: Vec<C>,
) -> Result<(), Failure> {
    output::note("Measuring.");
    let (warm_up, seconds) = (load.warm_up, load.seconds);
    let plan = Plan::from_now(Duration::from_secs(warm_up), Duration::from_secs(seconds));
    let (tally, seen) = tokio::join!(drive(clients, plan), watch(&target.nodes, plan));
    let failed_tries = service.failed_tries();
    Report::of(
        what,
        load,
        target,
        tally?,
        seen,
        failed_tries,
        plan.measured(),
    )
    .print(load.json)
}

fn service_of(target: &Target, load: &LoadArgs) -> Service {
    Service::new(&target.place(), load.connections as usize, load.every_node)
}

fn recipient(account: &Account) -> Recipient {
    Recipient {
        box_id: account.box_id(),
        chain_version: account.identity.record().version(),
    }
}

/// Registers so many boxes.
async fn accounts(
    target: &Target,
    service: &Service,
    count: usize,
) -> Result<Vec<Account>, Failure> {
    output::note(format!("Registering {count} boxes."));
    let codes = Codes::follow(&target.codes)?;
    let addresses = Addresses::new()?;
    let register = |number: usize| {
        let (connection, addresses, codes) = (service.connection(number), &addresses, &codes);
        async move {
            let identifier = addresses.nth(number)?;
            Account::register(&connection, codes, identifier).await
        }
    };
    let all = stream::iter((0..count).map(register)).buffered(REGISTERING);
    Ok(all
        .try_collect::<Vec<_>>()
        .await
        .map_err(|error: BenchError| error)?)
}
