//! The cluster's CA, and the certificates that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};

/// From a day ago, for machines whose clocks are behind, for so many days.
const VALID_DAYS: i64 = 20 * 365;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    now_unix_ms: u64,
    /// The fingerprint of the CA's public key: no two clusters share it.
    pub(super) cluster_id: String,
}

/// A certificate and its private key, both PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    pub(super) fn new(cluster: &str, now_unix_ms: u64) -> Result<Self> {
        let name = format!("Holdfast cluster {cluster}");
        let failed = |source| Error::Certificate {
            name: name.clone(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(&name, Vec::new(), now_unix_ms).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let fingerprint = params.key_identifier(&key);
        let cluster_id = fingerprint.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        Ok(Self {
            issuer,
            now_unix_ms,
            cluster_id,
        })
    }

    pub(super) fn own(&self) -> Pair {
        Pair {
            certificate: self.issuer.pem(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// For both ends of a connection: each node is a server and a client of the others.
    pub(super) fn certify(&self, node: &str) -> Result<Pair> {
        let failed = |source| Error::Certificate {
            name: node.to_owned(),
            source,
        };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(node, vec![node.to_owned()], self.now_unix_ms).map_err(failed)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn params(name: &str, dns: Vec<String>, now_unix_ms: u64) -> std::result::Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(dns)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let seconds = i64::try_from(now_unix_ms / 1000).unwrap_or(0);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(VALID_DAYS);
    Ok(params)
}
