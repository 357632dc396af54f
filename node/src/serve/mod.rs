//! `rossby serve`: a node, from its first line to its last.
//!
//! ```text
//!   settings ──► data directory (lock) ──► sockets ──► Node::begin ──► watch ──► stop
//!                                            │            │              │
//!                                doors.rs ◄──┘   node.rs ◄┘   ready.rs ◄─┘
//! ```
//!
//! The node answers on all its sockets from the start: health says what it waits for, clients are
//! refused with a typed error until there is a cluster. A failure of its storage ends the node with
//! the reason; nothing is repaired by guessing.

mod admission;
mod backups;
mod disk;
mod doors;
mod engine;
mod enter;
mod entrance;
mod figures;
pub(crate) mod founding;
mod grow;
mod init;
mod join;
pub(crate) mod joining;
mod map;
mod mark;
mod members;
mod node;
mod open_files;
mod operator;
mod placement;
mod promise;
mod ready;
mod reconcile;
mod recovery;
mod removal;
mod reports;
mod secrets;
mod space;
mod token;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rossby_api::Metrics;
use rossby_api::peer::Connections;
use rossby_seams::clock::SystemClock;
use rossby_seams::disk::{Disk, replace};
use rossby_seams::random::OsRandom;
use rossby_storage::datadir::{DataDirectory, DataDirectoryError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::cli::ServeArgs;
use crate::config::{self, Config};
use crate::exit::{Exit, Failure};
use crate::recover::refuse_unfinished;
use crate::{output, telemetry};
pub use secrets::secrets_check;

use disk::NodeDisk;
use doors::{Doors, Serving};
use figures::Figures;
use joining::{JoinFailure, JoinPlan};
use node::{Node, NodeError, Parts};
use reconcile::StepCounters;
use space::Space;
use token::Token;

/// How often the node looks whether it is ready: while it starts, while it was and is not, and while it is.
const STARTING_INTERVAL: Duration = Duration::from_millis(20);
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
const READY_INTERVAL: Duration = Duration::from_secs(1);
/// How long calls in flight may take when the node stops. No call may take longer anyway.
const CALLS_PATIENCE: Duration = Duration::from_secs(5);
/// How long the groups may take to hand over and to sync.
const GROUPS_PATIENCE: Duration = Duration::from_secs(20);
/// How long each of the other sockets and tasks may take to close.
const SOCKET_PATIENCE: Duration = Duration::from_secs(2);

/// Runs `rossby serve`.
///
/// # Errors
/// If the settings are wrong, the node can't start, or its storage failed.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let mut loaded = config::load(&args.config)?;
    let token = joining::prepare(&mut loaded)?;
    let findings = config::check(&loaded.config);
    let warnings = findings.warnings.clone();
    findings.into_result()?;
    telemetry::start(&loaded.config.log).map_err(|error| Failure::new(Exit::Config, error))?;
    for name in &loaded.unknown_variables {
        warn!(variable = name, "this looks like a setting but is none");
    }
    for text in warnings {
        warn!("{text}");
    }
    std::panic::set_hook(Box::new(note_panic));
    open_files::raise_limit(loaded.config.clients.max_connections);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("rossby");
    if loaded.config.threads > 0 {
        runtime.worker_threads(usize::from(loaded.config.threads));
    }
    let runtime = runtime
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("can't start: {error}")))?;
    let result = runtime.block_on(serve(loaded.config, token, args.print_addresses));
    // Tasks that still run hold nothing that needs an orderly end.
    runtime.shutdown_background();
    result
}

/// Says where it was. Not what: the text of a panic may hold what somebody sent.
fn note_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    error!(place, "a thread panicked");
}

async fn serve(config: Config, token: Option<Token>, print_addresses: bool) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node,
        "starting"
    );
    let watched = NodeDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(watched.clone());
    let data = DataDirectory::open(Arc::clone(&disk), &config.data).map_err(data_failure)?;
    refuse_unfinished(&config.data)?;
    let space = Space::new(watched.clone(), &config.data, config.storage.reserve_bytes);
    let peer_tls = config
        .peer_tls()
        .map_err(|error| Failure::new(Exit::Config, error))?;
    let doors = Doors::bind(&config, peer_tls.as_ref()).await?;

    let mut registry = Registry::default();
    watched.register(&mut registry);
    let clock = Arc::new(SystemClock);
    let parts = Parts {
        advertised: doors.advertised(&config),
        disk,
        space,
        clock,
        random: Arc::new(OsRandom),
        metrics: Metrics::register(&mut registry),
        steps: StepCounters::register(&mut registry),
        join: peer_tls.as_ref().zip(token).map(|(tls, token)| JoinPlan {
            token,
            seeds: config.join.seeds.clone(),
            tls: Arc::clone(&tls.seed),
        }),
        peers: peer_tls.map(|tls| Connections::new(tls.client, None)),
        config,
    };
    let node = Node::new(parts, data);
    Figures::register(&mut registry, &node);
    publish(&node, &doors, print_addresses)?;
    let clients = doors.addresses().clients;
    let mut serving = doors.serve(&node, registry).await?;
    let caring = Arc::clone(&node);
    node.tasks.spawn(async move { care(&caring).await });

    let begun = tokio::select! {
        begun = node.begin() => begun.map_err(node_failure),
        () = signals.next() => {
            info!("told to stop while starting");
            return Ok(());
        }
    };
    let ended = match begun {
        Ok(()) => {
            tokio::select! {
                failure = watch(&node, &serving, clients) => Err(failure),
                () = signals.next() => {
                    info!("told to stop");
                    Ok(())
                }
            }
        }
        Err(failure) => Err(failure),
    };
    // A second signal ends the process at once: everything acknowledged is on the disk already.
    let in_a_hurry = tokio::spawn(async move {
        signals.next().await;
        output::note("rossby: stopped at once");
        std::process::exit(i32::from(Exit::Failure.code()));
    });
    stop(&node, &mut serving).await;
    in_a_hurry.abort();
    match &ended {
        Ok(()) => info!("stopped"),
        Err(_) => warn!("stopped, since this node can't go on"),
    }
    ended
}

/// Writes down and prints where the node listens.
fn publish(node: &Node, doors: &Doors, print: bool) -> Result<(), Failure> {
    let json = serde_json::to_vec(doors.addresses())
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    if let Err(error) = replace(&*node.parts.disk, &addresses_file(node), &json) {
        // A help for scripts; the node is none the worse without.
        warn!(%error, "could not write down the addresses");
    }
    if print {
        output::json(doors.addresses())
    } else {
        Ok(())
    }
}

/// Where the addresses in use are written down.
fn addresses_file(node: &Node) -> std::path::PathBuf {
    node.parts.config.data.join("addresses.json")
}

/// Tells when the node is ready, and watches over it until it fails.
async fn watch(node: &Arc<Node>, serving: &Serving, clients: std::net::SocketAddr) -> Failure {
    let (mut announced, mut told, mut minding) = (false, None, false);
    loop {
        if !minding && node.membership().is_some() {
            minding = true;
            mind_the_map(node);
        }
        if let Err(error) = node.take_leave().await {
            return node_failure(error);
        }
        node.close_unneeded();
        if let Some(failure) = fatal(node, serving) {
            error!(reason = %failure.message, "this node can't go on");
            return failure;
        }
        let ready = node.able().is_ok();
        if told != Some(ready) {
            ready::report(node, &serving.health, ready).await;
            told = Some(ready);
        }
        if ready && !announced {
            announced = true;
            compare_addresses(node);
            let data = node.parts.config.data.display();
            output::line(format!(
                "Rossby is ready: clients at {clients}, data in {data}"
            ));
            info!("ready");
        }
        let pause = match (announced, ready) {
            (true, true) => READY_INTERVAL,
            (true, false) => WATCH_INTERVAL,
            (false, _) => STARTING_INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Founds the map if that is to be done, hears of newer ones, and has the groups become what it asks for,
/// until the node stops.
fn mind_the_map(node: &Arc<Node>) {
    let (founding, asking) = (Arc::clone(node), Arc::clone(node));
    node.tasks.spawn(async move { founding.found_map().await });
    node.tasks.spawn(async move { asking.ask_for_maps().await });
    let announcing = Arc::clone(node);
    node.tasks
        .spawn(async move { announcing.announce_recovery().await });
    node.tasks.spawn(Arc::clone(node).reconcile());
}

/// Looks after the disk's space and speed until the node stops.
async fn care(node: &Node) {
    let space = &node.parts.space;
    let mut looking: Option<tokio::task::JoinHandle<()>> = None;
    while !node.stop_tasks.is_cancelled() {
        if let Some(membership) = node.membership()
            && membership.engine.wal.failure().is_none()
        {
            space.note_log(membership.engine.wal.accepts_entries());
        }
        space.note_speed();
        // A disk that hangs must not keep us from saying so.
        if looking.as_ref().is_none_or(|look| look.is_finished()) {
            let space = space.clone();
            looking = Some(tokio::task::spawn_blocking(move || space.look()));
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            () = node.stop_tasks.cancelled() => {}
        }
    }
}

/// Others call this node where its groups know it to be, whatever it was started with today.
fn compare_addresses(node: &Node) {
    let Some(membership) = node.membership() else {
        return;
    };
    let own = node.own_member().peer_address;
    let members = membership.replicas.members();
    let known = members.into_iter().find(|member| member.node == node.id());
    if let Some(known) = known
        .map(|member| member.peer_address)
        .filter(|known| *known != own)
    {
        warn!(
            known,
            own, "other nodes know this one by another address, and call it there"
        );
    }
}

/// Why the node must end, if it must.
fn fatal(node: &Node, serving: &Serving) -> Option<Failure> {
    if let Some(name) = serving.failed() {
        return Some(Failure::new(
            Exit::Failure,
            format!("the {name} has failed"),
        ));
    }
    let membership = node.membership()?;
    let has_others = || {
        membership
            .replicas
            .nodes()
            .iter()
            .any(|id| *id != node.id())
    };
    if node.parts.peers.is_none() && has_others() {
        let text = "this node's cluster has other nodes, but peers.listen is not set";
        return Some(
            Failure::new(Exit::Config, text)
                .help("start it with --peer-listen and its certificates, as before"),
        );
    }
    // The cause says more than what came of it.
    let cause = membership.engine.wal.failure();
    let cause = cause.map(|failure| failure.to_string());
    let failure = cause
        .or_else(|| {
            let groups = membership.replicas.all();
            groups.iter().find_map(|group| group.failure())
        })
        .or_else(|| {
            let ended = membership.engine.writer_ended();
            ended.then(|| "the log's writer has ended".to_owned())
        })?;
    Some(
        Failure::new(
            Exit::Storage,
            format!("the storage of this node has failed: {failure}"),
        )
        .help("what was acknowledged is safe; see to the disk, then start the node again"),
    )
}

async fn stop(node: &Node, serving: &mut Serving) {
    node.stop_tasks.cancel();
    node.tasks.close();
    ready::report(node, &serving.health, false).await;
    // They would not end by themselves.
    node.entrance.end_subscriptions();
    serving.stop_clients(CALLS_PATIENCE).await;
    if tokio::time::timeout(SOCKET_PATIENCE, node.tasks.wait())
        .await
        .is_err()
    {
        warn!("some work in the background did not end in time");
    }
    if let Some(membership) = node.membership()
        && tokio::time::timeout(GROUPS_PATIENCE, membership.engine.close())
            .await
            .is_err()
    {
        warn!("the groups did not end in time; the next start takes a little longer");
    }
    serving.stop_others(SOCKET_PATIENCE).await;
    if let Err(error) = node.parts.disk.remove(&addresses_file(node)) {
        warn!(%error, "could not remove the file of addresses");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Failure, format!("signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// An error and its causes, each said once.
fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Says what to do itself.
fn data_failure(error: DataDirectoryError) -> Failure {
    Failure::new(Exit::Storage, error)
}

fn node_failure(error: NodeError) -> Failure {
    let text = because(&error);
    match error {
        NodeError::Data(error) => data_failure(error),
        NodeError::Plan(_) | NodeError::Mark { .. } | NodeError::Promise { .. } => {
            Failure::new(Exit::Storage, text)
        }
        NodeError::Secrets { .. } => Failure::new(Exit::Config, text).help(
            "restore the file from where you keep the cluster's secrets, or name it with --secrets",
        ),
        NodeError::Courier(_) | NodeError::CourierSettings(_) | NodeError::Unplaced(_) => {
            Failure::new(Exit::Config, text)
        }
        NodeError::LogLost { .. } => Failure::new(Exit::Storage, text).help(
            "under its old id this replica could break promises that it does not remember. If the cluster has \
             other nodes: run `rossby rebuild` on this directory, start the node, and have it taken in \
             with `rossby cluster replace-node`. If not, restore it from a backup",
        ),
        NodeError::Look { .. } | NodeError::Engine(_) | NodeError::Start(..) => {
            Failure::new(Exit::Storage, text)
        }
        NodeError::Join(failure) => join_failure(&failure, text),
        NodeError::Initialize(..) | NodeError::Founding(_) | NodeError::Random(_) => {
            Failure::new(Exit::Failure, text)
        }
    }
}

fn join_failure(failure: &JoinFailure, text: String) -> Failure {
    match failure {
        JoinFailure::Refused(_) => Failure::new(Exit::Refused, text).help(
            "nothing was changed. `rossby node token` on a member makes another token; it is good for one node, \
             in the region that it names",
        ),
        JoinFailure::NoSeed(_) => Failure::new(Exit::Refused, text)
            .help("name members of the token's cluster with --join, or make a token in theirs"),
        JoinFailure::NotEmpty { .. } => Failure::new(Exit::Storage, text)
            .help("give it an empty directory with --data, or leave --join out"),
        JoinFailure::Elsewhere(_) => Failure::new(Exit::Config, text),
        JoinFailure::Attempt(_) | JoinFailure::File { .. } => Failure::new(Exit::Storage, text),
    }
}
