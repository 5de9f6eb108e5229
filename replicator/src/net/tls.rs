//! Mutual TLS 1.3 from the cluster's own CA: who isn't one of the three nodes doesn't get as far as a frame.

use crate::error::ReplicaError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Tls {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Tls {
    /// From PEM files: the CA's certificate, this node's certificate and its key.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self, ReplicaError> {
        let failed =
            |what: &Path, error: &dyn std::fmt::Display| ReplicaError::Tls(format!("{}: {error}", what.display()));
        let mut roots = RootCertStore::empty();
        for found in CertificateDer::pem_file_iter(ca).map_err(|error| failed(ca, &error))? {
            roots
                .add(found.map_err(|error| failed(ca, &error))?)
                .map_err(|error| failed(ca, &error))?;
        }
        let roots = Arc::new(roots);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert)
            .map_err(|error| failed(cert, &error))?
            .collect();
        let chain = chain.map_err(|error| failed(cert, &error))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| failed(ca, &error))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| {
                builder
                    .with_client_cert_verifier(verifier)
                    .with_single_cert(chain.clone(), private.clone_key())
            })
            .map_err(|error| failed(cert, &error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| {
                builder
                    .with_root_certificates(roots)
                    .with_client_auth_cert(chain, private)
            })
            .map_err(|error| failed(cert, &error))?;
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
        })
    }
}

#[cfg(any(test, fuzzing))]
impl Tls {
    /// For what is given no connection.
    pub(super) fn of_nobody() -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let nobody = Arc::new(rustls::server::ResolvesServerCertUsingSni::new());
        let roots = RootCertStore::empty();
        Self {
            server: Arc::new(
                server
                    .expect("TLS 1.3")
                    .with_no_client_auth()
                    .with_cert_resolver(nobody),
            ),
            client: Arc::new(
                client
                    .expect("TLS 1.3")
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            ),
        }
    }
}

/// The node's name in a certificate that the CA has signed: its only DNS name.
pub fn node_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    })
}
