//! Wrong command lines: refused before anything is read without end, asked of a service, or made.

use std::process::{Command, Output};

use crate::support::{rossby, stderr};

/// Runs a device's command in a home that is not there.
fn on_no_device(args: &[&str]) -> (Output, bool) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let mut command: Command = rossby();
    let output = command.args(args).arg("--home").arg(&home).output();
    (output.unwrap(), home.exists())
}

#[test]
fn registering_needs_one_of_phone_and_email_and_says_so() {
    for given in [&["register"][..], &["register", "--server", "127.0.0.1:1"]] {
        let (output, made) = on_no_device(given);
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(
            said.contains("--phone") && said.contains("--email"),
            "{said}"
        );
        assert!(!made);
    }
    let both = ["register", "--phone", "+491701234567", "--email", "a@b.cc"];
    assert_eq!(on_no_device(&both).0.status.code(), Some(2));
}

#[test]
fn nothing_is_not_sent() {
    let (output, _) = on_no_device(&["send", "bob@example.org", ""]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nothing to send"));
}

#[test]
fn a_file_without_end_is_too_large_and_not_read_for_ever() {
    let (output, _) = on_no_device(&["send", "bob@example.org", "--file", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("too large"), "{}", stderr(&output));
}

#[test]
fn a_code_that_can_not_be_one_is_not_tried() {
    for code in ["", "abc", "1234567", "123456789", "1234567x"] {
        let (output, _) = on_no_device(&["authorize", code]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{code:?}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("8 digits"), "{}", stderr(&output));
    }
}
