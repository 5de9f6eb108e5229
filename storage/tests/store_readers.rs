//! Reads on the active node while another thread applies: each sees all that was sequenced before it, and none
//! takes a block that is just being applied for a rotten one.

mod model;
mod node;

use holdfast_storage::apply::Committed;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::key;
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::op::{Caller, Op};
use holdfast_storage::record::Inode;
use holdfast_storage::store::Store;
use holdfast_storage::types::{BLOCK, Ino, LogIndex, Term};
use model::at;
use node::Node;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

const FILE: Ino = Ino(2);
const SIZE: usize = 6 * BLOCK as usize;
const WRITES: usize = 20_000;

/// What the `number`-th write changes; mostly parts of blocks, and all of them over and over.
fn write(number: usize) -> (usize, Vec<u8>) {
    let mixed = number.wrapping_mul(0x9e37_79b9) >> 3;
    let len = [10, 300, 4096, 5000][mixed % 4];
    let offset = mixed / 4 % (SIZE - len);
    (offset, vec![(number % 255) as u8 + 1; len])
}

/// A node with one file of that size, whose entries are applied in a thread of their own.
struct Beside {
    store: Arc<Store<SimDisk, SimMeta>>,
    inode: Inode,
    next: LogIndex,
    to_apply: mpsc::SyncSender<Committed>,
    applying: JoinHandle<()>,
}

impl Beside {
    fn begin() -> Self {
        let mut node = Node::format(SimDisk::new(), at(0));
        let caller = Caller {
            uid: 0,
            gid: 0,
            umask: 0,
        };
        let create = Op::Create {
            parent: Ino::ROOT,
            name: "a".into(),
            mode: libc::S_IFREG,
            rdev: 0,
            target: "".into(),
            class: None,
            caller,
        };
        node.propose(at(0), &create).expect("creates");
        node.append().and_then(|()| node.apply(usize::MAX)).expect("applies");
        let inode = node.store.inode(FILE).expect("is there");
        let next = LogIndex(node.logged().0 + 1);
        let Node { store, mut applier, .. } = node;
        let (to_apply, entries) = mpsc::sync_channel::<Committed>(200);
        let applying = std::thread::spawn(move || {
            while let Ok(entry) = entries.recv() {
                let batch: Vec<Committed> = std::iter::once(entry).chain(entries.try_iter().take(30)).collect();
                applier.apply(&batch).expect("applies");
            }
        });
        Self {
            store,
            inode,
            next,
            to_apply,
            applying,
        }
    }

    /// One entry, as the planner has it: the file's size, and what happens to its bytes.
    fn sequence(&mut self, size: usize, bytes: Effect) {
        let inode = Inode {
            size: size as u64,
            ..self.inode.clone()
        };
        let put = Effect::Put {
            key: key::inode(FILE),
            value: inode.encode(),
        };
        let effects = vec![put, bytes];
        self.store.overlay.sequence(self.next, &effects);
        let committed = Committed {
            index: self.next,
            term: Term(3),
            data: Entry { term: Term(3), effects }.encode(),
        };
        self.to_apply.send(committed).expect("the thread lives");
        self.next.0 += 1;
    }

    fn write(&mut self, size: usize, offset: usize, data: Vec<u8>) {
        let bytes = Effect::Write {
            ino: FILE,
            offset: offset as u64,
            data: data.into(),
        };
        self.sequence(size, bytes);
    }

    fn end(self) -> Arc<Store<SimDisk, SimMeta>> {
        drop(self.to_apply);
        self.applying.join().expect("no panic");
        assert_eq!(self.store.take_rotten(), []);
        self.store
    }
}

#[test]
fn reads_beside_the_apply_thread_see_what_is_sequenced() {
    let mut beside = Beside::begin();
    let mut expected = vec![0; SIZE];
    for number in 0..WRITES {
        let (offset, data) = write(number);
        expected[offset..offset + data.len()].copy_from_slice(&data);
        beside.write(SIZE, offset, data);
        // Around the write, and all of it now and then.
        let (from, len) = if number % 50 == 0 {
            (0, SIZE)
        } else {
            (offset.saturating_sub(100), 1000)
        };
        let read = beside
            .store
            .read(FILE, from as u64, len)
            .unwrap_or_else(|error| panic!("after write {number}: {error}"));
        assert!(
            read == expected[from..SIZE.min(from + len)],
            "after write {number}, from {from}"
        );
    }
    let store = beside.end();
    assert!(store.read(FILE, 0, SIZE).expect("reads") == expected);
}

/// Never zero.
fn byte(at: usize) -> u8 {
    (at % 251) as u8 + 1
}

/// A reader sees the file as it was before a change or after it: no size without its bytes, no bytes gone that the size
/// still covers.
#[test]
fn reads_of_a_file_that_grows_and_is_cut_see_no_bytes_that_were_never_there() {
    let mut beside = Beside::begin();
    let store = Arc::clone(&beside.store);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (store, ended) = (&store, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let size = store.inode(FILE).expect("is there").size as usize;
                    let from = if reader == 0 { 0 } else { size.saturating_sub(500) };
                    let read = store.read(FILE, from as u64, 2 * SIZE).expect("reads");
                    let wrong = (from..).zip(&read).find(|(at, found)| **found != byte(*at));
                    assert_eq!(wrong, None, "{} bytes from {from}", read.len());
                }
            });
        }
        let mut size = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for number in 0..WRITES {
                let (_, data) = write(number);
                if size + data.len() > SIZE {
                    size = size * (number % 4) / 4;
                    let cut = Effect::Truncate {
                        ino: FILE,
                        size: size as u64,
                    };
                    beside.sequence(size, cut);
                }
                let end = size + data.len();
                beside.write(end, size, (size..end).map(byte).collect());
                size = end;
            }
        }));
        ended.store(true, Ordering::Relaxed);
        outcome.expect("no panic");
    });
    drop(store);
    beside.end();
}
