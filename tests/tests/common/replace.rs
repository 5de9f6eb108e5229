//! The idiom by which programs replace a file: write another one, rename it over the first.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::Pending;
use super::apart::apart;
use holdfast_tests::clock::pause;

const VERSION_BYTES: usize = 150_000;

pub(crate) fn version(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; VERSION_BYTES];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Replaces a file by rename, without any fsync, until it is told to stop; the last version that was there on return.
pub(crate) fn replace(dir: PathBuf) -> Pending<u64> {
    apart(move || {
        for number in 1.. {
            let new = dir.join("new");
            let done = fs::write(&new, version(number)).and_then(|()| fs::rename(&new, dir.join("file")));
            if done.is_err() {
                return number - 1;
            }
            // Not more than the shortest log holds between the copies of two disks.
            pause(Duration::from_millis(20));
        }
        0
    })
}

/// Which version these bytes are, whole and nothing else.
pub(crate) fn version_in(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes == version(number)).then_some(number)
}
