//! One run of each kind: find the service, make boxes, warm up, measure, report.

use std::sync::Arc;
use std::time::Duration;

use rossby_bench::drive::{Client, Plan, Tally, drive};
use rossby_bench::service::{Place, Service};
use rossby_bench::workload::deliver::Deliverer;
use rossby_bench::workload::fetch::Fetcher;
use rossby_bench::workload::fill::Filling;
use rossby_bench::workload::letters::{Letters, Recipient};
use rossby_bench::workload::lookup::Finder;
use rossby_bench::workload::register::Newcomer;
use rossby_bench::workload::send::Sender;

use super::args::{
    BodyArgs, BornArgs, DeliverArgs, FetchArgs, GroupsArgs, IdleArgs, LoadArgs, LookupArgs,
    RegisterArgs, SendArgs, TargetArgs, TimeArgs,
};
use super::fill;
use super::floor::{self, Floor};
use super::local::{REPLICAS, Shape};
use super::prepare::{Boxes, Reading, boxes, refused, registry};
use super::report::{Measured, Report, Setting};
use super::spread::SpreadView;
use super::target::Target;
use super::tries;
use super::watch::watch;
use crate::exit::{Exit, Failure};

/// The connections of subscribers who are to be opened, before they have their own.
const CONNECTIONS: u32 = 4;

/// Subscribers, unless said otherwise.
const SUBSCRIBERS: u32 = 10_000;

/// What a node of our own serves, unless it is configured otherwise.
const STREAMS_OF_A_NODE: u32 = 20_000;

/// A service under load.
struct Bench<'a> {
    load: &'a LoadArgs,
    floor: Option<Floor>,
    target: Target,
    service: Service,
}

impl<'a> Bench<'a> {
    /// The floor first, on a quiet machine, and then the service.
    async fn begin(
        target: &TargetArgs,
        load: &'a LoadArgs,
        bytes: u32,
        groups: Option<u16>,
    ) -> Result<Self, Failure> {
        let folder = floor::folder_or_default(target.data.as_deref());
        floor::check_folder(&folder)?;
        Target::check_arguments(target)?;
        check_groups(groups, target)?;
        let floor = if load.no_floor {
            None
        } else {
            Some(Floor::measure(&folder, load.clients, load.connections, bytes).await?)
        };
        let shape = Shape {
            groups: groups.unwrap_or(1),
            ..Shape::default()
        };
        let target = Target::find_shaped(target, shape).await?;
        let connections = load.connections as usize;
        let service = Service::new(&target.place(), connections, load.every_node);
        Ok(Self {
            load,
            floor,
            target,
            service,
        })
    }

    fn clients(&self) -> usize {
        self.load.clients as usize
    }

    async fn boxes(&self, count: u32, keep: usize, letters: &Letters) -> Result<Boxes, Failure> {
        let count = self.clients().max(count as usize).max(keep);
        boxes(
            &self.target,
            &self.service,
            count,
            keep,
            letters.need_records(),
        )
        .await
    }

    /// The clients' own boxes, and those that they choose from, which may be born elsewhere.
    async fn boxes_born(
        &self,
        born: &BornArgs,
        count: u32,
        keep: usize,
        letters: &Letters,
    ) -> Result<Boxes, Failure> {
        let Some(there) = &born.born_at else {
            return self.boxes(count, keep, letters).await;
        };
        let place = Place {
            servers: vec![there.clone()],
            ..self.target.place()
        };
        // One that does not learn where else it might ask.
        let service = Service::new(&place, self.load.connections as usize, true);
        let with_records = letters.need_records();
        let elsewhere = boxes(&self.target, &service, count as usize, 0, with_records).await?;
        let own = self.boxes(0, keep, letters).await?;
        Ok(Boxes {
            accounts: own.accounts,
            recipients: elsewhere.recipients,
        })
    }

    /// Runs the clients, and says what came of it.
    async fn measure<C: Client>(
        mut self,
        setting: Setting,
        clients: Vec<C>,
        reading: Option<Reading>,
    ) -> Result<(), Failure> {
        let plan = plan(self.load.time);
        let mut services = vec![&self.service];
        services.extend(reading.as_ref().into_iter().flat_map(Reading::services));
        let (tally, seen, tries) = tokio::join!(
            drive(clients, plan),
            watch(&self.target.nodes, plan),
            tries::count(&services, plan)
        );
        let mut readers_stopped = 0;
        if let Some(mut reading) = reading {
            readers_stopped = reading.readers.stopped();
        }
        let notes = self.target.check().await?;
        let measured = Measured {
            tally: tally?,
            operations: None,
            seen,
            tries,
            readers_stopped,
            time: plan.measured(),
            notes,
        };
        let setting = Setting {
            clients: self.load.clients,
            connections: self.load.connections,
            threads: self.load.threads,
            every_node: self.load.every_node,
            ..setting
        };
        let report = Report::of(setting, &self.target, measured, self.floor);
        conclude(&report, self.load.json, self.target).await
    }
}

/// Says what was found, and stops the nodes also when that is nothing.
async fn conclude(report: &Report, json: bool, target: Target) -> Result<(), Failure> {
    let printed = report.print(json);
    let stopped = target.stop().await;
    printed.and(stopped)
}

fn plan(time: TimeArgs) -> Plan {
    Plan::from_now(
        Duration::from_secs(time.warm_up),
        Duration::from_secs(time.seconds),
    )
}

pub(super) fn letters(body: BodyArgs) -> Result<Letters, Failure> {
    let bytes = body.bytes as usize;
    if body.sealed {
        Ok(Letters::sealed(bytes)?)
    } else {
        Ok(Letters::opaque(bytes))
    }
}

/// The clients, each with one of the first accounts.
fn senders(bench: &Bench<'_>, boxes: Boxes, count: u32, letters: &Letters) -> Vec<Sender> {
    let recipients: Arc<[Recipient]> = boxes.recipients.into_iter().take(count as usize).collect();
    let accounts = boxes.accounts.into_iter().take(bench.clients());
    let sender = |(number, account)| {
        let connection = bench.service.connection(number);
        Sender::new(
            number,
            connection,
            account,
            Arc::clone(&recipients),
            letters.clone(),
        )
    };
    accounts.enumerate().map(sender).collect()
}

/// Groups are made on nodes of our own, on which each finds a quorum.
fn check_groups(groups: Option<u16>, target: &TargetArgs) -> Result<(), Failure> {
    if groups.is_some() && target.local < Some(REPLICAS) {
        let text = format!("--groups needs --local {REPLICAS} or more");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(())
}

/// In which groups the boxes that are chosen from and the clients' own are, if groups were asked for.
fn spread(
    bench: &Bench<'_>,
    groups: GroupsArgs,
    boxes: &Boxes,
    count: u32,
) -> Option<Vec<SpreadView>> {
    groups.groups?;
    let chosen = boxes.recipients.iter().take(count as usize);
    let chosen = chosen.map(|recipient| recipient.box_id);
    let clients = boxes.accounts.iter().take(bench.clients());
    let clients = clients.map(|account| account.signer.address.box_id);
    Some(SpreadView::of(&bench.target, chosen, clients))
}

fn born_at(born: &BornArgs) -> Option<String> {
    born.born_at.as_ref().map(ToString::to_string)
}

fn with_bodies(setting: Setting, boxes: u32, body: BodyArgs) -> Setting {
    Setting {
        boxes: Some(boxes),
        body_bytes: Some(body.bytes),
        sealed: body.sealed,
        ..setting
    }
}

pub(super) async fn send(args: &SendArgs) -> Result<(), Failure> {
    let (count, letters) = (args.boxes.boxes, letters(args.body)?);
    let groups = args.groups.groups;
    let bench = Bench::begin(&args.target, &args.load, args.body.bytes, groups).await?;
    let connections = args.load.connections as usize;
    let keep = if args.read { count as usize } else { 0 };
    // A box counts what comes from each device: those who fill it are not those whose sends are measured.
    let fillers = if args.waiting > 0 { fill::SENDERS } else { 0 };
    let keep_all = keep.max(bench.clients()) + fillers;
    let mut boxes = bench
        .boxes_born(&args.born, count, keep_all, &letters)
        .await?;
    if args.waiting > 0 {
        let fillers = boxes.accounts.split_off(keep_all - fillers);
        let (filled, letters) = (
            boxes.recipients.iter().take(count as usize),
            letters.clone(),
        );
        let filled = filled.cloned().collect();
        fill::fill(&bench.service, &fillers, filled, args.waiting, letters).await?;
    }
    let reading = match boxes.accounts.get(..keep) {
        Some(read) if args.read => Some(Reading::begin(&bench.target, read, connections).await?),
        _ => None,
    };
    let spread = spread(&bench, args.groups, &boxes, count);
    let senders = senders(&bench, boxes, count, &letters);
    let setting = Setting {
        read: args.read,
        waiting: (args.waiting > 0).then_some(args.waiting),
        born_at: born_at(&args.born),
        groups,
        spread,
        ..with_bodies(Setting::of("send"), count, args.body)
    };
    bench.measure(setting, senders, reading).await
}

pub(super) async fn deliver(args: &DeliverArgs) -> Result<(), Failure> {
    let (count, letters) = (args.boxes.boxes, letters(args.body)?);
    let groups = args.groups.groups;
    let bench = Bench::begin(&args.target, &args.load, args.body.bytes, groups).await?;
    let connections = args.load.connections as usize;
    let keep = bench.clients().max(count as usize);
    let boxes = bench.boxes(count, keep, &letters).await?;
    let read = boxes.accounts.get(..count as usize).unwrap_or_default();
    let reading = Reading::begin(&bench.target, read, connections).await?;
    let spread = spread(&bench, args.groups, &boxes, count);
    let senders = senders(&bench, boxes, count, &letters).into_iter();
    let deliverers = senders
        .map(|sender| Deliverer::new(sender, Arc::clone(&reading.inboxes)))
        .collect();
    let setting = Setting {
        groups,
        spread,
        ..with_bodies(Setting::of("deliver"), count, args.body)
    };
    bench.measure(setting, deliverers, Some(reading)).await
}

pub(super) async fn fetch(args: &FetchArgs) -> Result<(), Failure> {
    let letters = letters(args.body)?;
    let bench = Bench::begin(&args.target, &args.load, args.body.bytes, None).await?;
    let boxes = bench.boxes(0, bench.clients(), &letters).await?;
    let recipients: Arc<[Recipient]> = boxes.recipients.into();
    let filling = Filling::new(recipients, args.waiting as usize, letters);
    if let Some(sender) = boxes.accounts.first() {
        let filled = filling
            .help(&bench.service.connection(0), sender, |_| ())
            .await;
        filled.map_err(refused)?;
    }
    let accounts = boxes.accounts.into_iter().enumerate();
    let fetchers = accounts.map(|(number, account)| {
        Fetcher::new(
            bench.service.connection(number),
            account.signer,
            args.waiting,
        )
    });
    let setting = with_bodies(Setting::of("fetch"), args.load.clients, args.body);
    let setting = Setting {
        waiting: Some(args.waiting),
        ..setting
    };
    let fetchers = fetchers.collect();
    bench.measure(setting, fetchers, None).await
}

pub(super) async fn lookup(args: &LookupArgs) -> Result<(), Failure> {
    let groups = args.groups.groups;
    let bench = Bench::begin(&args.target, &args.load, BodyArgs::USUAL_BYTES, groups).await?;
    let count = args.boxes.boxes;
    let boxes = bench
        .boxes_born(&args.born, count, bench.clients(), &Letters::opaque(0))
        .await?;
    let spread = spread(&bench, args.groups, &boxes, count);
    let sought: Arc<[Recipient]> = boxes.recipients.into_iter().take(count as usize).collect();
    let accounts = boxes.accounts.into_iter().enumerate();
    let finders = accounts.map(|(number, account)| {
        let connection = bench.service.connection(number);
        Finder::new(number, connection, account.signer, Arc::clone(&sought))
    });
    let setting = Setting {
        boxes: Some(count),
        born_at: born_at(&args.born),
        groups,
        spread,
        ..Setting::of("lookup")
    };
    let finders = finders.collect();
    bench.measure(setting, finders, None).await
}

pub(super) async fn register(args: &RegisterArgs) -> Result<(), Failure> {
    let bench = Bench::begin(&args.target, &args.load, BodyArgs::USUAL_BYTES, None).await?;
    let registry = Arc::new(registry(&bench.target)?);
    let newcomers = (0..bench.clients())
        .map(|number| Newcomer::new(bench.service.connection(number), Arc::clone(&registry)))
        .collect();
    bench
        .measure(Setting::of("register"), newcomers, None)
        .await
}

pub(super) async fn idle(args: &IdleArgs) -> Result<(), Failure> {
    Target::check_arguments(&args.target)?;
    let usage = |text: String| Failure::new(Exit::Usage, text);
    let usual = if args.groups.is_some() {
        0
    } else {
        SUBSCRIBERS
    };
    let subscribers = args.subscribers.unwrap_or(usual);
    if args.target.local.is_some() && subscribers > STREAMS_OF_A_NODE {
        let text = format!("--subscribers: a node serves {STREAMS_OF_A_NODE} at a time");
        return Err(usage(text));
    }
    check_groups(args.groups, &args.target)?;
    if subscribers == 0 && args.groups.is_none() {
        return Err(usage("--subscribers 0 needs --groups".to_owned()));
    }
    let shape = Shape {
        groups: args.groups.unwrap_or(1),
        rest: !args.awake,
    };
    let mut target = Target::find_shaped(&args.target, shape).await?;
    let service = Service::new(&target.place(), CONNECTIONS as usize, false);
    let count = subscribers as usize;
    let boxes = boxes(&target, &service, count, count, false).await?;
    let before = target.resident_bytes();
    let mut reading = Reading::begin(&target, &boxes.accounts, CONNECTIONS as usize).await?;
    let mut resting = None;
    if let Some(groups) = args.groups {
        let wanted = if args.awake {
            0
        } else {
            (u64::from(groups) + 1) * REPLICAS
        };
        resting = Some(target.resting(wanted).await);
        target.leave_alone();
    }
    let plan = plan(args.time);
    let heard = async {
        tokio::time::sleep_until(plan.begin).await;
        let before = reading.heard.pages();
        tokio::time::sleep_until(plan.end).await;
        reading.heard.pages() - before
    };
    let services = [vec![&service], reading.services().into()].concat();
    let (heard, seen, tries) = tokio::join!(
        heard,
        watch(&target.nodes, plan),
        tries::count(&services, plan)
    );
    let notes = target.check().await?;
    let measured = Measured {
        tally: Tally::default(),
        operations: Some(heard),
        seen,
        tries,
        readers_stopped: reading.readers.stopped(),
        time: plan.measured(),
        notes,
    };
    drop(reading);
    let setting = Setting {
        subscribers: Some(subscribers),
        groups: args.groups,
        resting_replicas: resting,
        rss_without_subscribers: before,
        connections: CONNECTIONS,
        threads: 1,
        ..Setting::of("idle")
    };
    let report = Report::of(setting, &target, measured, None);
    conclude(&report, args.json, target).await
}
