//! One node of three can decide nothing: it says so, in its own words and in time, and goes on by
//! itself as soon as another is back.

use rossby_client::connection::Patience;
use rossby_client::device::{Delivery, LookupBy};
use rossby_client::envelope::Content;
use rossby_domain::ids::BoxId;

use crate::support::Cluster;
use crate::support::people::{Person, email, one_patient_try};
use crate::support::witness::{Ending, assert_one_history};

/// How two nodes are taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    /// They are dead: connections to them are refused.
    Killed,
    /// They are cut off: connections to them stay open, and nothing comes back.
    Paused,
}

#[test]
fn a_lone_node_refuses_in_time_and_heals_when_the_others_are_started() {
    through_minorities(Away::Killed);
}

#[test]
fn a_lone_node_refuses_in_time_and_heals_when_the_others_answer_again() {
    through_minorities(Away::Paused);
}

/// The three people of a test.
struct People {
    ada: Person,
    ben: Person,
    /// Has no box yet.
    cem: Person,
}

fn through_minorities(away: Away) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::of(3);
    let mut people = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 1).await;
        let cem = Person::new(&cluster, email("cem"), 2);
        ada.add(&ben).await;
        People { ada, ben, cem }
    });
    let mut expected = vec!["before all".to_owned()];
    runtime.block_on(people.write_and_read(&expected[0]));
    // Left alone are once the leader, which still thinks that it leads, and once a follower.
    for leader_stays in [true, false] {
        let leader = cluster.leader();
        let alone = if leader_stays { leader } else { leader % 3 + 1 };
        people = people.at(&addresses(&cluster, Some(alone)), one_patient_try());
        runtime.block_on(people.learn_the_time());
        take_away(&mut cluster, alone, away);
        let text = format!("written to a lone node, the leader: {leader_stays}");
        runtime.block_on(people.all_are_refused(&text));
        expected.push(text);
        bring_back(&mut cluster, alone, away);
        people = people.at(&addresses(&cluster, None), Patience::default());
        runtime.block_on(people.it_heals(&expected));
    }
    runtime.block_on(async {
        // A box can be made again, too: by the very device that was refused.
        people.cem.join(&cluster).await;
    });
    for node in cluster.nodes() {
        assert!(!node.log().contains("panicked"), "node {}", node.id());
    }
}

/// Where devices connect: to one node, or to all.
fn addresses(cluster: &Cluster, only: Option<u64>) -> Vec<String> {
    let nodes = cluster.nodes().iter();
    nodes
        .filter(|node| only.is_none_or(|id| node.id() == id))
        .map(|node| format!("http://{}", node.client_address()))
        .collect()
}

fn take_away(cluster: &mut Cluster, alone: u64, away: Away) {
    for id in (1..=3).filter(|id| *id != alone) {
        match away {
            Away::Killed => cluster.node(id).kill(),
            Away::Paused => cluster.node(id).pause(),
        }
    }
}

fn bring_back(cluster: &mut Cluster, alone: u64, away: Away) {
    for id in (1..=3).filter(|id| *id != alone) {
        match away {
            Away::Killed => cluster.node(id).start(),
            Away::Paused => cluster.node(id).resume(),
        }
    }
    for node in cluster.nodes() {
        node.wait_ready();
    }
}

impl People {
    /// The same people, who speak to these nodes only.
    fn at(self, addresses: &[String], patience: Patience) -> Self {
        Self {
            ada: self.ada.reopened(addresses, patience),
            ben: self.ben.reopened(addresses, patience),
            cem: self.cem.reopened(addresses, patience),
        }
    }

    async fn write_and_read(&self, text: &str) {
        let (to, content) = (self.ben.box_id(), Content::Text(text.to_owned()));
        let sent = self.ada.device.send(&to, &content).await.unwrap();
        assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
        let received = self.ben.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
    }

    /// Waits until no leader asks for later times any more, since such a refusal would hide others.
    async fn learn_the_time(&self) {
        let by = LookupBy::Box(self.ben.box_id());
        for person in [&self.ada, &self.ben] {
            while let Err(error) = person.device.lookup(&by).await {
                assert!(error.may_pass(), "{error}");
            }
        }
    }

    /// Every call is refused by the node, long before the device would have given up.
    async fn all_are_refused(&self, text: &str) {
        let Self { ada, ben, cem } = self;
        // Until its lease is over the node answers what is only asked.
        while ben.device.receive().await.is_ok() {}
        for person in [ada, ben, cem] {
            person.witness.forget_tries();
        }
        let (to, content) = (ben.box_id(), Content::Text(text.to_owned()));
        let by = LookupBy::Identifier(ben.identifier.clone());
        let (sent, received, found, registered) = tokio::join!(
            ada.device.send(&to, &content),
            ben.device.receive(),
            ada.device.lookup(&by),
            cem.device.register(&cem.identifier, true),
        );
        let delivery = sent.unwrap().delivery;
        assert!(
            matches!(&delivery, Delivery::Pending(error) if error.is_unreachable()),
            "{delivery:?}"
        );
        assert!(received.is_err_and(|error| error.is_unreachable()));
        assert!(found.is_err_and(|error| error.is_unreachable()));
        assert!(registered.is_err_and(|error| error.is_unreachable()));
        assert_refused(ada, &["LookupKey", "Send"]);
        assert_refused(ben, &["Fetch"]);
        assert_refused(cem, &["Register"]);
    }

    /// What was left undone is done by asking again, once.
    async fn it_heals(&self, expected: &[String]) {
        let Self { ada, ben, .. } = self;
        for sent in ada.device.resend().await.unwrap() {
            assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
        }
        assert_eq!(ada.device.pending().unwrap(), 0);
        let received = ben.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
        assert_eq!(ben.texts_from(&ada.box_id()), expected);
        let by = LookupBy::Identifier(ben.identifier.clone());
        assert_eq!(ada.device.lookup(&by).await.unwrap().box_id, ben.box_id());
        let bytes = |box_id: &BoxId| box_id.as_bytes().to_vec();
        let senders = [(bytes(&ada.box_id()), ada.witness.seen())];
        let senders: Vec<_> = senders.iter().map(|(id, seen)| (&id[..], seen)).collect();
        assert_one_history(&bytes(&ben.box_id()), &ben.witness.seen(), &senders);
    }
}

/// Each of these methods was tried once, and it was the node that ended it, for want of a quorum.
fn assert_refused(person: &Person, methods: &[&str]) {
    let mut tries = person.witness.seen().tries;
    tries.sort_by_key(|(method, _)| *method);
    let tried: Vec<_> = tries.iter().map(|(method, _)| *method).collect();
    assert_eq!(tried, methods, "{tries:?}");
    for (method, ending) in tries {
        let typed = matches!(&ending, Ending::Refused(code) if code == "UNAVAILABLE" || code == "OUTCOME_UNKNOWN");
        assert!(typed, "{method}: {ending:?}");
    }
}
