//! Groups through the real commands: made, changed by two at once, written to, left.

use serde_json::Value;

use super::{Person, person};
use crate::support::Cluster;

/// The members of the one group that somebody has, in words that are the same for all.
fn members(person: &Person) -> (String, Vec<String>) {
    let groups = person.json(&["groups", "list"]);
    let [group] = &groups.as_array().unwrap()[..] else {
        panic!("{groups}");
    };
    let boxes = group["members"].as_array().unwrap().iter();
    let mut boxes: Vec<_> = boxes
        .map(|member| member["box"].as_str().unwrap().to_owned())
        .collect();
    boxes.sort();
    (group["name"].as_str().unwrap().to_owned(), boxes)
}

fn messages(person: &Person) -> Vec<Value> {
    person.json(&["inbox"])["messages"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn three_people_and_a_fourth_change_a_group_at_once_and_write_to_it() {
    let cluster = Cluster::single();
    let [alice, bob, carol, dave] =
        ["alice", "bob", "carol", "dave"].map(|name| person(&cluster, name));
    let made = alice.ok(&["groups", "create", "Friends", &bob.email, &carol.email]);
    assert!(
        made.starts_with("Friends  ") && made.contains("you, "),
        "{made}"
    );
    bob.fails(8, &["groups", "send", "Friends", "too early"]);
    let output = bob.run(&["inbox"]);
    let noted = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(noted.contains("Friends  "), "{noted}");
    carol.ok(&["inbox"]);
    bob.ok(&["contacts", "add", &alice.email, "--name", "Alice"]);

    // Alice gives it another name, Bob brings Dave in, Carol leaves: none knows of the others.
    alice.ok(&["groups", "rename", "friends", "Old friends"]);
    bob.ok(&["groups", "add", "Friends", &dave.email]);
    carol.ok(&["groups", "leave", "Friends"]);
    for _ in 0..2 {
        for person in [&alice, &bob, &carol, &dave] {
            person.ok(&["inbox"]);
        }
    }
    let mut boxes = vec![alice.box_id(), bob.box_id(), dave.box_id()];
    boxes.sort();
    for person in [&alice, &bob, &dave] {
        assert_eq!(members(person), ("Old friends".to_owned(), boxes.clone()));
    }
    assert!(carol.ok(&["groups", "list"]).contains("not in it any more"));
    let out = carol.fails(5, &["groups", "send", "Old friends", "hello?"]);
    assert!(out.contains("not a member"), "{out}");

    let id = alice.json(&["groups", "list"])[0]["group"]
        .as_str()
        .unwrap()
        .to_owned();
    let sent = alice.json(&["groups", "send", &id[..8], "dinner at eight?"]);
    let outcomes = sent["outcomes"].as_array().unwrap();
    assert_eq!(outcomes.len(), 2, "{sent}");
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome["status"] == "delivered"),
        "{sent}"
    );
    let line = bob.ok(&["inbox"]);
    assert!(
        line.contains("Alice in Old friends: dinner at eight?"),
        "{line}"
    );
    let got = messages(&dave);
    assert_eq!(got[0]["text"], "dinner at eight?");
    assert_eq!(got[0]["group"]["name"], "Old friends");
    assert_eq!(got[0]["group"]["sender_is_member"], true);
    // Whatever is answered goes to all.
    let number = got[0]["message"].to_string();
    let said = dave.ok(&[
        "groups",
        "send",
        "Old friends",
        "nine is better",
        "--reply-to",
        &number,
    ]);
    assert_eq!(said.lines().count(), 2, "{said}");
    dave.ok(&["react", &number, "👍"]);
    for person in [&alice, &bob] {
        let line = person.ok(&["inbox"]);
        assert!(
            line.contains("nine is better") && line.contains("dinner at eight?"),
            "{line}"
        );
    }
    let wrong = dave.fails(2, &["send", &alice.email, "no", "--reply-to", &number]);
    assert!(wrong.contains("another conversation"), "{wrong}");
    let own = alice.ok(&["inbox", "--all"]);
    assert!(
        own.contains("you to Old friends: dinner at eight? [👍 "),
        "{own}"
    );
    assert_eq!(
        own.matches("dinner at eight?").count(),
        2,
        "one message, and the answer's quote: {own}"
    );

    // Dave may not put Alice out; she may put him out, and he hears of it.
    let wrong = dave.fails(5, &["groups", "remove", "Old friends", &alice.box_id()]);
    assert!(wrong.contains("stands above you"), "{wrong}");
    let left = alice.json(&["groups", "remove", "Old friends", &dave.email]);
    assert_eq!(left["untold"], 0);
    assert_eq!(left["members"].as_array().unwrap().len(), 2);
    dave.ok(&["inbox"]);
    dave.fails(5, &["groups", "send", "Old friends", "still here"]);
    bob.fails(2, &["groups", "create", "a\tb", &alice.email]);
    carol.fails(8, &["groups", "send", "Nobody", "x"]);
}
