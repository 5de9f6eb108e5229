//! How each inode is open: by how many that may write, for the last one to be closed is the end of a recording; through
//! the page cache or around it; and of which inodes something was lost that the kernel took for written.

use crate::opening::{Handle, Way};
use holdfast_storage::types::Ino;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

#[derive(Default)]
pub(crate) struct Opens {
    known: Mutex<HashMap<Ino, Known>>,
}

#[derive(Default)]
struct Known {
    writers: u32,
    cached: u32,
    around: u32,
    direct: u32,
    lost: Option<Lost>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Unreported,
    /// Some fsync has said so.
    Reported,
}

impl Known {
    fn on(&mut self, way: Way) -> &mut u32 {
        match way {
            Way::Cached => &mut self.cached,
            Way::Around => &mut self.around,
            Way::Direct => &mut self.direct,
        }
    }

    /// The loss is forgotten when all who may rely on what was lost have closed the file, and one of them was told.
    fn forgives(&self) -> bool {
        self.writers == 0 && self.lost != Some(Lost::Unreported)
    }

    fn is_over(&self) -> bool {
        self.forgives() && self.cached + self.around + self.direct == 0
    }
}

impl Opens {
    fn known(&self) -> MutexGuard<'_, HashMap<Ino, Known>> {
        self.known.lock().expect("no panic under the lock")
    }

    /// With the way that it goes: who has the file open already decides.
    pub(crate) fn opened(&self, ino: Ino, is_writer: bool, wanted: Way) -> Handle {
        let mut known = self.known();
        let known = known.entry(ino).or_default();
        let way = match wanted {
            Way::Direct => Way::Direct,
            Way::Cached | Way::Around if known.cached > 0 => Way::Cached,
            Way::Cached | Way::Around if known.around > 0 => Way::Around,
            wanted => wanted,
        };
        *known.on(way) += 1;
        known.writers += u32::from(is_writer);
        Handle { is_writer, way }
    }

    pub(crate) fn writers_of(&self, ino: Ino) -> u32 {
        self.known().get(&ino).map_or(0, |known| known.writers)
    }

    /// How many writers are left.
    pub(crate) fn closed(&self, ino: Ino, handle: Handle) -> u32 {
        let mut all = self.known();
        let Entry::Occupied(mut held) = all.entry(ino) else {
            return 0;
        };
        let known = held.get_mut();
        let way = known.on(handle.way);
        *way = way.saturating_sub(1);
        known.writers = known.writers.saturating_sub(u32::from(handle.is_writer));
        if known.forgives() {
            known.lost = None;
        }
        let left = known.writers;
        if known.is_over() {
            held.remove();
        }
        left
    }

    /// Pages of a mapping could not be written back. The kernel tells each open file once and then calls them clean.
    pub(crate) fn lost(&self, ino: Ino) {
        self.known().entry(ino).or_default().lost = Some(Lost::Unreported);
    }

    /// Whether an fsync must fail for it, which is taken as having been told.
    pub(crate) fn has_lost(&self, ino: Ino) -> bool {
        let mut all = self.known();
        let Entry::Occupied(mut held) = all.entry(ino) else {
            return false;
        };
        let known = held.get_mut();
        let lost = known.lost.is_some();
        known.lost = known.lost.map(|_| Lost::Reported);
        if known.forgives() {
            known.lost = None;
        }
        if known.is_over() {
            held.remove();
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_go_around_the_cache_or_none() {
        let opens = Opens::default();
        let ino = Ino(7);
        let open = |is_writer, wanted| opens.opened(ino, is_writer, wanted);
        let writer = open(true, Way::Around);
        assert_eq!(writer.way, Way::Around);
        let reader = open(false, Way::Cached);
        assert_eq!(reader.way, Way::Around);
        assert_eq!(opens.closed(ino, writer), 0);
        let late = open(false, Way::Cached);
        assert_eq!(late.way, Way::Around, "there is a mapping, perhaps");
        opens.closed(ino, reader);
        opens.closed(ino, late);
        let reader = open(false, Way::Cached);
        assert_eq!(reader.way, Way::Cached);
        assert_eq!(open(true, Way::Direct).way, Way::Direct);
        let writer = open(true, Way::Around);
        assert_eq!(writer.way, Way::Cached);
        assert_eq!(opens.writers_of(ino), 2);
        assert_eq!(opens.closed(ino, writer), 1);
    }

    #[test]
    fn a_loss_is_told_until_all_writers_have_closed_and_one_was_told() {
        let opens = Opens::default();
        let ino = Ino(7);
        let writers = [(); 2].map(|()| opens.opened(ino, true, Way::Cached));
        let reader = opens.opened(ino, false, Way::Cached);
        opens.lost(ino);
        opens.closed(ino, writers[0]);
        assert!(opens.has_lost(ino) && opens.has_lost(ino));
        opens.closed(ino, writers[1]);
        assert!(!opens.has_lost(ino));
        opens.lost(ino);
        opens.closed(ino, reader);
        assert!(opens.has_lost(ino), "nobody was told");
        assert!(!opens.has_lost(ino));
        assert!(opens.known().is_empty());
    }
}
