//! Checkpoints run beside the apply thread: whatever call to the disk one comes before or after, what a later
//! checkpoint publishes is stable.

mod model;
mod node;

use holdfast_storage::checkpoint;
use holdfast_storage::disk::sim::{SimDisk, SimFile};
use holdfast_storage::disk::{Disk, DiskFile, OpenHow, Space};
use model::ops;
use node::Node;
use node::script::{Life, Step, borders, steps};
use proptest::prelude::*;
use std::io;
use std::sync::{Arc, Mutex};

type Hook = Box<dyn FnMut() + Send>;

/// A disk that lets something else happen before and after each change.
#[derive(Clone)]
struct Beside {
    disk: SimDisk,
    hook: Arc<Mutex<Option<Hook>>>,
}

struct BesideFile {
    file: SimFile,
    around: Beside,
}

impl Beside {
    fn new() -> Self {
        Self {
            disk: SimDisk::new(),
            hook: Arc::default(),
        }
    }

    fn set(&self, hook: Option<Hook>) {
        *self.hook.lock().expect("no panic inside") = hook;
    }

    /// What the hook itself does to the disk calls no hook.
    fn fire(&self) {
        let hook = self.hook.lock().expect("no panic inside").take();
        if let Some(mut hook) = hook {
            hook();
            self.set(Some(hook));
        }
    }

    fn around<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.fire();
        let done = change();
        self.fire();
        done
    }
}

impl Disk for Beside {
    type File = BesideFile;
    const MANY_AT_ONCE: bool = false;

    fn open(&self, path: &str, how: OpenHow) -> io::Result<BesideFile> {
        let file = if how.create {
            self.around(|| self.disk.open(path, how))?
        } else {
            self.disk.open(path, how)?
        };
        Ok(BesideFile {
            file,
            around: self.clone(),
        })
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.around(|| self.disk.remove(path))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }
    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

impl DiskFile for BesideFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.around.around(|| self.file.write_at(data, offset))
    }
    fn write_synced(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_synced(data, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.around.around(|| self.file.set_len(len))
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.around.around(|| self.file.punch(offset, len))
    }
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A checkpoint at every `apart`-th moment, if there is anything to publish.
fn checkpoints(life: &Life<Beside>, apart: u64) -> Hook {
    let store = Arc::downgrade(&life.node.store);
    let mut moment = 0;
    Box::new(move || {
        moment += 1;
        if moment % apart == 0
            && let Some(store) = store.upgrade()
        {
            checkpoint::run(&store).expect("nothing fails here");
        }
    })
}

/// Looks come without checkpoints: reading changes nothing.
fn live(all: &[Step], apart: u64, seed: u64) {
    let disk = Beside::new();
    let mut life = Life::begin(disk.clone());
    disk.set(Some(checkpoints(&life, apart)));
    life.run(all).expect("nothing fails here");
    life.settle().expect("nothing fails here");
    disk.set(None);
    life.node.checkpoint().expect("nothing fails here");
    disk.disk.crash(seed);
    life.node.meta.crash(seed / 3);
    life.node = Node::open(disk, life.node.meta.clone()).expect("opens");
    assert_eq!(
        life.node.store.checkpointed(),
        life.node.logged(),
        "all was checkpointed"
    );
    life.settle().expect("nothing fails here");
}

proptest! {
    #![proptest_config(model::config(150, "tests/regressions/store_beside.txt"))]

    #[test]
    fn what_is_checkpointed_is_stable_whenever_checkpoints_came(
        all in steps(prop_oneof![3 => borders(), 1 => ops::op()], 50), apart in 1u64..20, seed in 0u64..1000,
    ) {
        live(&all, apart, seed);
    }
}
