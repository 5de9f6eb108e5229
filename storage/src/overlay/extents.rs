//! Pending bytes of one file: pieces that don't overlap, each with the index of the entry that wrote it.

use crate::types::LogIndex;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A run of bytes; `data` absent: zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub from: u64,
    pub to: u64,
    pub data: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct Extent {
    to: u64,
    index: LogIndex,
    data: Option<Bytes>,
}

#[derive(Default)]
pub(super) struct Extents(BTreeMap<u64, Extent>);

impl Extents {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Newer bytes hide older ones.
    pub(super) fn put(&mut self, index: LogIndex, from: u64, to: u64, data: Option<Bytes>) {
        if from >= to {
            return;
        }
        self.split(from);
        self.split(to);
        let hidden: Vec<u64> = self.0.range(from..to).map(|(start, _)| *start).collect();
        for start in hidden {
            self.0.remove(&start);
        }
        self.0.insert(from, Extent { to, index, data });
    }

    /// Makes `at` a border, so that no extent crosses it.
    fn split(&mut self, at: u64) {
        let Some((start, extent)) = self.0.range_mut(..at).next_back() else {
            return;
        };
        if extent.to <= at {
            return;
        }
        let keep = (at - start) as usize;
        let tail = Extent {
            to: extent.to,
            index: extent.index,
            data: extent.data.as_ref().map(|data| data.slice(keep..)),
        };
        extent.to = at;
        if let Some(data) = &mut extent.data {
            data.truncate(keep);
        }
        self.0.insert(at, tail);
    }

    /// Entries up to `index` are in the store.
    pub(super) fn settle(&mut self, index: LogIndex) {
        self.0.retain(|_, extent| extent.index > index);
    }

    pub(super) fn pieces(&self, from: u64, to: u64) -> Vec<Piece> {
        let before = self.0.range(..from).next_back().filter(|(_, extent)| extent.to > from);
        before
            .into_iter()
            .chain(self.0.range(from..to))
            .map(|(start, extent)| {
                let (cut_from, cut_to) = ((*start).max(from), extent.to.min(to));
                let data = extent
                    .data
                    .as_ref()
                    .map(|data| data.slice((cut_from - start) as usize..(cut_to - start) as usize));
                Piece {
                    from: cut_from,
                    to: cut_to,
                    data,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is put in whatever order, the pieces say what a plain array would.
        #[test]
        fn pieces_are_what_an_array_would_hold(puts in prop::collection::vec((0u64..200, 1u64..60, any::<Option<u8>>()), 1..40), settled in 0u64..40) {
            let mut extents = Extents::default();
            let mut array = vec![None; 300];
            for (number, (from, len, fill)) in puts.iter().enumerate() {
                let index = LogIndex(number as u64 + 1);
                extents.put(index, *from, from + len, fill.map(|byte| Bytes::from(vec![byte; *len as usize])));
                array[*from as usize..(from + len) as usize].fill(Some((index, fill.unwrap_or(0))));
            }
            extents.settle(LogIndex(settled));
            let mut seen = vec![None; 300];
            for piece in extents.pieces(0, 300) {
                for at in piece.from..piece.to {
                    prop_assert!(seen[at as usize].is_none(), "pieces overlap at {at}");
                    seen[at as usize] = Some(piece.data.as_ref().map_or(0, |data| data[(at - piece.from) as usize]));
                }
            }
            for at in 0..300 {
                let expected = array[at].filter(|(index, _)| *index > LogIndex(settled)).map(|(_, byte)| byte);
                prop_assert_eq!(seen[at], expected, "at {}", at);
            }
        }
    }
}
