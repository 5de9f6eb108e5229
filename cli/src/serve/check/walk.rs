//! The parts of files, in order, without the holes. Pure.

use holdfast_storage::effects::CheckPart;
use holdfast_storage::types::Ino;
use std::collections::VecDeque;

/// Bytes of a file in one part: the apply thread of each replica stands still for so long.
pub(super) const BYTES: u64 = 4 << 20;

#[derive(Default)]
pub(super) struct Walk {
    files: VecDeque<(Ino, u64)>,
    /// The file that we are in, and its size.
    file: Option<(Ino, u64)>,
    offset: u64,
    /// Bytes of the files behind us: holes count.
    passed: u64,
}

/// One part.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Bytes of all files before it.
    pub(super) before: u64,
}

impl Place {
    pub(super) fn part(&self) -> CheckPart {
        CheckPart::Data {
            ino: self.ino,
            offset: self.offset,
            len: BYTES,
        }
    }
}

impl Walk {
    /// Files that come next, with their sizes.
    pub(super) fn add(&mut self, files: Vec<(Ino, u64)>) {
        self.files.extend(files);
    }

    pub(super) fn next(&mut self) -> Option<Place> {
        loop {
            match self.file {
                Some((ino, size)) if self.offset < size => {
                    let offset = self.offset;
                    self.offset = offset.saturating_add(BYTES);
                    return Some(Place {
                        ino,
                        offset,
                        len: BYTES.min(size - offset),
                        before: self.passed.saturating_add(offset),
                    });
                }
                behind => {
                    self.passed = self.passed.saturating_add(behind.map_or(0, |(_, size)| size));
                    (self.file, self.offset) = (self.files.pop_front(), 0);
                    self.file?;
                }
            }
        }
    }

    /// No replica has data in that file before `data`.
    pub(super) fn skip(&mut self, ino: Ino, data: u64) {
        if self.file.is_some_and(|(at, _)| at == ino) {
            self.offset = self.offset.max(data / BYTES * BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ino = Ino(7);
    const B: Ino = Ino(9);

    fn of(files: &[(Ino, u64)]) -> Walk {
        let mut walk = Walk::default();
        walk.add(files.to_vec());
        walk
    }

    fn rest(walk: &mut Walk) -> Vec<(Ino, u64, u64, u64)> {
        std::iter::from_fn(|| walk.next())
            .map(|place| (place.ino, place.offset, place.len, place.before))
            .collect()
    }

    #[test]
    fn each_part_of_each_file_comes_once() {
        let mut walk = of(&[(A, BYTES + 1), (Ino(8), 0)]);
        assert_eq!(rest(&mut walk), [(A, 0, BYTES, 0), (A, BYTES, 1, BYTES)]);
        assert_eq!(walk.next(), None);
        walk.add(vec![(B, 5)]);
        assert_eq!(rest(&mut walk), [(B, 0, 5, BYTES + 1)]);
    }

    #[test]
    fn holes_are_left_out_in_their_own_file_alone() {
        let mut walk = of(&[(A, u64::MAX), (B, 5)]);
        walk.next();
        walk.next();
        walk.skip(A, BYTES / 2);
        assert_eq!(walk.next().map(|place| place.offset), Some(2 * BYTES), "never back");
        walk.skip(B, 100 * BYTES);
        assert_eq!(walk.next().map(|place| place.offset), Some(3 * BYTES));
        walk.skip(A, 50 * BYTES + 3);
        assert_eq!(walk.next().map(|place| place.offset), Some(50 * BYTES));
        walk.skip(A, u64::MAX);
        // The last part of the longest file that there can be, then the other.
        let left = rest(&mut walk);
        assert_eq!(left.len(), 2);
        assert_eq!(left[1], (B, 0, 5, u64::MAX));
        walk.skip(A, 0);
        assert_eq!(walk.next(), None);
    }
}
