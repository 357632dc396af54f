//! Flags for the settings that are used most. Every other setting is in the file or the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use figment::value::Value;
use rossby_domain::placement::RegionName;
use serde::Serialize;

use super::{CourierKind, HostPort, LogFormat};
use crate::exit::{Exit, Failure};

/// Settings on the command line. They win over the environment and the file.
#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "Settings (also in the file, and in the environment as ROSSBY_<KEY>)"
)]
pub struct ConfigArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE", env = "ROSSBY_CONFIG")]
    pub config: Option<PathBuf>,
    /// The data directory [default: ./rossby-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The cluster's secrets [default: ./rossby-secrets/cluster.keys]
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// This node's number in its cluster [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub node: Option<u64>,
    /// The region that this node is in, for example eu-west: nodes of a region may fail together. For ever:
    /// a node does not move [default: local]
    #[arg(long, value_name = "NAME")]
    pub region: Option<RegionName>,
    /// Where devices connect [default: 127.0.0.1:7470]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// The address that devices are told, if it differs from --listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<HostPort>,
    /// Where other nodes connect. Without it the node is a cluster by itself.
    #[arg(long, value_name = "IP:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// The address that other nodes are told, if it differs from --peer-listen.
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_advertise: Option<HostPort>,
    /// Metrics and health [default: 127.0.0.1:7471]
    #[arg(long, value_name = "IP:PORT")]
    pub http: Option<SocketAddr>,
    /// Certificate chain for devices, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Ask devices for a certificate of these authorities, PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This node's certificate for other nodes, PEM.
    #[arg(long, value_name = "FILE")]
    pub peer_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    pub peer_key: Option<PathBuf>,
    /// The cluster's certificate authority, PEM.
    #[arg(long, value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// Join the cluster of this member, if the data directory is empty: where its peers reach it. Any number of
    /// times. Takes a token from `rossby node token`, which also says the node's number.
    #[arg(long = "join", value_name = "HOST:PORT")]
    pub join: Vec<HostPort>,
    /// The file with the token, mode 0600; - for standard input. It can also be in ROSSBY_JOIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// How verification codes reach people: gateways sends them, by mail and SMS [default: console]
    #[arg(long, value_enum)]
    pub courier: Option<CourierKind>,
    /// The outbox of the file courier.
    #[arg(long, value_name = "FILE")]
    pub courier_file: Option<PathBuf>,
    /// Use a courier for trials although strangers can reach the node.
    #[arg(long)]
    pub allow_console_courier: bool,
    /// What to log, for example warn,rossby_raft=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// In which form to log [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

impl ConfigArgs {
    /// Key, flag and value of each setting that the command line sets.
    ///
    /// # Errors
    /// A path that is not UTF-8: it could be neither shown nor told to anybody.
    pub(super) fn given(&self) -> Result<Vec<(&'static str, &'static str, Value)>, Failure> {
        let allow = self.allow_console_courier.then_some(true);
        let join = (!self.join.is_empty()).then(|| self.join.clone());
        let all: [(&'static str, &'static str, Option<&dyn ToValue>); 22] = [
            ("data", "--data", some(&self.data)),
            ("secrets", "--secrets", some(&self.secrets)),
            ("node", "--node", some(&self.node)),
            ("region", "--region", some(&self.region)),
            ("clients.listen", "--listen", some(&self.listen)),
            ("clients.advertise", "--advertise", some(&self.advertise)),
            ("clients.tls_cert", "--tls-cert", some(&self.tls_cert)),
            ("clients.tls_key", "--tls-key", some(&self.tls_key)),
            ("clients.tls_ca", "--tls-ca", some(&self.tls_ca)),
            ("peers.listen", "--peer-listen", some(&self.peer_listen)),
            (
                "peers.advertise",
                "--peer-advertise",
                some(&self.peer_advertise),
            ),
            ("peers.cert", "--peer-cert", some(&self.peer_cert)),
            ("peers.key", "--peer-key", some(&self.peer_key)),
            ("peers.ca", "--peer-ca", some(&self.peer_ca)),
            ("join.seeds", "--join", some(&join)),
            (
                "join.token_file",
                "--join-token-file",
                some(&self.join_token_file),
            ),
            ("http.listen", "--http", some(&self.http)),
            ("courier.kind", "--courier", some(&self.courier)),
            ("courier.file", "--courier-file", some(&self.courier_file)),
            (
                "courier.allow_console_courier",
                "--allow-console-courier",
                some(&allow),
            ),
            ("log.filter", "--log", some(&self.log)),
            ("log.format", "--log-format", some(&self.log_format)),
        ];
        all.into_iter()
            .filter_map(|(key, flag, given)| given.map(|given| (key, flag, given)))
            .map(|(key, flag, given)| {
                let value = given.to_value().map_err(|error| {
                    Failure::new(
                        Exit::Usage,
                        format!("{flag}: not usable as a setting: {error}"),
                    )
                })?;
                Ok((key, flag, value))
            })
            .collect()
    }
}

/// Any flag's value, as figment takes it in.
trait ToValue {
    fn to_value(&self) -> Result<Value, String>;
}

impl<T: Serialize> ToValue for T {
    fn to_value(&self) -> Result<Value, String> {
        Value::serialize(self).map_err(|error| error.to_string())
    }
}

fn some<T: Serialize>(given: &Option<T>) -> Option<&dyn ToValue> {
    given.as_ref().map(|given| given as &dyn ToValue)
}
