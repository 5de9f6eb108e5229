//! A mount in a folder of its own; both go when it is dropped, also when a test fails.

use crate::memory::{Memory, now_ms};
use holdfast_fuse_mount::{Mounted, Options, unseal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) backend: Memory,
    pub(crate) mounted: Option<Mounted>,
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Options {
            deadline: Duration::from_secs(20),
            ..Options::default()
        })
    }

    pub(crate) fn with(options: Options) -> Self {
        let mut fixture = Self {
            backend: Memory::new(),
            mounted: None,
            folder: folder(),
        };
        let mounted = Mounted::active(&fixture.path("."), Arc::new(fixture.backend.clone()), options);
        fixture.mounted = Some(mounted.expect("these tests need root and /dev/fuse"));
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let point = self.folder.path().join("mnt");
        if name == "." { point } else { point.join(name) }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.backend.resume();
        drop(self.mounted.take());
        open_folder(&self.path("."));
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("holdfast-mount-").tempdir().unwrap()
}

/// An immutable directory can't be removed.
pub(crate) fn open_folder(path: &Path) {
    if let Err(error) = unseal(path) {
        eprintln!("{} stays behind: {error}", path.display());
    }
}

/// Waits for what happens on its own, such as the kernel's forgetting.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let (_keep, never) = mpsc::channel::<()>();
    let end = now_ms() + 5000;
    while !holds() {
        assert!(now_ms() < end, "not within 5 s: {what}");
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
}

/// The number of the error that a call failed with.
pub(crate) fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("this must fail"),
        Err(error) => error.raw_os_error().expect("an error of the kernel"),
    }
}
