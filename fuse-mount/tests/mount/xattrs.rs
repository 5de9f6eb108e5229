use crate::fixture::{Fixture, errno};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
fn extended_attributes_are_set_listed_and_removed() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&path, name, value, flags).map_err(io::Error::from);
    set("user.one", b"1", XattrFlags::empty()).unwrap();
    set("user.two", b"22", XattrFlags::CREATE).unwrap();
    assert_eq!(errno(set("user.two", b"3", XattrFlags::CREATE)), libc::EEXIST);
    assert_eq!(errno(set("user.three", b"3", XattrFlags::REPLACE)), libc::ENODATA);
    set("trusted.four", b"4", XattrFlags::empty()).unwrap();

    let mut value = [0_u8; 64];
    assert_eq!(getxattr(&path, "user.two", &mut value).unwrap(), 2);
    assert_eq!(&value[..2], b"22");
    assert_eq!(size_of_value(&path, c"user.two"), 2);
    assert_eq!(
        errno(getxattr(&path, "user.two", &mut [0_u8; 1]).map_err(io::Error::from)),
        libc::ERANGE
    );
    assert_eq!(
        errno(getxattr(&path, "user.none", &mut value).map_err(io::Error::from)),
        libc::ENODATA
    );

    let len = listxattr(&path, &mut value).unwrap();
    assert_eq!(&value[..len], b"trusted.four\0user.one\0user.two\0");
    assert_eq!(
        errno(listxattr(&path, &mut [0_u8; 3]).map_err(io::Error::from)),
        libc::ERANGE
    );

    removexattr(&path, "user.one").unwrap();
    assert_eq!(
        errno(removexattr(&path, "user.one").map_err(io::Error::from)),
        libc::ENODATA
    );
    assert_eq!(errno(set("user.big", &[0; 65536], XattrFlags::empty())), libc::E2BIG);
}

/// Asks how large a buffer is needed.
fn size_of_value(path: &Path, name: &CStr) -> isize {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: both are strings with a closing NUL; without a buffer nothing is written.
    unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) }
}

#[test]
fn file_capabilities_are_refused_and_acls_kept() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, "x").unwrap();
    let set = |name: &str, value: &[u8]| setxattr(&path, name, value, XattrFlags::empty()).map_err(io::Error::from);
    // Version 2; owner, group and others may read: no more than a mode.
    let acl = [
        2, 0, 0, 0, 1, 0, 4, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
    ];
    set("system.posix_acl_access", &acl).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
    let get = getxattr(&path, "system.posix_acl_access", &mut [0_u8; 64]).map_err(io::Error::from);
    assert_eq!(errno(get), libc::ENODATA);
    let capability = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(errno(set("security.capability", &capability)), libc::EOPNOTSUPP);
}
