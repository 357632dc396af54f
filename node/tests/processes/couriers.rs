//! Codes that travel by mail and SMS: the real commands, a real node, and gateways that the test starts.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::gateway::relay::{Mail, Manner, PASSWORD, Relay, Security, USER};
use crate::gateway::{Certificate, private_file, sms};
use crate::support::{Cluster, Node, eventually, rossby, stderr};

/// A service with mail and SMS.
struct Service {
    folder: tempfile::TempDir,
    certificate: Certificate,
    relay: Option<Relay>,
    sms: sms::Gateway,
    settings: PathBuf,
}

impl Service {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::new(folder.path(), "ca.pem");
        let relay = Relay::start(Security::Tls, &certificate);
        let sms = sms::Gateway::start(Some(&certificate));
        let settings = folder.path().join("rossby.toml");
        let service = Self {
            folder,
            certificate,
            relay: Some(relay),
            sms,
            settings,
        };
        private_file(&service.path().join("password"), PASSWORD);
        private_file(&service.path().join("headers"), "X-Key: s3cret\n");
        service.configure(true);
        service
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the relay is down")
    }

    /// Writes the configuration, with or without an SMS gateway.
    fn configure(&self, with_sms: bool) {
        let (folder, relay) = (self.path().display(), self.relay().port());
        let mut settings = format!(
            "[courier]\nkind = \"gateways\"\n\n[courier.smtp]\nhost = \"localhost\"\nport = {relay}\n\
             from = \"codes@rossby.example\"\nuser = \"{USER}\"\npassword_file = \"{folder}/password\"\n\
             ca = \"{folder}/ca.pem\"\ntimeout_ms = 2000\n"
        );
        if with_sms {
            settings.push_str(&format!(
                "\n[courier.webhook]\nurl = \"https://localhost:{}/sms\"\nca = \"{folder}/ca.pem\"\n\
                 headers_file = \"{folder}/headers\"\ntimeout_ms = 2000\n",
                self.sms.port()
            ));
        }
        settings.push_str("\n[courier.text]\nservice = \"Post\"\n");
        std::fs::write(&self.settings, settings).unwrap();
    }

    fn node(&self) -> Node {
        let args = vec![
            "--courier=gateways".to_owned(),
            format!("--config={}", self.settings.display()),
        ];
        let mut node = Node::new(self.path(), 1, args);
        node.start();
        node.wait_ready();
        node
    }

    /// A command of a person, whose home has this name.
    fn person(&self, name: &str, args: &[&str]) -> Output {
        rossby()
            .args(args)
            .args(["--no-passphrase"])
            .env("ROSSBY_HOME", self.path().join(name))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn register(&self, name: &str, node: &Node, to: &[&str]) -> Output {
        let server = format!("--server={}", node.client_address());
        self.person(name, &[&["register", server.as_str()], to].concat())
    }

    fn courier_test(&self, to: &[&str]) -> Output {
        let config = self.settings.display().to_string();
        rossby()
            .args(["courier", "test", "--config", &config])
            .args(to)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The next mail.
    fn mail(&self) -> Mail {
        eventually("a mail", || self.relay().mails().pop())
    }
}

fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn fails(code: i32, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    stderr(output)
}

fn metric(node: &Node, courier: &str, outcome: &str) -> u64 {
    let line =
        format!("rossby_courier_deliveries_total{{courier=\"{courier}\",outcome=\"{outcome}\"}} ");
    let page = node
        .page("/metrics")
        .map(|(_, body)| body)
        .unwrap_or_default();
    let count = page.lines().find_map(|found| found.strip_prefix(&line));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Neither log nor metrics may tell what passed.
fn keeps_quiet(node: &Node, secrets: &[&str]) {
    let told = node.log() + &node.out() + &node.page("/metrics").unwrap().1;
    for secret in secrets.iter().chain([&PASSWORD, &"s3cret"]) {
        assert!(!told.contains(*secret), "{secret} was told: {told}");
    }
}

#[test]
fn a_code_comes_by_mail_and_by_sms_and_opens_a_box() {
    let service = Service::new();
    let node = service.node();
    ok(&service.register("alice", &node, &["--email", "alice@rossby.example"]));
    let mail = service.mail();
    assert_eq!(
        (mail.to.as_str(), mail.encrypted),
        ("alice@rossby.example", true)
    );
    assert!(mail.data.contains("Your Post code is "), "{}", mail.data);
    ok(&service.person("alice", &["authorize", &mail.code()]));

    ok(&service.register("bob", &node, &["--phone", "+491701234567"]));
    let request = eventually("an SMS", || service.sms.requests().pop());
    assert_eq!(request.header("x-key"), Some("s3cret"));
    assert!(request.body.contains("+491701234567"), "{}", request.body);
    ok(&service.person("bob", &["authorize", &request.code()]));

    eventually("the deliveries are counted", || {
        (metric(&node, "smtp", "sent") == 1 && metric(&node, "webhook", "sent") == 1).then_some(())
    });
    let codes = [mail.code(), request.code()];
    keeps_quiet(
        &node,
        &["alice@rossby.example", "491701234567", &codes[0], &codes[1]],
    );
}

#[test]
fn a_code_waits_for_a_relay_that_is_down_and_whoever_asks_is_told() {
    let mut service = Service::new();
    let node = service.node();
    let port = service.relay().port();
    service.relay = None;
    ok(&service.register("alice", &node, &["--email", "alice@rossby.example"]));
    eventually("it has failed", || {
        (metric(&node, "smtp", "failed") > 0).then_some(())
    });
    // The phone's way is another one.
    ok(&service.register("bob", &node, &["--phone", "+491701234567"]));
    eventually("an SMS", || service.sms.requests().pop());
    let said = eventually("the delay is known", || {
        let output = service.person("alice", &["authorize", "00000000"]);
        let said = stderr(&output);
        said.contains("has not been sent yet").then_some(said)
    });
    assert!(!said.contains("wrong"), "{said}");
    service.relay = Some(Relay::start_at(port, Security::Tls, &service.certificate));
    let mail = service.mail();
    ok(&service.person("alice", &["authorize", &mail.code()]));
    keeps_quiet(&node, &["alice@rossby.example", &mail.code()]);
    assert!(
        node.log()
            .contains("a verification code could not be handed over")
    );
    assert_eq!(node.page("/readyz").unwrap().0, 200);
}

#[test]
fn an_address_that_the_relay_refuses_is_told_to_whoever_waits_and_to_the_operator() {
    let service = Service::new();
    let node = service.node();
    service.relay().behave(Manner::RefuseRecipient(550));
    ok(&service.register("alice", &node, &["--email", "alice@rossby.example"]));
    eventually("it was refused", || {
        (metric(&node, "smtp", "refused") == 1).then_some(())
    });
    let wanted = "could not be sent";
    eventually("the refusal is known", || {
        let output = service.person("alice", &["authorize", "00000000"]);
        stderr(&output).contains(wanted).then_some(())
    });
    // Too early for another, but not without a reason.
    let said = fails(
        5,
        &service.register("alice", &node, &["--email", "alice@rossby.example"]),
    );
    assert!(said.contains(wanted), "{said}");
    let log = node.log();
    assert!(log.contains("recipient: refused with code 550"), "{log}");
    keeps_quiet(&node, &["alice@rossby.example"]);
    assert!(service.relay().mails().is_empty());
}

#[test]
fn a_mail_that_is_put_off_comes_with_a_later_try() {
    let service = Service::new();
    let node = service.node();
    service.relay().behave(Manner::RefuseRecipient(450));
    ok(&service.register("alice", &node, &["--email", "alice@rossby.example"]));
    eventually("it was put off", || {
        (metric(&node, "smtp", "failed") > 0).then_some(())
    });
    service.relay().behave(Manner::Kind);
    let mail = service.mail();
    ok(&service.person("alice", &["authorize", &mail.code()]));
}

#[test]
fn a_code_that_was_on_its_way_when_its_leader_died_comes_from_the_next_one() {
    let service = Service::new();
    service.sms.behave(sms::Manner::Hang);
    let config = format!("--config={}", service.settings.display());
    let mut cluster = Cluster::of_with(3, &["--courier=gateways", &config]);
    let leader = cluster.leader();
    let servers: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| format!("--server={}", node.client_address()))
        .collect();
    let mut register = vec!["register", "--phone", "+491701234567"];
    register.extend(servers.iter().map(String::as_str));
    ok(&service.person("bob", &register));
    // The gateway has it, and the leader does not know that it has.
    let first = eventually("an SMS", || service.sms.requests().pop());
    cluster.node(leader).kill();
    service.sms.behave(sms::Manner::Status(202));
    let next = cluster.leader();
    assert_ne!(next, leader);
    eventually("the next leader has sent it", || {
        (metric(cluster.node(next), "webhook", "sent") > 0).then_some(())
    });
    // However often it came: it is one code, and it is good.
    let requests = service.sms.requests();
    assert!(requests.len() > 1);
    for request in &requests {
        assert_eq!(request.code(), first.code());
    }
    ok(&service.person("bob", &["authorize", &first.code()]));
    keeps_quiet(cluster.node(next), &["491701234567", &first.code()]);
}

#[test]
fn who_can_not_be_reached_is_told_at_once() {
    let service = Service::new();
    service.configure(false);
    let node = service.node();
    let said = fails(
        5,
        &service.register("bob", &node, &["--phone", "+491701234567"]),
    );
    assert!(said.contains("can't send codes to phones"), "{said}");
    ok(&service.register("alice", &node, &["--email", "alice@rossby.example"]));
    service.mail();
}

#[test]
fn courier_test_reports_each_step() {
    let service = Service::new();
    let said = ok(&service.courier_test(&["--email", "you@rossby.example"]));
    for step in [
        "connected to localhost:",
        "TLS: ",
        "logged in as rossby",
        "accepted: 250 2.0.0 queued",
    ] {
        assert!(said.contains(step), "{step:?} in {said}");
    }
    assert_eq!(service.mail().code(), "00000000");
    let said = ok(&service.courier_test(&["--phone", "+49 170 1234567"]));
    assert!(said.contains("accepted: 202"), "{said}");
    assert_eq!(service.sms.requests().len(), 1);
}

#[test]
fn courier_test_says_what_is_wrong_and_exits_by_it() {
    let mut service = Service::new();
    let email = ["--email", "you@rossby.example"];
    service.relay().behave(Manner::RefuseRecipient(550));
    let said = fails(5, &service.courier_test(&email));
    assert!(
        said.contains("550") && said.contains("is not welcome"),
        "{said}"
    );
    service.relay().behave(Manner::RefuseRecipient(450));
    fails(4, &service.courier_test(&email));
    service.relay().behave(Manner::Kind);
    private_file(&service.path().join("password"), "not it");
    let said = fails(7, &service.courier_test(&email));
    assert!(said.contains("login") && !said.contains("not it"), "{said}");
    private_file(&service.path().join("password"), PASSWORD);
    let other = Certificate::new(service.path(), "other.pem");
    std::fs::copy(&other.ca, service.path().join("ca.pem")).unwrap();
    let said = fails(4, &service.courier_test(&email));
    assert!(
        said.contains("TLS") && said.contains("certificate"),
        "{said}"
    );
    service.relay = None;
    let said = fails(4, &service.courier_test(&email));
    assert!(said.contains("connect"), "{said}");
    fails(2, &service.courier_test(&["--email", "nobody"]));
    fails(2, &service.courier_test(&[]));
    let settings = std::fs::read_to_string(&service.settings).unwrap();
    std::fs::write(&service.settings, settings.replace("gateways", "console")).unwrap();
    let said = fails(3, &service.courier_test(&email));
    assert!(said.contains("courier.kind"), "{said}");
}
