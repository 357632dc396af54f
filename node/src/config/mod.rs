//! Settings of a node: what they are, where they come from, and whether they make sense together.
//!
//! ```text
//!   defaults ◄─ file (TOML) ◄─ environment (ROSSBY_*) ◄─ flags      the right one wins
//!                     │
//!                  load.rs ──► Config ──► check.rs ──► problems, or a node may start
//! ```

// The fuzzer takes in what a file can say (this file) without the rest of the binary.
#[cfg(not(fuzzing))]
mod args;
#[cfg(not(fuzzing))]
mod check;
#[cfg(not(fuzzing))]
mod command;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host_port;
#[cfg(not(fuzzing))]
mod load;
mod memory;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rossby_api::DoorLimits;
use rossby_api::courier::{Gateways, SettingsError, SmtpSettings, TextSettings, WebhookSettings};
use rossby_api::listener::tls::{self, PeerTls, TlsError};
use rossby_domain::ids::NodeId;
use rossby_domain::limits::Limits;
use rossby_domain::placement::RegionName;
use rossby_raft::Timing;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};

#[cfg(not(fuzzing))]
pub use args::ConfigArgs;
#[cfg(not(fuzzing))]
pub use check::{check, check_cluster_name};
#[cfg(not(fuzzing))]
pub use command::run;
pub use host_port::HostPort;
#[cfg(not(fuzzing))]
pub use load::{Loaded, load};

/// Where a node keeps its data unless told otherwise.
pub const DEFAULT_DATA: &str = "./rossby-data";
/// The admin socket's name in the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// All settings of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This node's number in its cluster, from 1.
    pub node: u64,
    /// Where this node is: nodes of one region may fail together.
    pub region: RegionName,
    /// The data directory.
    pub data: PathBuf,
    /// The file with the cluster's secrets; never inside the data directory.
    pub secrets: PathBuf,
    /// Threads that serve calls and the group; 0 for one for each processor. Fewer, where several nodes
    /// share a machine.
    pub threads: u16,
    /// Where devices connect.
    pub clients: Clients,
    /// Where other nodes connect.
    pub peers: Peers,
    /// How a node with an empty directory becomes a member.
    pub join: Join,
    /// Metrics and health.
    pub http: Http,
    /// Orders from the operator.
    pub admin: Admin,
    /// The cluster that a single node makes for itself.
    pub cluster: Cluster,
    /// What a cluster made by this node enforces.
    pub limits: Limits,
    /// What a request of a client may be.
    pub doors: DoorLimits,
    /// How verification codes reach people.
    pub courier: Courier,
    /// The log on standard error.
    pub log: Log,
    /// Raft's pace.
    pub raft: Raft,
    /// How the groups become what the cluster map asks for.
    pub placement: Placement,
    /// Sizes of what is kept in memory and on disk.
    pub storage: Storage,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: 1,
            region: RegionName::default(),
            data: PathBuf::from(DEFAULT_DATA),
            secrets: PathBuf::from("./rossby-secrets/cluster.keys"),
            threads: 0,
            clients: Clients::default(),
            peers: Peers::default(),
            join: Join::default(),
            http: Http::default(),
            admin: Admin::default(),
            cluster: Cluster::default(),
            limits: Limits::default(),
            doors: DoorLimits::default(),
            courier: Courier::default(),
            log: Log::default(),
            raft: Raft::default(),
            placement: Placement::default(),
            storage: Storage::default(),
        }
    }
}

/// Where devices connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// The address to listen on. Beyond loopback it needs TLS.
    pub listen: SocketAddr,
    /// The address that devices are told, if it is another one (behind NAT, for example).
    pub advertise: Option<HostPort>,
    /// The node's certificate chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// If set, clients must show a certificate from one of these authorities, PEM.
    pub tls_ca: Option<PathBuf>,
    /// Open connections at a time; more wait.
    pub max_connections: u32,
    /// Calls at a time, over all connections; more are refused. Each may hold a request in memory.
    pub max_calls: u32,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            listen: loopback(7470),
            advertise: None,
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            max_connections: 4096,
            max_calls: 1024,
        }
    }
}

/// Where other nodes connect. Always mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// The address to listen on. Without it the node is a cluster by itself.
    pub listen: Option<SocketAddr>,
    /// The address that other nodes are told, if it is another one.
    pub advertise: Option<HostPort>,
    /// This node's certificate from `rossby cert node`, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// The cluster's authority from `rossby cert ca`, PEM.
    pub ca: Option<PathBuf>,
}

/// How a node with an empty directory becomes a member of a cluster. One that is a member already looks at none
/// of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Join {
    /// Members of the cluster, where their peers reach them.
    pub seeds: Vec<HostPort>,
    /// The file with the token from `rossby node token`, mode 0600.
    pub token_file: Option<PathBuf>,
}

/// Metrics and health over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address of /metrics, /livez and /readyz.
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: loopback(7471),
        }
    }
}

/// Orders from the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The Unix socket, mode 0600; by default `admin.sock` in the data directory.
    pub socket: Option<PathBuf>,
}

/// The cluster that a single node makes for itself. `rossby cluster init` has flags of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Its name: the host in the authentication of requests.
    pub name: String,
    /// Into how many parts the key space is cut.
    pub partitions: u16,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "rossby".to_owned(),
            partitions: 256,
        }
    }
}

/// How verification codes reach people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Courier {
    /// Which courier.
    pub kind: CourierKind,
    /// The outbox of the file courier, mode 0600.
    pub file: Option<PathBuf>,
    /// Use a courier that shows codes to the operator even though strangers can reach the node.
    pub allow_console_courier: bool,
    /// The relay that mails go through, for `gateways`.
    pub smtp: SmtpSettings,
    /// The gateway that SMS go through, for `gateways`.
    pub webhook: WebhookSettings,
    /// What messages with codes say.
    pub text: TextSettings,
}

impl Default for Courier {
    fn default() -> Self {
        Self {
            kind: CourierKind::Console,
            file: None,
            allow_console_courier: false,
            smtp: SmtpSettings::default(),
            webhook: WebhookSettings::default(),
            text: TextSettings::default(),
        }
    }
}

/// Which courier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CourierKind {
    /// Codes are printed beside the log, on the node's standard error.
    Console,
    /// Codes are appended to a file that only the node's user can read.
    File,
    /// Codes are sent: by mail through courier.smtp, by SMS through courier.webhook, or one of them.
    Gateways,
}

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What to log, as in `info` or `warn,rossby_raft=debug`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Raft's pace. The same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raft {
    /// Where the nodes are: `lan`, within a few milliseconds of each other, or `wan`, in several regions. The pace
    /// follows from it, but for what is given beside it.
    pub profile: Pace,
    /// Milliseconds between heartbeats; 100 for `lan`, 500 for `wan`.
    pub heartbeat_ms: Option<u64>,
    /// Shortest silence of the leader, in milliseconds, after which a node stands for election; 500 or 2500.
    pub election_min_ms: Option<u64>,
    /// Longest such silence; 1000 or 5000.
    pub election_max_ms: Option<u64>,
    /// Whether groups of which nothing is asked rest, and cost next to nothing meanwhile.
    pub rest: bool,
    /// Whether a leader answers reads without asking its peers for as long as none of them can have taken its place. Off
    /// where a virtual machine may be stopped together with its clocks while others go on.
    pub lease_reads: bool,
}

/// A pace that fits the way between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Within a few milliseconds of each other.
    #[default]
    Lan,
    /// In several regions.
    Wan,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            profile: Pace::default(),
            heartbeat_ms: None,
            election_min_ms: None,
            election_max_ms: None,
            rest: true,
            lease_reads: true,
        }
    }
}

impl Raft {
    /// The intervals.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let usual = match self.profile {
            Pace::Lan => Timing::lan(),
            Pace::Wan => Timing::wan(),
        };
        let or = |given: Option<u64>, usual| given.map_or(usual, Duration::from_millis);
        Timing {
            heartbeat: or(self.heartbeat_ms, usual.heartbeat),
            election_min: or(self.election_min_ms, usual.election_min),
            election_max: or(self.election_max_ms, usual.election_max),
        }
    }
}

/// How the groups become what the cluster map asks for. The same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Placement {
    /// Whether this node has voters move and leaders go home by themselves when it leads the placement group.
    pub reconcile: bool,
    /// A node that has not answered for so many seconds is replaced, if another can take its place.
    pub replace_after_s: u64,
    /// A leader goes home once its node there has answered, and it has led, for so many seconds.
    pub stable_s: u64,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            reconcile: true,
            replace_after_s: 600,
            stable_s: 60,
        }
    }
}

/// Sizes of what is kept in memory and on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Bytes of recent log entries kept in memory.
    pub log_cache_bytes: u64,
    /// Bytes of the key-value base's cache: an eighth of the memory there is (128 MiB to 4 GiB) unless configured. What it
    /// does not hold is read from disk, several rows for each send.
    pub base_cache_bytes: u64,
    /// A checkpoint is written once the log since the last one has this many bytes.
    pub checkpoint_log_bytes: u64,
    /// Bytes of applied state that may wait for a checkpoint; writes are refused above 70% of it.
    pub overlay_budget_bytes: u64,
    /// Bytes of disk that are set aside for what can not wait when the disk is full: votes, the
    /// start, the key-value base. 0 for none.
    pub reserve_bytes: u64,
}

impl Default for Storage {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            segment_bytes: 32 * MIB,
            log_cache_bytes: 32 * MIB,
            base_cache_bytes: *memory::BASE_CACHE_BYTES,
            checkpoint_log_bytes: 128 * MIB,
            overlay_budget_bytes: 512 * MIB,
            reserve_bytes: 64 * MIB,
        }
    }
}

impl Config {
    /// The admin socket's path.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.admin
            .socket
            .clone()
            .unwrap_or_else(|| self.data.join(ADMIN_SOCKET))
    }

    /// What the client listener shows, or `None` for plain text.
    ///
    /// # Errors
    /// If a file is unusable.
    pub fn client_tls(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let (Some(cert), Some(key)) = (&self.clients.tls_cert, &self.clients.tls_key) else {
            return Ok(None);
        };
        let credentials = tls::Credentials::load(cert, key)?;
        let clients = self
            .clients
            .tls_ca
            .as_deref()
            .map(tls::authorities)
            .transpose()?;
        tls::server(&credentials, clients).map(Some)
    }

    /// The certificates for peers, or `None` without a peer listener.
    ///
    /// # Errors
    /// If a file is unusable, or the certificate is another node's.
    pub fn peer_tls(&self) -> Result<Option<PeerTls>, TlsError> {
        let Peers {
            listen: Some(_),
            cert: Some(cert),
            key: Some(key),
            ca: Some(ca),
            ..
        } = &self.peers
        else {
            return Ok(None);
        };
        PeerTls::load(NodeId(self.node), cert, key, ca).map(Some)
    }

    /// The gateways that codes are sent through.
    ///
    /// # Errors
    /// All that is wrong with their settings.
    pub fn gateways(&self) -> Result<Gateways, Vec<SettingsError>> {
        let Courier {
            smtp,
            webhook,
            text,
            ..
        } = &self.courier;
        Gateways::new(smtp, webhook, text)
    }

    /// The outbox of the file courier: by default beside the cluster's secrets, out of the data
    /// directory and its backups.
    #[must_use]
    pub fn courier_file(&self) -> PathBuf {
        self.courier
            .file
            .clone()
            .unwrap_or_else(|| self.secrets.with_file_name("codes.jsonl"))
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
