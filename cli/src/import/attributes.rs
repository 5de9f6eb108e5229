//! Owner, mode, extended attributes with ACLs, and times: compared, and set where they differ.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::{MARK, VOLUME};

/// Names and values; none where the file system has none.
pub(super) type Attributes = BTreeMap<OsString, Vec<u8>>;

/// What a Holdfast file system refuses, or what belongs to the source's file system alone.
pub(super) fn is_kept(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let kept = [&b"user."[..], b"trusted.", b"security."];
    let acl = [&b"system.posix_acl_access"[..], b"system.posix_acl_default"];
    (kept.iter().any(|space| name.starts_with(space)) || acl.contains(&name))
        && name != b"security.capability"
        // Its labels are the policy's of the machine.
        && name != b"security.selinux"
        && name != MARK.as_bytes()
        && name != VOLUME.as_bytes()
}

pub(super) fn all(path: &Path) -> Result<Attributes> {
    let mut names = vec![0; 64 << 10];
    let len = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(len) => len,
        Err(Errno::OPNOTSUPP) => return Ok(Attributes::new()),
        Err(error) => return Err(error),
    };
    let mut found = Attributes::new();
    let mut value = Vec::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        value.resize(64 << 10, 0);
        let c_name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match rustix::fs::lgetxattr(path, &c_name, &mut value[..]) {
            Ok(len) => drop(found.insert(OsString::from_vec(name.to_vec()), value[..len].to_vec())),
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Everything but the times. `wanted` are the source's.
pub(super) fn set(path: &Path, source: &Metadata, wanted: &Attributes) -> Result<()> {
    let meta = fs::symlink_metadata(path).map_err(|error| errno(&error))?;
    if (meta.uid(), meta.gid()) != (source.uid(), source.gid()) {
        let owner = (Uid::from_raw(source.uid()), Gid::from_raw(source.gid()));
        rustix::fs::chownat(CWD, path, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let have = all(path)?;
    for (name, value) in wanted.iter().filter(|(name, _)| is_kept(name)) {
        if have.get(name) != Some(value) {
            rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())?;
        }
    }
    for name in have.keys().filter(|name| is_kept(name) && !wanted.contains_key(*name)) {
        rustix::fs::lremovexattr(path, name)?;
    }
    // After the owner, whose change takes set-id bits away, and after the ACL, which the mode's group bits are a part of.
    let mode = fs::symlink_metadata(path).map_err(|error| errno(&error))?.mode();
    if !source.is_symlink() && mode != source.mode() {
        fs::set_permissions(path, fs::Permissions::from_mode(source.mode() & 0o7777)).map_err(|error| errno(&error))?;
    }
    Ok(())
}

pub(super) fn times(path: &Path, source: &Metadata) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: source.atime(),
            tv_nsec: source.atime_nsec(),
        },
        last_modification: Timespec {
            tv_sec: source.mtime(),
            tv_nsec: source.mtime_nsec(),
        },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
