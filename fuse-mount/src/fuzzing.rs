//! The kernel's table of mounts, for `fuzz/`: other programs choose what stands in it. Not there in any other build.

use crate::table::{self, Entry};

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 1] = [("mounts", mounts)];

pub fn mounts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for Entry {
        point, kind, source, ..
    } in text.lines().filter_map(table::parse)
    {
        assert!(point.as_os_str().len() + kind.len() + source.len() <= text.len());
    }
}

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let table = "23 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                 412 29 0:58 / /srv/my\\040data rw,nosuid shared:216 master:3 - fuse.holdfast holdfast rw,user_id=0\n";
    vec![("mounts", table.into())]
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_input_is_read_or_left() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
