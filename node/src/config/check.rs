//! Whether the settings make sense together, and with the files that they name.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use rossby_domain::ids::PartitionCount;

use super::{Config, CourierKind};
use crate::exit::{Exit, Failure};

/// The longest path of a Unix socket (`sun_path` in sockaddr_un, less the final zero).
const SOCKET_PATH_BYTES: usize = 107;
/// The most threads: more than that are a slip, and the system may not have them.
const MAX_THREADS: u16 = 1024;

/// What is wrong with a configuration.
#[derive(Debug, Default)]
pub struct Findings {
    /// A node can't start with these.
    pub problems: Vec<String>,
    /// A node can, but somebody should know.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Fails if there are problems, naming all of them.
    ///
    /// # Errors
    /// With [`Exit::Config`] and every problem on a line of its own.
    pub fn into_result(self) -> Result<(), Failure> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Config, self.problems.join("\n"))
            .help("`rossby config show` tells where each setting comes from"))
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }
}

/// Checks everything that can be told without starting.
#[must_use]
pub fn check(config: &Config) -> Findings {
    let mut findings = Findings::default();
    numbers(config, &mut findings);
    paths(config, &mut findings);
    addresses(config, &mut findings);
    courier(config, &mut findings);
    client_tls(config, &mut findings);
    peer_tls(config, &mut findings);
    if let Err(error) = crate::telemetry::parse_filter(&config.log.filter) {
        findings.problem(format!("log.filter: {error}"));
    }
    findings
}

fn numbers(config: &Config, findings: &mut Findings) {
    if config.node == 0 {
        findings.problem("node: nodes are numbered from 1");
    }
    if PartitionCount::new(config.cluster.partitions).is_err() {
        findings.problem("cluster.partitions: must be a power of two from 1 to 4096");
    }
    if let Err(problem) = check_cluster_name(&config.cluster.name) {
        findings.problem(format!("cluster.name: {problem}"));
    }
    let raft = config.raft.timing();
    if raft.heartbeat.is_zero() || raft.heartbeat.saturating_mul(2) > raft.election_min {
        findings.problem("raft.election_min_ms: must be at least twice raft.heartbeat_ms, above 0");
    }
    if raft.election_max <= raft.election_min {
        findings.problem("raft.election_max_ms: must be above raft.election_min_ms");
    }
    if config.threads > MAX_THREADS {
        findings.problem(format!("threads: must be at most {MAX_THREADS}"));
    }
    if config.clients.max_connections == 0 {
        findings.problem("clients.max_connections: must be at least 1");
    }
    if config.clients.max_calls == 0 {
        findings.problem("clients.max_calls: must be at least 1");
    }
    limits(config, findings);
    sizes(config, findings);
}

/// Whether a cluster may have this name: it is the host in the authentication of requests.
///
/// # Errors
/// What a name must be like.
pub fn check_cluster_name(name: &str) -> Result<(), &'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
        return Err("must be 1 to 63 of a-z, 0-9, '-' and '.'");
    }
    Ok(())
}

fn limits(config: &Config, findings: &mut Findings) {
    /// A log entry, of 512 KiB, must be able to carry any envelope.
    const ENVELOPE_BYTES_MAX: u32 = 256 * 1024;
    const REQUEST_BYTES_MAX: u32 = 4 * 1024 * 1024;
    const QUEUE_ENVELOPES_MIN: u32 = 10;
    let limits = &config.limits;
    if limits.envelope_bytes == 0 || limits.envelope_bytes > ENVELOPE_BYTES_MAX {
        findings.problem("limits.envelope_bytes: must be from 1 to 262144");
    }
    if limits.sender_share_percent == 0 || limits.sender_share_percent > 100 {
        findings.problem("limits.sender_share_percent: must be from 1 to 100");
    }
    if limits.queue_envelopes < QUEUE_ENVELOPES_MIN {
        findings
            .problem("limits.queue_envelopes: must be at least 10: its last tenth is for contacts");
    }
    let positive = [
        ("queue_bytes", limits.queue_bytes),
        ("envelope_ttl_ms", limits.envelope_ttl_ms),
        ("code_ttl_ms", limits.code_ttl_ms),
        ("code_attempts", u64::from(limits.code_attempts)),
        ("codes_per_day", u64::from(limits.codes_per_day)),
        (
            "pending_per_identifier",
            u64::from(limits.pending_per_identifier),
        ),
        ("pending_box_ttl_ms", limits.pending_box_ttl_ms),
        ("reset_delay_ms", limits.reset_delay_ms),
    ];
    for (name, _) in positive.iter().filter(|(_, value)| *value == 0) {
        findings.problem(format!("limits.{name}: must be above 0"));
    }
    if limits.pending_box_ttl_ms <= limits.code_ttl_ms {
        // Its identifier could be verified for a box that is gone.
        findings.problem("limits.pending_box_ttl_ms: must be above limits.code_ttl_ms");
    }
    let doors = &config.doors;
    if doors.envelope_bytes < limits.envelope_bytes {
        findings.problem("doors.envelope_bytes: must not be below limits.envelope_bytes");
    }
    let positive = [
        ("send_envelopes", u64::from(doors.send_envelopes)),
        ("page_envelopes", u64::from(doors.page_envelopes)),
        ("page_bytes", u64::from(doors.page_bytes)),
        ("call_timeout_ms", doors.call_timeout_ms),
        ("hawk_window_ms", doors.hawk_window_ms),
        ("hawk_nonces", u64::from(doors.hawk_nonces)),
        ("envelopes_every_ms", doors.envelopes_every_ms),
        ("lookups_every_ms", doors.lookups_every_ms),
        ("subscription_ms", doors.subscription_ms),
        ("subscription_keepalive_ms", doors.subscription_keepalive_ms),
        ("subscription_unread_ms", doors.subscription_unread_ms),
        (
            "subscription_page_bytes",
            u64::from(doors.subscription_page_bytes),
        ),
    ];
    for (name, _) in positive.iter().filter(|(_, value)| *value == 0) {
        findings.problem(format!("doors.{name}: must be above 0"));
    }
    if doors.request_bytes < limits.envelope_bytes || doors.request_bytes > REQUEST_BYTES_MAX {
        findings.problem("doors.request_bytes: must be from limits.envelope_bytes to 4194304");
    }
}

fn sizes(config: &Config, findings: &mut Findings) {
    const MIB: u64 = 1024 * 1024;
    let storage = &config.storage;
    // The largest record (a request of 4 MiB in one entry) must fit a segment with room to spare.
    let least = [
        ("segment_bytes", storage.segment_bytes, 16 * MIB),
        ("log_cache_bytes", storage.log_cache_bytes, MIB),
        ("base_cache_bytes", storage.base_cache_bytes, MIB),
        ("checkpoint_log_bytes", storage.checkpoint_log_bytes, MIB),
        (
            "overlay_budget_bytes",
            storage.overlay_budget_bytes,
            16 * MIB,
        ),
    ];
    for (name, value, least) in least {
        if value < least {
            findings.problem(format!("storage.{name}: must be at least {least}"));
        }
    }
}

fn paths(config: &Config, findings: &mut Findings) {
    if config.data.exists() && !config.data.is_dir() {
        findings.problem(format!(
            "data: {} is not a directory",
            config.data.display()
        ));
    }
    let mut outside = vec![("secrets", config.secrets.clone())];
    if config.courier.kind == CourierKind::File {
        outside.push(("courier.file", config.courier_file()));
    }
    for (key, path) in outside {
        if absolute(&path).starts_with(absolute(&config.data)) {
            findings.problem(format!(
                "{key}: {} is inside the data directory, and would end up in its backups",
                path.display()
            ));
        }
    }
    private(&config.secrets, "secrets", findings);
    let socket = absolute(&config.admin_socket());
    if socket.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES {
        findings.problem(format!(
            "admin.socket: {} is longer than a Unix socket's path may be ({SOCKET_PATH_BYTES} bytes)",
            socket.display()
        ));
    }
}

/// The path without `.` and `..`, from the root; symbolic links stay.
fn absolute(path: &Path) -> PathBuf {
    let start = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut clean = PathBuf::new();
    for part in start.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// A file with secrets must be readable by its owner only. That it is missing is no problem.
fn private(path: &Path, key: &str, findings: &mut Findings) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        findings.problem(format!(
            "{key}: others may read {0}; run: chmod 600 {0}",
            path.display()
        ));
    }
}

fn addresses(config: &Config, findings: &mut Findings) {
    let listeners = [
        ("clients.listen", Some(config.clients.listen)),
        ("peers.listen", config.peers.listen),
        ("http.listen", Some(config.http.listen)),
    ];
    let set: Vec<(&str, SocketAddr)> = listeners
        .into_iter()
        .filter_map(|(key, address)| Some((key, address?)))
        .collect();
    for (at, (key, address)) in set.iter().enumerate() {
        let same = set
            .iter()
            .take(at)
            .find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = same {
            findings.problem(format!("{key}: {address} is the same as {other}"));
        }
    }
    if config.clients.listen.ip().is_unspecified() && config.clients.advertise.is_none() {
        findings.problem(
            "clients.advertise: must say where devices reach this node, since clients.listen is \
             every address",
        );
    }
    if config
        .peers
        .listen
        .is_some_and(|address| address.ip().is_unspecified())
        && config.peers.advertise.is_none()
    {
        findings.problem(
            "peers.advertise: must say where other nodes reach this one, since peers.listen is \
             every address",
        );
    }
    if !config.http.listen.ip().is_loopback() {
        findings.warn(format!(
            "http.listen: {} serves metrics without authentication to whoever can reach it",
            config.http.listen
        ));
    }
}

fn courier(config: &Config, findings: &mut Findings) {
    let beyond = !config.clients.listen.ip().is_loopback() || config.clients.advertise.is_some();
    let for_trials = match config.courier.kind {
        CourierKind::Console => Some("console"),
        CourierKind::File => Some("file"),
        CourierKind::Gateways => None,
    };
    if let Some(kind) = for_trials
        && beyond
        && !config.courier.allow_console_courier
    {
        findings.problem(format!(
            "courier.kind: the {kind} courier shows every verification code to the operator and \
             sends none; it is for trials. Clients beyond this machine can reach this node, so it \
             needs courier.kind = \"gateways\", or courier.allow_console_courier = true"
        ));
    }
    match config.courier.kind {
        CourierKind::Console => {}
        CourierKind::File => private(&config.courier_file(), "courier.file", findings),
        CourierKind::Gateways => {
            for error in config.gateways().err().into_iter().flatten() {
                findings.problem(error.to_string());
            }
        }
    }
}

fn client_tls(config: &Config, findings: &mut Findings) {
    let clients = &config.clients;
    match (&clients.tls_cert, &clients.tls_key) {
        (None, None) => {
            if !clients.listen.ip().is_loopback() {
                findings.problem(format!(
                    "clients.listen: {} is beyond loopback, so it needs TLS: set clients.tls_cert \
                     and clients.tls_key (`rossby cert node` makes both)",
                    clients.listen
                ));
            }
            if clients.tls_ca.is_some() {
                findings.problem("clients.tls_ca: needs clients.tls_cert and clients.tls_key");
            }
        }
        (Some(_), None) => findings.problem("clients.tls_key: is missing beside clients.tls_cert"),
        (None, Some(_)) => findings.problem("clients.tls_cert: is missing beside clients.tls_key"),
        (Some(_), Some(key)) => private(key, "clients.tls_key", findings),
    }
    if let Err(error) = config.client_tls() {
        findings.problem(format!("clients: {error}"));
    }
}

fn peer_tls(config: &Config, findings: &mut Findings) {
    let peers = &config.peers;
    let files = [
        ("peers.cert", peers.cert.as_deref()),
        ("peers.key", peers.key.as_deref()),
        ("peers.ca", peers.ca.as_deref()),
    ];
    for (key, path) in files {
        match (path, peers.listen) {
            (None, Some(_)) => findings.problem(format!(
                "{key}: is missing; nodes talk over mutual TLS only (`rossby cert` makes the files)"
            )),
            (Some(_), None) => findings.problem(format!("{key}: is set but peers.listen is not")),
            _ => {}
        }
    }
    if !config.join.seeds.is_empty() && peers.listen.is_none() {
        findings.problem(
            "join.seeds: needs peers.listen with peers.cert, peers.key and peers.ca: nodes talk over mutual TLS \
             only (`rossby cert` makes the files)",
        );
    }
    if let Err(error) = config.peer_tls() {
        findings.problem(format!("peers: {error}"));
    }
    if let Some(key) = &peers.key {
        private(key, "peers.key", findings);
    }
}
