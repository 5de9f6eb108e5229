//! The store, the mount point and the socket: absolute, and none inside another where it would be hidden.

use std::path::{Component, Path, PathBuf};

use crate::check::{Number, millis};
use crate::defaults::{MIB, SOCKET};
use crate::document::Document;
use crate::error::ConfigError;
use crate::{Config, Mount, Store, Timers, raw};

/// The kernel's limit for the path of a Unix socket, its closing zero not counted.
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(crate) fn store(document: &Document, raw: raw::Store) -> Result<Store, ConfigError> {
    let default = Store::default();
    let path = absolute(document, "store.path", raw.path, default.path)?;
    let number = Number {
        document,
        key: "store.log_mib",
        unit: " MiB",
    };
    let log_mib = number.within(raw.log_mib, default.log_bytes / MIB, 64..=64 * 1024)?;
    Ok(Store {
        path,
        log_bytes: log_mib * MIB,
    })
}

pub(crate) fn mount(document: &Document, raw: raw::Mount, timers: &Timers) -> Result<Mount, ConfigError> {
    let default = Mount::default();
    let path = absolute(document, "mount.path", raw.path, default.path)?;
    let key = "mount.request_deadline_ms";
    let request_deadline = millis(
        document,
        key,
        raw.request_deadline_ms,
        default.request_deadline,
        1000..=120_000,
    )?;
    // Otherwise requests would fail in a suspension that was meant to be survived.
    if request_deadline <= timers.grace {
        let problem = format!("{} ms is not longer than timers.grace_ms", request_deadline.as_millis());
        let right = format!(
            "more than {}, so that held requests outlive the grace",
            timers.grace.as_millis()
        );
        return Err(document.wrong(key, problem, right));
    }
    Ok(Mount { path, request_deadline })
}

pub(crate) fn socket(document: &Document, raw: Option<String>) -> Result<PathBuf, ConfigError> {
    let path = absolute(document, "socket", raw, PathBuf::from(SOCKET))?;
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        let problem = format!("{} has {length} bytes", path.display());
        let right = format!("at most {SOCKET_PATH_BYTES_MAX} bytes: the kernel's limit for a socket's path");
        return Err(document.wrong("socket", problem, right));
    }
    Ok(path)
}

/// Nothing that the daemon needs may lie where the mount hides it, and no two places may share a tree.
pub(crate) fn apart(document: &Document, config: &Config) -> Result<(), ConfigError> {
    let (store, mount) = (&config.store.path, &config.mount.path);
    if store == mount {
        let problem = format!("{} is store.path too", mount.display());
        return Err(document.wrong("mount.path", problem, "two different directories"));
    }
    if store.starts_with(mount) || mount.starts_with(store) {
        let problem = format!(
            "one of {} and {} (store.path) lies inside the other",
            mount.display(),
            store.display()
        );
        return Err(document.wrong("mount.path", problem, "two directories that don't contain each other"));
    }
    let tls = &config.tls;
    for (key, path) in [
        ("socket", &config.socket),
        ("tls.ca", &tls.ca),
        ("tls.cert", &tls.cert),
        ("tls.key", &tls.key),
    ] {
        if path.starts_with(mount) {
            let problem = format!("{} lies inside mount.path, where the mount hides it", path.display());
            return Err(document.wrong(key, problem, format!("a path outside {}", mount.display())));
        }
    }
    Ok(())
}

pub(crate) fn absolute(
    document: &Document,
    key: &str,
    raw: Option<String>,
    default: PathBuf,
) -> Result<PathBuf, ConfigError> {
    let Some(text) = raw else { return Ok(default) };
    let path = Path::new(&text);
    let climbs = path.components().any(|part| matches!(part, Component::ParentDir));
    if !path.is_absolute() || climbs || path.parent().is_none() {
        let right = "an absolute path below / and without \"..\"";
        return Err(document.wrong(key, format!("{text:?} can't be used"), right));
    }
    // Without repeated slashes and single dots, so that comparing paths compares places.
    Ok(path.components().collect())
}
