//! Which extended attributes there are, and how they are read.
//!
//! POSIX ACLs are among them: the planner keeps them in step with the mode.
//! File capabilities would have to go whenever a file changes, or a writer could run his own code with them: refused.

use bytes::Bytes;
use holdfast_replicator::api::Failure;
use holdfast_storage::op::Refusal;
use holdfast_storage::plan::acl;
use holdfast_storage::record::Xattrs;

pub(crate) fn supported(name: &[u8]) -> Result<(), Failure> {
    let spaces = [&b"user."[..], b"trusted.", b"security."];
    if spaces.contains(&name) {
        return Err(Refusal::Invalid.into());
    }
    let kept = spaces.iter().any(|space| name.starts_with(space)) || name == acl::ACCESS || name == acl::DEFAULT;
    if kept && name != b"security.capability" {
        Ok(())
    } else {
        Err(Refusal::NotSupported.into())
    }
}

pub(crate) fn get(all: &Xattrs, name: &[u8]) -> Result<Bytes, Failure> {
    all.0.get(name).cloned().ok_or(Failure::Refused(Refusal::NoAttribute))
}

/// Names, each with a closing NUL; those of the system's own only for who may read them.
pub(crate) fn list(all: &Xattrs, privileged: bool) -> Bytes {
    let mut out = Vec::new();
    for name in all.0.keys().filter(|name| privileged || !name.starts_with(b"trusted.")) {
        out.extend_from_slice(name);
        out.push(0);
    }
    out.into()
}
