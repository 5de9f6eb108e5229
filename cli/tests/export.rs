//! `holdfast export`: stores made here, without a cluster, come out as the trees that went in.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use holdfast_storage::apply::{Applier, Committed};
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::{Effect, Entry};
use holdfast_storage::identity::Identity;
use holdfast_storage::log::{HardState, LogEntry};
use holdfast_storage::meta::rocks::Rocks;
use holdfast_storage::op::{Caller, Op, Reply, SetAttr, SetTime, SetXattr};
use holdfast_storage::open::{self, Opened};
use holdfast_storage::plan::{self, Planned};
use holdfast_storage::types::{BLOCK, Ino, LogIndex, Term, Time};
use holdfast_storage::{checkpoint, data};

const TERM: Term = Term(2);
const NOW: Time = Time {
    secs: 1_700_000_000,
    nanos: 123_456_789,
};

struct Node {
    folder: tempfile::TempDir,
    store: PathBuf,
    opened: Opened<RealDisk, Rocks>,
    applier: Applier<RealDisk, Rocks>,
    entries: Vec<LogEntry>,
}

fn holdfast(arguments: &[&OsStr]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().expect("an exit code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn at(path: &Path) -> &OsStr {
    path.as_os_str()
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        let out = folder.path().join("etc");
        let arguments = "init --cluster pbx --node n1=10.0.0.1 --node n2=10.0.0.2 --node n3=10.0.0.3 --store";
        let arguments: Vec<&OsStr> = arguments
            .split(' ')
            .map(OsStr::new)
            .chain([at(&store), OsStr::new("--out"), at(&out)])
            .collect();
        let (code, _, complaint) = holdfast(&arguments);
        assert_eq!(code, 0, "{complaint}");
        let config = holdfast_config::load(&out.join("n1/holdfast.toml")).unwrap();
        fs::create_dir(&store).unwrap();
        let disk = RealDisk::open(&store).unwrap();
        let identity = Identity {
            cluster: config.cluster.id,
            node: "n1".into(),
            store: [3; 16],
            joined: LogIndex::ZERO,
        };
        open::format(&disk, &identity, 1 << 20).unwrap();
        let opened = open::open(disk, Rocks::create(&store.join("meta")).unwrap(), identity).unwrap();
        let applier = Applier::new(opened.store.clone(), LogIndex::ZERO).unwrap();
        let mut node = Self {
            folder,
            store,
            opened,
            applier,
            entries: Vec::new(),
        };
        node.sequence(plan::root(NOW));
        node
    }

    fn sequence(&mut self, effects: Vec<Effect>) {
        let index = LogIndex(self.entries.len() as u64 + 1);
        self.opened.store.overlay.sequence(index, &effects);
        self.entries.push(LogEntry {
            index,
            term: TERM,
            kind: 0,
            data: Entry { term: TERM, effects }.encode(),
        });
    }

    fn do_it(&mut self, op: &Op) -> Ino {
        loop {
            match plan::plan(&*self.opened.store, NOW, op) {
                Planned::Do { effects, reply, .. } => {
                    self.sequence(effects);
                    return if let Reply::Inode(ino, _) = reply { ino } else { Ino(0) };
                }
                Planned::Need(keys) => keys.iter().for_each(|key| drop(self.opened.store.value(key).unwrap())),
                Planned::Refused(refusal) => panic!("{op:?}: {refusal}"),
            }
        }
    }

    fn create(&mut self, parent: Ino, name: &'static str, mode: u32, rdev: u32, target: &'static str) -> Ino {
        let caller = Caller {
            uid: 1000,
            gid: 1001,
            umask: 0,
        };
        self.do_it(&Op::Create {
            parent,
            name: name.into(),
            mode,
            rdev,
            target: target.into(),
            class: None,
            caller,
        })
    }

    fn write(&mut self, ino: Ino, offset: u64, bytes: Vec<u8>) {
        self.do_it(&Op::Write {
            ino,
            offset,
            data: bytes.into(),
            clear_setid: false,
        });
    }

    fn append(&mut self, commit: u64) {
        let known = self.opened.log.reader().last_index().0 as usize;
        let state = HardState {
            term: TERM,
            vote: 1,
            commit: LogIndex(commit),
        };
        self.opened.log.append(Some(state), &self.entries[known..]).unwrap();
    }

    fn apply(&mut self, to: usize) {
        let from = self.opened.store.applied().0 as usize;
        let committed = |entry: &LogEntry| Committed {
            index: entry.index,
            term: entry.term,
            data: entry.data.clone(),
        };
        self.applier
            .apply(&self.entries[from..to].iter().map(committed).collect::<Vec<_>>())
            .unwrap();
    }

    /// As the daemon stops in order.
    fn stop(&mut self) {
        let last = self.entries.len();
        self.append(last as u64);
        self.apply(last);
        checkpoint::run(&self.opened.store).unwrap();
        open::mark_clean(self.opened.store.data.disk(), LogIndex(last as u64)).unwrap();
    }

    /// Lets go of the store, exports it and says how that went; the tree is in the folder's `out`.
    fn export(self) -> (tempfile::TempDir, (i32, String, String)) {
        drop((self.applier, self.opened));
        let told = export(self.folder.path());
        (self.folder, told)
    }
}

fn export(folder: &Path) -> (i32, String, String) {
    let (config, out) = (folder.join("etc/n1/holdfast.toml"), folder.join("out"));
    holdfast(&[
        OsStr::new("export"),
        OsStr::new("--config"),
        at(&config),
        OsStr::new("--out"),
        at(&out),
    ])
}

fn times(path: &Path) -> [(i64, i64); 2] {
    let meta = path.symlink_metadata().unwrap();
    [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec())]
}

fn assert_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes devices and sets owners: it needs root"
    );
}

#[test]
fn all_that_a_store_holds_comes_out() {
    assert_root();
    let mut node = Node::new();
    let dir = node.create(Ino::ROOT, "dir", libc::S_IFDIR | 0o2755, 0, "");
    let file = node.create(dir, "file", libc::S_IFREG | 0o640, 0, "");
    node.write(file, 0, b"begin".to_vec());
    node.write(file, 5 << 20, b"end".to_vec());
    node.do_it(&Op::Link {
        ino: file,
        parent: Ino::ROOT,
        name: "other name".into(),
    });
    node.do_it(&Op::SetXattr {
        ino: file,
        name: "user.note".into(),
        value: Bytes::from_static(b"x\0y"),
        how: SetXattr::Any,
        caller: Caller {
            uid: 0,
            gid: 0,
            umask: 0,
        },
    });
    let old = SetTime::To(Time {
        secs: 1_234_567_890,
        nanos: 987_654_321,
    });
    let set = SetAttr {
        mode: Some(0o4751),
        mtime: Some(old),
        ..SetAttr::default()
    };
    node.do_it(&Op::SetAttr { ino: file, set });
    node.create(dir, "link", libc::S_IFLNK, 0, "../no/where");
    node.create(dir, "pipe", libc::S_IFIFO | 0o600, 0, "");
    node.create(dir, "device", libc::S_IFCHR | 0o620, 0x0103, "");
    node.create(dir, "empty", libc::S_IFREG | 0o400, 0, "");
    let sparse = node.create(Ino::ROOT, "sparse", libc::S_IFREG | 0o644, 0, "");
    node.do_it(&Op::SetAttr {
        ino: sparse,
        set: SetAttr {
            size: Some(1 << 40),
            ..SetAttr::default()
        },
    });
    let large = node.create(Ino::ROOT, "large", libc::S_IFREG | 0o644, 0, "");
    let bytes: Vec<u8> = (0..3_000_001u32).map(|number| (number % 251) as u8).collect();
    for (number, piece) in bytes.chunks(700_000).enumerate() {
        node.write(large, number as u64 * 700_000, piece.to_vec());
    }
    for number in 0..1500 {
        node.create(
            dir,
            Box::leak(format!("many-{number}").into_boxed_str()),
            libc::S_IFREG | 0o600,
            0,
            "",
        );
    }
    node.stop();
    let last = node.entries.len();
    let (folder, (code, said, complaint)) = node.export();
    assert_eq!(code, 0, "{complaint}");
    assert!(
        said.contains(&format!("as of log entry {last}")) && said.contains("2 directories"),
        "{said}"
    );
    assert!(!complaint.contains("left out"), "{complaint}");

    let out = folder.path().join("out");
    let file = out.join("dir/file");
    let meta = file.metadata().unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.nlink()),
        (0o4751, 1000, 1001, 2)
    );
    assert_eq!(meta.ino(), out.join("other name").metadata().unwrap().ino());
    assert_eq!(times(&file)[1], (1_234_567_890, 987_654_321));
    assert!(
        meta.blocks() * 512 < 1 << 20,
        "the hole is kept: {} blocks",
        meta.blocks()
    );
    let content = fs::read(&file).unwrap();
    assert_eq!(
        (content.len(), &content[..5], &content[5 << 20..]),
        ((5 << 20) + 3, b"begin".as_slice(), b"end".as_slice())
    );
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&file, "user.note", &mut value).unwrap(), 3);
    assert_eq!(&value[..3], b"x\0y");
    let [_, modified] = times(&out.join("dir"));
    assert_eq!(
        modified,
        (NOW.secs, NOW.nanos.into()),
        "writing its entries didn't change a directory's time"
    );
    assert_eq!(times(&out.join("dir/link"))[1], (NOW.secs, NOW.nanos.into()));
    assert_eq!(out.join("dir").metadata().unwrap().mode() & 0o7777, 0o2755);
    assert_eq!(fs::read_link(out.join("dir/link")).unwrap(), Path::new("../no/where"));
    assert!(out.join("dir/pipe").metadata().unwrap().file_type().is_fifo());
    let device = out.join("dir/device").metadata().unwrap();
    assert!(device.file_type().is_char_device());
    assert_eq!(device.rdev(), 0x0103);
    assert_eq!(out.join("dir/empty").metadata().unwrap().len(), 0);
    let sparse = out.join("sparse").metadata().unwrap();
    assert_eq!((sparse.len(), sparse.blocks()), (1 << 40, 0));
    assert!(
        fs::read(out.join("large")).unwrap() == bytes,
        "the large file is the same"
    );
    assert_eq!(fs::read_dir(out.join("dir")).unwrap().count(), 1505);

    // A second one finds the first, and the daemon would still find its clean stop.
    let (code, _, complaint) = export(folder.path());
    assert_eq!(code, 1);
    assert!(complaint.contains("isn't empty"), "{complaint}");
    assert!(folder.path().join("store/clean-stop").exists());
}

#[test]
fn after_a_crash_the_committed_entries_are_redone_and_later_ones_left_out() {
    assert_root();
    let mut node = Node::new();
    let file = node.create(Ino::ROOT, "file", libc::S_IFREG | 0o644, 0, "");
    node.append(2);
    node.apply(2);
    checkpoint::run(&node.opened.store).unwrap();
    node.write(file, 0, vec![b'a'; 5000]);
    node.write(file, 100, vec![b'b'; 50]);
    node.append(4);
    // Written to the data file, but lost with the memory of the metadata store.
    node.opened
        .store
        .data
        .write(file, &[b'a'; 3000], 0, &mut AlignedBuf::default())
        .unwrap();
    node.create(Ino::ROOT, "unknown", libc::S_IFREG | 0o644, 0, "");
    node.append(4);
    let (folder, (code, said, complaint)) = node.export();
    assert_eq!(code, 0, "{complaint}");
    assert!(said.contains("as of log entry 4"), "{said}");
    assert!(complaint.contains("log entries 5 to 5 are left out"), "{complaint}");
    let content = fs::read(folder.path().join("out/file")).unwrap();
    assert_eq!(
        (content.len(), content[99], content[100], content[150]),
        (5000, b'a', b'b', b'a')
    );
    assert!(!folder.path().join("out/unknown").exists());
}

#[test]
fn a_damaged_block_is_told_and_the_rest_comes_out() {
    assert_root();
    let mut node = Node::new();
    let file = node.create(Ino::ROOT, "file", libc::S_IFREG | 0o644, 0, "");
    node.write(file, 0, vec![b'a'; 3 * BLOCK as usize]);
    node.create(Ino::ROOT, "sound", libc::S_IFREG | 0o644, 0, "");
    node.stop();
    File::options()
        .write(true)
        .open(node.store.join(data::path(file)))
        .unwrap()
        .write_at(b"X", BLOCK + 5)
        .unwrap();
    let (folder, (code, said, complaint)) = node.export();
    assert_eq!(code, 1);
    assert!(
        complaint.contains("/file: damaged: 1 of its blocks of 4096 bytes, at 4096:"),
        "{complaint}"
    );
    assert!(said.contains("2 other inodes"), "{said}");
    let content = fs::read(folder.path().join("out/file")).unwrap();
    assert_eq!(
        (content.len(), content[4096 + 5], content[4096 + 6]),
        (3 * BLOCK as usize, b'X', b'a')
    );
    assert!(folder.path().join("out/sound").exists());
}

/// Nobody else may have these files any more.
#[test]
fn what_can_t_be_opened_comes_out_as_it_lies_there() {
    assert_root();
    let damages: [&[&str]; 5] = [
        &["log/0000000000000001.seg"],
        &["log/format"],
        &["copying"],
        &["recovering.rest"],
        &["checkpoint.a", "checkpoint.b"],
    ];
    for damage in damages {
        let mut node = Node::new();
        let file = node.create(Ino::ROOT, "file", libc::S_IFREG | 0o644, 0, "");
        node.write(file, 0, vec![b'a'; 5000]);
        let applied = node.entries.len() as u64;
        node.stop();
        node.create(Ino::ROOT, "later", libc::S_IFREG | 0o644, 0, "");
        node.append(applied + 1);
        for path in damage {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(node.store.join(path));
            file.unwrap()
                .write_all_at(b"nothing that was ever written here", 0)
                .unwrap();
        }
        let (folder, (code, said, complaint)) = node.export();
        assert_eq!(code, 1, "{damage:?}: {said}");
        assert!(
            complaint.contains("exported as it lies there"),
            "{damage:?}: {complaint}"
        );
        assert!(said.contains(&format!("as of log entry {applied}")), "{said}");
        assert_eq!(fs::read(folder.path().join("out/file")).unwrap(), vec![b'a'; 5000]);
        assert!(!folder.path().join("out/later").exists());
    }
}

#[test]
fn a_store_in_use_or_none_at_all_is_refused() {
    let mut node = Node::new();
    node.stop();
    let lock = File::create(node.store.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let (folder, (code, _, complaint)) = node.export();
    assert_eq!(code, 1);
    assert!(
        complaint.contains("is in use") && complaint.contains("systemctl stop holdfast"),
        "{complaint}"
    );
    assert!(!folder.path().join("out").exists());
    drop(lock);
    fs::remove_file(folder.path().join("store/identity")).unwrap();
    let (code, _, complaint) = export(folder.path());
    assert_eq!(code, 1);
    assert!(complaint.contains("there is no store in"), "{complaint}");
}
