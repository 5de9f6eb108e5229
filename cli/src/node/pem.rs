//! Certificates and keys between PEM, as files have them, and DER, as a token has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The first certificate in a text that was just made or read by us.
pub(super) fn certificate(text: &str) -> anyhow::Result<Vec<u8>> {
    Ok(CertificateDer::from_pem_slice(text.as_bytes())?.to_vec())
}

pub(super) fn certificates(text: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let each = CertificateDer::pem_slice_iter(text.as_bytes());
    Ok(each.map(|der| der.map(|der| der.to_vec())).collect::<Result<_, _>>()?)
}

pub(super) fn key(text: &str) -> anyhow::Result<Vec<u8>> {
    Ok(PrivateKeyDer::from_pem_slice(text.as_bytes())?.secret_der().to_vec())
}

pub(super) fn of_certificate(der: &[u8]) -> String {
    of("CERTIFICATE", der)
}

pub(super) fn of_key(der: &[u8]) -> String {
    of("PRIVATE KEY", der)
}

fn of(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}
