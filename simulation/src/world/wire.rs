//! The wire between a device and the nodes: what gRPC is in production. Also where it is seen what
//! clients ask and are told, one observation for each try.

mod asked;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rossby_api::{Call, CallReply, RpcPath};
use rossby_client::connection::{Exchange, Refusal, ServerAddress, Wire, WireError, WireReply};
use rossby_domain::chain::KeyRecord;
use rossby_domain::ids::{Counter, DeviceAddress, DeviceId, EnvelopeId, NodeId, Sequence};
use rossby_domain::placement::{PLACEMENT_GROUP, RegionName};
use rossby_domain::query::QueueStatus;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query, Rejection};
use rossby_proto::v1;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::asked::{box_id, joins};
use super::dice::Dice;
use super::door::{Doors, Said};
use super::life::Life;
use super::node::Common;
use crate::observe::{CallId, ClientId, Digest, Failure, Request, Response, Seen, What, Who};

/// The port of node 0 in servers' addresses.
const FIRST_PORT: u16 = 7000;
/// How long a way between a device and a node takes, at least and at most, in milliseconds.
const WAY_MS: (u64, u64) = (1, 15);

/// Between two looks for what an answer does not tell.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The address under which devices know a node.
#[must_use]
pub fn address(node: NodeId) -> String {
    format!("http://127.0.0.1:{}", u64::from(FIRST_PORT) + node.0)
}

/// How bad the ways between devices and nodes are.
#[derive(Debug, Default)]
pub struct Ways {
    /// Of 1,000 messages, how many are lost.
    pub lost_permille: AtomicU64,
    /// Added to each way, in milliseconds.
    pub slowness_ms: AtomicU64,
    /// Nodes that answer nobody, as if frozen.
    pub frozen: Mutex<BTreeSet<NodeId>>,
    /// Regions that are reached from within only.
    pub cut_off: Mutex<BTreeSet<RegionName>>,
}

/// Numbers the calls of a world.
#[derive(Debug, Default)]
pub struct CallIds(AtomicU64);

impl CallIds {
    fn next(&self) -> CallId {
        CallId(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// One device's wire.
pub struct DeviceWire {
    client: ClientId,
    /// Where the device is.
    region: RegionName,
    /// The device's address, once it has one.
    pub address: OnceLock<DeviceAddress>,
    common: Arc<Common>,
    doors: Arc<Doors>,
    ways: Arc<Ways>,
    ids: Arc<CallIds>,
    dice: Dice,
    unplugged: AtomicBool,
}

impl DeviceWire {
    /// The wire of a client.
    #[must_use]
    pub fn new(
        (client, region): (ClientId, RegionName),
        common: Arc<Common>,
        doors: Arc<Doors>,
        ways: Arc<Ways>,
        ids: Arc<CallIds>,
    ) -> Self {
        let dice = common.dice.stream(&format!("wire {}", client.0));
        Self {
            client,
            region,
            address: OnceLock::new(),
            common,
            doors,
            ways,
            ids,
            dice,
            unplugged: AtomicBool::new(false),
        }
    }

    /// The wire of a further device of the same person.
    #[must_use]
    pub fn beside(&self, client: ClientId) -> Self {
        let (common, doors) = (Arc::clone(&self.common), Arc::clone(&self.doors));
        let (ways, ids) = (Arc::clone(&self.ways), Arc::clone(&self.ids));
        Self::new((client, self.region.clone()), common, doors, ways, ids)
    }

    /// Nothing goes over it any more: its device is gone.
    pub fn unplug(&self) {
        self.unplugged.store(true, Ordering::SeqCst);
        if let Some(device) = self.address.get() {
            self.saw(What::DeviceLost { device: *device });
        }
    }

    /// How long the way to a node takes, or back; `None` if it does not lead there.
    fn way(&self, node: NodeId) -> Option<Duration> {
        let (least, most) = WAY_MS;
        let slowness = self.ways.slowness_ms.load(Ordering::SeqCst);
        let way = self.dice.millis(least, most) + Duration::from_millis(slowness);
        let lost = self.ways.lost_permille.load(Ordering::SeqCst);
        let there = self.common.layout.region(node);
        let cut_off = self.ways.cut_off.lock();
        let is_cut =
            there != self.region && (cut_off.contains(&there) || cut_off.contains(&self.region));
        let far = self.common.layout.way(&self.region, &there);
        (!self.dice.permille(lost) && !is_cut).then_some(way + far)
    }

    /// Has something be seen as a call that is done otherwise than over this wire.
    pub(super) async fn beside_it(
        &self,
        request: Request,
        doing: impl Future<Output = Result<Response, Failure>>,
    ) -> Result<Response, Failure> {
        let call = self.ids.next();
        self.saw(What::Called { call, request });
        let result = doing.await;
        let returned = result.clone();
        self.saw(What::Returned {
            call,
            result: returned,
        });
        result
    }

    /// A node whose process runs.
    pub(super) fn some_life(&self) -> Option<Arc<Life>> {
        let lives: Vec<Arc<Life>> = self.doors.lives().collect();
        self.dice.pick(&lives).cloned()
    }

    fn saw(&self, what: What) {
        self.common.recorder.saw(Who::Client(self.client), what);
    }

    /// Carries one exchange there and back.
    async fn carry(&self, exchange: &Exchange<'_>, path: RpcPath) -> Result<Carried, WireError> {
        let lost = |why: &str| Err(WireError::Lost(why.to_owned()));
        let give_up = Instant::now() + exchange.timeout;
        let node = node_of(exchange.server);
        let Some(there) = self.way(node) else {
            sleep_until(give_up).await;
            return lost("no answer");
        };
        sleep(there).await;
        if self.ways.frozen.lock().contains(&node) {
            sleep_until(give_up).await;
            return lost("no answer");
        }
        let Some(life) = self.doors.life(node) else {
            return Err(WireError::NotSent("connection refused".to_owned()));
        };
        // As `api::grpc` has it: the service answers a little before its caller gives up.
        let patience = exchange.timeout.min(Duration::from_secs(3));
        let call = Call {
            path,
            authorization: exchange.authorization.clone(),
            message: exchange.message.clone(),
            deadline: Instant::now() + patience - (patience / 10).min(Duration::from_millis(100)),
            remote: None,
            relayed: false,
        };
        let doors = Arc::clone(&self.doors);
        let handled = tokio::spawn(async move {
            let said = doors.call(node, &life, call).await;
            (said, life)
        });
        let Ok(Ok((said, life))) = timeout_at(give_up, handled).await else {
            return lost("no answer in time");
        };
        let Said::Answer(answer) = said else {
            return lost("the connection broke");
        };
        let frozen = self.ways.frozen.lock().contains(&node);
        let Some(back) = self.way(node).filter(|_| !frozen) else {
            sleep_until(give_up).await;
            return lost("no answer in time");
        };
        sleep(back).await;
        if life.gone.is_cancelled() {
            return lost("the connection broke");
        }
        match answer {
            Ok(reply) => {
                let joined = match joins(path, &exchange.message) {
                    Some(device) => Some(self.joined(exchange, device, &reply).await?),
                    None => None,
                };
                Ok(Carried {
                    reply,
                    node,
                    joined,
                })
            }
            Err(error) => match Refusal::of_status(&error.into()) {
                Some(refusal) => Err(WireError::Refused(Box::new(refusal))),
                None => lost("a status that is none of the service's"),
            },
        }
    }
}

/// A reply that arrived.
struct Carried {
    reply: CallReply,
    node: NodeId,
    /// Who has joined, and behind which sequence, if that was asked for.
    joined: Option<(DeviceAddress, Sequence)>,
}

fn node_of(server: &ServerAddress) -> NodeId {
    let port = server.uri().port_u16().unwrap_or(FIRST_PORT);
    NodeId(u64::from(port.saturating_sub(FIRST_PORT)))
}

#[async_trait]
impl Wire for DeviceWire {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        let Ok(path) = exchange.path.parse::<RpcPath>() else {
            return Err(WireError::NotSent("no such method".to_owned()));
        };
        if self.unplugged.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let requests = self.requests(path, &exchange.message);
        let calls: Vec<CallId> = requests
            .iter()
            .map(|request| {
                let (call, request) = (self.ids.next(), request.clone());
                self.saw(What::Called { call, request });
                call
            })
            .collect();
        let carried = self.carry(&exchange, path).await;
        if self.unplugged.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if let Ok(carried) = &carried
            && let Some((device, _)) = carried.joined
        {
            // One that has its place writes at once.
            let _ = self.address.set(device);
        }
        let results = match &carried {
            Ok(carried) => self.responses(path, &exchange.message, carried),
            Err(error) => requests.iter().map(|it| outcome_of(it, error)).collect(),
        };
        for (call, result) in calls.into_iter().zip(results) {
            self.saw(What::Returned { call, result });
        }
        carried.map(|carried| WireReply {
            leader: None,
            message: carried.reply.message,
            server_authorization: carried.reply.server_authorization,
        })
    }
}

/// What a call came to that was not answered as it asks for: some refusals are answers.
fn outcome_of(request: &Request, error: &WireError) -> Result<Response, Failure> {
    let refusal = match error {
        WireError::NotSent(why) | WireError::NotTheService(why) => {
            return Err(Failure::Refused(why.clone()));
        }
        WireError::Lost(_) => return Err(Failure::Unknown),
        WireError::Refused(refusal) => refusal,
    };
    match (request, refusal.code.as_str()) {
        (Request::Lookup { .. }, "NO_USER") => Ok(Response::Found(None)),
        (Request::KeyRecord { .. }, "NO_USER") => Ok(Response::KeyRecord { found: None }),
        (Request::Verify { .. }, "RESET_WAITS") => {
            let at = refusal.figures.get("completes_at_ms");
            let at = at.and_then(|at| at.parse().ok()).unwrap_or_default();
            let completes_at = Timestamp::from_millis(at);
            Ok(Response::Waits { completes_at })
        }
        _ => Err(refusal_of(refusal)),
    }
}

/// A refusal as an outcome. Where apply said no, in its own words again.
fn refusal_of(refusal: &Refusal) -> Failure {
    let next = refusal.next_counter.unwrap_or(Counter(0));
    // It is told how long from now on.
    let retry_at = Timestamp::default();
    let rejection = match refusal.code.as_str() {
        "OUTCOME_UNKNOWN" | "INTERNAL" => return Failure::Unknown,
        "COUNTER_REUSED" => Rejection::CounterReused { next },
        "NOT_ACCEPTED" => Rejection::NotAccepted { next },
        "COUNTER_FORGOTTEN" => Rejection::CounterForgotten { next },
        "SENDER_SHARE_FULL" => Rejection::SenderShareFull,
        "QUEUE_FULL" => Rejection::QueueFull,
        "IDENTIFIER_TAKEN" => Rejection::IdentifierTaken,
        "NO_CODE_REQUESTED" => Rejection::NoCodeRequested,
        "CODE_EXPIRED" => Rejection::CodeExpired,
        "CODE_EXHAUSTED" => Rejection::CodeExhausted,
        "KEY_ALREADY_REGISTERED" => Rejection::KeyAlreadyRegistered,
        "TOO_MANY_CODES" => Rejection::TooManyCodes { retry_at },
        "OWNER_NOT_TOLD" => Rejection::OwnerNotTold,
        "RESET_VETOED" => Rejection::ResetVetoed { retry_at },
        "IDENTIFIER_CHANGED" => Rejection::IdentifierChanged,
        "TTL_NUMBER_USED" => Rejection::TtlNumberUsed { current: 0 },
        "UNKNOWN_RECIPIENT" => Rejection::UnknownBox,
        "BOX_DELETED" => Rejection::BoxDeleted,
        other => return Failure::Refused(other.to_owned()),
    };
    Failure::Rejected(rejection)
}

impl DeviceWire {
    /// What was answered to each of [`Self::requests`].
    fn responses(
        &self,
        path: RpcPath,
        request: &Bytes,
        carried: &Carried,
    ) -> Vec<Result<Response, Failure>> {
        let message = &carried.reply.message;
        let read = match path {
            RpcPath::Send => sent(message),
            RpcPath::Fetch => page(message).map(|response| vec![Ok(response)]),
            RpcPath::Acknowledge => {
                v1::AcknowledgeResponse::decode(message.clone())
                    .ok()
                    .map(|response| {
                        vec![Ok(Response::Acknowledged {
                            cursor: Sequence(response.cursor),
                            purged: 0,
                        })]
                    })
            }
            RpcPath::Authorize => {
                let generation = self.generation(request, carried.node);
                Some(vec![Ok(Response::Verified { generation })])
            }
            RpcPath::LookupKey => found(request, message).map(|response| vec![Ok(response)]),
            RpcPath::JoinBox | RpcPath::Recover => carried.joined.map(|(device, cursor)| {
                let removals = self.requests(path, request).len().saturating_sub(1);
                let mut results = vec![Ok(Response::Done); removals];
                results.push(Ok(Response::Joined { device, cursor }));
                results
            }),
            _ => None,
        };
        read.unwrap_or_else(|| vec![Ok(Response::Done)])
    }

    /// Who has joined a box, and where in its queue, which the answer does not tell: as soon as any replica tells. Nobody but
    /// that device moves its cursor.
    async fn joined(
        &self,
        exchange: &Exchange<'_>,
        device: DeviceId,
        reply: &CallReply,
    ) -> Result<(DeviceAddress, Sequence), WireError> {
        let none = || WireError::Lost("an answer that is none".to_owned());
        let response = v1::JoinBoxResponse::decode(reply.message.clone()).map_err(|_| none())?;
        let box_id = box_id(&response.box_id).ok_or_else(none)?;
        let device = DeviceAddress { box_id, device };
        let query = Query::Fetch {
            device,
            after: Sequence(0),
            max_envelopes: 1,
            max_bytes: 1,
        };
        let partition = box_id.partition();
        let until = Instant::now() + exchange.timeout;
        loop {
            let replicas = self.doors.lives().flat_map(|life| life.replicas.all());
            let mut owners = replicas.filter(|replica| {
                replica.id() != PLACEMENT_GROUP && replica.epoch(partition).is_some()
            });
            let cursor = owners.find_map(|owner| match owner.read_local(partition, &query) {
                Ok(Answer::Page(Some(page))) => Some(page.status.cursor),
                _ => None,
            });
            if let Some(cursor) = cursor {
                return Ok((device, cursor));
            }
            if Instant::now() >= until {
                return Err(WireError::Lost("no answer in time".to_owned()));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// The generation of a claim that was just verified, which the answer does not tell: asked of
    /// the node that answered, or whoever knows it by now.
    fn generation(&self, request: &Bytes, node: NodeId) -> u64 {
        let Some(Request::Verify {
            identifier, box_id, ..
        }) = self.verify(request)
        else {
            return 0;
        };
        let partition = identifier.partition(self.common.layout.partitions);
        let lives = self.doors.life(node).into_iter().chain(self.doors.lives());
        let replicas = lives.flat_map(|life| life.replicas.all());
        let owners = replicas.filter(|replica| replica.epoch(partition).is_some());
        // What the placement group calls a partition is another one.
        let owners = owners.filter(|replica| replica.id() != PLACEMENT_GROUP);
        let claims = owners.filter_map(|replica| {
            let query = Query::VerifiedClaim(identifier);
            match replica.read_local(partition, &query) {
                Ok(Answer::VerifiedClaim(Some((owner, generation)))) if owner == box_id => {
                    Some(generation)
                }
                _ => None,
            }
        });
        claims.max().unwrap_or_default()
    }
}

fn sent(message: &Bytes) -> Option<Vec<Result<Response, Failure>>> {
    use v1::send_outcome::Result as Sent;
    let response = v1::SendResponse::decode(message.clone()).ok()?;
    let outcome = |outcome: v1::SendOutcome| match outcome.result {
        Some(Sent::Sequence(sequence)) => Ok(Response::Sent {
            sequence: Sequence(sequence),
        }),
        Some(Sent::Refusal(refusal)) => Err(refusal_of(&Refusal::of_outcome(refusal))),
        None => Err(Failure::Unknown),
    };
    Some(response.outcomes.into_iter().map(outcome).collect())
}

fn page(message: &Bytes) -> Option<Response> {
    let response = v1::FetchResponse::decode(message.clone()).ok()?;
    let status = response.status.unwrap_or_default();
    let seen = |envelope: v1::Envelope| {
        Some(Seen {
            sequence: Sequence(envelope.sequence),
            id: EnvelopeId {
                sender: DeviceAddress {
                    box_id: box_id(&envelope.sender_box_id)?,
                    device: DeviceId::from_bytes(envelope.sender_device_id[..].try_into().ok()?),
                },
                counter: Counter(envelope.counter),
            },
            text: Digest::of(&envelope.body),
            expires_at: Timestamp::from_millis(envelope.expires_at_ms),
        })
    };
    Some(Response::Page {
        envelopes: response
            .envelopes
            .into_iter()
            .map(seen)
            .collect::<Option<_>>()?,
        more: response.more,
        status: QueueStatus {
            depth: status.depth,
            bytes: status.bytes,
            oldest: status.oldest_at_ms.map(Timestamp::from_millis),
            expired_total: status.expired_total,
            cursor: Sequence(status.cursor),
            last: Sequence(status.last),
            ttl_ms: status.ttl_ms,
            suspended: status.suspended,
            reset_at: status.reset_at_ms.map(Timestamp::from_millis),
            ttl_number: status.ttl_number,
        },
    })
}

fn found(request: &Bytes, message: &Bytes) -> Option<Response> {
    use v1::lookup_key_request::By;
    let response = v1::LookupKeyResponse::decode(message.clone()).ok()?;
    match v1::LookupKeyRequest::decode(request.clone()).ok()?.by? {
        By::Identifier(_) => Some(Response::Found(Some(box_id(&response.box_id)?))),
        By::BoxId(_) => {
            let record = KeyRecord::decode(&response.key_record).ok()?;
            let next = Counter(response.next_counter);
            Some(Response::KeyRecord {
                found: Some((record.version(), next)),
            })
        }
        By::DeviceId(_) => None,
    }
}
