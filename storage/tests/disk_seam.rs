//! Both disks keep what the seam promises; the simulated one also keeps it across crashes.

use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use std::io::ErrorKind;

const MADE: OpenHow = OpenHow {
    create: true,
    direct: false,
};
const DIRECT: OpenHow = OpenHow {
    create: true,
    direct: true,
};

fn all(file: &impl DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().expect("has a length") as usize + 10];
    let count = file.read_at(&mut bytes, 0).expect("reads");
    bytes.truncate(count);
    bytes
}

fn keeps_the_seam(disk: &impl Disk) {
    assert_eq!(
        disk.open("a", OpenHow::default()).err().map(|error| error.kind()),
        Some(ErrorKind::NotFound)
    );
    disk.create_dir("d").expect("made");
    disk.create_dir("d").expect("is there already");
    let file = disk.open("d/a", MADE).expect("made");
    file.write_synced(b"hello", 3).expect("written");
    assert_eq!(all(&file), b"\0\0\0hello");
    file.set_len(5).expect("shorter");
    file.set_len(7).expect("longer");
    assert_eq!(all(&file), b"\0\0\0he\0\0");
    file.write_at(&[1; 20_000], 0).expect("written");
    file.punch(4096, 8192).expect("punched");
    let bytes = all(&file);
    assert!(bytes[4096..12_288].iter().all(|byte| *byte == 0) && bytes[12_288] == 1 && bytes.len() == 20_000);
    file.reserve(0, 1 << 20).expect("reserved");
    assert_eq!(file.len().expect("has a length"), 20_000);
    file.sync_data().expect("synced");
    disk.rename("d/a", "d/b").expect("renamed");
    disk.sync_dir("d").expect("synced");
    disk.sync_dir("").expect("synced");
    disk.sync_all().expect("synced");
    assert_eq!(disk.list("d").expect("listed"), ["b"]);
    let direct = disk.open("d/direct", DIRECT).expect("made");
    let mut buffer = AlignedBuf::zeroed(8192);
    buffer.fill(7);
    direct.write_synced(&buffer, 4096).expect("written");
    buffer.fill(0);
    assert_eq!(direct.read_at(&mut buffer, 8192).expect("reads"), 4096);
    assert_eq!((buffer[4095], buffer[4096]), (7, 0));
    assert!(
        direct.write_synced(&buffer[1..4097], 0).is_err(),
        "memory must be aligned"
    );
    disk.remove("d/b").expect("removed");
    assert!(disk.remove("d/b").is_err());
    assert_eq!(file.read_at(&mut [0; 4], 0).expect("still open"), 4);
    assert!(disk.space().expect("told").free > 0);
}

#[test]
fn the_machine_s_disk_keeps_the_seam() {
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    keeps_the_seam(&RealDisk::open(folder.path()).expect("opens"));
}

#[test]
fn the_simulated_disk_keeps_the_seam() {
    keeps_the_seam(&SimDisk::new());
}

/// What is left of two overwritten sectors, and whether a second name is there, over many crashes.
fn leftovers(sync: impl Fn(&SimDisk, &<SimDisk as Disk>::File)) -> Vec<(Vec<u8>, bool)> {
    let after = |seed| {
        let disk = SimDisk::new();
        let file = disk.open("a", MADE).expect("made");
        file.write_at(&[1; 1024], 0).expect("written");
        disk.sync_all().expect("synced");
        file.write_at(&[2; 1024], 0).expect("written");
        disk.open("b", MADE).expect("made");
        sync(&disk, &file);
        disk.crash(seed);
        assert!(file.len().is_err(), "files opened before a crash are dead");
        let bytes = all(&disk.open("a", OpenHow::default()).expect("its name was synced"));
        (
            vec![bytes[0], bytes[511], bytes[512], bytes[1023]],
            disk.open("b", OpenHow::default()).is_ok(),
        )
    };
    (0..200).map(after).collect()
}

#[test]
fn an_unsynced_write_is_kept_lost_or_torn_between_sectors() {
    let seen = leftovers(|_, _| {});
    for bytes in [[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 2, 2], [2, 2, 1, 1]] {
        assert!(seen.iter().any(|(found, _)| found[..] == bytes));
    }
    assert!(
        seen.iter()
            .all(|(found, _)| found[0] == found[1] && found[2] == found[3])
    );
    assert!(seen.iter().any(|(_, named)| *named) && seen.iter().any(|(_, named)| !*named));
}

#[test]
fn what_was_synced_is_kept_and_only_that() {
    let data = leftovers(|_, file| file.sync_data().expect("synced"));
    assert!(data.iter().all(|(found, _)| found[..] == [2, 2, 2, 2]));
    assert!(data.iter().any(|(_, named)| !*named));
    let names = leftovers(|disk, _| disk.sync_dir("").expect("synced"));
    assert!(names.iter().all(|(_, named)| *named));
    assert!(names.iter().any(|(found, _)| found[0] == 1));
}

#[test]
fn a_crash_is_the_same_for_the_same_seed() {
    assert_eq!(leftovers(|_, _| {}), leftovers(|_, _| {}));
}

#[test]
fn the_call_that_crashes_is_the_last_one() {
    let disk = SimDisk::new();
    let file = disk.open("a", MADE).expect("made");
    disk.fail_after(1);
    file.write_at(b"x", 0).expect("the one that works");
    assert!(file.sync_data().is_err());
    assert!(file.len().is_err() && disk.list("").is_err() && disk.open("a", MADE).is_err());
    disk.crash(1);
    disk.open("a", MADE).expect("works again");
}

#[test]
fn a_full_disk_refuses_what_needs_more() {
    let disk = SimDisk::new();
    let file = disk.open("a", MADE).expect("made");
    disk.full(8192);
    file.write_at(&[1; 8192], 0).expect("fits");
    assert_eq!(
        file.write_at(&[1], 8192).err().and_then(|error| error.raw_os_error()),
        Some(libc::ENOSPC)
    );
    file.write_at(&[2; 100], 50).expect("takes nothing more");
    file.punch(0, 4096).expect("punched");
    file.write_at(&[1], 8192).expect("fits again");
    disk.remove("a").expect("removed");
    assert_eq!(disk.space().expect("told").free, 8192);
}

#[test]
fn held_syncs_return_when_released_and_are_not_stable_before() {
    let disk = SimDisk::new();
    let file = disk.open("a", MADE).expect("made");
    disk.sync_all().expect("synced");
    disk.hold_syncs(true);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| file.write_synced(b"x", 0));
        while file.len().expect("alive") == 0 {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        disk.hold_syncs(false);
        waiting.join().expect("no panic").expect("synced");
    });
}
