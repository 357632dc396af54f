//! Everything that people can say to each other, and do with what was said.

use serde_json::{Value, json};

use super::person;
use crate::support::Cluster;

/// The smallest beginning of a picture that says its size.
fn png(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        &size[..],
        &[8, 6, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat()
}

fn messages(inbox: &Value) -> Vec<Value> {
    inbox["messages"].as_array().unwrap().clone()
}

#[test]
fn pictures_voices_and_places_arrive_and_messages_are_answered_changed_and_taken_back() {
    let cluster = Cluster::single();
    let (alice, bob) = (person(&cluster, "alice"), person(&cluster, "bob"));
    let picture = cluster.path().join("cat.png").display().to_string();
    std::fs::write(&picture, png(640, 480)).unwrap();
    let voice = cluster.path().join("hello.amr").display().to_string();
    std::fs::write(&voice, b"#!AMR..").unwrap();
    let folder = cluster.path().join("saved").display().to_string();

    let sent = alice.json(&["send", &bob.email, "see you at eihgt"]);
    let text = sent["message"].to_string();
    alice.ok(&[
        "send",
        &bob.email,
        "The cat\u{1b}[2J",
        "--picture",
        &picture,
    ]);
    let unknown = alice.fails(5, &["send", &bob.email, "--voice", &voice]);
    assert!(unknown.contains("--media-type"), "{unknown}");
    let media = ["--media-type", "audio/amr", "--duration", "1.5"];
    alice.ok(&[&["send", &bob.email, "--voice", &voice][..], &media].concat());
    let place = ["--location", "-22.69725,13.404954", "--label", "Spitzkoppe"];
    alice.ok(&[&["send", &bob.email][..], &place].concat());
    alice.ok(&["edit", &text, "see you at eight"]);

    // Bob sees the text as it is now, without a word about how it came to be.
    let shown = bob.ok(&["inbox", "--save", &folder]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(lines[0].ends_with(": see you at eight [edited]"), "{shown}");
    let saved = format!("image/png, 640x480, 33 bytes; saved as {folder}/picture-1.png] The cat");
    assert!(lines[1].contains(&saved), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(
        lines[2].contains("[voice message of 0:02, audio/amr, 7 bytes"),
        "{shown}"
    );
    assert!(
        lines[3].ends_with("[location -22.69725, 13.404954] Spitzkoppe"),
        "{shown}"
    );
    let written = std::fs::read(format!("{folder}/picture-1.png")).unwrap();
    assert_eq!(written, png(640, 480));

    // The numbers that it shows can be used, and so can the ids of the JSON.
    let all = messages(&bob.json(&["inbox", "--all"]));
    assert_eq!(all[1]["picture"]["width"], 640);
    assert_eq!(all[3]["location"]["latitude"], -22.69725);
    assert_eq!(all[4]["edit"]["counts"], true);
    assert_eq!(all[4]["edit"]["message"], 0);
    let id = all[0]["id"].as_str().unwrap();
    bob.ok(&["react", "#0", "👍"]);
    bob.ok(&["send", &alice.box_id(), "fine", "--reply-to", id]);
    let wrong = bob.fails(5, &["edit", "0", "see you never"]);
    assert!(wrong.contains("only who wrote"), "{wrong}");
    bob.fails(5, &["delete", id]);
    bob.fails(8, &["react", "99", "👍"]);
    bob.fails(2, &["react", "0", ""]);

    let shown = alice.ok(&["inbox"]);
    assert!(
        shown.contains("[reacts with 👍 to #0 \"see you at eight\"]"),
        "{shown}"
    );
    assert!(
        shown.contains("[in reply to #0 \"see you at eight\"] fine"),
        "{shown}"
    );
    let all = messages(&alice.json(&["inbox", "--all"]));
    let reaction = json!([{"box": bob.box_id(), "name": null, "emoji": "👍"}]);
    assert_eq!(all[0]["reactions"], reaction);
    assert_eq!(all[0]["id"], id);
    let reply = all.last().unwrap();
    assert_eq!(reply["text"], "fine");
    assert_eq!(reply["reply_to"], json!({"id": id, "message": 0}));

    alice.ok(&["delete", &text]);
    assert!(bob.ok(&["inbox"]).ends_with("[deletes #0]\n"));
    for person in [&alice, &bob] {
        let shown = person.ok(&["inbox", "--all"]);
        assert!(!shown.contains("see you at eight"), "{shown}");
        assert!(
            shown.lines().next().unwrap().contains(": [deleted]"),
            "{shown}"
        );
        let first = messages(&person.json(&["inbox", "--all"])).remove(0);
        assert_eq!(
            (&first["deleted"], &first["text"]),
            (&json!(true), &Value::Null)
        );
    }
}
