use crate::fixture::{Fixture, errno, eventually};
use holdfast_replicator::api::{Failure, Wait};
use holdfast_storage::op::Refusal;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

fn read_write(path: &std::path::Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

#[test]
fn bytes_are_read_as_they_were_written() {
    let fs = Fixture::new();
    let data: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(fs.path("a"), &data).unwrap();
    assert!(fs::read(fs.path("a")).unwrap() == data);
    let file = read_write(&fs.path("a"));
    file.write_at(b"middle", 1_048_570).unwrap();
    drop_caches();
    let mut part = [0; 16];
    file.read_exact_at(&mut part, 1_048_565).unwrap();
    assert_eq!(&part[5..11], b"middle");
    assert_eq!(part[0], data[1_048_565]);
    let stat = fs::metadata(fs.path("a")).unwrap();
    assert_eq!(
        (stat.len(), stat.blocks()),
        (5_000_000, 5_000_000_u64.div_ceil(4096) * 8)
    );
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
fn appends_of_two_processes_are_all_there() {
    let fs = Fixture::new();
    let script = r#"i=0; while [ $i -lt 400 ]; do echo "$1 $i"; i=$((i+1)); done >> "$0""#;
    let start = |who| {
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(fs.path("log"))
            .arg(who)
            .spawn()
            .unwrap()
    };
    let (mut one, mut two) = (start("one"), start("two"));
    assert!(one.wait().unwrap().success() && two.wait().unwrap().success());
    let text = fs::read_to_string(fs.path("log")).unwrap();
    for who in ["one", "two"] {
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(who)).collect();
        assert_eq!(lines, (0..400).map(|i| format!(" {i}")).collect::<Vec<_>>());
    }
}

#[test]
fn truncating_shows_zeros_later() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, [7; 10_000]).unwrap();
    let file = read_write(&path);
    file.set_len(5000).unwrap();
    file.set_len(9000).unwrap();
    drop_caches();
    let all = fs::read(&path).unwrap();
    assert!(all.len() == 9000 && all[..5000] == [7; 5000] && all[5000..] == [0; 4000]);
    drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"");
    assert_eq!(errno(file.set_len(i64::MAX as u64)), libc::EFBIG);
}

#[test]
fn direct_io_sees_what_cached_io_wrote() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, [1; 8192]).unwrap();
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .unwrap();
    let cached = File::open(&path).unwrap();
    let mut block = [0; 4096];
    cached.read_exact_at(&mut block, 4096).unwrap();
    direct.read_exact_at(&mut block, 4096).unwrap();
    assert_eq!(block, [1; 4096]);
    direct.write_all_at(&[2; 4096], 4096).unwrap();
    cached.read_exact_at(&mut block, 4096).unwrap();
    assert_eq!(block, [2; 4096]);
    direct.write_all_at(&[3; 100], 8192).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 8292);
}

#[test]
fn a_shared_mapping_is_written_back() {
    for flags in [0, libc::O_DIRECT] {
        let fs = Fixture::new();
        let path = fs.path("a");
        fs::write(&path, [0; 8192]).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&path)
            .unwrap();
        // SAFETY: a new mapping of 8 KiB at an address of the kernel's choice, used within and ended below.
        unsafe {
            let at = mmap(
                std::ptr::null_mut(),
                8192,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            );
            let at = at.unwrap();
            at.cast::<u8>().add(5000).copy_from(b"mapped".as_ptr(), 6);
            msync(at, 8192, MsyncFlags::SYNC).unwrap();
            munmap(at, 8192).unwrap();
        }
        drop_caches();
        assert_eq!(&fs::read(&path).unwrap()[5000..5006], b"mapped");
    }
}

#[test]
fn preallocating_punching_and_zeroing() {
    let fs = Fixture::new();
    let path = fs.path("a");
    fs::write(&path, [9; 16384]).unwrap();
    let file = read_write(&path);
    let call = |flags, offset, len| fallocate(&file, flags, offset, len).map_err(io::Error::from);
    call(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 4096).unwrap();
    call(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 10_000, 100).unwrap();
    let all = fs::read(&path).unwrap();
    assert!(all[..4096] == [9; 4096] && all[4096..8192] == [0; 4096] && all[8192..10_000] == [9; 1808]);
    assert!(all[10_000..10_100] == [0; 100] && all[10_100..] == [9; 6284]);
    call(FallocateFlags::KEEP_SIZE, 16384, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 16384);
    call(FallocateFlags::empty(), 16384, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 20480);
    assert_eq!(errno(call(FallocateFlags::COLLAPSE_RANGE, 0, 4096)), libc::EOPNOTSUPP);
}

#[test]
fn holes_can_be_sought() {
    let fs = Fixture::new();
    let file = read_write(&fs.path("a"));
    file.write_all_at(&[1; 4096], 8192).unwrap();
    file.set_len(65536).unwrap();
    let seek = |to| seek(&file, to).map_err(io::Error::from);
    assert_eq!(seek(SeekFrom::Data(0)).unwrap(), 8192);
    assert_eq!(seek(SeekFrom::Hole(0)).unwrap(), 0);
    assert_eq!(seek(SeekFrom::Hole(8192)).unwrap(), 12288);
    assert_eq!(errno(seek(SeekFrom::Data(12288))), libc::ENXIO);
    assert_eq!(errno(seek(SeekFrom::Hole(65536))), libc::ENXIO);
}

#[test]
fn synchronous_writes_wait_until_committed() {
    let fs = Fixture::new();
    let path = fs.path("a");
    let mut plain = File::create(&path).unwrap();
    plain.write_all(b"x").unwrap();
    assert_eq!(fs.backend.waits().last(), Some(&Wait::Received));
    for flags in [libc::O_SYNC, libc::O_DSYNC, libc::O_DSYNC | libc::O_DIRECT] {
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(&path).unwrap();
        file.write_all(b"y").unwrap();
        assert_eq!(fs.backend.waits().last(), Some(&Wait::Committed));
    }
    plain.sync_all().unwrap();
    plain.sync_data().unwrap();
    File::open(fs.path(".")).unwrap().sync_all().unwrap();
}

#[test]
fn files_are_copied_by_the_kernel() {
    let fs = Fixture::new();
    fs::write(fs.path("a"), [5; 100_000]).unwrap();
    // std copies by copy_file_range, and falls back.
    fs::copy(fs.path("a"), fs.path("b")).unwrap();
    assert_eq!(fs::read(fs.path("b")).unwrap(), [5; 100_000]);
}

#[test]
fn the_far_end_of_a_file_can_be_written() {
    let fs = Fixture::new();
    let file = read_write(&fs.path("a"));
    let far = (1 << 44) - 3 * 4096;
    file.write_all_at(b"far", far).unwrap();
    let mut part = [0; 3];
    file.read_exact_at(&mut part, far).unwrap();
    assert_eq!((&part, file.metadata().unwrap().len()), (b"far", far + 3));
    // Beyond what each store can take, though the kernel would still address it.
    assert_eq!(errno(file.write_at(b"xy", (1 << 44) - 2 * 4096)), libc::EFBIG);
    assert_eq!(errno(file.set_len(1 << 44)), libc::EFBIG);
    assert_eq!(errno(file.write_at(b"xy", i64::MAX as u64 - 4000)), libc::EFBIG);
}

/// A page of a shared mapping, ended at its drop.
struct Page(*mut std::ffi::c_void);

impl Page {
    fn of(file: &File) -> Self {
        // SAFETY: a new mapping at an address of the kernel's choice, used only through this value.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        Self(at.unwrap())
    }

    fn store(&self, byte: u8) {
        // SAFETY: the mapping is there as long as this value.
        unsafe { self.0.cast::<u8>().write_volatile(byte) }
    }

    fn sync(&self) -> rustix::io::Result<()> {
        // SAFETY: as above.
        unsafe { msync(self.0, 4096, MsyncFlags::SYNC) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: nothing uses the mapping after this.
        let _gone = unsafe { munmap(self.0, 4096) };
    }
}

#[test]
fn no_fsync_says_yes_to_what_could_not_be_written_back() {
    const NO_ROOM: Failure = Failure::Refused(Refusal::NoSpace);
    let fs = Fixture::new();
    let path = fs.path("mapped");
    fs::write(&path, [1; 4096]).unwrap();
    let file = read_write(&path);
    let page = Page::of(&file);
    page.store(2);
    fs.backend.fail_next(NO_ROOM);
    page.sync().unwrap_err();
    for _again in 0..3 {
        // The kernel's own word comes first, once or more often for each open file.
        file.sync_all().unwrap_err();
        read_write(&path).sync_data().unwrap_err();
        page.sync().unwrap_err();
    }
    // Everyone has closed it, and was told: whoever comes now starts with what is stored.
    drop((page, file));
    eventually("a file that nobody has open starts afresh", || {
        read_write(&path).sync_all().is_ok()
    });
    // Nobody has asked: whoever asks first is told, as PostgreSQL's checkpointer does for what others wrote.
    fs.backend.fail_next(NO_ROOM);
    // Ending a mapping writes it back under the lock of the process's memory, which this process needs to answer.
    let store = "import mmap, sys; file = open(sys.argv[1], 'r+b'); mmap.mmap(file.fileno(), 4096)[0] = 3";
    let stored = Command::new("python3").args(["-c", store]).arg(&path).output().unwrap();
    assert_eq!(stored.stderr, b"");
    read_write(&path).sync_all().unwrap_err();
    eventually("it was told", || read_write(&path).sync_all().is_ok());
}
