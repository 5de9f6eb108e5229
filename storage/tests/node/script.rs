//! A random life of a store beside the model: operations, appends, batches, checkpoints, looks.

use super::{Node, look};
use crate::model::fs::Model;
use crate::model::{at, ops};
use bytes::Bytes;
use holdfast_storage::disk::Disk;
use holdfast_storage::error::StoreError;
use holdfast_storage::op::{Caller, Fallocate, Op, SetAttr};
use holdfast_storage::types::{BLOCK, Ino};
use proptest::prelude::*;
use std::fmt;

#[derive(Clone)]
pub enum Step {
    Op(Op),
    Append,
    Apply(usize),
    Checkpoint,
    /// The node loses its role, and gets it again.
    Forget,
    Look,
}

/// A failing life is to be read by people: no bytes.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(Op::Write { ino, offset, data, .. }) => {
                write!(f, "Write {} bytes at {offset} of {ino}", data.len())
            }
            Self::Op(op) => write!(f, "{}", format!("{op:?}").chars().take(200).collect::<String>()),
            Self::Append => f.write_str("Append"),
            Self::Apply(count) => write!(f, "Apply {count}"),
            Self::Checkpoint => f.write_str("Checkpoint"),
            Self::Forget => f.write_str("Forget"),
            Self::Look => f.write_str("Look"),
        }
    }
}

pub fn steps(op: impl Strategy<Value = Op> + 'static, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        16 => op.prop_map(Step::Op),
        4 => Just(Step::Append),
        4 => (1usize..12).prop_map(Step::Apply),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Forget),
        2 => Just(Step::Look),
    ];
    prop::collection::vec(step, 4..most)
}

/// Few files, many borders: of blocks, and of the groups whose checksums share a key.
pub fn borders() -> impl Strategy<Value = Op> {
    const GROUP: u64 = 128 * BLOCK;
    let offset = || {
        let borders = vec![
            0,
            BLOCK,
            2 * BLOCK,
            3 * BLOCK,
            GROUP - BLOCK,
            GROUP,
            GROUP + BLOCK,
            2 * GROUP,
            3 * GROUP,
        ];
        (
            prop::sample::select(borders),
            prop_oneof![4 => Just(0i64), 2 => -3i64..4, 2 => -3000i64..3000],
        )
            .prop_map(|(border, by)| border.saturating_add_signed(by))
    };
    let file = || (0u64..64).prop_map(Ino);
    let name = || (b'a'..=b'c').prop_map(|letter| Bytes::from(vec![letter]));
    let len = prop_oneof![3 => 1usize..200, 2 => Just(BLOCK as usize), 2 => 1usize..9000];
    let hole = prop_oneof![3 => 1u64..10_000, 1 => Just(BLOCK), 1 => Just(GROUP), 1 => Just(2 * GROUP + 77)];
    let how = prop::sample::select(vec![
        Fallocate::Punch,
        Fallocate::Zero { keep_size: false },
        Fallocate::Zero { keep_size: true },
    ]);
    let caller = Caller {
        uid: 0,
        gid: 0,
        umask: 0,
    };
    prop_oneof![
        3 => name().prop_map(move |name| {
            Op::Create { parent: Ino::ROOT, name, mode: libc::S_IFREG | 0o644, rdev: 0, target: Bytes::new(), class: None, caller }
        }),
        12 => (file(), offset(), len, 1u8..).prop_map(|(ino, offset, len, byte)| {
            Op::Write { ino, offset, data: vec![byte; len].into(), clear_setid: false }
        }),
        4 => (file(), offset()).prop_map(|(ino, size)| {
            Op::SetAttr { ino, set: SetAttr { size: Some(size), ..SetAttr::default() } }
        }),
        4 => (file(), offset(), hole, how).prop_map(|(ino, offset, len, how)| Op::Fallocate { ino, offset, len, how }),
        1 => name().prop_map(move |name| Op::Unlink { parent: Ino::ROOT, name, caller }),
        2 => file().prop_map(|ino| Op::Reap { ino }),
    ]
}

/// A life and what it should look like after each entry.
pub struct Life<D: Disk> {
    pub node: Node<D>,
    /// After each entry; the first is before all, the second has the root.
    pub models: Vec<Model>,
    pub now: usize,
}

impl<D: Disk> Life<D> {
    pub fn begin(disk: D) -> Self {
        let node = Node::format(disk, at(0));
        Self {
            node,
            models: vec![Model::new(at(0)), Model::new(at(0))],
            now: 0,
        }
    }

    pub fn run(&mut self, steps: &[Step]) -> Result<(), StoreError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    pub fn step(&mut self, step: &Step) -> Result<(), StoreError> {
        match step {
            Step::Op(op) => self.op(op),
            Step::Append => self.node.append()?,
            Step::Apply(count) => drop(self.node.apply(*count)?),
            Step::Checkpoint => self.node.checkpoint()?,
            Step::Forget => self.forget()?,
            Step::Look => self.look(),
        }
        Ok(())
    }

    fn op(&mut self, op: &Op) {
        self.now += 1;
        let mut model = self.models.last().expect("the root at least").clone();
        let op = ops::aim(op, &model);
        let before = self.node.sequenced();
        let expected = model.apply(at(self.now), &op).map(drop);
        assert_eq!(
            self.node.propose(at(self.now), &op).map(drop),
            expected,
            "answer to {op:?}"
        );
        if self.node.sequenced() > before {
            self.models.push(model);
        }
    }

    /// What isn't in the log is undone; what is there comes back when it is applied.
    fn forget(&mut self) -> Result<(), StoreError> {
        self.node.forget();
        self.models.truncate(self.node.logged().0 as usize + 1);
        self.looks_like(self.node.store.applied().0);
        self.node.apply(usize::MAX).map(drop)
    }

    /// Reads see all that is sequenced.
    pub fn look(&self) {
        self.looks_like(self.node.sequenced().0);
    }

    fn looks_like(&self, index: u64) {
        let model = &self.models[index as usize];
        let shown = look::tree(&self.node.store, &model.orphans());
        let shown = shown.unwrap_or_else(|error| panic!("at entry {index}: {error}"));
        assert_eq!(
            shown,
            model.tree(),
            "at entry {index}, applied {}",
            self.node.store.applied()
        );
    }

    /// All is appended, applied and looked at, orphans too.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.node.append()?;
        self.node.apply(usize::MAX)?;
        self.look();
        let orphans: Vec<u64> = self.node.store.orphans()?.iter().map(|ino| ino.0).collect();
        assert_eq!(orphans, self.models.last().expect("the root at least").orphans());
        assert_eq!(
            self.node.store.overlay.pending_bytes(),
            0,
            "what is applied isn't pending"
        );
        assert_eq!(self.node.store.take_rotten(), [], "no block fails to fit its checksum");
        Ok(())
    }
}
