//! `rossby serve --join`: how a node with an empty directory becomes a member by a join token.
//!
//! ```text
//!   token ─► its number ─► a try, named and written down ─► Join, at one seed after the other ─► the secrets
//!         ─► the map ─► the log ─► the identity: from then on the token is not needed
//! ```
//!
//! The seed proves by certificate that it is a node of the cluster's authority, and by taking the call that it is
//! of the token's cluster; the joiner proves its number by certificate, and the rest by the token. Whatever a
//! crash leaves behind, the same try goes on: the cluster knows it again. A seed that can't be reached is tried
//! again; a cluster that says no ends the node.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rossby_api::ClusterSecrets;
use rossby_api::peer::{MeetError, Welcome, meet};
use rossby_api::placement::{AttemptError, MapKeeper, begin_attempt, begun_attempt, end_attempt};
use rossby_domain::placement::JoinAttempt;
use rossby_proto::v1;
use rossby_seams::disk::FileDisk;
use rossby_storage::datadir::{ClusterIdentity, DataDirectory};
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::enter::Place;
use super::node::{Node, NodeError};
use super::token::Token;
use crate::config::{Config, HostPort, Loaded};
use crate::exit::{Exit, Failure};

/// The variable that may hold the token.
pub const TOKEN_VARIABLE: &str = "ROSSBY_JOIN_TOKEN";
/// Far more than a token has.
const TOKEN_BYTES_MAX: u64 = 4096;
/// How long a seed may take: it calls this node back, and asks its placement group.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Between two rounds of the seeds.
const AGAIN: Duration = Duration::from_secs(1);

/// What a node joins by.
pub struct JoinPlan {
    /// The token.
    pub token: Token,
    /// Whom to ask.
    pub seeds: Vec<HostPort>,
    /// What a seed is shown, and whom to take for one.
    pub tls: Arc<ClientConfig>,
}

/// Why a node does not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// There is something in the directory already.
    #[error(
        "{} holds data of a node that belongs to no cluster any more ({found}): a node joins with an empty directory",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// What was found in it.
        found: &'static str,
    },
    /// The directory is of another cluster than the token.
    #[error("{0}")]
    Elsewhere(String),
    /// The cluster said no.
    #[error("the cluster does not take this node in: {0}")]
    Refused(String),
    /// None of the seeds is of that cluster.
    #[error("no seed is a node of the token's cluster: {0}")]
    NoSeed(String),
    /// The file that names the try.
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    /// The file of the map.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Finds out which node this is, if its settings do not say: from its directory, or from the token that it
/// joins by, which is returned. A directory that is a member's needs none.
///
/// # Errors
/// If there is no token that can be used, or it is for another node.
pub fn prepare(loaded: &mut Loaded) -> Result<Option<Token>, Failure> {
    let is_numbered = loaded.is_set("node");
    // What is wrong with it is said when it is opened.
    let identity = DataDirectory::peek(&FileDisk, &loaded.config.data);
    if let Some(identity) = identity.ok().flatten() {
        if !is_numbered {
            loaded.config.node = identity.node.0;
        }
        if identity.cluster.is_some() {
            return Ok(None);
        }
    }
    if loaded.config.join.seeds.is_empty() {
        return Ok(None);
    }
    let token = read_token(&loaded.config)?;
    let number = token.node.0;
    if !is_numbered {
        loaded.config.node = number;
    } else if loaded.config.node != number {
        return Err(Failure::new(
            Exit::Config,
            format!(
                "the join token is for node {number}, and the settings say that this is node {}",
                loaded.config.node
            ),
        )
        .help("leave --node out: the cluster gives the number"));
    }
    Ok(Some(token))
}

fn read_token(config: &Config) -> Result<Token, Failure> {
    let (text, from) = match (&config.join.token_file, std::env::var(TOKEN_VARIABLE)) {
        (Some(path), _) if path.as_os_str() == "-" => {
            let text = read_all(std::io::stdin().lock());
            (text, "standard input".to_owned())
        }
        (Some(path), _) => (read_file(path), path.display().to_string()),
        (None, Ok(text)) => (Ok(Zeroizing::new(text)), TOKEN_VARIABLE.to_owned()),
        (None, Err(_)) => {
            let text = "to join a cluster takes a token";
            return Err(Failure::new(Exit::Config, text).help(format!(
                "make one on a member with `rossby node token`, and give it with --join-token-file, or in \
                 {TOKEN_VARIABLE}"
            )));
        }
    };
    let wrong = |what: String| Failure::new(Exit::Config, format!("{from}: {what}"));
    let text = text.map_err(wrong)?;
    text.parse().map_err(|error: super::token::TokenError| {
        wrong(error.to_string()).help("`rossby node token` on a member prints one")
    })
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!(
            "others may read it; run: chmod 600 {}",
            path.display()
        ));
    }
    read_all(file)
}

fn read_all(from: impl std::io::Read) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_BYTES_MAX as usize));
    let read = from.take(TOKEN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| error.to_string())?;
    Ok(text)
}

/// Why a seed did not take this node in.
enum Unheard {
    /// It will not do so later either.
    Refused(String),
    /// It is no node of the cluster.
    Stranger(String),
    /// It may do so later.
    Later(String),
}

impl Node {
    /// Becomes a member by a token. The caller holds the lock on `data`.
    pub(super) async fn join_by(
        &self,
        data: &mut DataDirectory,
        plan: &JoinPlan,
    ) -> Result<(), NodeError> {
        let attempt = self.attempt(data)?;
        let own = self.own_entry();
        let secrets_check = match self.parts.config.secrets.exists() {
            true => self.secrets_check(&self.load_secrets()?)?,
            false => String::new(),
        };
        let request = v1::JoinRequest {
            secret: plan.token.secret.to_vec().into(),
            attempt: attempt.0.to_vec().into(),
            region: own.region.to_string(),
            peer_address: own.peer_address,
            client_address: own.client_address,
            secrets_check,
        };
        let welcome = self.knock(plan, &request).await?;
        self.move_in(data, plan, welcome).await?;
        if let Err(error) = end_attempt(&**data.disk(), data.path()) {
            warn!(%error, "could not remove the file that names the try to join");
        }
        info!(cluster = %plan.token.cluster, "this node has joined by its token");
        Ok(())
    }

    /// The name of the try: the one that was begun, or a new one in an empty directory.
    fn attempt(&self, data: &DataDirectory) -> Result<JoinAttempt, NodeError> {
        let disk = &**data.disk();
        if let Some(begun) = begun_attempt(disk, data.path()).map_err(JoinFailure::from)? {
            return Ok(begun);
        }
        let kept = ["founding", "wal", "checkpoints", "base"];
        if let Some(found) = kept
            .into_iter()
            .find(|name| data.path().join(name).exists())
        {
            return Err(JoinFailure::NotEmpty {
                path: data.path().to_owned(),
                found,
            }
            .into());
        }
        let attempt = begin_attempt(disk, data.path(), &*self.parts.random);
        Ok(attempt.map_err(JoinFailure::from)?)
    }

    /// Asks one seed after the other until one takes this node in.
    async fn knock(
        &self,
        plan: &JoinPlan,
        request: &v1::JoinRequest,
    ) -> Result<Welcome, JoinFailure> {
        let mut said = String::new();
        loop {
            let (mut strangers, mut later) = (Vec::new(), None);
            for seed in &plan.seeds {
                match ask(plan, &seed.to_string(), request).await {
                    Ok(welcome) => return Ok(welcome),
                    Err(Unheard::Refused(text)) => return Err(JoinFailure::Refused(text)),
                    Err(Unheard::Stranger(text)) => strangers.push(text),
                    Err(Unheard::Later(text)) => later = Some(text),
                }
            }
            let Some(reason) = later else {
                return Err(JoinFailure::NoSeed(strangers.join("; ")));
            };
            if reason != said {
                warn!(reason, "not taken in by the cluster yet: it is asked again");
                said.clone_from(&reason);
            }
            *self.joining.lock() = Some(format!("this node is joining a cluster: {reason}"));
            sleep(AGAIN).await;
        }
    }

    /// Takes the place of a member without replicas. The plan of the cluster gives it some if they are needed.
    async fn move_in(
        &self,
        data: &mut DataDirectory,
        plan: &JoinPlan,
        welcome: Welcome,
    ) -> Result<(), NodeError> {
        if welcome.cluster != plan.token.cluster || !welcome.map.nodes().contains_key(&self.id()) {
            let text = "its answer is for another cluster or node".to_owned();
            return Err(JoinFailure::Refused(text).into());
        }
        let secrets = ClusterSecrets::decode(&welcome.secrets)
            .map_err(|error| JoinFailure::Refused(error.to_string()))?;
        let cluster = ClusterIdentity {
            id: welcome.cluster,
            name: welcome.cluster_name,
            partitions: welcome.partitions,
            secrets_check: Some(self.secrets_check(&secrets)?),
        };
        let taken = |error: rossby_api::peer::JoinError| JoinFailure::Elsewhere(error.to_string());
        self.refuse_if_taken(data, &cluster).map_err(taken)?;
        self.take_secrets(&secrets).map_err(taken)?;
        // A member without replicas finds the others by the map alone, also after a crash right behind this.
        let keeper = MapKeeper::open(Arc::clone(data.disk()), data.path());
        keeper.offer(Arc::clone(&welcome.map));
        let written = tokio::task::block_in_place(|| keeper.write_newest());
        written.map_err(|error| JoinFailure::File {
            path: data.path().to_owned(),
            reason: error.to_string(),
        })?;
        let place = Place {
            cluster,
            held: std::collections::BTreeSet::new(),
            founding: None,
            map: Some(welcome.map),
        };
        self.enter(data, place).await
    }
}

/// Asks a seed.
async fn ask(
    plan: &JoinPlan,
    address: &str,
    request: &v1::JoinRequest,
) -> Result<Welcome, Unheard> {
    let met = meet(Arc::clone(&plan.tls), address, plan.token.cluster).await;
    let (node, connection) = met.map_err(|error| match error {
        MeetError::Unreachable { .. } => Unheard::Later(error.to_string()),
        MeetError::Untrusted { .. } => Unheard::Stranger(format!(
            "{error}. Check that the address is that of its --peer-listen, and that the certificates of both \
             come from the cluster's authority"
        )),
    })?;
    let mut client = connection.client();
    let answer = match timeout(ANSWER_WITHIN, client.join(request.clone())).await {
        Err(_) => {
            return Err(Unheard::Later(format!(
                "node {node} at {address} does not answer"
            )));
        }
        Ok(Err(status)) => return Err(unheard(&status, address)),
        Ok(Ok(response)) => response.into_inner(),
    };
    Welcome::try_from(answer)
        .map_err(|what| Unheard::Refused(format!("{address} sent what can't be read: {what}")))
}

fn unheard(status: &tonic::Status, address: &str) -> Unheard {
    let said = status.message();
    match status.code() {
        tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => {
            Unheard::Refused(said.to_owned())
        }
        tonic::Code::PermissionDenied => Unheard::Stranger(format!("{address}: {said}")),
        tonic::Code::Unimplemented => Unheard::Refused(format!(
            "{address} runs a release that takes nobody in by a token"
        )),
        _ => Unheard::Later(format!("{address}: {said}")),
    }
}
