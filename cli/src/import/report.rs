//! What a pass has done and what it couldn't do.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::amount;
use crate::words::count;

/// Problems that are printed; the report's file has all.
const SHOWN: usize = 10;

#[derive(Default)]
pub(super) struct Report {
    pub(super) directories: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) removed: AtomicU64,
    /// Bytes that were written: of a file that had changed, only what differed.
    pub(super) written: AtomicU64,
    /// Files whose copy was read back and compared by hash in this pass.
    pub(super) verified: AtomicU64,
    /// Files that agreed in size and time with a copy that was verified when it was made.
    pub(super) unchanged: AtomicU64,
    /// Files that changed while they were copied, by their path.
    changing: Mutex<Vec<String>>,
    problems: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
    /// Copies of directories on which another file system is mounted.
    volumes: Mutex<Vec<PathBuf>>,
}

pub(super) fn add(to: &AtomicU64, number: u64) {
    to.fetch_add(number, Ordering::Relaxed);
}

fn get(from: &AtomicU64) -> u64 {
    from.load(Ordering::Relaxed)
}

fn locked(list: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    list.lock().expect("no panic under the lock")
}

impl Report {
    pub(super) fn problem(&self, path: &Path, what: &str) {
        locked(&self.problems).push(format!("{}: {what}", path.display()));
    }

    pub(super) fn note(&self, path: &Path, what: &str) {
        locked(&self.notes).push(format!("{}: {what}", path.display()));
    }

    pub(super) fn changing(&self, path: &Path) {
        locked(&self.changing).push(path.display().to_string());
    }

    pub(super) fn volume(&self, copy: &Path) {
        self.volumes
            .lock()
            .expect("no panic under the lock")
            .push(copy.to_owned());
    }

    pub(super) fn volumes(&self) -> Vec<PathBuf> {
        self.volumes.lock().expect("no panic under the lock").clone()
    }

    pub(super) fn is_whole(&self) -> bool {
        locked(&self.problems).is_empty() && locked(&self.changing).is_empty()
    }

    pub(super) fn lines(&self) -> String {
        let mut out = String::new();
        for (kind, list) in [
            ("problem", &self.problems),
            ("changing", &self.changing),
            ("note", &self.notes),
        ] {
            for line in locked(list).iter() {
                out.push_str(&format!("{kind}\t{line}\n"));
            }
        }
        out
    }

    pub(super) fn text(&self, last: bool, source: &Path, file: Option<&Path>) -> String {
        let mut out = format!(
            "{}, {}, {} and {} are there; {} written, {} verified by hash, {} unchanged since that was done, {} removed\n",
            count_of(get(&self.directories), "directory", "directories"),
            count(get(&self.files), "file"),
            count(get(&self.links), "further name"),
            count(get(&self.others), "link, pipe, socket or device").replace("devices", "device"),
            amount(get(&self.written)),
            count(get(&self.verified), "file"),
            get(&self.unchanged),
            get(&self.removed),
        );
        out.push_str(&self.found(file));
        let (problems, changing) = (locked(&self.problems), locked(&self.changing));
        out.push_str(&match (last, problems.is_empty(), changing.is_empty()) {
            (true, true, true) => "Everything is as in the source, and on two disks. The source is as it was: keep it until \
                 you are sure; `holdfast export` is the way back later. Now start the PBX on the mount, and let `holdfast \
                 check` compare the replicas.\n"
                .to_owned(),
            (true, true, false) => format!(
                "Not final: something still writes to {}. Stop the PBX there, then call this once more.\n",
                source.display()
            ),
            (false, true, _) => format!(
                "When you are ready: stop the PBX, then the same once more with --final, which copies from {} only what has changed.\n",
                source.display()
            ),
            (_, false, _) => "Not everything could be brought in: see above. Mend it and call this once more; it copies only \
                 what is missing.\n"
                .to_owned(),
        });
        out
    }

    /// What an operator should know of, also of a pass that ended early.
    pub(super) fn found(&self, file: Option<&Path>) -> String {
        let mut out = String::new();
        let (problems, changing, notes) = (locked(&self.problems), locked(&self.changing), locked(&self.notes));
        for (what, list) in [("not as in the source", &problems), ("noticed", &notes)] {
            for line in list.iter().take(SHOWN) {
                out.push_str(&format!("{what}: {line}\n"));
            }
            if list.len() > SHOWN {
                out.push_str(&format!("{what}: {} more\n", list.len() - SHOWN));
            }
        }
        if !changing.is_empty() {
            out.push_str(&format!(
                "changed while they were copied: {}, such as {}\n",
                count(changing.len() as u64, "file"),
                changing[0]
            ));
        }
        if let Some(file) = file {
            out.push_str(&format!("all of it, a line each: {}\n", file.display()));
        }
        out
    }
}

fn count_of(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
