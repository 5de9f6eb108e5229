//! A folder with a good configuration, its certificates, and ways to spoil them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use time::{Duration, OffsetDateTime};

pub(crate) struct Folder {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

pub(crate) const GOOD: &str = r#"version = 1
node = "n1"

[cluster]
name = "pbx"
id = "3f0d"

[[cluster.nodes]]
name = "n1"
address = "10.0.0.131"

[[cluster.nodes]]
name = "n2"
address = "10.0.0.132"

[[cluster.nodes]]
name = "n3"
address = "10.0.0.133"

[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"

[timers]
tick_ms = 50

[vip]
address = "10.0.0.130/24"

[[unit]]
name = "db"
start = ["/usr/bin/docker", "start", "db"]
stop = ["/usr/bin/docker", "stop", "db"]
status = ["/usr/bin/pgrep", "postgres"]
health_tcp = "127.0.0.1:5432"

[[unit]]
name = "pbx"
systemd = "portsip.service"
"#;

pub(crate) fn params(name: &str, from_days: i64, to_days: i64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::from(std::time::UNIX_EPOCH) + std::time::UNIX_EPOCH.elapsed().unwrap();
    params.not_before = now + Duration::days(from_days);
    params.not_after = now + Duration::days(to_days);
    params
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a cluster's CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Folder {
    pub(crate) fn good() -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
            ca: authority(),
        };
        fs::write(folder.path("ca.pem"), folder.ca.pem()).unwrap();
        folder.certify(&params("n1", -1, 10));
        folder.write(GOOD);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("holdfast.toml")
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Another CA's certificate in the place of the cluster's.
    pub(crate) fn change_ca(&self) {
        fs::write(self.path("ca.pem"), authority().pem()).unwrap();
    }

    pub(crate) fn certify(&self, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        fs::write(self.path("node.pem"), cert.pem()).unwrap();
        fs::write(self.path("node.key"), key.serialize_pem()).unwrap();
        self.key_mode(0o600);
    }

    pub(crate) fn key_mode(&self, mode: u32) {
        fs::set_permissions(self.path("node.key"), fs::Permissions::from_mode(mode)).unwrap();
    }
}
