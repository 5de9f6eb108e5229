//! Bytes of a sparse file.

use std::collections::BTreeMap;

const BLOCK: u64 = 512;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse(BTreeMap<u64, Vec<u8>>);

impl Sparse {
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let block = self.0.entry(at / BLOCK).or_insert_with(|| vec![0; BLOCK as usize]);
            block[(at % BLOCK) as usize] = *byte;
        }
    }

    pub fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        for (number, block) in self.0.range_mut(offset / BLOCK..) {
            for (at, byte) in (number * BLOCK..).zip(block.iter_mut()) {
                if at >= offset && at < end {
                    *byte = 0;
                }
            }
        }
    }

    pub fn truncate(&mut self, size: u64) {
        self.zero(size, u64::MAX);
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let byte = |at: u64| {
            self.0
                .get(&(at / BLOCK))
                .map_or(0, |block| block[(at % BLOCK) as usize])
        };
        (offset..offset + len).map(byte).collect()
    }

    /// Blocks that aren't all zeros: two files with the same bytes show the same.
    pub fn blocks(&self) -> BTreeMap<u64, Vec<u8>> {
        self.0
            .iter()
            .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
            .map(|(n, b)| (*n, b.clone()))
            .collect()
    }
}
