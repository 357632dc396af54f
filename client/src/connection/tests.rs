//! How a call is tried.

use std::collections::VecDeque;

use rossby_domain::ids::{BoxId, DeviceAddress, DeviceId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use rossby_seams::clock::ManualClock;
use rossby_seams::random::SeededRandom;

use super::*;
use crate::crypto::secret::SecretBytes;

/// Answers from a script, and notes which server was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<WireReply, WireError>>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Wire for Script {
    async fn exchange(&self, exchange: Exchange<'_>) -> Result<WireReply, WireError> {
        self.asked.lock().push(exchange.server.to_string());
        let lost = || Err(WireError::NotSent("end of script".to_owned()));
        self.answers.lock().pop_front().unwrap_or_else(lost)
    }
}

fn done() -> Result<WireReply, WireError> {
    let message = v1::RegisterResponse {
        box_id: Bytes::new(),
        code_ttl_ms: 5,
    }
    .encode_to_vec();
    Ok(WireReply {
        leader: None,
        message: message.into(),
        server_authorization: None,
    })
}

fn refused(
    code: &str,
    retry: Retry,
    retry_after: Option<Duration>,
) -> Result<WireReply, WireError> {
    Err(WireError::Refused(Box::new(Refusal {
        code: code.to_owned(),
        message: code.to_owned(),
        retry,
        retry_after,
        server_time: None,
        figures: std::collections::BTreeMap::new(),
        key_record: None,
        next_counter: None,
    })))
}

fn not_sent() -> Result<WireReply, WireError> {
    Err(WireError::NotSent("no route".to_owned()))
}

fn lost() -> Result<WireReply, WireError> {
    Err(WireError::Lost("silence".to_owned()))
}

/// As a leader answers whose reign began after the request was signed.
fn wants_time(millis: u64) -> Result<WireReply, WireError> {
    let Err(WireError::Refused(mut refusal)) = refused("UNAUTHENTICATED", Retry::Changed, None)
    else {
        unreachable!("it is a refusal");
    };
    refusal.server_time = Some(Timestamp::from_millis(millis));
    Err(WireError::Refused(refusal))
}

fn signer() -> Signer {
    let box_id = BoxId::derive(PartitionId::new(1).unwrap(), &[1; 32]);
    let device = DeviceId::from_bytes([2; 16]);
    Signer {
        address: DeviceAddress { box_id, device },
        token: SecretBytes::new(vec![3; 32]),
        host: "rossby".to_owned(),
    }
}

async fn call(
    answers: impl IntoIterator<Item = Result<WireReply, WireError>>,
) -> (Result<v1::RegisterResponse, CallError>, Vec<String>) {
    call_as(None, answers).await
}

async fn call_as(
    signer: Option<&Signer>,
    answers: impl IntoIterator<Item = Result<WireReply, WireError>>,
) -> (Result<v1::RegisterResponse, CallError>, Vec<String>) {
    let script = Arc::new(Script::default());
    script.answers.lock().extend(answers);
    let servers = [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
    ];
    let connection = Connection::new(
        Arc::clone(&script) as Arc<dyn Wire>,
        servers
            .iter()
            .map(|server| server.parse().unwrap())
            .collect(),
        Arc::new(ManualClock::new(Timestamp::from_millis(1))),
        Arc::new(SeededRandom::new(1)),
        Patience::default(),
    );
    let result = connection
        .call::<Register>(&v1::RegisterRequest::default(), signer)
        .await;
    let asked = script.asked.lock().clone();
    (result, asked)
}

#[tokio::test(start_paused = true)]
async fn another_server_is_asked_when_one_is_away() {
    let (result, asked) = call([
        not_sent(),
        refused("UNAVAILABLE", Retry::Same, None),
        done(),
    ])
    .await;
    assert_eq!(result.unwrap().code_ttl_ms, 5);
    assert_eq!(
        asked,
        [
            "http://127.0.0.1:1",
            "http://127.0.0.1:2",
            "http://127.0.0.1:3"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_no_that_stays_no_is_not_asked_again() {
    for (code, retry) in [("WRONG_CODE", Retry::Changed), ("BAD_SIGNATURE", Retry::No)] {
        let (result, asked) = call([refused(code, retry, None), done()]).await;
        assert!(matches!(result, Err(CallError::Refused(refusal)) if refusal.code == code));
        assert_eq!(asked.len(), 1);
    }
    // About the request and not about the service, although the same may pass one day.
    let (result, asked) = call([refused("QUEUE_FULL", Retry::Same, None), done()]).await;
    assert!(result.is_err_and(|error| error.may_pass()));
    assert_eq!(asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_no_address_leads_to_the_service_no_more_is_tried() {
    let stranger = || Err(WireError::NotTheService("no TLS".to_owned()));
    let (result, asked) = call([stranger(), stranger(), stranger(), done()]).await;
    assert!(matches!(result, Err(CallError::NotTheService(_))));
    assert_eq!(asked.len(), 3);
    // One of several is passed over.
    let (result, asked) = call([stranger(), not_sent(), stranger(), done()]).await;
    assert!(result.is_ok());
    assert_eq!(asked.len(), 4);
    // What may have happened before does not become undone.
    let (result, _) = call([lost(), stranger(), stranger(), stranger()]).await;
    assert!(matches!(result, Err(CallError::OutcomeUnknown(_))));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_within_its_patience() {
    let started = Instant::now();
    let (result, asked) = call([]).await;
    assert!(matches!(result, Err(CallError::Unavailable(_))));
    assert!(started.elapsed() <= Patience::default().call);
    assert!(asked.len() > 4, "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_wait_longer_than_the_patience_is_not_waited_for() {
    let wait = Some(Duration::from_secs(60));
    let started = Instant::now();
    let (result, asked) = call([refused("OVERLOADED", Retry::Same, wait), done()]).await;
    assert!(matches!(result, Err(CallError::Refused(refusal)) if refusal.retry_after == wait));
    assert_eq!((asked.len(), started.elapsed()), (1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_all_time_ends_the_call_as_any_other_that_is_too_long() {
    let wait = Some(Duration::MAX);
    let (result, asked) = call([refused("OVERLOADED", Retry::Same, wait), done()]).await;
    assert!(matches!(result, Err(CallError::Refused(refusal)) if refusal.retry_after == wait));
    assert_eq!(asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_the_service_asks_for_is_kept() {
    let wait = Duration::from_secs(3);
    let started = Instant::now();
    let (result, _) = call([refused("CLOCK_UNSAFE", Retry::Same, Some(wait)), done()]).await;
    assert!(result.is_ok());
    assert!(started.elapsed() >= wait);
}

#[tokio::test(start_paused = true)]
async fn what_was_unknown_once_stays_unknown() {
    // Nobody can be reached after a try that may have arrived.
    let (result, _) = call([lost()]).await;
    assert!(matches!(result, Err(CallError::OutcomeUnknown(_))));
    let unavailable = || refused("UNAVAILABLE", Retry::Same, Some(Duration::from_secs(60)));
    let (result, _) = call([lost(), unavailable()]).await;
    assert!(matches!(result, Err(CallError::OutcomeUnknown(_))));
    let (result, _) = call([refused("OUTCOME_UNKNOWN", Retry::Same, None), unavailable()]).await;
    assert!(matches!(result, Err(CallError::OutcomeUnknown(_))));
    // And without such a try, nothing happened.
    let (result, _) = call([not_sent(), unavailable()]).await;
    assert!(matches!(result, Err(CallError::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_can_not_be_read_is_not_believed() {
    let message = Bytes::from_static(&[0xff; 9]);
    let (result, _) = call([Ok(WireReply {
        leader: None,
        message,
        server_authorization: None,
    })])
    .await;
    assert!(matches!(result, Err(CallError::BadReply(_))));
}

#[tokio::test(start_paused = true)]
async fn every_new_leader_may_want_a_later_time() {
    // Two leaders in one call, and then somebody else's answer.
    let answers = [wants_time(60_000), wants_time(90_000), done()];
    let (result, asked) = call_as(Some(&signer()), answers).await;
    assert!(matches!(result, Err(CallError::BadReply(_))), "{result:?}");
    assert_eq!(asked.len(), 3);
    // One after the other, until the patience is over: the service was away, we are not unknown.
    let (result, _) = call_as(Some(&signer()), (1..100).map(|n| wants_time(n * 9_000))).await;
    assert!(
        matches!(result, Err(CallError::Unavailable(_))),
        "{result:?}"
    );
}
