//! A network in memory: connects the nodes of one process, and can be cut, slowed and healed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rossby_domain::ids::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::random::{SeededRandom, bytes};
use crate::watch;

use super::{LINK_CAPACITY_FRAMES, Link, LinkAcceptor, SharedTransport, Transport, TransportError};

/// How a cut looks to the nodes on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Open links break at once and new ones are refused, as when a process dies.
    Broken,
    /// Frames vanish without a word, as when a firewall drops packets. A link that lost a frame
    /// breaks once the cut is healed, since its order can not be kept.
    Silent,
}

/// How a lost frame shows: links keep their order, so it comes again this much later, and what is
/// behind it waits too.
const RESENT_AFTER: Duration = Duration::from_millis(200);

/// How frames travel in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Every frame takes at least this long.
    pub delay: Duration,
    /// And up to this much longer. Frames of a link never overtake each other.
    pub jitter: Duration,
    /// Of 1,000 frames, how many are lost on their first way and have to be sent again.
    pub lost_permille: u16,
}

/// A network in memory. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    // Told of every change of the cuts, for the frames that wait on one.
    changed: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                cuts: BTreeMap::new(),
                isolated: BTreeSet::new(),
                node_breaks: BTreeMap::new(),
                cut_breaks: BTreeMap::new(),
                conditions: BTreeMap::new(),
                usual: Conditions::default(),
                random: SeededRandom::new(0),
            }),
            changed: watch::channel(0).0,
        }
    }
}

struct State {
    nodes: BTreeMap<NodeId, Arc<dyn LinkAcceptor>>,
    // From, to: frames do not pass in this direction.
    cuts: BTreeMap<(NodeId, NodeId), Cut>,
    isolated: BTreeSet<NodeId>,
    // Counts what breaks open links, so that a link notices it also if it is healed at once.
    node_breaks: BTreeMap<NodeId, u64>,
    cut_breaks: BTreeMap<(NodeId, NodeId), u64>,
    // From, to; everywhere else `usual` holds.
    conditions: BTreeMap<(NodeId, NodeId), Conditions>,
    usual: Conditions,
    random: SeededRandom,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("nodes", &self.nodes.keys())
            .field("cuts", &self.cuts)
            .field("isolated", &self.isolated)
            .field("conditions", &self.conditions)
            .field("usual", &self.usual)
            .finish()
    }
}

impl State {
    fn cut(&self, from: NodeId, to: NodeId) -> Option<Cut> {
        if self.isolated.contains(&from) || self.isolated.contains(&to) {
            return Some(Cut::Broken);
        }
        self.cuts.get(&(from, to)).copied()
    }

    /// How long a frame that sets out now takes.
    fn travel(&self, from: NodeId, to: NodeId) -> Duration {
        let conditions = self.conditions.get(&(from, to)).unwrap_or(&self.usual);
        let mut time = conditions.delay;
        if !conditions.jitter.is_zero() {
            let share = f64::from(self.draw()) / f64::from(u32::MAX);
            time += conditions.jitter.mul_f64(share);
        }
        if conditions.lost_permille > 0 {
            while self.draw() % 1000 < u32::from(conditions.lost_permille.min(900)) {
                time += RESENT_AFTER;
            }
        }
        time
    }

    fn draw(&self) -> u32 {
        bytes(&self.random)
            .map(u32::from_le_bytes)
            .unwrap_or_default()
    }

    fn break_node(&mut self, node: NodeId) {
        *self.node_breaks.entry(node).or_default() += 1;
    }

    /// Changes whenever something breaks the links from `from` to `to`.
    fn breaks(&self, from: NodeId, to: NodeId) -> u64 {
        let of = |node| self.node_breaks.get(&node).copied().unwrap_or_default();
        of(from)
            + of(to)
            + self
                .cut_breaks
                .get(&(from, to))
                .copied()
                .unwrap_or_default()
    }
}

impl MemoryNetwork {
    /// A network without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A network without nodes whose jitter and losses are drawn from this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let network = Self::default();
        network.shared.state.lock().random = SeededRandom::new(seed);
        network
    }

    /// Puts a node on the network: links to `node` go to `acceptor` from now on. Links of one that
    /// was there before break.
    pub fn register(&self, node: NodeId, acceptor: Arc<dyn LinkAcceptor>) {
        self.change(|state| {
            state.nodes.insert(node, acceptor);
            state.break_node(node);
        });
    }

    /// Takes a node off the network: nothing listens there any more, and its links break.
    pub fn unregister(&self, node: NodeId) {
        self.change(|state| {
            state.nodes.remove(&node);
            state.break_node(node);
        });
    }

    /// The way from `node` to the others. Addresses are not looked at.
    #[must_use]
    pub fn transport(&self, node: NodeId) -> SharedTransport {
        Arc::new(MemoryTransport {
            node,
            shared: self.shared.clone(),
        })
    }

    /// Stops frames from `from` to `to`; the other direction is not touched.
    pub fn cut(&self, from: NodeId, to: NodeId, how: Cut) {
        self.change(|state| {
            state.cuts.insert((from, to), how);
            if how == Cut::Broken {
                *state.cut_breaks.entry((from, to)).or_default() += 1;
            }
        });
    }

    /// Stops frames between two nodes, both ways.
    pub fn cut_both(&self, a: NodeId, b: NodeId, how: Cut) {
        self.cut(a, b, how);
        self.cut(b, a, how);
    }

    /// Breaks all links of a node and refuses new ones, until [`Self::heal`].
    pub fn isolate(&self, node: NodeId) {
        self.change(|state| {
            state.isolated.insert(node);
            state.break_node(node);
        });
    }

    /// Undoes all cuts and isolations.
    pub fn heal(&self) {
        self.change(|state| {
            state.cuts.clear();
            state.isolated.clear();
        });
    }

    /// How frames travel from now on, in every direction for which nothing else is said.
    pub fn set_usual(&self, conditions: Conditions) {
        self.change(|state| state.usual = conditions);
    }

    /// How frames travel from `from` to `to` from now on; `None` is as usual.
    pub fn set_conditions(&self, from: NodeId, to: NodeId, conditions: Option<Conditions>) {
        self.change(|state| {
            match conditions {
                Some(conditions) => state.conditions.insert((from, to), conditions),
                None => state.conditions.remove(&(from, to)),
            };
        });
    }

    /// Delivers every frame this much later from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.set_usual(Conditions {
            delay,
            ..Conditions::default()
        });
    }

    /// How long something that sets out from `from` to `to` now would travel; `None` if it would not
    /// arrive. For what does not go over a link.
    #[must_use]
    pub fn travel(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let state = self.shared.state.lock();
        state
            .cut(from, to)
            .is_none()
            .then(|| state.travel(from, to))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock());
        self.shared.changed.send_modify(|version| *version += 1);
    }
}

/// The transport of one node on a [`MemoryNetwork`].
#[derive(Debug)]
struct MemoryTransport {
    node: NodeId,
    shared: Arc<Shared>,
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn connect(&self, node: NodeId, address: &str) -> Result<Link, TransportError> {
        let unreachable = |reason: &str| TransportError::Unreachable {
            node,
            address: address.to_owned(),
            reason: reason.to_owned(),
        };
        let mut changed = self.shared.changed.subscribe();
        let acceptor = loop {
            changed.borrow_and_update();
            let silent = {
                let state = self.shared.state.lock();
                let ways = [state.cut(self.node, node), state.cut(node, self.node)];
                if ways.contains(&Some(Cut::Broken)) {
                    return Err(unreachable("the network is cut"));
                }
                if ways.contains(&Some(Cut::Silent)) {
                    None
                } else {
                    let acceptor = state.nodes.get(&node).cloned();
                    Some(acceptor.ok_or_else(|| unreachable("nobody listens"))?)
                }
            };
            match silent {
                Some(acceptor) => break acceptor,
                // The handshake is lost, and sent again until it gets through or is given up.
                None => {
                    if changed.changed().await.is_err() {
                        return Err(unreachable("the network is gone"));
                    }
                }
            }
        };

        // Either direction breaking breaks the other: a link is whole or gone.
        let alive = Arc::new(watch::channel(()).0);
        let (outgoing, far_incoming) = self.pipe(self.node, node, &alive);
        let (far_outgoing, incoming) = self.pipe(node, self.node, &alive);
        drop(alive);
        acceptor.accept(Link {
            peer: self.node,
            outgoing: far_outgoing,
            incoming: far_incoming,
        });
        Ok(Link {
            peer: node,
            outgoing,
            incoming,
        })
    }
}

impl MemoryTransport {
    fn pipe(
        &self,
        from: NodeId,
        to: NodeId,
        alive: &Arc<watch::Sender<()>>,
    ) -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
        let (outgoing, source) = mpsc::channel(LINK_CAPACITY_FRAMES);
        let (sink, incoming) = mpsc::channel(LINK_CAPACITY_FRAMES);
        let pipe = Pipe {
            from,
            to,
            shared: self.shared.clone(),
            changed: self.shared.changed.subscribe(),
            breaks: self.shared.state.lock().breaks(from, to),
            // Each direction ends when the other's task does: it watches for the broadcast.
            other: alive.subscribe(),
            broken: alive.clone(),
        };
        tokio::spawn(pipe.run(source, sink));
        (outgoing, incoming)
    }
}

/// One direction of a link.
struct Pipe {
    from: NodeId,
    to: NodeId,
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    breaks: u64,
    other: watch::Receiver<()>,
    broken: Arc<watch::Sender<()>>,
}

impl Pipe {
    async fn run(mut self, mut source: mpsc::Receiver<Bytes>, sink: mpsc::Sender<Bytes>) {
        let mut lost = false;
        // What is on its way, and when it arrives.
        let mut under_way: VecDeque<(Instant, Bytes)> = VecDeque::new();
        let mut last_due = Instant::now();
        loop {
            let (cut, whole) = {
                let state = self.shared.state.lock();
                let whole = state.breaks(self.from, self.to) == self.breaks;
                (state.cut(self.from, self.to), whole)
            };
            if !whole || (lost && cut.is_none()) {
                break;
            }
            // What breaks the link comes first: frames could keep it from being noticed for ever.
            tokio::select! {
                biased;
                changed = self.changed.changed() => if changed.is_err() { break },
                _ = self.other.changed() => break,
                () = sink.closed() => break,
                () = arrival(&under_way) => {
                    if let Some((_, frame)) = under_way.pop_front()
                        && sink.send(frame).await.is_err()
                    {
                        break;
                    }
                }
                frame = source.recv(), if under_way.len() < LINK_CAPACITY_FRAMES => {
                    let Some(frame) = frame else { break };
                    let state = self.shared.state.lock();
                    // Asked again: the cut may have come while the frame was awaited.
                    match state.cut(self.from, self.to) {
                        None if !lost => {}
                        Some(Cut::Silent) => { lost = true; continue }
                        _ => break,
                    }
                    last_due = last_due.max(Instant::now() + state.travel(self.from, self.to));
                    under_way.push_back((last_due, frame));
                }
            }
        }
        self.broken.send_replace(());
    }
}

/// When the next frame arrives.
async fn arrival(under_way: &VecDeque<(Instant, Bytes)>) {
    match under_way.front() {
        // Most networks of tests have no delay, and need no timer.
        Some((due, _)) if *due <= Instant::now() => {}
        Some((due, _)) => sleep_until(*due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Inbox(mpsc::UnboundedSender<Link>);

    impl LinkAcceptor for Inbox {
        fn accept(&self, link: Link) {
            let _ = self.0.send(link);
        }
    }

    fn listen(network: &MemoryNetwork, node: NodeId) -> mpsc::UnboundedReceiver<Link> {
        let (sender, receiver) = mpsc::unbounded_channel();
        network.register(node, Arc::new(Inbox(sender)));
        receiver
    }

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    async fn linked(network: &MemoryNetwork) -> (Link, Link) {
        let _unused = listen(network, A);
        let mut inbox = listen(network, B);
        let near = network.transport(A).connect(B, "b").await.unwrap();
        (near, inbox.recv().await.unwrap())
    }

    #[tokio::test]
    async fn frames_arrive_in_order_both_ways() {
        let (mut near, mut far) = linked(&MemoryNetwork::new()).await;
        assert_eq!((near.peer, far.peer), (B, A));
        for byte in 0..10u8 {
            near.outgoing.send(Bytes::from(vec![byte])).await.unwrap();
        }
        for byte in 0..10u8 {
            assert_eq!(far.incoming.recv().await.unwrap(), vec![byte]);
        }
        far.outgoing
            .send(Bytes::from_static(b"back"))
            .await
            .unwrap();
        assert_eq!(near.incoming.recv().await.unwrap(), "back");
    }

    #[tokio::test]
    async fn dropping_one_end_breaks_the_other() {
        let (near, mut far) = linked(&MemoryNetwork::new()).await;
        drop(near);
        assert_eq!(far.incoming.recv().await, None);
        far.outgoing.closed().await;
    }

    #[tokio::test]
    async fn isolation_breaks_links_and_refuses_new_ones_until_healed() {
        let network = MemoryNetwork::new();
        let (mut near, mut far) = linked(&network).await;
        network.isolate(B);
        assert_eq!(near.incoming.recv().await, None);
        assert_eq!(far.incoming.recv().await, None);
        let refused = network.transport(A).connect(B, "b").await;
        assert!(matches!(
            refused,
            Err(TransportError::Unreachable { node: B, .. })
        ));
        network.heal();
        assert!(network.transport(A).connect(B, "b").await.is_ok());
    }

    #[tokio::test]
    async fn a_silent_cut_loses_frames_one_way_and_breaks_the_link_when_healed() {
        let network = MemoryNetwork::new();
        let (mut near, mut far) = linked(&network).await;
        network.cut(A, B, Cut::Silent);
        near.outgoing
            .send(Bytes::from_static(b"lost"))
            .await
            .unwrap();
        far.outgoing
            .send(Bytes::from_static(b"passes"))
            .await
            .unwrap();
        assert_eq!(near.incoming.recv().await.unwrap(), "passes");
        // The frame is gone for good once its sender's queue is empty again.
        while near.outgoing.capacity() < LINK_CAPACITY_FRAMES {
            tokio::task::yield_now().await;
        }
        network.heal();
        assert_eq!(far.incoming.recv().await, None);
        assert_eq!(near.incoming.recv().await, None);
    }

    #[tokio::test]
    async fn a_break_that_is_healed_at_once_breaks_links_all_the_same() {
        let network = MemoryNetwork::new();
        for cut in [
            (|network| network.isolate(A)) as fn(&MemoryNetwork),
            |network| network.cut(B, A, Cut::Broken),
        ] {
            let (mut near, mut far) = linked(&network).await;
            cut(&network);
            network.heal();
            assert_eq!(near.incoming.recv().await, None);
            assert_eq!(far.incoming.recv().await, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_travel_beside_each_other_and_never_overtake() {
        let network = MemoryNetwork::seeded(7);
        let (near, mut far) = linked(&network).await;
        network.set_conditions(
            A,
            B,
            Some(Conditions {
                delay: Duration::from_millis(100),
                jitter: Duration::from_millis(50),
                lost_permille: 0,
            }),
        );
        let begun = Instant::now();
        for byte in 0..200u8 {
            near.outgoing.send(Bytes::from(vec![byte])).await.unwrap();
        }
        for byte in 0..200u8 {
            assert_eq!(far.incoming.recv().await.unwrap(), vec![byte]);
        }
        let took = begun.elapsed();
        assert!((100..=151).contains(&took.as_millis()), "took {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_frame_comes_again_and_holds_up_what_is_behind_it() {
        let network = MemoryNetwork::seeded(7);
        let (near, mut far) = linked(&network).await;
        network.set_conditions(
            A,
            B,
            Some(Conditions {
                lost_permille: 500,
                ..Conditions::default()
            }),
        );
        let begun = Instant::now();
        for byte in 0..50u8 {
            near.outgoing.send(Bytes::from(vec![byte])).await.unwrap();
        }
        for byte in 0..50u8 {
            assert_eq!(far.incoming.recv().await.unwrap(), vec![byte]);
        }
        assert!(begun.elapsed() >= RESENT_AFTER);
    }

    #[tokio::test]
    async fn nobody_listens_is_unreachable() {
        let network = MemoryNetwork::new();
        let refused = network.transport(A).connect(B, "b").await;
        assert!(matches!(
            refused,
            Err(TransportError::Unreachable { node: B, .. })
        ));
    }
}
