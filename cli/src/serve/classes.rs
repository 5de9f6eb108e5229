//! Which directories have a class of their own, as this node's replica has it.

use super::shared::Shared;
use crate::paths::path;
use bytes::Bytes;
use holdfast_config::Config;
use holdfast_fuse_mount::ClassRule;
use holdfast_proto::control::{Classes, ConfiguredClass, GivenClass};
use holdfast_storage::RealStore;
use holdfast_storage::class::Class;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::{Ino, Time};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

pub(super) fn rules(config: &Config) -> Arc<[ClassRule]> {
    let rule = |rule: &holdfast_config::ClassRule| ClassRule {
        path: rule
            .path
            .components()
            .map(|part| Bytes::copy_from_slice(part.as_os_str().as_bytes()))
            .collect(),
        class: Class::named(&rule.class).expect("the configuration knows the same classes"),
    };
    config.classes.iter().map(rule).collect()
}

pub(super) fn list(shared: &Shared) -> Result<Classes, ReadError> {
    let store = shared.handle.store();
    let mut given = Vec::new();
    for (ino, root) in store.class_roots()? {
        match path(store, ino) {
            Ok(path) => given.push(GivenClass {
                path,
                class: root.class.name().to_owned(),
                by_hand: root.by_hand,
                since_unix_ms: unix_ms(root.since),
                inode: ino.0,
            }),
            // Removed since it was listed.
            Err(ReadError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    given.sort_by(|one, other| one.path.cmp(&other.path));
    let mut configured = Vec::new();
    for (rule, found) in shared.config.classes.iter().zip(rules(&shared.config).iter()) {
        let is = match at(store, &found.path) {
            Ok(class) => class.name().to_owned(),
            Err(ReadError::Refused(_)) => String::new(),
            Err(error) => return Err(error),
        };
        configured.push(ConfiguredClass {
            path: rule.path.display().to_string(),
            class: rule.class.clone(),
            is,
        });
    }
    Ok(Classes {
        mount_path: shared.config.mount.path.display().to_string(),
        given,
        configured,
        active: shared.active().unwrap_or_default(),
        asked: shared.node().name.clone(),
    })
}

fn unix_ms(time: Time) -> u64 {
    u64::try_from(time.secs).unwrap_or(0) * 1000 + u64::from(time.nanos) / 1_000_000
}

fn at(store: &RealStore, path: &[Bytes]) -> Result<Class, ReadError> {
    let mut inode = store.inode(Ino::ROOT)?;
    let mut ino = Ino::ROOT;
    for name in path {
        (ino, inode) = store.lookup(ino, name)?;
    }
    Ok(inode.class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_knows_the_same_classes_as_the_store() {
        assert_eq!(Class::ALL.map(Class::name), holdfast_config::CLASSES);
    }
}
