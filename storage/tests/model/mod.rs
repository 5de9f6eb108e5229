//! A file system in memory, written from the manual pages and not from the planner, and what it takes to compare a
//! replica with it: random operations, a replica that applies effects, and one form in which both show their tree.

// Each test uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod fs;
pub mod ops;
pub mod replica;
pub mod sparse;

use holdfast_storage::class::Class;
use holdfast_storage::types::Time;
use proptest::test_runner::{Config as ProptestConfig, FileFailurePersistence};
use std::collections::BTreeMap;

/// All that an application can find out about an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub size: u64,
    pub rdev: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    /// Blocks that aren't all zeros.
    pub content: BTreeMap<u64, Vec<u8>>,
    pub target: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub class: Class,
    /// Listed as a directory that was given its class.
    pub own_class: bool,
    pub seal: Option<[u8; 32]>,
}

/// A whole file system: each path, the root's is empty, and each inode without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub paths: BTreeMap<Vec<u8>, Facts>,
    pub orphans: BTreeMap<u64, Facts>,
}

/// A clock for tests: a second a step.
pub fn at(step: usize) -> Time {
    Time {
        secs: 1_000_000 + i64::try_from(step).expect("few steps"),
        nanos: 5,
    }
}

/// Settings of a property test: how many sequences, and where the seeds of failures are kept (commit them). `PROPTEST_CASES`
/// gives each test as many times more as it is more than its default of 256.
pub fn config(cases: u32, regressions: &'static str) -> ProptestConfig {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(regressions)) as Box<_>);
    let given = ProptestConfig::default();
    ProptestConfig {
        cases: (cases * given.cases).div_ceil(256),
        failure_persistence,
        ..given
    }
}
