//! The cluster's CA, and the certificates that it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::Path;
use time::{Duration, OffsetDateTime};

use crate::error::{Error, Result};

/// From a day ago, for machines whose clocks are behind, for so many days.
const VALID_DAYS: i64 = 20 * 365;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, PEM.
    certificate: String,
    now_unix_ms: u64,
}

/// A certificate and its private key, both PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    /// A new one, and the cluster's id: the fingerprint of its public key, which no two clusters share.
    pub fn new(cluster: &str, now_unix_ms: u64) -> Result<(Self, String)> {
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
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let authority = Self {
            issuer: Issuer::new(params, key),
            certificate,
            now_unix_ms,
        };
        Ok((authority, cluster_id))
    }

    /// From the folder that `holdfast init` made for it: `ca.pem` and `ca.key`.
    pub fn load(folder: &Path, now_unix_ms: u64) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            let text = std::fs::read_to_string(&path);
            text.map_err(|source| Error::File {
                what: "reading the cluster's CA (name the folder `ca` that `holdfast init` made with --ca):",
                path,
                source,
            })
        };
        let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
        let failed = |source| Error::Certificate {
            name: folder.display().to_string(),
            source,
        };
        let key = KeyPair::from_pem(&key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(failed)?;
        Ok(Self {
            issuer,
            certificate,
            now_unix_ms,
        })
    }

    pub fn own(&self) -> Pair {
        Pair {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// For both ends of a connection: each node is a server and a client of the others.
    pub fn certify(&self, node: &str) -> Result<Pair> {
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
