//! A node in each of three regions: a group of boxes at home in each, and the placement group over all.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rossby_client::connection::Patience;
use rossby_client::device::{Delivery, LookupBy};
use rossby_client::envelope::Content;
use serde_json::Value;

use crate::prediction::{assert_refused, refused_at_last, text, until_read, write};
use crate::support::people::{Person, email, one_patient_try};
use crate::support::{Cluster, eventually, long, stderr};
use crate::survival::{Chat, Choices};

/// In the order of their names, so that group N is at home where node N is.
const REGIONS: [&str; 3] = ["asia", "eu", "us"];

/// The group that a box belongs to by the first map: partitions are handed out in turn.
pub fn group_of(person: &Person) -> u64 {
    u64::from(person.box_id().partition().number() % 3) + 1
}

/// Waits until a node sees a living leader of every group.
pub fn wait_leaders(cluster: &mut Cluster, at: u64) {
    eventually("every group has a leader that answers", || {
        let shown = cluster.placement(at, &["show"]);
        let groups = shown["groups"].as_array()?.iter();
        let mut groups = groups.chain([&shown["placement"]]);
        groups
            .all(|group| group["from_leader"] == true && group["leader_node"].is_u64())
            .then_some(())
    });
}

#[test]
fn a_lost_region_costs_nobody_a_letter_and_comes_back() {
    let choices = Choices::new();
    let mut cluster = Cluster::in_regions(&REGIONS);
    // Everybody writes to everybody; each asks the node of another region first.
    let chat = Chat::start(&cluster, &choices);
    let groups: BTreeSet<u64> = chat.people.iter().map(group_of).collect();
    assert_eq!(groups, BTreeSet::from([1, 2, 3]), "boxes are born at home");
    chat.wait_progress(30);
    for round in 0..2 {
        // A box of the lost region too must be served by the others, once they have elected.
        let lost = 1 + choices.below(3) as u64;
        let left = lost % 3 + 1;
        // Once it is dead, and once it only says nothing any more: connections to it stay open.
        if round == 0 {
            cluster.node(lost).checkpoint();
            cluster.node(lost).kill();
        } else {
            cluster.node(lost).pause();
        }
        wait_leaders(&mut cluster, left);
        chat.wait_progress(60);
        let shown = cluster.placement(left, &["show"]);
        for group in shown["groups"].as_array().unwrap() {
            assert_ne!(group["leader_node"], lost, "{shown}");
        }
        assert_eq!(shown["silent"], serde_json::json!([lost]));
        match round {
            0 => cluster.node(lost).start(),
            _ => cluster.node(lost).resume(),
        }
        cluster.node(lost).wait_ready();
        chat.wait_progress(20);
    }
    chat.finish(&cluster);
}

/// Of each region three nodes where there is time for so many, else one.
#[test]
fn from_every_region_every_box_of_every_region_is_found_written_to_and_read() {
    let each = if long() { 3 } else { 1 };
    let places = REGIONS.iter().flat_map(|region| vec![*region; each]);
    let mut cluster = Cluster::in_regions(&places.collect::<Vec<_>>());
    wait_leaders(&mut cluster, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // In each region somebody who writes and somebody who reads, each born at another node if there is one.
    let mut people = runtime.block_on(async {
        let mut people = Vec::new();
        for region in 0..REGIONS.len() {
            for (name, at) in [("writer", 0), ("reader", each - 1)] {
                let name = email(&format!("{name}-{region}"));
                people.push(Person::with_box(&cluster, name, region * each + at).await);
            }
        }
        people
    });
    let homes: Vec<u64> = people.iter().map(group_of).collect();
    assert_eq!(homes, [1, 1, 2, 2, 3, 3]);
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| format!("http://{}", node.client_address()))
        .collect();
    for (round, asked) in addresses.chunks(each).enumerate() {
        people = people
            .into_iter()
            .map(|person| person.reopened(asked, Patience::default()))
            .collect();
        runtime.block_on(async {
            for from in people.iter().step_by(2) {
                for to in people.iter().skip(1).step_by(2) {
                    let by = LookupBy::Identifier(to.identifier.clone());
                    let found = from.device.add_contact(&by, None, false).await.unwrap();
                    assert_eq!(found.box_id, to.box_id());
                    let content = Content::Text(format!("round {round}"));
                    let sent = from.device.send(&to.box_id(), &content).await.unwrap();
                    assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
                }
            }
            for reader in people.iter().skip(1).step_by(2) {
                until_read(reader, || true).await;
                for writer in people.iter().step_by(2) {
                    let expected: Vec<_> = (0..=round).map(|n| format!("round {n}")).collect();
                    assert_eq!(reader.texts_from(&writer.box_id()), expected);
                }
            }
        });
    }
}

#[test]
fn a_region_that_falls_silent_takes_its_own_boxes_with_it_and_holds_up_nobody_else() {
    const LETTERS: usize = 20;
    let mut cluster = Cluster::in_regions_to_survive(&REGIONS, "", "node");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Ada and Dot are at home in asia, Ben in eu, Cem in us; nobody asks us.
    let people: Vec<Person> = runtime.block_on(async {
        let mut people = Vec::new();
        for (name, at) in [("ada", 0), ("ben", 1), ("cem", 2), ("dot", 0)] {
            people.push(Person::with_box(&cluster, email(name), at).await);
        }
        for from in &people {
            for to in &people {
                from.add(to).await;
            }
        }
        people
    });
    let asked = [1, 2, 1, 1].map(|id| format!("http://{}", cluster.node(id).client_address()));
    let people: Vec<Person> = people
        .into_iter()
        .zip(asked)
        .map(|(person, asked)| person.reopened(&[asked], one_patient_try()))
        .collect();
    let [ada, ben, cem, dot] = [0, 1, 2, 3];
    wait_leaders(&mut cluster, 1);
    runtime.block_on(async {
        for person in &people {
            until_read(person, || true).await;
        }
    });
    cluster.node(3).pause();
    runtime.block_on(async {
        let others = async {
            for number in 1..=LETTERS {
                for pair in [(ada, ben), (ben, ada)] {
                    // At once, and not by another try.
                    write(&people, pair, number).await.unwrap();
                }
                until_read(&people[ben], || true).await;
            }
        };
        let lost = async {
            people[dot].witness.forget_tries();
            let refused = write(&people, (dot, cem), 1).await;
            assert_refused(&people[dot], refused.err());
        };
        let own = async {
            people[cem].witness.forget_tries();
            assert_refused(&people[cem], refused_at_last(&people[cem]).await);
        };
        tokio::join!(others, lost, own);
    });
    cluster.node(3).resume();
    cluster.node(3).wait_ready();
    runtime.block_on(async {
        while people[dot].device.pending().unwrap() > 0 {
            people[dot].device.resend().await.unwrap();
        }
        for person in &people {
            until_read(person, || true).await;
        }
    });
    let came = |(from, to): (usize, usize)| people[to].texts_from(&people[from].box_id());
    for (pair, count) in [
        ((ada, ben), LETTERS),
        ((ben, ada), LETTERS),
        ((dot, cem), 1),
    ] {
        let expected: Vec<String> = (1..=count).map(|number| text(pair, number)).collect();
        assert_eq!(came(pair), expected);
    }
}

#[test]
fn a_box_is_born_and_served_in_the_region_of_the_node_that_was_asked() {
    let mut cluster = Cluster::in_regions(&REGIONS);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let people = runtime.block_on(async {
        let mut people = Vec::new();
        for (at, name) in ["ada", "ben", "cem"].into_iter().enumerate() {
            people.push(Person::with_box(&cluster, email(name), at).await);
        }
        people
    });
    let homes: Vec<u64> = people.iter().map(group_of).collect();
    assert_eq!(homes, [1, 2, 3]);
    // One after the other, all nodes die and come back: the map and the letters stay.
    runtime.block_on(async {
        for from in &people {
            for to in people.iter().filter(|to| to.box_id() != from.box_id()) {
                from.add(to).await;
                let content = Content::Text("before".to_owned());
                let sent = from.device.send(&to.box_id(), &content).await.unwrap();
                assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
            }
        }
    });
    let before = cluster.placement(2, &["show"]);
    for id in 1..=3 {
        cluster.node(id).kill();
    }
    // One forgets the map altogether, and one can't read it: they hear of it again.
    let map = |cluster: &mut Cluster, id| -> PathBuf { cluster.node(id).data().join("map") };
    std::fs::remove_file(map(&mut cluster, 1)).unwrap();
    let damaged = map(&mut cluster, 2);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    for id in 1..=3 {
        cluster.node(id).start();
    }
    for id in 1..=3 {
        cluster.node(id).wait_ready();
    }
    cluster
        .node(2)
        .wait_log("cluster map kept here can't be used");
    let facts = |shown: &Value| (shown["version"].clone(), shown["regions"].clone());
    assert_eq!(facts(&cluster.placement(2, &["show"])), facts(&before));
    runtime.block_on(async {
        for reader in &people {
            let received = reader.device.receive().await.unwrap();
            assert!(received.interrupted.is_none(), "{received:?}");
            assert_eq!(received.messages.len(), 2);
        }
    });
}

#[test]
fn an_operator_sees_where_things_are_and_says_what_is_to_be_survived() {
    let mut cluster = Cluster::in_regions(&REGIONS);
    wait_leaders(&mut cluster, 1);
    let shown = cluster.placement(1, &["show"]);
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["survive"], "region");
    assert_eq!(
        (&shown["partitions"], &shown["spare"]),
        (&256.into(), &32.into())
    );
    let groups = shown["groups"].as_array().unwrap();
    let homes: Vec<_> = groups
        .iter()
        .map(|group| group["home"].as_str().unwrap())
        .collect();
    assert_eq!(homes, REGIONS);
    for group in groups.iter().chain([&shown["placement"]]) {
        assert_eq!(group["members"].as_array().unwrap().len(), 3, "{shown}");
    }
    let words = cluster.placement_output(3, &["show"], false);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains("group 2, at home in eu, 75 partitions"),
        "{words}"
    );

    let explained = cluster.placement(2, &["explain"]);
    assert_eq!(explained["holds"], true, "{explained}");
    assert_eq!(explained["guessed"], serde_json::json!([]));
    let region = &explained["regions"][0];
    assert_eq!(region["lost"]["region"], "asia");
    assert_eq!(region["partitions_unavailable"], 0);

    // From any node, through whoever leads.
    for at in 1..=3 {
        let set = cluster.placement(at, &["set", "survive", "node"]);
        assert_eq!(set["version"], 2, "{set}");
    }
    let set = cluster.placement(2, &["set", "survive", "region"]);
    assert_eq!(set["version"], 3);
    let history = cluster.placement(1, &["history"]);
    let said: Vec<_> = history.as_array().unwrap().iter().collect();
    let said: Vec<_> = said
        .iter()
        .map(|row| row["what"].as_str().unwrap())
        .collect();
    assert_eq!(said.len(), 3, "{history}");
    assert!(
        said[0].starts_with("founded: 3 nodes, 3 groups"),
        "{history}"
    );
    assert_eq!(
        said[1..],
        [
            "to survive the loss of a node",
            "to survive the loss of a region"
        ]
    );
    for id in 1..=3 {
        eventually("every node hears of the new map", || {
            (cluster.node(id).status()?["map_version"] == 3).then_some(())
        });
    }
    let words = cluster.placement_output(1, &["set", "survive", "planet"], false);
    assert_eq!(words.status.code(), Some(2), "{}", stderr(&words));

    // One region is lost: what is said of its groups comes from the others.
    cluster.node(3).kill();
    wait_leaders(&mut cluster, 1);
    let explained = cluster.placement(1, &["explain"]);
    assert_eq!(explained["silent"], serde_json::json!([3]));
    assert_eq!(explained["now"]["partitions_unavailable"], 0, "{explained}");
    assert_eq!(explained["holds"], false, "no second region can be lost");
}

#[test]
fn orders_about_one_group_must_say_which_where_there_are_several() {
    let mut cluster = Cluster::in_regions(&REGIONS);
    let output = cluster.order(1, &["remove-node", "2"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--group"), "{}", stderr(&output));
    let output = cluster.order(1, &["remove-node", "9", "--group", "7"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no group 7"),
        "{}",
        stderr(&output)
    );
    cluster.order_ok(1, &["remove-node", "9", "--group", "2"]);
}

#[test]
fn too_few_regions_survive_the_loss_of_none() {
    let mut cluster = Cluster::waiting_in_regions(&["asia", "eu"]);
    let data = cluster.node(1).data().display().to_string();
    let nodes: Vec<String> = (1..=2)
        .map(|id| format!("--node={}", cluster.at(id)))
        .collect();
    let init = ["cluster", "init", "--data", &data, "--survive", "region"];
    let init = init.into_iter().chain(nodes.iter().map(String::as_str));
    let output = crate::support::run(init);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("at least 3"),
        "{}",
        stderr(&output)
    );
    // Nothing was made: the same without it makes the cluster.
    let output = cluster.init();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = cluster.placement_output(1, &["set", "survive", "region"], false);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn mail_goes_on_without_the_placement_group() {
    // By itself the placement group would not be left on one node.
    let local = ["local"; 3];
    let mut cluster = Cluster::in_regions_with(&local, "[placement]\nreconcile = false\n");
    // It is left on one node only, which dies.
    for id in ["1", "2"] {
        cluster.order_ok(3, &["remove-node", id, "--group", "0"]);
    }
    let alone = |cluster: &mut Cluster| {
        let status = cluster.node(3).status()?;
        let members = status["placement"]["members"].as_array()?.len();
        (members == 1).then_some(())
    };
    eventually("the placement group is on node 3 alone", || {
        alone(&mut cluster)
    });
    // The others hear of a newer map by asking.
    cluster.add_waiting(4);
    let new = cluster.at(4);
    cluster.order_ok(1, &["add-node", &new, "--group", "1"]);
    let version = cluster.node(3).status().unwrap()["map_version"].clone();
    for id in 1..=4 {
        eventually("every node hears of the new map", || {
            (cluster.node(id).status()?["map_version"] == version).then_some(())
        });
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ada, ben) = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 1).await;
        ada.add(&ben).await;
        (ada, ben)
    });
    cluster.node(3).kill();
    runtime.block_on(async {
        let content = Content::Text("after all".to_owned());
        let sent = ada.device.send(&ben.box_id(), &content).await.unwrap();
        if !matches!(sent.delivery, Delivery::Delivered(_)) {
            // The group was electing.
            for sent in ada.device.resend().await.unwrap() {
                assert!(matches!(sent.delivery, Delivery::Delivered(_)), "{sent:?}");
            }
        }
        let received = ben.device.receive().await.unwrap();
        assert!(received.interrupted.is_none(), "{received:?}");
        assert_eq!(ben.texts_from(&ada.box_id()), ["after all"]);
    });
    // The map can be seen, and not be changed; a node that starts has what it had.
    cluster.node(1).kill();
    cluster.node(1).start();
    cluster.node(1).wait_ready();
    assert_eq!(cluster.placement(1, &["show"])["version"], version);
    let output = cluster.placement_output(1, &["set", "survive", "region"], false);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let output = cluster.placement_output(1, &["history"], false);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}
