use crate::fixture::{errno, folder, open_folder};
use holdfast_fuse_mount::Mounted;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

struct Standby {
    point: PathBuf,
    mounted: Option<Mounted>,
    _folder: tempfile::TempDir,
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.mounted.take());
        open_folder(&self.point);
    }
}

#[test]
fn a_standby_says_where_the_data_are_and_nothing_else() {
    let notice = Arc::new(Mutex::new("not active here; active is n2".to_owned()));
    let said = Arc::clone(&notice);
    let folder = folder();
    let point = folder.path().join("mnt");
    let mounted = Mounted::standby(&point, Arc::new(move || said.lock().unwrap().clone())).unwrap();
    let standby = Standby {
        point,
        mounted: Some(mounted),
        _folder: folder,
    };
    let file = standby.point.join("NOT-ACTIVE-HERE");

    let listed: Vec<_> = fs::read_dir(&standby.point)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(listed, ["NOT-ACTIVE-HERE"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "not active here; active is n2\n");
    "not active here; the active node is not known since 12:03:07".clone_into(&mut notice.lock().unwrap());
    assert!(fs::read_to_string(&file).unwrap().ends_with("since 12:03:07\n"));

    assert_eq!(errno(fs::metadata(standby.point.join("postgresql"))), libc::EAGAIN);
    assert_eq!(errno(fs::write(&file, "x")), libc::EROFS);
    assert_eq!(errno(fs::remove_file(&file)), libc::EROFS);
    assert_eq!(errno(fs::create_dir(standby.point.join("postgresql"))), libc::EAGAIN);
}
