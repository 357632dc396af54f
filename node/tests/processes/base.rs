//! The key-value base under a node holds no only copy: whatever happens to it, the node rebuilds it by
//! itself, says so, and serves everything.

use std::fs::OpenOptions;
use std::path::Path;

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;

use crate::support;
use crate::support::Cluster;
use crate::support::people::{Person, email};
use crate::support::search::files;

/// What happens to the base's folder while the node is down.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Deleted,
    EmptyFolder,
    FileInItsPlace,
    Truncated,
    Garbage,
    FlippedBits,
    /// What sled leaves behind when it is killed while it opens; it can't be opened with that.
    HalfSnapshot,
}

const ALL: [Damage; 7] = [
    Damage::Deleted,
    Damage::EmptyFolder,
    Damage::FileInItsPlace,
    Damage::Truncated,
    Damage::Garbage,
    Damage::FlippedBits,
    Damage::HalfSnapshot,
];

impl Damage {
    fn happen(self, base: &Path) {
        let all = files(base);
        assert!(!all.is_empty(), "there was no base to damage");
        match self {
            Self::Deleted => std::fs::remove_dir_all(base).unwrap(),
            Self::EmptyFolder => {
                std::fs::remove_dir_all(base).unwrap();
                std::fs::create_dir(base).unwrap();
            }
            Self::FileInItsPlace => {
                std::fs::remove_dir_all(base).unwrap();
                std::fs::write(base, "not a folder").unwrap();
            }
            Self::Truncated => each(&all, |path, length| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(length / 2).unwrap();
            }),
            Self::Garbage => each(&all, |path, length| {
                std::fs::write(path, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
            }),
            Self::FlippedBits => each(&all, |path, _| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes.iter_mut().step_by(509).for_each(|byte| *byte ^= 1);
                std::fs::write(path, bytes).unwrap();
            }),
            Self::HalfSnapshot => {
                std::fs::write(base.join("snap.0000000000000042.generating"), "half").unwrap();
            }
        }
    }
}

fn each(paths: &[std::path::PathBuf], damage: impl Fn(&Path, u64)) {
    for path in paths {
        damage(path, path.metadata().unwrap().len());
    }
}

#[test]
fn a_base_damaged_after_a_kill_is_rebuilt_and_everything_is_served() {
    through_damage(&ALL, |node| node.kill());
}

#[test]
fn a_base_damaged_after_an_end_in_good_order_is_rebuilt_and_everything_is_served() {
    // A left-over of sled's own does no harm to a base that was closed.
    let all = &ALL[..ALL.len() - 1];
    through_damage(all, |node| {
        node.terminate();
    });
}

fn through_damage(all: &[Damage], end: fn(&mut support::Node)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut cluster = Cluster::single();
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 0).await;
        ada.add(&ben).await;
        (ada, ben)
    });
    let mut written = Vec::new();
    let mut say = |text: String| {
        let content = Content::Text(text.clone());
        let sent = runtime.block_on(ada.device.send(&ben.box_id(), &content));
        let delivery = sent.unwrap().delivery;
        assert!(matches!(delivery, Delivery::Delivered(_)), "{delivery:?}");
        written.push(text);
    };
    for damage in all {
        let node = cluster.node(1);
        say(format!("unread, in the checkpoint, before: {damage:?}"));
        node.checkpoint();
        say(format!("unread, in the log alone, before: {damage:?}"));
        node.wait_quiet();
        let (before, rebuilt) = (node.lasting_digests(), rebuilds(node));
        end(node);
        damage.happen(&node.data().join("base"));
        node.start();
        node.wait_ready();
        assert_eq!(node.lasting_digests(), before, "{damage:?}");
        assert!(rebuilds(node) > rebuilt, "{damage:?} was not talked about");
        let received = runtime.block_on(ben.device.receive()).unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
        assert_eq!(received.messages.len(), 2, "{damage:?}");
    }
    assert_eq!(ben.texts_from(&ada.box_id()), written);
}

fn rebuilds(node: &support::Node) -> usize {
    node.log().matches("the base is rebuilt group=1").count()
}
