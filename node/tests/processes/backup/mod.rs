//! Backups of running nodes, and clusters restored from them: with real processes and real devices.

mod making;
mod restoring;

use std::fs;
use std::path::Path;

use rossby_client::device::Delivery;
use rossby_client::envelope::Content;
use rossby_domain::ids::BoxId;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::people::{Person, email};
use crate::support::{Cluster, Node, run, run_ok};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Backs a node up; what it said.
fn back_up(node: &Node, out: &Path) -> Value {
    let text = run_ok([
        "backup".as_ref(),
        "--json".as_ref(),
        "--data".as_ref(),
        node.data().as_os_str(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    serde_json::from_str(&text).unwrap()
}

fn verify(backup: &Path) -> std::process::Output {
    run([
        "backup".as_ref(),
        "verify".as_ref(),
        "--json".as_ref(),
        backup.as_os_str(),
    ])
}

async fn tell(from: &Person, to: &BoxId, text: &str) {
    let sent = from.device.send(to, &Content::Text(text.to_owned())).await;
    let sent = sent.unwrap();
    assert!(
        matches!(sent.delivery, Delivery::Delivered(_)),
        "{text}: {sent:?}"
    );
}

/// A node with some mail, and a backup of it.
fn single_with_backup(runtime: &Runtime, backup: &Path) -> (Cluster, Person, Person) {
    with_backup(runtime, Cluster::single(), backup)
}

fn with_backup(runtime: &Runtime, cluster: Cluster, backup: &Path) -> (Cluster, Person, Person) {
    let people = runtime.block_on(async {
        let ada = Person::with_box(&cluster, email("ada"), 0).await;
        let ben = Person::with_box(&cluster, email("ben"), 0).await;
        tell(&ada, &ben.box_id(), "early").await;
        (ada, ben)
    });
    back_up(&cluster.nodes()[0], backup);
    (cluster, people.0, people.1)
}

/// Tries to restore; what became of it.
fn try_restore(backup: &Path, data: &Path, secrets: &Path) -> std::process::Output {
    run([
        "restore".to_owned(),
        format!("--from={}", backup.display()),
        format!("--data={}", data.display()),
        format!("--secrets={}", secrets.display()),
    ])
}

fn row_files(backup: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(backup.join("group-1")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "rows")
        })
        .collect();
    files.sort();
    files
}
