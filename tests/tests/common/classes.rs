//! Directories of each class.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lsetxattr};

pub(crate) const CLASSES: [&str; 6] = ["default", "database", "recordings", "logs", "prompts", "durable"];

/// A new directory that has the name of its class.
pub(crate) fn directory_of(class: &str, inside: &Path) -> PathBuf {
    let path = inside.join(class);
    fs::create_dir(&path).unwrap();
    lsetxattr(&path, "holdfast.class", class.as_bytes(), XattrFlags::empty()).unwrap();
    path
}
