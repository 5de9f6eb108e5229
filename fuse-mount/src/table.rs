//! The kernel's table of mounts, as this process sees it. Reading it asks no file system anything.

use crate::error::MountError;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Minor number of the device; of a FUSE mount, the number of its connection.
    pub(crate) minor: u32,
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) source: String,
}

/// The mount that a path leads to if it is a mount point: of several on top of each other the uppermost.
pub(crate) fn on(path: &Path) -> Result<Option<Entry>, MountError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(|source| MountError::Table { source })?;
    Ok(table.lines().filter_map(parse).rfind(|entry| entry.point == path))
}

/// `36 35 98:0 /root /point options [tags...] - type source options`
pub(crate) fn parse(line: &str) -> Option<Entry> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ');
    let minor = place.nth(2)?.split_once(':')?.1.parse().ok()?;
    let point = unescape(place.nth(1)?);
    let mut what = what.split(' ');
    Some(Entry {
        minor,
        point,
        kind: what.next()?.to_owned(),
        source: what.next()?.to_owned(),
    })
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits after a backslash.
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match tail
            .first_chunk::<3>()
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)))
        {
            Some(digits) => {
                out.push(
                    digits
                        .iter()
                        .fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
                );
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_tags_and_blanks_is_understood() {
        let line = r"412 29 0:58 / /srv/my\040data rw,nosuid shared:216 master:3 - fuse.holdfast holdfast rw,user_id=0";
        let entry = parse(line).unwrap();
        assert_eq!(
            (entry.minor, entry.kind.as_str(), entry.source.as_str()),
            (58, "fuse.holdfast", "holdfast")
        );
        assert_eq!(entry.point, Path::new("/srv/my data"));
    }
}
