use std::sync::Arc;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_seams::random::SeededRandom;
use rossby_seams::transport::{Cut, LinkAcceptor, MemoryNetwork};

use super::*;
use crate::types::Vote;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const TO: Target = Target {
    group: GroupId(1),
    replica: ReplicaId(9),
};

const PROMISE_MS: u64 = 500;

struct Inbox(mpsc::UnboundedSender<Link>);

impl LinkAcceptor for Inbox {
    fn accept(&self, link: Link) {
        let hello = Frame::Hello {
            promise_ms: PROMISE_MS,
        };
        link.outgoing.try_send(hello.encode()).unwrap();
        let _ = self.0.send(link);
    }
}

struct World {
    network: MemoryNetwork,
    links: Links,
    opened: mpsc::UnboundedReceiver<Link>,
    member: Member,
}

fn world() -> World {
    let network = MemoryNetwork::new();
    let (sender, opened) = mpsc::unbounded_channel();
    network.register(A, Arc::new(Inbox(sender.clone())));
    network.register(B, Arc::new(Inbox(sender)));
    let links = Links::new(
        network.transport(A),
        Arc::new(SeededRandom::new(1)),
        PROMISE_MS,
        CancellationToken::new(),
    );
    let member = Member {
        node: B,
        ..Member::default()
    };
    World {
        network,
        links,
        opened,
        member,
    }
}

impl World {
    fn ask(&self, within: Duration) -> tokio::task::JoinHandle<Result<Answer, CallError>> {
        let (links, member) = (self.links.clone(), self.member.clone());
        let deadline = Instant::now() + within;
        tokio::spawn(async move { links.call(&member, TO, Request::Clock, deadline).await })
    }
}

const MINUTE: Duration = Duration::from_secs(60);

async fn asked(link: &mut Link) -> u64 {
    let frame = Frame::decode(&link.incoming.recv().await.unwrap()).unwrap();
    let Frame::Call {
        id,
        to: TO,
        request: Request::Clock,
    } = frame
    else {
        panic!("not the question: {frame:?}")
    };
    id
}

async fn answer(link: &Link, id: u64, millis: u64) {
    let answer = Ok(Answer::Clock(Timestamp::from_millis(millis)));
    link.outgoing
        .send(Frame::Answer { id, answer }.encode())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_calls_whatever_their_order() {
    let mut world = world();
    let (first, second) = (world.ask(MINUTE), world.ask(MINUTE));
    let mut link = world.opened.recv().await.unwrap();
    let (one, two) = (asked(&mut link).await, asked(&mut link).await);
    answer(&link, two, two).await;
    answer(&link, one, one).await;
    let answers = [
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    ];
    for id in [one, two] {
        assert!(answers.contains(&Answer::Clock(Timestamp::from_millis(id))));
    }
    assert!(
        world.opened.try_recv().is_err(),
        "both calls share one link"
    );
}

#[tokio::test(start_paused = true)]
async fn no_answer_by_the_deadline_is_a_timeout_and_a_late_one_is_nobodys() {
    let mut world = world();
    let call = world.ask(Duration::from_secs(1));
    let mut link = world.opened.recv().await.unwrap();
    let id = asked(&mut link).await;
    assert_eq!(call.await.unwrap(), Err(CallError::Timeout));
    answer(&link, id, 1).await;
    let next = world.ask(MINUTE);
    let id = asked(&mut link).await;
    answer(&link, id, 2).await;
    assert_eq!(
        next.await.unwrap(),
        Ok(Answer::Clock(Timestamp::from_millis(2)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_broken_link_fails_its_calls_and_streams_at_once_and_is_opened_again() {
    let mut world = world();
    let call = world.ask(MINUTE);
    let mut link = world.opened.recv().await.unwrap();
    asked(&mut link).await;
    let deadline = Instant::now() + MINUTE;
    let mut stream = world
        .links
        .open_stream(&world.member, TO, deadline)
        .await
        .unwrap();
    drop(link);
    assert_eq!(call.await.unwrap(), Err(CallError::Broken));
    assert_eq!(stream.receive().await, Err(CallError::Broken));

    let call = world.ask(MINUTE);
    let mut link = world.opened.recv().await.unwrap();
    let id = asked(&mut link).await;
    answer(&link, id, 3).await;
    assert_eq!(
        call.await.unwrap(),
        Ok(Answer::Clock(Timestamp::from_millis(3)))
    );
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_peer_fails_fast_and_is_tried_again_after_a_pause() {
    let mut world = world();
    world.network.isolate(B);
    for _ in 0..3 {
        let failed = world.ask(MINUTE).await.unwrap();
        assert!(
            matches!(failed, Err(CallError::Unreachable(_))),
            "{failed:?}"
        );
    }
    world.network.heal();
    tokio::time::advance(RECONNECT_PAUSE_MAX).await;
    let call = world.ask(MINUTE);
    let mut link = world.opened.recv().await.unwrap();
    let id = asked(&mut link).await;
    answer(&link, id, 4).await;
    assert!(call.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_network_can_not_hold_a_call_beyond_its_deadline() {
    let world = world();
    world.network.cut_both(A, B, Cut::Silent);
    assert_eq!(
        world.ask(Duration::from_secs(1)).await.unwrap(),
        Err(CallError::Timeout)
    );
}

#[tokio::test(start_paused = true)]
async fn garbage_breaks_the_link() {
    let mut world = world();
    let call = world.ask(MINUTE);
    let mut link = world.opened.recv().await.unwrap();
    asked(&mut link).await;
    link.outgoing
        .send(Bytes::from_static(b"not a frame"))
        .await
        .unwrap();
    assert_eq!(call.await.unwrap(), Err(CallError::Broken));
    assert_eq!(link.incoming.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_answered_in_order_and_ended_on_both_sides() {
    let mut world = world();
    let deadline = Instant::now() + MINUTE;
    let mut stream = world
        .links
        .open_stream(&world.member, TO, deadline)
        .await
        .unwrap();
    let mut link = world.opened.recv().await.unwrap();
    let append = Append {
        vote: Vote::new_committed(1, ReplicaId(1)),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    stream.send(append).await.unwrap();
    let frame = Frame::decode(&link.incoming.recv().await.unwrap()).unwrap();
    let Frame::StreamAppend { id, .. } = frame else {
        panic!("not the append: {frame:?}")
    };
    for answer in [Ok(Ok(None)), Err(Refusal::NoRoom)] {
        link.outgoing
            .send(Frame::StreamAnswer { id, answer }.encode())
            .await
            .unwrap();
    }
    assert_eq!(stream.receive().await, Ok(Ok(None)));
    assert_eq!(
        stream.receive().await,
        Err(CallError::Refused(Refusal::NoRoom))
    );
    drop(stream);
    let frame = Frame::decode(&link.incoming.recv().await.unwrap()).unwrap();
    assert!(
        matches!(frame, Frame::StreamEnd { id: ended } if ended == id),
        "{frame:?}"
    );
}
