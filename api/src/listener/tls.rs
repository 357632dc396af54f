//! Certificates: what a listener shows, whom it trusts, and which node a certificate is for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rossby_domain::ids::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The protocol that all our listeners speak (RFC 9113, section 3.1).
const ALPN_H2: &[u8] = b"h2";

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or holds no PEM of the right kind.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the authority is unusable.
    #[error("{cert} and {key}: {reason}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// The certificate is not a node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Why a certificate does not say which node it is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate at all.
    #[error("not an X.509 certificate")]
    Malformed,
    /// No name of the form `node-<id>.rossby.internal`.
    #[error("the certificate names no node (a DNS name node-<number>.rossby.internal)")]
    NoNode,
    /// More than one such name.
    #[error("the certificate names more than one node")]
    ManyNodes,
    /// Another node's.
    #[error("the certificate is for node {found}, not for node {expected}")]
    OtherNode {
        /// Whose it should be.
        expected: NodeId,
        /// Whose it is.
        found: NodeId,
    },
}

/// The name by which a node proves who it is: a DNS name in its certificate. `.internal` is
/// reserved for private use, so no public authority can issue it.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("node-{node}.rossby.internal")
}

/// The node that a certificate is for.
///
/// # Errors
/// [`IdentityError`] unless it names exactly one node.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, IdentityError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| IdentityError::Malformed)?
        .ok_or(IdentityError::NoNode)?;
    let mut nodes = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => parse_node_name(name),
            _ => None,
        });
    let node = nodes.next().ok_or(IdentityError::NoNode)?;
    match nodes.next() {
        None => Ok(node),
        Some(_) => Err(IdentityError::ManyNodes),
    }
}

fn parse_node_name(name: &str) -> Option<NodeId> {
    let number = name
        .strip_prefix("node-")?
        .strip_suffix(".rossby.internal")?;
    let node = NodeId(number.parse().ok()?);
    // One spelling only: no signs, no leading zeros.
    (node.0 != 0 && node_name(node) == name).then_some(node)
}

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_path: PathBuf,
    key_path: PathBuf,
}

impl Credentials {
    /// Reads both from PEM files.
    ///
    /// # Errors
    /// [`TlsError::File`] if one can't be read.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            chain: certificates(cert)?,
            key: PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error))?,
            cert_path: cert.to_owned(),
            key_path: key.to_owned(),
        })
    }

    /// The node that the certificate is for.
    ///
    /// # Errors
    /// [`IdentityError`] unless it names exactly one node.
    pub fn node(&self) -> Result<NodeId, IdentityError> {
        node_of(self.chain.first().ok_or(IdentityError::Malformed)?)
    }

    fn pair_error(&self, error: &rustls::Error) -> TlsError {
        TlsError::Pair {
            cert: self.cert_path.clone(),
            key: self.key_path.clone(),
            reason: error.to_string(),
        }
    }
}

/// Reads the authorities in a PEM file.
///
/// # Errors
/// [`TlsError::File`] if it can't be read or holds none that can be used.
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| file_error(path, &error))?;
    if all.is_empty() {
        let reason = "holds no certificate in PEM form".to_owned();
        return Err(TlsError::File {
            path: path.to_owned(),
            reason,
        });
    }
    Ok(all)
}

fn file_error(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    use rustls::pki_types::pem::Error;
    let reason = match error {
        Error::Io(error) => error.to_string(),
        Error::NoItemsFound => "holds nothing of the right kind in PEM form".to_owned(),
        other => other.to_string(),
    };
    TlsError::File {
        path: path.to_owned(),
        reason,
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a listener shows its clients; with `clients`, they must show a certificate from there.
///
/// # Errors
/// [`TlsError::Pair`] if certificate, key and authorities can't be used together.
pub fn server(
    credentials: &Credentials,
    clients: Option<Arc<RootCertStore>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| credentials.pair_error(&error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|error| {
                    credentials.pair_error(&rustls::Error::General(error.to_string()))
                })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| credentials.pair_error(&error))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// What this node shows its peers when it calls them, and whom it takes for a peer.
///
/// # Errors
/// [`TlsError::Pair`] if certificate, key and authorities can't be used together.
pub fn peer_client(
    credentials: &Credentials,
    peers: Arc<RootCertStore>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| credentials.pair_error(&error))?
        .with_webpki_verifier(node_verifier(credentials, peers)?)
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| credentials.pair_error(&error))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

fn node_verifier(
    credentials: &Credentials,
    peers: Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(peers, provider()).build();
    verifier.map_err(|error| credentials.pair_error(&rustls::Error::General(error.to_string())))
}

/// What this node shows a peer of which it knows the address only: whichever node of these authorities it
/// is, it is one.
fn seed_client(
    credentials: &Credentials,
    peers: Arc<RootCertStore>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = AnyNode(node_verifier(credentials, peers)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| credentials.pair_error(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|error| credentials.pair_error(&error))?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(Arc::new(config))
}

/// Takes the certificate of any node that the authorities vouch for, and no other: it is held against the
/// node's name that is in it.
#[derive(Debug)]
struct AnyNode(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unfit =
            |error: OtherError| rustls::Error::InvalidCertificate(CertificateError::Other(error));
        let node = node_of(end_entity).map_err(|error| unfit(OtherError(Arc::new(error))))?;
        let name = ServerName::try_from(node_name(node))
            .map_err(|error| unfit(OtherError(Arc::new(error))))?;
        self.0
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The certificates of a node for its peers: what it shows, and whom it trusts.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// For the listener.
    pub server: Arc<ServerConfig>,
    /// For calls to peers.
    pub client: Arc<ClientConfig>,
    /// For a call to a peer whose number is not known.
    pub seed: Arc<ClientConfig>,
}

impl PeerTls {
    /// Reads this node's certificate, its key and the cluster's authority.
    ///
    /// # Errors
    /// [`TlsError`] if a file is unusable, or the certificate is not this node's.
    pub fn load(node: NodeId, cert: &Path, key: &Path, ca: &Path) -> Result<Self, TlsError> {
        let credentials = Credentials::load(cert, key)?;
        let found = credentials.node()?;
        if found != node {
            return Err(IdentityError::OtherNode {
                expected: node,
                found,
            }
            .into());
        }
        let roots = authorities(ca)?;
        Ok(Self {
            server: server(&credentials, Some(Arc::clone(&roots)))?,
            seed: seed_client(&credentials, Arc::clone(&roots))?,
            client: peer_client(&credentials, roots)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .der()
            .clone()
    }

    #[test]
    fn a_certificate_names_its_node() {
        let der = certificate(&["mail.example.org", "node-12.rossby.internal", "10.0.0.1"]);
        assert_eq!(node_of(&der), Ok(NodeId(12)));
    }

    #[test]
    fn a_certificate_that_names_no_node_or_several_is_nobodys() {
        for names in [&["example.org"][..], &[], &["node-x.rossby.internal"]] {
            assert_eq!(
                node_of(&certificate(names)),
                Err(IdentityError::NoNode),
                "{names:?}"
            );
        }
        let both = certificate(&["node-1.rossby.internal", "node-2.rossby.internal"]);
        assert_eq!(node_of(&both), Err(IdentityError::ManyNodes));
        assert_eq!(
            node_of(&CertificateDer::from(vec![1, 2, 3])),
            Err(IdentityError::Malformed)
        );
    }

    #[test]
    fn a_nodes_name_has_one_spelling() {
        for bad in [
            "node-01",
            "node-+1",
            "node-0",
            "node-",
            "node-1.rossby",
            "Node-1",
            "xnode-1",
        ] {
            assert_eq!(
                parse_node_name(&format!("{bad}.rossby.internal")),
                None,
                "{bad}"
            );
        }
        assert_eq!(parse_node_name(&node_name(NodeId(7))), Some(NodeId(7)));
    }
}
