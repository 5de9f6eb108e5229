//! A whole store of format 2 as it was recorded: this software opens it, redoes what wasn't checkpointed, and finds what was stored.
//! One of the format before becomes one of this format, a later one is refused.

mod model;
mod node;
#[path = "../../tests/recorded.rs"]
mod recorded;

use bytes::Bytes;
use holdfast_storage::class::Class;
use holdfast_storage::data;
use holdfast_storage::digest;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use holdfast_storage::identity::{FORMAT, Identity};
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::meta::{Change, Meta};
use holdfast_storage::op::{Caller, Op, Reply, SetXattr};
use holdfast_storage::open;
use holdfast_storage::record::Inode;
use holdfast_storage::types::{Ino, Time};
use node::{Node, identity};
use std::collections::BTreeMap;

const FILE: &str = "store-2.txt";
const CALLER: Caller = Caller {
    uid: 1000,
    gid: 100,
    umask: 0o022,
};
const DIRECTORY: Ino = Ino(2);
const CALL: Ino = Ino(3);
const LINK: Ino = Ino(4);

fn now(secs: i64) -> Time {
    Time {
        secs: 1_700_000_000 + secs,
        nanos: 5,
    }
}

fn call() -> Vec<u8> {
    (0..9000u32).map(|at| (at / 7) as u8).collect()
}

fn create(parent: Ino, name: &'static str, mode: u32, target: &'static str, class: Option<Class>) -> Op {
    Op::Create {
        parent,
        name: name.into(),
        mode,
        rdev: 0,
        target: target.into(),
        class,
        caller: CALLER,
    }
}

/// A directory with a class, a file with a hole and an attribute, a link; the last two changes are in the log alone.
fn live() -> Node<SimDisk> {
    let mut node = Node::format(SimDisk::new(), now(0));
    let write = |offset, data: &[u8]| Op::Write {
        ino: CALL,
        offset,
        data: Bytes::copy_from_slice(data),
        clear_setid: false,
    };
    let attribute = Op::SetXattr {
        ino: CALL,
        name: "user.caller".into(),
        value: "42".into(),
        how: SetXattr::Any,
        caller: CALLER,
    };
    let first = [
        create(Ino::ROOT, "calls", libc::S_IFDIR | 0o755, "", Some(Class::Recordings)),
        create(DIRECTORY, "one.wav", libc::S_IFREG | 0o644, "", None),
        write(0, &call()),
        write(40_000, b"behind a hole"),
        attribute,
    ];
    let last = [
        create(DIRECTORY, "latest", libc::S_IFLNK | 0o777, "one.wav", None),
        write(4090, b"over a block's end"),
    ];
    let mut time = 0;
    let mut all = |node: &mut Node<SimDisk>, ops: &[Op]| {
        for op in ops {
            time += 1;
            node.propose(now(time), op).expect("nothing is in the way");
        }
        node.append().expect("the disk takes it");
    };
    all(&mut node, &first);
    node.apply(usize::MAX).expect("applies");
    node.checkpoint().expect("the disk takes it");
    all(&mut node, &last);
    open::mark_clean(&node.disk, node.logged()).expect("the disk takes it");
    node
}

fn files() -> Vec<String> {
    let top = ["identity", "checkpoint.a", "checkpoint.b", "clean-stop", "log/format"];
    let segments = [
        "log/0000000000000001.seg",
        "log/0001.free",
        "log/0002.free",
        "log/0003.free",
    ];
    let mut all: Vec<String> = top.iter().chain(&segments).map(ToString::to_string).collect();
    all.push(data::path(CALL));
    all
}

/// Files by `path:length`, without the zeros at their ends; keys by `meta:digits`.
fn recording(node: &Node<SimDisk>) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in files() {
        let file = node.disk.open(&path, OpenHow::default()).expect("it is there");
        let len = file.len().expect("reads");
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, 0).expect("reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        all.insert(format!("{path}:{len}"), bytes);
    }
    let mut each = |key: &[u8], value: &[u8]| {
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        all.insert(format!("meta:{digits}"), value.to_vec());
        true
    };
    node.meta.scan(b"", b"", &mut each).expect("reads");
    all
}

fn restored() -> (SimDisk, SimMeta) {
    let (disk, meta) = (SimDisk::new(), SimMeta::new());
    disk.create_dir("log").expect("a new disk");
    data::DataFiles::format(&disk).expect("a new disk");
    for (name, bytes) in recorded::read(FILE) {
        if let Some(digits) = name.strip_prefix("meta:") {
            let pairs = digits.as_bytes().chunks(2);
            let key: Vec<u8> = pairs
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            meta.write(vec![Change::Put(key.into(), bytes.into())])
                .expect("in memory");
            continue;
        }
        let (path, len) = name.rsplit_once(':').expect("a path and a length");
        put(&disk, path, &bytes, len.parse().expect("a length"));
    }
    meta.flush().expect("in memory");
    (disk, meta)
}

fn put(disk: &SimDisk, path: &str, bytes: &[u8], len: u64) {
    let how = OpenHow {
        create: true,
        direct: false,
    };
    let file = disk.open(path, how).expect("the folder is there");
    file.set_len(len).expect("there is room");
    file.write_at(bytes, 0).expect("there is room");
    file.sync_data().expect("there is room");
}

/// Opens it, does again what is only in the log, and looks.
fn is_as_it_was(disk: SimDisk, meta: SimMeta) -> Node<SimDisk> {
    let identity = Identity::read(&disk).expect("it is readable").expect("it is there");
    let mut node = Node::open_as(disk, meta, identity).expect("it opens");
    assert!(node.clean, "it was stopped in order");
    assert_eq!(node.torn, None);
    node.apply(usize::MAX).expect("its entries are readable");
    let store = &node.store;
    let (directory, inode) = store.lookup(Ino::ROOT, b"calls").expect("found");
    assert_eq!(
        (directory, inode.class, inode.own_class),
        (DIRECTORY, Class::Recordings, true)
    );
    assert_eq!(inode.btime, now(1));
    let (file, inode) = store.lookup(DIRECTORY, b"one.wav").expect("found");
    assert_eq!((file, inode.size, inode.uid), (CALL, 40_013, 1000));
    let mut expected = call();
    expected[4090..4108].copy_from_slice(b"over a block's end");
    assert_eq!(store.read(CALL, 0, 9000).expect("its blocks are sound"), expected);
    assert_eq!(
        store.read(CALL, 39_995, 100).expect("sound"),
        &b"\0\0\0\0\0behind a hole"[..]
    );
    let attributes = store.xattrs(CALL).expect("readable");
    assert_eq!(attributes.0.get(&b"user.caller"[..]), Some(&Bytes::from_static(b"42")));
    let (link, inode) = store.lookup(DIRECTORY, b"latest").expect("found");
    assert_eq!((link, &inode.target[..]), (LINK, &b"one.wav"[..]));
    assert_eq!(digest::verify(&node.meta).expect("readable"), None);
    node
}

#[test]
fn a_recorded_store_is_what_it_was() {
    let (disk, meta) = restored();
    is_as_it_was(disk, meta);
}

/// A node of the release before reads what this one writes.
#[test]
fn what_is_written_today_is_what_was_recorded() {
    assert_eq!(recording(&live()), recorded::read(FILE));
}

/// Format 1 had inodes without a class and flags, and no digest.
#[test]
fn a_store_of_the_format_before_becomes_one_of_this() {
    let (disk, meta) = restored();
    let mut older = vec![Change::Delete(Bytes::from_static(b"z digest"))];
    let mut each = |key: &[u8], value: &[u8]| {
        if key.len() == 9 && key[0] == b'i' {
            let value = [&[1], &value[1..101], &value[103..]].concat();
            older.push(Change::Put(Bytes::copy_from_slice(key), value.into()));
        }
        true
    };
    meta.scan(b"i", b"i", &mut each).expect("reads");
    let root = |meta: &SimMeta| {
        meta.get(&holdfast_storage::key::inode(Ino::ROOT))
            .expect("reads")
            .expect("there")
    };
    let before = Inode::decode(&root(&meta)).expect("of version 2");
    meta.write(older).expect("in memory");
    assert_eq!(root(&meta)[0], 1);
    assert_eq!(
        Inode::decode(&root(&meta)),
        Ok(before),
        "the root has no class of its own"
    );
    let text = identity_of(FORMAT - 1);
    put(&disk, "identity", text.as_bytes(), text.len() as u64);
    let identity = Identity::read(&disk)
        .expect("the format before is read")
        .expect("there");
    let mut node = Node::open_as(disk.clone(), meta, identity.clone()).expect("it opens");
    let (file, inode) = node.store.lookup(DIRECTORY, b"one.wav").expect("found");
    assert_eq!((file, inode.size, inode.class), (CALL, 40_013, Class::Default));
    node.apply(usize::MAX).expect("its entries are readable");
    let done = node.propose(now(20), &create(DIRECTORY, "two.wav", libc::S_IFREG | 0o600, "", None));
    assert!(matches!(done, Ok(Reply::Inode(Ino(5), _))));
    node.append().expect("the disk takes it");
    node.apply(usize::MAX).expect("applies");
    assert_eq!(digest::verify(&node.meta).expect("readable"), None);
    assert!(text_of(&disk).starts_with(&format!("holdfast store, format {FORMAT}\n")));
    assert_eq!(Identity::read(&disk).expect("readable"), Some(identity));
}

fn text_of(disk: &SimDisk) -> String {
    let file = disk.open("identity", OpenHow::default()).expect("there");
    let mut text = vec![0; file.len().expect("reads") as usize];
    file.read_at(&mut text, 0).expect("reads");
    String::from_utf8(text).expect("a text")
}

/// The recorded one, of another format.
fn identity_of(format: u32) -> String {
    let (disk, _) = restored();
    let text = text_of(&disk);
    let (body, _) = text.rsplit_once("blake3 ").expect("a checksum");
    let body = body.replacen(&format!("format {FORMAT}"), &format!("format {format}"), 1);
    format!("{body}blake3 {}\n", blake3::hash(body.as_bytes()).to_hex())
}

#[test]
fn other_formats_are_refused_with_a_way() {
    for (format, way) in [
        (
            FORMAT + 1,
            "start the version of holdfast that wrote it, or a later one",
        ),
        (FORMAT - 2, "upgrade one release at a time"),
    ] {
        let (disk, _) = restored();
        let text = identity_of(format);
        put(&disk, "identity", text.as_bytes(), text.len() as u64);
        let why = Identity::read(&disk).unwrap_err().to_string();
        let formats = format!(
            "has format {format}, this software reads formats {} and {FORMAT}",
            FORMAT - 1
        );
        assert!(why.contains(&formats) && why.contains(way), "{why}");
    }
}

#[test]
#[ignore = "records a store where none is recorded"]
fn a_store_is_recorded() {
    let all = recording(&live());
    let all: Vec<_> = all.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    assert_eq!(Identity::read(&live().disk).expect("readable"), Some(identity()));
    recorded::add(FILE, &all);
}
