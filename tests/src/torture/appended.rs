//! A file to whose end many processes append records: each must be there once, whole, in its writer's order, wherever
//! others' come between.

use std::collections::BTreeSet;

use rustix::fd::BorrowedFd;
use rustix::io::pread;

use super::fault::{Fault, fault, wrong};

const MAGIC: &[u8; 16] = b"\x89record of many\n";
/// The magic, the writer, its record's number, the payload's length and a hash of all that.
const HEAD: usize = MAGIC.len() + 8 + 8 + 4 + 8;
const LONGEST: usize = 4096;
const CHUNK: usize = 1 << 20;

/// As far as one has come.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    at: u64,
    /// The next own record that can come.
    next: u64,
}

pub(super) struct Appended {
    owner: u64,
    /// Whether a record may have been torn by a fault.
    may_tear: bool,
    written: u64,
    /// Own records that may be there or not.
    open: BTreeSet<u64>,
    seen: Mark,
    /// What was before it when a sync succeeded is there for good. What comes later may be gone after a failover, if
    /// nobody was told that it is there.
    stable: Mark,
}

fn hash(owner: u64, number: u64, payload: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&owner.to_le_bytes())
        .update(&number.to_le_bytes())
        .update(payload);
    let mut short = [0; 8];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    short
}

enum Found {
    Record {
        owner: u64,
        number: u64,
        len: usize,
    },
    /// More of it may come.
    Beginning,
    Nothing,
}

fn parse(bytes: &[u8]) -> Found {
    let shown = bytes.len().min(MAGIC.len());
    if bytes[..shown] != MAGIC[..shown] {
        return Found::Nothing;
    }
    if bytes.len() < HEAD {
        return Found::Beginning;
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (owner, count) = (number(16), number(24));
    let len = u32::from_le_bytes(bytes[32..36].try_into().expect("four bytes")) as usize;
    if len > LONGEST {
        return Found::Nothing;
    }
    let Some(payload) = bytes.get(HEAD..HEAD + len) else {
        return Found::Beginning;
    };
    if bytes[36..HEAD] != hash(owner, count, payload) {
        return Found::Nothing;
    }
    Found::Record {
        owner,
        number: count,
        len: HEAD + len,
    }
}

fn another_follows(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| matches!(parse(&bytes[at..]), Found::Record { .. }))
}

impl Appended {
    pub(super) fn new(owner: u64, may_tear: bool) -> Self {
        Self {
            owner,
            may_tear,
            written: 0,
            open: BTreeSet::new(),
            seen: Mark::default(),
            stable: Mark::default(),
        }
    }

    /// The record that is to be appended next.
    pub(super) fn next(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut record = MAGIC.to_vec();
        record.extend(self.owner.to_le_bytes());
        record.extend(self.written.to_le_bytes());
        record.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
        record.extend(hash(self.owner, self.written, payload));
        record.extend(payload);
        record
    }

    pub(super) fn acknowledged(&mut self) {
        self.written += 1;
    }

    pub(super) fn left_open(&mut self) {
        self.open.insert(self.written);
        self.written += 1;
    }

    /// What `follow` saw before is there for good.
    pub(super) fn synced(&mut self) {
        self.stable = self.seen;
    }

    /// After a failover.
    pub(super) fn again(&mut self) {
        self.seen = self.stable;
    }

    pub(super) fn begin_anew(&mut self) {
        self.seen = Mark::default();
    }

    /// Reads what has come since.
    pub(super) fn follow(&mut self, file: BorrowedFd<'_>) -> Result<(), Fault> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = pread(file, &mut buffer, self.seen.at).map_err(|errno| fault("pread", errno))?;
            let taken = self.take(&buffer[..read])?;
            self.seen.at += taken as u64;
            if taken == 0 {
                return Ok(());
            }
        }
    }

    /// How many bytes are of records that are whole, or of none.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        while at < bytes.len() {
            match parse(&bytes[at..]) {
                Found::Record { owner, number, len } => {
                    if owner == self.owner {
                        self.own(number)?;
                    }
                    at += len;
                }
                // It was torn if another one follows: nobody comes between the pieces of a write.
                Found::Beginning if self.may_tear && another_follows(&bytes[at + 1..]) => at += 1,
                Found::Beginning => break,
                Found::Nothing if self.may_tear => at += 1,
                Found::Nothing => wrong!("no record begins at {} of the log", self.seen.at + at as u64),
            }
        }
        Ok(at)
    }

    fn own(&mut self, number: u64) -> Result<(), Fault> {
        if number < self.seen.next || number >= self.written {
            wrong!(
                "own record {number} where {} is the next of {}",
                self.seen.next,
                self.written
            );
        }
        self.all_open(number)?;
        self.seen.next = number + 1;
        Ok(())
    }

    /// Those that were left out may be missing.
    fn all_open(&self, before: u64) -> Result<(), Fault> {
        match (self.seen.next..before).find(|number| !self.open.contains(number)) {
            Some(number) => wrong!("own record {number} of {} isn't in the log", self.written),
            None => Ok(()),
        }
    }

    /// Once all was followed.
    pub(super) fn nothing_is_missing(&self) -> Result<(), Fault> {
        self.all_open(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(appended: &mut Appended, lens: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for len in lens {
            bytes.extend(appended.next(&vec![7; *len]));
            appended.acknowledged();
        }
        bytes
    }

    #[test]
    fn what_is_there_is_taken_and_what_is_not_is_told() {
        let mut one = Appended::new(1, true);
        let mut other = Appended::new(2, true);
        let mut bytes = log(&mut one, &[10, 2000]);
        bytes.extend(log(&mut other, &[500]));
        // Torn: the rest never came.
        let torn = other.next(&[9; 300]);
        bytes.extend(&torn[..200]);
        other.left_open();
        bytes.extend(log(&mut one, &[1]));
        let whole = bytes.len();
        bytes.extend(&log(&mut other, &[100])[..90]);
        assert_eq!(one.take(&bytes).unwrap(), whole);
        assert_eq!(other.take(&bytes).unwrap(), whole);
        one.nothing_is_missing().unwrap();
        assert!(other.nothing_is_missing().is_err());
        one.begin_anew();
        assert!(one.take(&bytes[100..]).is_err(), "the first record isn't there");
        one.begin_anew();
        bytes.extend_from_within(..60);
        assert!(one.take(&bytes).is_err(), "the first record is there twice");
    }
}
