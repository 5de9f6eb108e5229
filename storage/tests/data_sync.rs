//! A checkpoint goes by what `DataFiles::sync` says is stable.

use holdfast_storage::data::DataFiles;
use holdfast_storage::disk::Disk;
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::sim::SimDisk;
use holdfast_storage::types::Ino;

/// Of many files so many are removed again that few are left to sync.
#[test]
fn what_is_left_of_many_changed_files_is_synced() {
    for (changed, removed) in [(3, 0), (64, 10), (70, 0), (70, 10), (200, 190), (200, 199)] {
        let disk = SimDisk::new();
        DataFiles::format(&disk).unwrap();
        disk.sync_dir("").unwrap();
        let data = DataFiles::new(disk.clone());
        let mut scratch = AlignedBuf::default();
        for ino in 0..changed {
            data.write(Ino(ino + 2), b"acknowledged", 0, &mut scratch).unwrap();
        }
        for ino in 0..removed {
            data.remove(Ino(ino + 2)).unwrap();
        }
        data.sync().unwrap();
        disk.crash(changed);
        let again = DataFiles::new(disk);
        for ino in removed..changed {
            let mut found = [0; 12];
            again.read(Ino(ino + 2), &mut found, 0).unwrap();
            assert_eq!(&found, b"acknowledged", "file {ino} of {changed}, {removed} removed");
        }
    }
}
