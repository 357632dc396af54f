//! Certificates of nodes.

use std::path::{Path, PathBuf};

use rossby_api::listener::tls::{PeerTls, node_name};
use rossby_domain::ids::NodeId;

/// Signs certificates. They are files for as long as it lives.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), certificate.pem()).unwrap();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            folder,
        }
    }

    /// Its own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A certificate for these names, and its key.
    pub fn issue(&self, file: &str, names: &[String]) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |suffix: &str| self.folder.path().join(format!("{file}.{suffix}"));
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("crt"), path("key"))
    }

    /// The certificates of a node that trusts `ca`.
    pub fn node(&self, node: u64, ca: &Path) -> PeerTls {
        let (cert, key) = self.issue(&format!("node-{node}"), &[node_name(NodeId(node))]);
        PeerTls::load(NodeId(node), &cert, &key, ca).unwrap()
    }
}
