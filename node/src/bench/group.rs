//! `rossby bench group`: what it takes to say something to a large group, by a device as people have it, with its store on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rossby_bench::BenchError;
use rossby_bench::account::{Account, Addresses};
use rossby_bench::codes::Codes;
use rossby_bench::service::Service;
use rossby_client::connection::{Exchange, GrpcWire, Wire, WireError, WireReply};
use rossby_client::device::{Delivery, Linking, Servers};
use rossby_client::envelope::Content;
use rossby_client::group::GroupName;
use rossby_client::linking::DeviceName;
use rossby_client::store::{KdfCost, Passphrase};
use rossby_client::{Device, Environment};
use rossby_domain::ids::BoxId;
use serde::Serialize;
use tempfile::TempDir;

use super::args::GroupArgs;
use super::local::temporary_folder;
use super::prepare::boxes;
use super::progress::Step;
use super::target::Target;
use crate::exit::{Exit, Failure};
use crate::output;

const CONNECTIONS: usize = 4;
/// Devices that are being linked at a time.
const LINKING: usize = 64;

/// What it came to.
#[derive(Debug, Serialize)]
struct Spoken {
    workload: &'static str,
    members: u16,
    devices_each: u8,
    texts: u16,
    text_bytes: u32,
    /// To make the group: everybody is looked up and told.
    made_ms: f64,
    /// From the call until all envelopes are stored.
    said_ms: Times,
    /// Of which the processor of this process was busy, on average.
    processor_ms: f64,
    /// What one text came to on the wire.
    requests: f64,
    sent_bytes: u64,
    sent_bytes_per_member: u64,
}

#[derive(Debug, Serialize)]
struct Times {
    least: f64,
    median: f64,
    most: f64,
}

pub(super) async fn run(args: &GroupArgs) -> Result<(), Failure> {
    Target::check_arguments(&args.target)?;
    let mut target = Target::find(&args.target).await?;
    let people = members(&target, args).await?;
    let home = temporary_folder(args.target.data.as_deref(), "rossby-bench-device-")?;
    let wire = Counted::new(&target);
    let device = speaker(&target, &home, &wire).await?;
    link_further(&device, &target, &home, args.devices - 1).await?;
    let step = Step::open("Making the group");
    let began = Instant::now();
    let name = GroupName::new("bench").map_err(|error| Failure::new(Exit::Failure, error))?;
    let (group, mut untold) = device.create_group(name, &people).await?;
    while untold > 0 {
        untold = device.resend().await?.len();
        target.check().await?;
    }
    let made = began.elapsed();
    drop(step);
    let step = Step::of("Speaking", args.texts.into());
    let (bytes, requests) = wire.count();
    let busy = processor_time();
    let mut times = Vec::new();
    for number in 0..args.texts {
        let text = format!("{number:0>width$}", width = args.bytes as usize);
        let began = Instant::now();
        let sent = device.send_to_group(&group, &Content::Text(text)).await?;
        times.push(began.elapsed());
        let stored = |delivery: &Delivery| matches!(delivery, Delivery::Delivered(_));
        if let Some(other) = sent.iter().find(|sent| !stored(&sent.delivery)) {
            let what = format!("an envelope was not stored: {:?}", other.delivery);
            return Err(Failure::new(Exit::Failure, what));
        }
        step.done(1);
    }
    drop(step);
    let texts = f64::from(args.texts);
    let (bytes, requests) = (wire.count().0 - bytes, wire.count().1 - requests);
    let sent_bytes = bytes / u64::from(args.texts);
    let spoken = Spoken {
        workload: "group",
        members: args.members,
        devices_each: args.devices,
        texts: args.texts,
        text_bytes: args.bytes,
        made_ms: millis(made),
        said_ms: Times::of(times),
        processor_ms: millis(processor_time().saturating_sub(busy)) / texts,
        requests: requests as f64 / texts,
        sent_bytes,
        sent_bytes_per_member: sent_bytes / (u64::from(args.members) - 1),
    };
    target.check().await?;
    let printed = match args.json {
        true => output::json(&spoken),
        false => {
            print(&spoken);
            Ok(())
        }
    };
    let stopped = target.stop().await;
    printed.and(stopped)
}

/// The other members, with all their devices.
async fn members(target: &Target, args: &GroupArgs) -> Result<Vec<BoxId>, Failure> {
    let service = Service::new(&target.place(), CONNECTIONS, false);
    let count = usize::from(args.members) - 1;
    let members = boxes(target, &service, count, count, false).await?.accounts;
    let further = args.devices - 1;
    let step = Step::of("Linking devices", count as u64 * u64::from(further));
    let link = |(number, mut account): (usize, Account)| {
        let (connection, step) = (service.connection(number), &step);
        async move {
            for _ in 0..further {
                account.link(&connection).await?;
                step.done(1);
            }
            Ok::<_, BenchError>(account.signer.address.box_id)
        }
    };
    let linked = stream::iter(members.into_iter().enumerate().map(link));
    Ok(linked.buffer_unordered(LINKING).try_collect().await?)
}

/// The device that speaks, registered.
async fn speaker(target: &Target, home: &TempDir, wire: &Counted) -> Result<Device, Failure> {
    let environment = Environment {
        wire: Some(Arc::new(wire.clone())),
        ..Environment::default()
    };
    let passphrase = Passphrase::none();
    let device = Device::create(
        &home.path().join("first"),
        &passphrase,
        KdfCost::NONE,
        &servers(target),
        environment,
    )?;
    let codes = Codes::follow(&target.codes)?;
    let identifier = Addresses::new()?.nth(0)?;
    device.register(&identifier, true).await?;
    device
        .authorize(&codes.code_for(identifier.as_str()).await?)
        .await?;
    Ok(device)
}

/// Further devices of whoever speaks, so that what is said is copied to them.
async fn link_further(
    device: &Device,
    target: &Target,
    home: &TempDir,
    count: u8,
) -> Result<(), Failure> {
    for number in 0..count {
        let linking = Linking::create(
            &home.path().join(format!("further-{number}")),
            &Passphrase::none(),
            KdfCost::NONE,
            &servers(target),
            DeviceName::new("further").map_err(|error| Failure::new(Exit::Failure, error))?,
            Environment::default(),
        )?;
        device.approve(&linking.code()).await?;
        let welcome = linking.ask().await?;
        let welcome =
            welcome.ok_or_else(|| Failure::new(Exit::Failure, "a device found no box"))?;
        linking.accept(welcome).await?;
    }
    Ok(())
}

fn servers(target: &Target) -> Servers {
    let place = target.place();
    Servers {
        addresses: place.servers,
        ca_pem: place.ca_pem,
    }
}

/// How long this process has kept a processor busy.
fn processor_time() -> Duration {
    let usage = rossby_bench::process::usage(std::process::id());
    usage.map(|usage| usage.cpu).unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().map(millis).unwrap_or_default();
        Self {
            least: at(0),
            median: at(times.len() / 2),
            most: at(times.len().saturating_sub(1)),
        }
    }
}

fn print(spoken: &Spoken) {
    let Times {
        least,
        median,
        most,
    } = spoken.said_ms;
    output::line(format!(
        "group: {} members, {} devices of each, a text of {} bytes",
        spoken.members, spoken.devices_each, spoken.text_bytes
    ));
    output::line(format!("  made in {:.0} ms", spoken.made_ms));
    output::line(format!(
        "  said and stored for all in {median:.0} ms ({least:.0} to {most:.0}), of which this process was busy for {:.0}",
        spoken.processor_ms
    ));
    output::line(format!(
        "  in {:.1} requests of {} in all: {} bytes for each member",
        spoken.requests,
        output::size(spoken.sent_bytes),
        spoken.sent_bytes_per_member
    ));
}

/// The real wire, with a count of what is sent over it.
#[derive(Clone)]
struct Counted {
    wire: Arc<GrpcWire>,
    count: Arc<(AtomicU64, AtomicU64)>,
}

impl Counted {
    fn new(target: &Target) -> Self {
        Self {
            wire: Arc::new(GrpcWire::new(target.place().ca_pem)),
            count: Arc::default(),
        }
    }

    /// Bytes and requests until now.
    fn count(&self) -> (u64, u64) {
        let (bytes, requests) = &*self.count;
        (
            bytes.load(Ordering::Relaxed),
            requests.load(Ordering::Relaxed),
        )
    }
}

#[async_trait]
impl Wire for Counted {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let (bytes, requests) = &*self.count;
        bytes.fetch_add(exchange.message.len() as u64, Ordering::Relaxed);
        requests.fetch_add(1, Ordering::Relaxed);
        self.wire.exchange(exchange).await
    }
}
