//! The certificate, the CA and the key: what a peer would refuse is found here, before the daemon starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use crate::document::Document;
use crate::error::ConfigError;
use crate::{Config, Tls};

const AGAIN: &str = "in a cluster that is there, `holdfast node certify` gives this node a certificate and a key that fit together; \
    for a new one `holdfast init` makes all of them";

pub(crate) fn check(document: &Document, config: &Config, now: SystemTime) -> Result<(), ConfigError> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let ca = File {
        document,
        key: "tls.ca",
        path: &config.tls.ca,
    };
    let authorities = ca.certificates()?;
    for authority in &authorities {
        ca.in_force(authority, now)?;
    }
    let cert = File {
        document,
        key: "tls.cert",
        path: &config.tls.cert,
    };
    let chain = cert.certificates()?;
    cert.in_force(&chain[0], now)?;
    cert.named(&chain[0], &config.cluster.nodes[config.this].name)?;
    let name = &config.cluster.nodes[config.this].name;
    signed(&chain, authorities, name, now, &provider).map_err(|error| {
        let problem = format!(
            "{} isn't accepted with {}: {error}",
            cert.path.display(),
            ca.path.display()
        );
        cert.wrong(problem, AGAIN)
    })?;
    private_key(
        &File {
            document,
            key: "tls.key",
            path: &config.tls.key,
        },
        chain,
        &provider,
    )
}

/// When a certificate runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub file: PathBuf,
    pub unix_s: i64,
    /// The same, as `2026-12-20`.
    pub day: String,
}

/// Of all certificates of CA and node, the one that runs out first; nothing if none can be read.
pub fn first_end(tls: &Tls) -> Option<End> {
    let files = [&tls.ca, &tls.cert].into_iter();
    files.flat_map(|file| ends(file)).min_by_key(|end| end.unix_s)
}

fn ends(file: &Path) -> Vec<End> {
    ends_of(file, &fs::read(file).unwrap_or_default())
}

pub(crate) fn ends_of(file: &Path, bytes: &[u8]) -> Vec<End> {
    let end = |der: CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let not_after = certificate.validity().not_after;
        Some(End {
            file: file.to_owned(),
            unix_s: not_after.timestamp(),
            day: day(not_after),
        })
    };
    CertificateDer::pem_slice_iter(bytes)
        .filter_map(|der| end(der.ok()?))
        .collect()
}

/// A file that a key of the configuration names.
struct File<'a> {
    document: &'a Document,
    key: &'a str,
    path: &'a Path,
}

impl File<'_> {
    fn wrong(&self, problem: impl Into<String>, right: impl Into<String>) -> ConfigError {
        self.document.wrong(self.key, problem, right)
    }

    fn read(&self) -> Result<Vec<u8>, ConfigError> {
        let problem = |error| format!("{} can't be read: {error}", self.path.display());
        fs::read(self.path).map_err(|error| self.wrong(problem(error), AGAIN))
    }

    /// At least one, the node's own first.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let bytes = self.read()?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let problem = format!("{} holds no certificate in PEM form", self.path.display());
        found
            .ok()
            .filter(|found| !found.is_empty())
            .ok_or_else(|| self.wrong(problem, AGAIN))
    }

    fn parse<'c>(&self, der: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, ConfigError> {
        let problem = |error| format!("{} holds a damaged certificate: {error}", self.path.display());
        X509Certificate::from_der(der)
            .map(|(_, certificate)| certificate)
            .map_err(|e| self.wrong(problem(e), AGAIN))
    }

    fn in_force(&self, der: &CertificateDer<'_>, now: Duration) -> Result<(), ConfigError> {
        let certificate = self.parse(der)?;
        let validity = certificate.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let file = self.path.display();
        if now > validity.not_after.timestamp() {
            let problem = format!("{file} expired on {}", day(validity.not_after));
            return Err(self.wrong(problem, "a certificate in force, and this machine's clock set right"));
        }
        if now < validity.not_before.timestamp() {
            let problem = format!("{file} isn't valid before {}", day(validity.not_before));
            return Err(self.wrong(problem, "a certificate in force, and this machine's clock set right"));
        }
        Ok(())
    }

    /// Peers tell who speaks by the common name and the one DNS name.
    fn named(&self, der: &CertificateDer<'_>, node: &str) -> Result<(), ConfigError> {
        let certificate = self.parse(der)?;
        let mut names: Vec<String> = certificate
            .subject()
            .iter_common_name()
            .map(|name| name.as_str().unwrap_or("?").to_owned())
            .collect();
        let common_names = names.len();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            names.extend(extension.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            }));
        }
        if common_names == 1 && names.len() == 2 && names.iter().all(|name| name == node) {
            return Ok(());
        }
        let problem = format!("{} is the certificate of {:?}", self.path.display(), names.join(", "));
        let right = format!("this node's certificate, with {node:?} as its common name and only DNS name");
        Err(self.wrong(problem, right))
    }
}

/// The very check that peers do on both ends of a connection.
fn signed(
    chain: &[CertificateDer<'_>],
    authorities: Vec<CertificateDer<'_>>,
    node: &str,
    now: Duration,
    provider: &Arc<CryptoProvider>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let (roots, now) = (Arc::new(roots), UnixTime::since_unix_epoch(now));
    let [own, between @ ..] = chain else {
        return Err("no certificate".into());
    };
    let name = ServerName::try_from(node)?;
    WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
        .build()?
        .verify_server_cert(own, between, &name, &[], now)?;
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()?
        .verify_client_cert(own, between, now)?;
    Ok(())
}

/// Why nodes that trust what is in the file `ca` wouldn't take this certificate (PEM) for the node's.
pub fn refusal(ca: &Path, certificate: &str, node: &str, now_unix_ms: u64) -> Option<String> {
    let accepted = || -> Result<(), Box<dyn std::error::Error>> {
        let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&fs::read(ca)?).collect();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        signed(
            &chain?,
            authorities?,
            node,
            Duration::from_millis(now_unix_ms),
            &provider,
        )
    };
    accepted().err().map(|error| error.to_string())
}

fn private_key(
    file: &File<'_>,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<(), ConfigError> {
    let path = file.path.display();
    let bytes = file.read()?;
    let metadata = fs::metadata(file.path);
    let mode = metadata
        .map_err(|error| file.wrong(format!("{path} can't be read: {error}"), AGAIN))?
        .permissions();
    if mode.mode() & 0o077 != 0 {
        let problem = format!(
            "{path} can be used by group or others (mode {:04o})",
            mode.mode() & 0o7777
        );
        return Err(file.wrong(problem, format!("mode 0600: chmod 600 {path}")));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| file.wrong(format!("{path} holds no private key in PEM form"), AGAIN))?;
    let fits = CertifiedKey::from_der(chain, key, provider);
    fits.map(drop)
        .map_err(|error| file.wrong(format!("{path} doesn't fit the certificate: {error}"), AGAIN))
}

fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}
