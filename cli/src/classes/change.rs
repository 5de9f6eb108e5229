//! Reading and changing classes through the mount, as `getfattr` and `setfattr` do.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use holdfast_proto::control::Classes;
use rustix::fs::XattrFlags;

use super::text;
use crate::error::{Error, Result};
use crate::output;

const CLASS: &str = "holdfast.class";
const SEAL: &str = "holdfast.seal";

/// Most bytes of either value.
const VALUE_MAX: usize = 128;

fn failed(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::File {
        what,
        path: path.to_owned(),
        source: source.into(),
    }
}

fn attribute(path: &Path, name: &str) -> rustix::io::Result<String> {
    let mut value = [0; VALUE_MAX];
    let len = rustix::fs::lgetxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..len]).into_owned())
}

fn explain(path: &Path, error: rustix::io::Errno) -> Error {
    match error {
        rustix::io::Errno::AGAIN => failed(
            "the file system isn't active on this machine, see `holdfast status`, and call it there:",
            path,
            error,
        ),
        rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODATA => {
            failed("not on a Holdfast file system:", path, error)
        }
        rustix::io::Errno::PERM | rustix::io::Errno::ACCESS => failed("only root may change the class of", path, error),
        _ => failed("asking for or changing the class of", path, error),
    }
}

pub(super) fn class(path: &Path) -> Result<String> {
    attribute(path, CLASS).map_err(|error| explain(path, error))
}

pub(super) fn set(path: &Path, class: Option<&str>) -> Result<()> {
    let meta = fs::symlink_metadata(path).map_err(|error| failed("looking at", path, error))?;
    if !meta.is_dir() {
        return Err(Error::Argument {
            text: path.display().to_string(),
            right: "classes belong to directories; a file has that of its directory (setfattr -n holdfast.class \
                    changes a single file's)",
        });
    }
    match class {
        Some(class) => rustix::fs::lsetxattr(path, CLASS, class.as_bytes(), XattrFlags::empty()),
        None => rustix::fs::lremovexattr(path, CLASS),
    }
    .map_err(|error| explain(path, error))
}

/// Everything below takes the class of the directory that it is in, from the top down. What has a class of its own
/// keeps it, with all that is in it. How many were changed.
pub(super) fn below(top: &Path, listed: &Classes) -> Result<u64> {
    let own: HashSet<u64> = listed.given.iter().map(|given| given.inode).collect();
    let class = class(top)?;
    let mut changed = 0;
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("reading", &directory, error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed("reading", &directory, error))?;
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_dir && own.contains(&entry.ino()) {
                continue;
            }
            // A file may have been made elsewhere: it isn't asked what its directory has.
            let done = if is_dir {
                rustix::fs::lremovexattr(&path, CLASS)
            } else {
                rustix::fs::lsetxattr(&path, CLASS, class.as_bytes(), XattrFlags::empty())
            };
            match done {
                Ok(()) => changed += 1,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(explain(&path, error)),
            }
            if is_dir {
                directories.push(path);
            }
            if changed % 1000 == 0 {
                output::progress(&format!("{changed} done, in {}", directory.display()));
            }
        }
    }
    output::progress("");
    Ok(changed)
}

pub(super) fn show(path: &Path, listed: &Classes) -> Result<String> {
    let class = class(path)?;
    let full = fs::canonicalize(path).map_err(|error| failed("resolving", path, error))?;
    let inside = full
        .strip_prefix(&listed.mount_path)
        .map(|inside| inside.display().to_string());
    let mut out = format!("{}: class {class}\n", path.display());
    if let Ok(inside) = inside {
        out.push_str(&format!("  {}\n", text::origin(&inside, &class, listed)));
    }
    if full.is_file() {
        out.push_str(&match attribute(path, SEAL) {
            Ok(seal) => format!("  sealed: blake3 {seal}\n"),
            Err(rustix::io::Errno::NODATA) if class == "recordings" => {
                "  not sealed: being written or just closed, or its node ended before it was sealed\n".to_owned()
            }
            Err(rustix::io::Errno::NODATA) => "  not sealed: that is for recordings\n".to_owned(),
            Err(error) => return Err(explain(path, error)),
        });
    }
    Ok(out)
}
