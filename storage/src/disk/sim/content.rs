//! Bytes of a simulated file, sparse, and the changes that may still be lost.

use super::Dice;
use crate::types::BLOCK;
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = BLOCK as usize;
/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

#[derive(Clone, Default)]
pub(super) struct Content {
    blocks: BTreeMap<u64, Arc<[u8; PAGE]>>,
    len: u64,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Punch { offset: u64, len: u64 },
    Reserve { offset: u64, len: u64 },
}

/// Parts of a range by block: (block, first byte in the block, number of bytes).
fn parts(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let (block, inside) = (at / BLOCK, at % BLOCK);
            let count = (BLOCK - inside).min(end - at);
            at += count;
            (block, inside as usize, count as usize)
        })
    })
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }

    /// Space that writing or reserving this range takes in addition.
    pub(super) fn missing(&self, offset: u64, len: u64) -> u64 {
        parts(offset, len)
            .filter(|(block, ..)| !self.blocks.contains_key(block))
            .count() as u64
            * BLOCK
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let len = self.len.saturating_sub(offset).min(buffer.len() as u64);
        let mut done = 0;
        for (block, inside, count) in parts(offset, len) {
            let to = &mut buffer[done..done + count];
            match self.blocks.get(&block) {
                Some(bytes) => to.copy_from_slice(&bytes[inside..inside + count]),
                None => to.fill(0),
            }
            done += count;
        }
        done
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, data } => self.write(data, *offset),
            Change::SetLen(len) => self.set_len(*len),
            Change::Punch { offset, len } => self.punch(*offset, *len),
            Change::Reserve { offset, len } => self.reserve(*offset, *len),
        }
    }

    /// What a power cut leaves of an unsynced change: all, nothing, or of a write any of its sectors.
    pub(super) fn apply_what_survives(&mut self, change: &Change, dice: &mut Dice) {
        match (dice.below(3), change) {
            (0, _) => {}
            (1, Change::Write { offset, data }) => {
                let end = offset + data.len() as u64;
                let mut at = *offset;
                while at < end {
                    let next = ((at / SECTOR + 1) * SECTOR).min(end);
                    if dice.below(2) == 0 {
                        self.write(&data[(at - offset) as usize..(next - offset) as usize], at);
                    }
                    at = next;
                }
            }
            _ => self.apply(change),
        }
    }

    /// Flips the bits of one byte; false if there is no such byte.
    pub(super) fn flip(&mut self, offset: u64) -> bool {
        let mut byte = [0];
        if self.read(&mut byte, offset) == 0 {
            return false;
        }
        self.write(&[!byte[0]], offset);
        true
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        let mut done = 0;
        for (block, inside, count) in parts(offset, data.len() as u64) {
            let bytes = self.blocks.entry(block).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[inside..inside + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        if !data.is_empty() {
            self.len = self.len.max(offset + data.len() as u64);
        }
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.split_off(&len.div_ceil(BLOCK));
            self.clear_inside(len / BLOCK, (len % BLOCK) as usize, PAGE);
        }
        self.len = len;
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        // Only those that are there: a range may be as long as the longest file.
        let touched = self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK));
        for block in touched.map(|(block, _)| *block).collect::<Vec<_>>() {
            let from = offset.saturating_sub(block * BLOCK) as usize;
            let to = (end - block * BLOCK).min(BLOCK) as usize;
            if to - from == PAGE {
                self.blocks.remove(&block);
            } else {
                self.clear_inside(block, from, to);
            }
        }
    }

    fn reserve(&mut self, offset: u64, len: u64) {
        for (block, ..) in parts(offset, len) {
            self.blocks.entry(block).or_insert_with(|| Arc::new([0; PAGE]));
        }
    }

    fn clear_inside(&mut self, block: u64, from: usize, to: usize) {
        if let Some(bytes) = self.blocks.get_mut(&block) {
            Arc::make_mut(bytes)[from..to].fill(0);
        }
    }
}
