//! A subscription over a box that does what the test wants, on a clock that stands still while
//! anybody is busy.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use prost::Message as _;
use rossby_domain::envelope::Envelope;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, PartitionId, Sequence,
};
use rossby_domain::query::{Page, QueueStatus};
use rossby_domain::time::Timestamp;
use rossby_proto::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic_types::StatusExt as _;

use super::reader::Source;
use super::*;
use crate::call::CallStream;
use crate::metrics::Metrics;
use crate::signals::{Signal, Signals};

const KEEPALIVE: Duration = Duration::from_secs(10);
const UNREAD: Duration = Duration::from_secs(30);
const LIFETIME: Duration = Duration::from_secs(600);
const PAGE: usize = 3;

fn device(number: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: BoxId::derive(PartitionId::new(0).unwrap(), &[1; 32]),
        device: DeviceId::from_bytes([number; 16]),
    }
}

/// What the box holds, and what comes between a read and the answer to it.
#[derive(Default)]
struct State {
    last: u64,
    expired_upto: u64,
    after_reads: VecDeque<u64>,
    ending: Option<Ending>,
    reads: u64,
}

/// A box in memory. Clones are the same box.
#[derive(Clone)]
struct Script {
    state: Arc<Mutex<State>>,
    wake: Arc<Notify>,
    leads: Arc<watch::Sender<bool>>,
}

impl Script {
    fn new() -> Self {
        Self {
            state: Arc::default(),
            wake: Arc::default(),
            leads: Arc::new(watch::channel(true).0),
        }
    }

    /// So many envelopes come in.
    fn bring(&self, count: u64) {
        self.state.lock().last += count;
        self.wake.notify_one();
    }

    /// While the answer to the next read is on its way, so many come in.
    fn bring_behind_a_read(&self, count: u64) {
        self.state.lock().after_reads.push_back(count);
    }

    fn end_with(&self, ending: Ending) {
        self.state.lock().ending = Some(ending);
    }

    fn reads(&self) -> u64 {
        self.state.lock().reads
    }
}

fn envelope(sequence: u64) -> Envelope {
    Envelope {
        sequence: Sequence(sequence),
        id: EnvelopeId {
            sender: device(9),
            counter: Counter(sequence),
        },
        enqueued_at: Timestamp::from_millis(1),
        expires_at: Timestamp::from_millis(2),
        body: Bytes::from(sequence.to_string()),
    }
}

#[async_trait]
impl Source for Script {
    async fn read(&self, after: Sequence) -> Result<Page, Ending> {
        let (page, brought) = {
            let mut state = self.state.lock();
            state.reads += 1;
            if let Some(ending) = state.ending.take() {
                return Err(ending);
            }
            let waiting = (after.0.max(state.expired_upto) + 1..=state.last).map(envelope);
            let mut envelopes: Vec<_> = waiting.take(PAGE + 1).collect();
            let more = envelopes.len() > PAGE;
            envelopes.truncate(PAGE);
            let status = QueueStatus {
                last: Sequence(state.last),
                ..QueueStatus::default()
            };
            let page = Page {
                envelopes,
                more,
                status,
            };
            (page, state.after_reads.pop_front())
        };
        if let Some(count) = brought {
            self.bring(count);
        }
        // Others run before the answer is there.
        tokio::task::yield_now().await;
        Ok(page)
    }

    async fn changed(&self) {
        self.wake.notified().await;
    }

    async fn deposed(&self) -> Ending {
        let mut leads = self.leads.subscribe();
        let _ = leads.wait_for(|leads| !leads).await;
        Ending::NotLeading("deposed".to_owned())
    }
}

fn subscribe_as(places: &Places, number: u8, source: Script, after: u64) -> CallStream {
    subscribe_hearing(&Signals::default(), places, number, source, after)
}

fn subscribe_hearing(
    signals: &Signals,
    places: &Places,
    number: u8,
    source: Script,
    after: u64,
) -> CallStream {
    Subscription {
        source,
        after: Sequence(after),
        patience: Patience {
            ends_at: Instant::now() + LIFETIME,
            keepalive: KEEPALIVE,
            unread: UNREAD,
        },
        place: places.take(device(number)).unwrap(),
        hearing: signals.listen(device(number).box_id),
        vouch: Box::new(|_, number| Ok(format!("vouched {number}"))),
        metrics: Metrics::register(&mut Registry::default()),
    }
    .start()
}

fn subscribe(source: &Script) -> CallStream {
    subscribe_as(&Places::new(9), 1, source.clone(), 0)
}

/// The sequences of the next page, which must be at its place in the stream.
async fn page(stream: &mut CallStream, number: u64) -> Vec<u64> {
    let message = stream.next().await.unwrap().unwrap();
    let message = v1::SubscribeResponse::decode(message).unwrap();
    assert_eq!(message.server_authorization, format!("vouched {number}"));
    let page = v1::FetchResponse::decode(message.page).unwrap();
    page.envelopes.iter().map(|e| e.sequence).collect()
}

/// The code that a stream ends with, after which nothing comes.
async fn end(stream: &mut CallStream) -> String {
    let status = stream.next().await.unwrap().unwrap_err();
    assert!(stream.next().await.is_none());
    status.get_details_error_info().unwrap().reason
}

#[tokio::test(start_paused = true)]
async fn what_waits_comes_first_in_pages_and_then_what_comes_at_once() {
    let source = Script::new();
    source.bring(7);
    let mut stream = subscribe(&source);
    let began = Instant::now();
    assert_eq!(page(&mut stream, 0).await, [1, 2, 3]);
    assert_eq!(page(&mut stream, 1).await, [4, 5, 6]);
    assert_eq!(page(&mut stream, 2).await, [7]);
    source.bring(1);
    assert_eq!(page(&mut stream, 3).await, [8]);
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "something waited for a timer"
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_box_is_told_at_once_and_a_quiet_one_gives_signs_of_life() {
    let source = Script::new();
    let mut stream = subscribe(&source);
    let began = Instant::now();
    assert!(page(&mut stream, 0).await.is_empty());
    assert_eq!(began.elapsed(), Duration::ZERO);
    for number in 1..5 {
        assert!(page(&mut stream, number).await.is_empty());
    }
    assert_eq!(began.elapsed(), KEEPALIVE * 4);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_page_is_read_is_not_slept_through() {
    let source = Script::new();
    source.bring_behind_a_read(1);
    source.bring_behind_a_read(2);
    let mut stream = subscribe(&source);
    let began = Instant::now();
    assert!(page(&mut stream, 0).await.is_empty());
    assert_eq!(page(&mut stream, 1).await, [1]);
    assert_eq!(page(&mut stream, 2).await, [2, 3]);
    assert_eq!(began.elapsed(), Duration::ZERO, "a wake-up was lost");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_does_not_read_is_read_for_no_further_and_then_given_up() {
    let source = Script::new();
    source.bring(100);
    let mut stream = subscribe(&source);
    tokio::time::sleep(UNREAD / 2).await;
    assert_eq!(source.reads(), 1, "more was read than the subscriber took");
    // What expired meanwhile is not shown, since it is read only now.
    source.state.lock().expired_upto = 98;
    assert_eq!(page(&mut stream, 0).await, [1, 2, 3]);
    assert_eq!(page(&mut stream, 1).await, [99, 100]);
    source.bring(10);
    // Long enough for the page, and then for the patience with it.
    tokio::time::sleep(UNREAD * 2).await;
    assert_eq!(page(&mut stream, 2).await, [101, 102, 103]);
    assert_eq!(end(&mut stream).await, "SUBSCRIPTION_NOT_READ");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_in_good_order_when_its_time_is_over() {
    let source = Script::new();
    let mut stream = subscribe(&source);
    let began = Instant::now();
    while let Some(message) = stream.next().await {
        message.unwrap();
    }
    assert_eq!(began.elapsed(), LIFETIME);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_sends_nothing_more() {
    let source = Script::new();
    let mut stream = subscribe(&source);
    assert!(page(&mut stream, 0).await.is_empty());
    let began = Instant::now();
    source.leads.send_replace(false);
    source.bring(1);
    assert_eq!(end(&mut stream).await, "UNAVAILABLE");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn each_end_from_the_box_has_its_own_code() {
    let ends = [
        (Ending::Revoked, "UNAUTHENTICATED"),
        (Ending::NotLeading("no quorum".to_owned()), "UNAVAILABLE"),
        (Ending::Failed("broken".to_owned()), "INTERNAL"),
    ];
    for (ending, code) in ends {
        let source = Script::new();
        let mut stream = subscribe(&source);
        assert!(page(&mut stream, 0).await.is_empty());
        source.end_with(ending);
        source.bring(1);
        assert_eq!(end(&mut stream).await, code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_withdrawn_is_noticed_in_a_quiet_box_too() {
    let source = Script::new();
    let mut stream = subscribe(&source);
    assert!(page(&mut stream, 0).await.is_empty());
    let began = Instant::now();
    source.end_with(Ending::Revoked);
    assert_eq!(end(&mut stream).await, "UNAUTHENTICATED");
    assert_eq!(began.elapsed(), KEEPALIVE);
}

#[tokio::test(start_paused = true)]
async fn the_newest_subscription_of_a_device_ends_the_older_and_no_other() {
    let (places, source) = (Places::new(9), Script::new());
    let mut older = subscribe_as(&places, 1, source.clone(), 0);
    let mut other = subscribe_as(&places, 2, source.clone(), 0);
    assert!(page(&mut older, 0).await.is_empty());
    assert!(page(&mut other, 0).await.is_empty());
    let mut newer = subscribe_as(&places, 1, source.clone(), 0);
    assert_eq!(end(&mut older).await, "SUBSCRIPTION_REPLACED");
    assert!(page(&mut newer, 0).await.is_empty());
    assert!(page(&mut newer, 1).await.is_empty());
    assert!(page(&mut other, 1).await.is_empty());
    places.close();
    assert_eq!(end(&mut newer).await, "UNAVAILABLE");
    assert_eq!(end(&mut other).await, "UNAVAILABLE");
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_when_the_subscriber_is_gone() {
    let places = Places::new(1);
    let source = Script::new();
    let mut stream = subscribe_as(&places, 1, source.clone(), 0);
    assert!(page(&mut stream, 0).await.is_empty());
    assert!(places.take(device(2)).is_err());
    drop(stream);
    // The task learns of it when it runs.
    tokio::time::timeout(KEEPALIVE, async {
        while places.take(device(2)).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_beyond_the_end_of_the_queue() {
    let source = Script::new();
    source.bring(4);
    let mut stream = subscribe_as(&Places::new(9), 1, source.clone(), 5);
    assert_eq!(end(&mut stream).await, "BEYOND_QUEUE");
    let mut stream = subscribe_as(&Places::new(9), 1, source.clone(), 4);
    assert!(page(&mut stream, 0).await.is_empty());
    source.bring(1);
    assert_eq!(page(&mut stream, 1).await, [5]);
}

/// One step of a random history of a subscription.
#[derive(Debug, Clone)]
enum Step {
    Bring(u64),
    BringBehindARead(u64),
    Take,
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..9_u64).prop_map(Step::Bring),
        (1..5_u64).prop_map(Step::BringBehindARead),
        Just(Step::Take),
        (0..12_u64).prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_and_whenever_it_is_read_it_comes_once_in_order_and_without_a_timer(
        steps in prop::collection::vec(step(), 1..30)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let source = Script::new();
            let mut stream = subscribe(&source);
            let (mut seen, mut number) = (Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Bring(count) => source.bring(count),
                    Step::BringBehindARead(count) => source.bring_behind_a_read(count),
                    Step::Take => {
                        seen.extend(page(&mut stream, number).await);
                        number += 1;
                    }
                    Step::Pause(seconds) => {
                        tokio::time::sleep(Duration::from_secs(seconds).min(UNREAD / 40)).await;
                    }
                }
            }
            source.state.lock().after_reads.clear();
            source.bring(1);
            let goal = source.state.lock().last;
            let began = Instant::now();
            while seen.last() != Some(&goal) {
                seen.extend(page(&mut stream, number).await);
                number += 1;
            }
            let expected: Vec<u64> = (1..=goal).collect();
            assert_eq!(seen, expected);
            assert_eq!(began.elapsed(), Duration::ZERO, "a wake-up was lost");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn signals_come_once_no_mail_waits_and_too_many_are_dropped() {
    let (signals, source) = (Signals::default(), Script::new());
    source.bring(5);
    let mut stream = subscribe_hearing(&signals, &Places::new(9), 1, source.clone(), 0);
    let signal = |body: u8| Signal {
        recipient: device(1).box_id,
        sender: device(9),
        body: Bytes::copy_from_slice(&[body]),
    };
    tokio::task::yield_now().await;
    // While its reader has not even taken the mail.
    (0..50).for_each(|body| signals.deliver(&signal(body)));
    assert_eq!(page(&mut stream, 0).await, [1, 2, 3]);
    assert_eq!(page(&mut stream, 1).await, [4, 5]);
    let message = stream.next().await.unwrap().unwrap();
    let message = v1::SubscribeResponse::decode(message).unwrap();
    assert_eq!(message.server_authorization, "vouched 2");
    let heard = v1::FetchResponse::decode(message.page).unwrap();
    assert!(heard.envelopes.is_empty());
    let bodies: Vec<u8> = heard.signals.iter().map(|signal| signal.body[0]).collect();
    assert_eq!(bodies, [0, 1, 2, 3], "the others were dropped");
}
