//! Certificates from `rossby cert`, and what strangers see of the client listener.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rossby_client::connection::{Exchange, GrpcWire, Wire as _, WireError};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{self, Cluster, Node, run, run_ok, stderr};

#[test]
fn certificates_are_private_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    support::make_authority(folder.path());
    support::peer_args(folder.path(), 7);
    let certs = support::certs(folder.path());
    let text = certs.display().to_string();
    run_ok([
        "cert", "client", "--ca", &text, "--name", "alice", "--out", &text,
    ]);
    for name in ["ca", "node-7", "alice"] {
        let mode = std::fs::metadata(certs.join(format!("{name}.key")))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
    let before = std::fs::read(certs.join("node-7.key")).unwrap();
    let again = [
        vec!["cert", "ca", "--out", &text],
        vec!["cert", "node", "--ca", &text, "--node", "7", "--out", &text],
        vec![
            "cert", "client", "--ca", &text, "--name", "alice", "--out", &text,
        ],
    ];
    for args in again {
        let output = run(&args);
        assert_eq!(
            output.status.code(),
            Some(5),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("is there already"),
            "{}",
            stderr(&output)
        );
    }
    assert_eq!(std::fs::read(certs.join("node-7.key")).unwrap(), before);
}

#[test]
fn a_certificate_says_whose_it_is_and_how_long() {
    let folder = tempfile::tempdir().unwrap();
    support::make_authority(folder.path());
    let certs = support::certs(folder.path()).display().to_string();
    let mut args = vec![
        "cert", "node", "--ca", &certs, "--node", "3", "--out", &certs,
    ];
    args.extend([
        "--dns",
        "mail.example.org",
        "--ip",
        "192.0.2.7",
        "--days",
        "30",
    ]);
    let said = run_ok(args);
    for part in [
        "node-3.rossby.internal",
        "mail.example.org",
        "192.0.2.7",
        "valid ",
        "node-3.key",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    // Nobody but --node says which node it is.
    let mut args = vec![
        "cert", "node", "--ca", &certs, "--node", "4", "--out", &certs,
    ];
    args.extend(["--dns", "node-3.rossby.internal"]);
    assert_eq!(run(args).status.code(), Some(2));
}

/// A single node whose clients must use TLS.
fn with_tls(folder: &Path, more: &[String]) -> Node {
    support::make_authority(folder);
    support::peer_args(folder, 1);
    let certs = support::certs(folder).display().to_string();
    let mut args = vec![
        format!("--tls-cert={certs}/node-1.crt"),
        format!("--tls-key={certs}/node-1.key"),
    ];
    args.extend_from_slice(more);
    let mut node = Node::new(folder, 1, args);
    node.start();
    node.wait_ready();
    node
}

fn authority(folder: &Path) -> Certificate {
    Certificate::from_pem(std::fs::read(support::certs(folder).join("ca.crt")).unwrap())
}

async fn connect(node: &Node, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{}", node.client_address()));
    endpoint.unwrap().tls_config(tls).unwrap().connect().await
}

async fn health(channel: Channel) -> Result<i32, tonic::Status> {
    let request = HealthCheckRequest {
        service: "rossby.v1.Mailbox".to_owned(),
    };
    Ok(HealthClient::new(channel)
        .check(request)
        .await?
        .into_inner()
        .status)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_reach_a_node_over_tls_and_no_other_way() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_tls(folder.path(), &[]);
    let trusting = ClientTlsConfig::new().ca_certificate(authority(folder.path()));
    let channel = connect(&node, trusting.clone().domain_name("localhost"))
        .await
        .unwrap();
    assert_eq!(
        health(channel).await.unwrap(),
        ServingStatus::Serving as i32
    );
    // A name that is not in the certificate, an authority that did not sign it, and plain text.
    assert!(
        connect(&node, trusting.domain_name("example.org"))
            .await
            .is_err()
    );
    let other = tempfile::tempdir().unwrap();
    support::make_authority(other.path());
    let stranger = ClientTlsConfig::new().ca_certificate(authority(other.path()));
    assert!(
        connect(&node, stranger.domain_name("localhost"))
            .await
            .is_err()
    );
    let plain = Endpoint::from_shared(format!("http://{}", node.client_address())).unwrap();
    let answer = match plain.connect().await {
        Ok(channel) => health(channel).await,
        Err(_) => return,
    };
    assert!(answer.is_err(), "plain text was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_service_asks_clients_for_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let ca = support::certs(folder.path()).join("ca.crt");
    let node = with_tls(folder.path(), &[format!("--tls-ca={}", ca.display())]);
    let certs = support::certs(folder.path());
    let text = certs.display().to_string();
    run_ok([
        "cert", "client", "--ca", &text, "--name", "alice", "--out", &text,
    ]);
    let trusting = ClientTlsConfig::new()
        .ca_certificate(authority(folder.path()))
        .domain_name("localhost");
    let read = |name: &str| std::fs::read(certs.join(name)).unwrap();
    let identity = Identity::from_pem(read("alice.crt"), read("alice.key"));
    let channel = connect(&node, trusting.clone().identity(identity))
        .await
        .unwrap();
    assert_eq!(
        health(channel).await.unwrap(),
        ServingStatus::Serving as i32
    );
    let refused = match connect(&node, trusting).await {
        Ok(channel) => health(channel).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a client without a certificate was answered");
}

async fn plain(cluster: &mut Cluster) -> Channel {
    let address = cluster.node(1).client_address();
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn ask(channel: &Channel, request: MessageRequest) -> Result<MessageResponse, tonic::Status> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await?;
    let answer = answers.into_inner().message().await?.unwrap();
    Ok(answer.message_response.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_of_the_public_service_only() {
    let mut cluster = Cluster::single();
    let channel = plain(&mut cluster).await;
    let answer = ask(&channel, MessageRequest::ListServices(String::new()))
        .await
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("no list: {answer:?}");
    };
    let mut names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    names.retain(|name| !name.starts_with("grpc."));
    assert_eq!(names, ["rossby.v1.Mailbox"]);
    for (name, known) in [("Mailbox", true), ("Peer", false), ("Admin", false)] {
        let symbol = MessageRequest::FileContainingSymbol(format!("rossby.v1.{name}"));
        let answer = ask(&channel, symbol).await;
        let found = matches!(answer, Ok(MessageResponse::FileDescriptorResponse(_)));
        assert_eq!(found, known, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_of_peers_and_operators_are_not_on_the_client_port() {
    let mut cluster = Cluster::single();
    let channel = plain(&mut cluster).await;
    let mut peer = rossby_proto::v1::peer_client::PeerClient::new(channel.clone());
    let status = peer
        .describe(rossby_proto::v1::DescribeRequest { group_id: 1 })
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    let mut admin = rossby_proto::v1::admin_client::AdminClient::new(channel);
    let status = admin
        .status(rossby_proto::v1::StatusRequest {})
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_says_so_to_clients_and_to_health_checks() {
    let mut cluster = Cluster::waiting(1);
    let channel = plain(&mut cluster).await;
    assert_eq!(
        health(channel.clone()).await.unwrap(),
        ServingStatus::NotServing as i32
    );
    let mut mailbox = rossby_proto::v1::mailbox_client::MailboxClient::new(channel);
    let status = mailbox
        .fetch(rossby_proto::v1::FetchRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("NOT_IN_CLUSTER"), "{details}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_node_that_waits_for_its_clients() {
    use rustix::process::Signal;
    let mut cluster = Cluster::single();
    let channel = plain(&mut cluster).await;
    // A call that never ends by itself.
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = HealthClient::new(channel)
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    watch.message().await.unwrap();
    let node = cluster.node(1);
    node.signal(Signal::TERM);
    support::eventually("the node stops", || {
        node.log().contains("told to stop").then_some(())
    });
    node.signal(Signal::INT);
    let stopped = node.wait();
    assert_eq!(stopped.status.code(), Some(1));
    assert!(node.log().contains("stopped at once"), "{}", node.log());
    node.start();
    node.wait_ready();
}

#[tokio::test]
async fn a_door_that_is_not_for_devices_is_said_to_be_none() {
    let cluster = Cluster::waiting(1);
    let node = &cluster.nodes()[0];
    let other = cluster.path().join("other");
    run_ok(["cert", "ca", "--out", &other.display().to_string()]);
    let read = |folder: &Path| std::fs::read_to_string(folder.join("ca.crt")).unwrap();
    let (own, other) = (read(&support::certs(cluster.path())), read(&other));
    let (devices, peers) = (node.client_address(), node.peer_address());
    let http = node.http_address();
    for (server, ca, said) in [
        (format!("http://{http}"), None, "no server for devices"),
        (format!("http://{peers}"), None, "it speaks TLS"),
        // In whichever words: it may hang up before it has said anything.
        (format!("https://{devices}"), Some(&own), ""),
        (format!("https://{peers}"), Some(&other), "vouches for"),
    ] {
        let wire = GrpcWire::new(ca.cloned());
        let exchange = Exchange {
            server: &server.parse().unwrap(),
            path: "/rossby.v1.Mailbox/Register",
            message: bytes::Bytes::new(),
            authorization: None,
            timeout: support::PATIENCE,
        };
        // Nothing was sent that anybody there could have understood.
        match wire.exchange(exchange).await {
            Err(WireError::NotTheService(why)) => assert!(why.contains(said), "{server}: {why}"),
            Err(WireError::NotSent(_)) if said.is_empty() => {}
            other => panic!("{server}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_scheme_or_authority_is_said_to_be_wrong_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let node = with_tls(folder.path(), &[]);
    let other = folder.path().join("other");
    run_ok(["cert", "ca", "--out", &other.display().to_string()]);
    let other = other.join("ca.crt").display().to_string();
    let register = |home: &str, server: &str, more: &[&str]| {
        let home = folder.path().join(home).display().to_string();
        let server = format!("--server={server}");
        let args = ["register", "--email=a@rossby.example", "--no-passphrase"];
        run([&args[..], &[&server, "--home", &home], more].concat())
    };
    let door = node.client_address();
    let port = door.port();
    for (name, server, more, words) in [
        ("plain", format!("http://{door}"), &[][..], "it speaks TLS"),
        (
            "stranger",
            format!("https://localhost:{port}"),
            &["--ca", &other],
            "vouches for",
        ),
    ] {
        let output = register(name, &server, more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
        assert!(said.contains("nothing was sent"), "{name}: {said}");
    }
    // Set right, the same device goes on.
    let ca = support::certs(folder.path()).join("ca.crt");
    let ca = ca.display().to_string();
    let server = format!("https://localhost:{port}");
    let output = register("plain", &server, &["--ca", &ca]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_server_that_can_not_be_trusted_is_refused_before_it_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let nonsense = folder.path().join("ca.crt");
    std::fs::write(&nonsense, "not a certificate").unwrap();
    let home = folder.path().join("home").display().to_string();
    let nonsense = nonsense.display().to_string();
    let absent = format!("{nonsense}.absent");
    for ca in [vec![], vec!["--ca", &nonsense], vec!["--ca", &absent]] {
        let args = ["register", "--email=a@rossby.example", "--no-passphrase"];
        let server = ["--server=https://127.0.0.1:1", "--home", &home];
        let output = run([&args[..], &server, &ca].concat());
        assert_eq!(output.status.code(), Some(3), "{ca:?}: {}", stderr(&output));
        assert!(!std::path::Path::new(&home).exists());
        let as_json = run([&args[..], &server, &ca, &["--json"]].concat());
        let said: serde_json::Value = serde_json::from_slice(&as_json.stderr).unwrap();
        assert_eq!(said["exit"], 3);
        assert!(stderr(&output).contains(said["error"].as_str().unwrap()));
    }
}
