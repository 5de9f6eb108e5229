//! What was found against what must be there.

use rustix::io::Errno;

use super::fault::{Fault, fault, wrong};

/// Each byte old or new, the size between both.
pub(super) fn mixed(before: &[u8], after: &[u8], found: &[u8]) -> bool {
    let sizes = before.len().min(after.len())..=before.len().max(after.len());
    let byte = |of: &[u8], at: usize| of.get(at).copied().unwrap_or(0);
    let fits = |(at, is): (usize, &u8)| *is == byte(before, at) || *is == byte(after, at);
    sizes.contains(&found.len()) && found.iter().enumerate().all(fits)
}

pub(super) fn whole(call: &str, moved: Result<usize, Errno>, len: usize) -> Result<(), Fault> {
    match moved {
        Ok(moved) if moved == len => Ok(()),
        // A failing piece after a good one: the next call would say why.
        Ok(_) => Err(Fault::Lost(Errno::IO)),
        Err(errno) => Err(fault(call, errno)),
    }
}

pub(super) fn same(what: &str, at: usize, expected: &[u8], found: &[u8]) -> Result<(), Fault> {
    if expected == found {
        return Ok(());
    }
    let differ = (0..expected.len().min(found.len())).filter(|at| expected[*at] != found[*at]);
    let (count, first, last) = (
        differ.clone().count(),
        differ.clone().next(),
        differ.clone().next_back(),
    );
    wrong!(
        "{what} at {at}: {} bytes where {} are right; {count} differ, the first at {first:?}, the last at {last:?}",
        found.len(),
        expected.len()
    );
}
