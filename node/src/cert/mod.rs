//! `rossby cert`: a small certificate authority of the cluster's own.
//!
//! One authority signs everything: a node's certificate proves to its peers which node it is (a DNS
//! name that only this authority can issue) and to clients that they reached the host they meant.

mod files;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rossby_api::listener::tls::node_name;
use rossby_domain::ids::NodeId;
use rossby_seams::clock::{Clock as _, SystemClock};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use crate::cli::CertCommand;
use crate::exit::{Exit, Failure};
use crate::output;
use files::Pair;

/// Certificates are valid from a little earlier, for machines whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The authority's file name.
const AUTHORITY: &str = "ca";

/// Runs `rossby cert ...`.
///
/// # Errors
/// If a file is in the way or can't be written, or the authority can't be read.
pub fn run(command: &CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Ca { out, days } => ca(out, *days),
        CertCommand::Node {
            ca,
            node,
            dns,
            ip,
            out,
            days,
        } => {
            let node_names = NodeNames {
                node: NodeId(*node),
                dns,
                ip,
            };
            issue(
                ca,
                out,
                &format!("node-{node}"),
                node_params(&node_names, *days)?,
            )
        }
        CertCommand::Client {
            ca,
            name,
            out,
            days,
        } => issue(ca, out, name, client_params(name, *days)?),
    }
}

fn ca(out: &Path, days: u32) -> Result<(), Failure> {
    let mut params = params("Rossby cluster authority", Vec::new(), days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failure)?;
    let certificate = params.self_signed(&key).map_err(failure)?;
    let pair = Pair::in_folder(out, AUTHORITY)?;
    pair.write(&certificate.pem(), &key)?;
    report(&pair, &certificate.pem())?;
    output::note("Keep the key off the nodes: whoever has it can add a node to the cluster.");
    Ok(())
}

fn issue(ca: &Path, out: &Path, file: &str, params: CertificateParams) -> Result<(), Failure> {
    let authority = Pair::existing(ca, AUTHORITY).read()?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, &authority.key)
        .map_err(|error| Failure::new(Exit::Failure, format!("the authority: {error}")))?;
    let key = KeyPair::generate().map_err(failure)?;
    let certificate = params.signed_by(&key, &issuer).map_err(failure)?;
    let pair = Pair::in_folder(out, file)?;
    pair.write(&certificate.pem(), &key)?;
    report(&pair, &certificate.pem())
}

struct NodeNames<'a> {
    node: NodeId,
    dns: &'a [String],
    ip: &'a [IpAddr],
}

fn node_params(names: &NodeNames<'_>, days: u32) -> Result<CertificateParams, Failure> {
    let own = node_name(names.node);
    if let Some(name) = names
        .dns
        .iter()
        .find(|name| name.ends_with(".rossby.internal"))
    {
        return Err(Failure::new(
            Exit::Usage,
            format!("--dns {name}: names below rossby.internal say which node it is"),
        )
        .help("leave it out: the name of --node is in the certificate by itself"));
    }
    let mut alternative = vec![dns_name(&own)?];
    for name in names.dns {
        alternative.push(dns_name(name)?);
    }
    alternative.extend(names.ip.iter().map(|ip| SanType::IpAddress(*ip)));
    let mut params = params(&format!("Rossby node {}", names.node), alternative, days)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn client_params(name: &str, days: u32) -> Result<CertificateParams, Failure> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(safe) {
        return Err(Failure::new(
            Exit::Usage,
            "--name: only a-z, A-Z, 0-9, '-', '_' and '.'",
        ));
    }
    let mut params = params(name, Vec::new(), days)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(
    common_name: &str,
    alternative: Vec<SanType>,
    days: u32,
) -> Result<CertificateParams, Failure> {
    let now = UNIX_EPOCH + Duration::from_millis(SystemClock.now().as_millis());
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failure)?;
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.subject_alt_names = alternative;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

fn dns_name(name: &str) -> Result<SanType, Failure> {
    let name = name
        .try_into()
        .map_err(|_| Failure::new(Exit::Usage, format!("--dns {name}: not a host name")))?;
    Ok(SanType::DnsName(name))
}

/// Prints what was made, read back from the certificate itself.
fn report(pair: &Pair, pem: &str) -> Result<(), Failure> {
    let unreadable = |error: String| Failure::new(Exit::Failure, error);
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|error| unreadable(error.to_string()))?;
    let certificate = Pem::parse_x509(&pem).map_err(|error| unreadable(error.to_string()))?;
    output::line(format!("certificate  {}", pair.certificate.display()));
    output::line(format!("key          {}", pair.key.display()));
    let validity = certificate.validity();
    output::line(format!(
        "valid        {} to {}",
        validity.not_before, validity.not_after
    ));
    let names = certificate.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        output::line(format!("name         {}", name_text(name)));
    }
    Ok(())
}

fn name_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => {
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(v4), _) => IpAddr::from(v4).to_string(),
                (_, Ok(v6)) => IpAddr::from(v6).to_string(),
                _ => name.to_string(),
            }
        }
        other => other.to_string(),
    }
}

fn failure(error: rcgen::Error) -> Failure {
    Failure::new(
        Exit::Failure,
        format!("could not make the certificate: {error}"),
    )
}
