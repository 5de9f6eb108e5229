use crate::fixture::Fixture;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::process::Command;

const MANY: usize = 10_000;

fn names(path: &std::path::Path) -> Vec<String> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn fill(fs: &Fixture) -> BTreeSet<String> {
    let all: BTreeSet<_> = (0..MANY).map(|number| format!("file-{number:05}")).collect();
    all.iter().for_each(|name| drop(File::create(fs.path(name)).unwrap()));
    all
}

#[test]
fn ten_thousand_entries_are_each_shown_once_while_they_are_removed() {
    let fs = Fixture::new();
    let all = fill(&fs);
    let seen = names(&fs.path("."));
    assert_eq!(seen.len(), MANY);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);

    let mut removed = BTreeSet::new();
    for entry in fs::read_dir(fs.path(".")).unwrap() {
        let entry = entry.unwrap();
        fs::remove_file(entry.path()).unwrap();
        assert!(removed.insert(entry.file_name().into_string().unwrap()), "shown twice");
    }
    assert_eq!(removed, all);
    assert_eq!(names(&fs.path(".")), Vec::<String>::new());
    crate::fixture::eventually("all are reaped", || fs.backend.inodes() == 1);
}

#[test]
fn listing_with_attributes_shows_what_stat_shows() {
    let fs = Fixture::new();
    for number in 0..200 {
        fs::write(fs.path(&format!("f{number}")), vec![0; number]).unwrap();
    }
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    for entry in fs::read_dir(fs.path(".")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let stat = entry.metadata().unwrap();
        assert_eq!(
            (stat.ino(), stat.len().to_string()),
            (entry.ino(), name[1..].to_owned())
        );
    }
    // What the listing told the kernel of is forgotten again, and then reaped.
    (0..200).for_each(|number| fs::remove_file(fs.path(&format!("f{number}"))).unwrap());
    crate::fixture::eventually("all are reaped", || fs.backend.inodes() == 1);
}

#[test]
fn dots_lead_where_they_should() {
    let fs = Fixture::new();
    fs::create_dir_all(fs.path("a/b")).unwrap();
    let listed = Command::new("ls").args(["-aif"]).arg(fs.path("a/b")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ino = |name: &str| fs::metadata(fs.path(name)).unwrap().ino().to_string();
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(
        lines.contains(&vec![ino("a/b").as_str(), "."]) && lines.contains(&vec![ino("a").as_str(), ".."]),
        "{listed}"
    );
}

#[test]
fn what_tar_packs_it_unpacks() {
    let fs = Fixture::new();
    fs::create_dir(fs.path("in")).unwrap();
    let script = "cd \"$0\" && cp -a /usr/include/linux in/ 2>/dev/null || cp -a /etc in/; \
                  mkdir out && tar -C in -cf - . | tar -C out -xpf - && diff -r in out && rm -rf in out";
    assert!(
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(fs.path("."))
            .status()
            .unwrap()
            .success()
    );
    crate::fixture::eventually("all are reaped", || fs.backend.inodes() == 1);
}

#[test]
fn who_replaces_each_file_while_reading_comes_to_an_end() {
    let fs = Fixture::new();
    for number in 0..300 {
        fs::write(fs.path(&number.to_string()), "old").unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(fs.path(".")).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new").unwrap();
        seen += 1;
        assert!(seen <= 300, "new entries are shown to who made them, for ever");
    }
    assert_eq!(seen, 300);
    // Who begins anew sees what has come since, also through the same descriptor.
    let mut reader = rustix::fs::Dir::new(File::open(fs.path(".")).unwrap()).unwrap();
    assert_eq!(reader.by_ref().count(), 302);
    fs::write(fs.path("late"), "").unwrap();
    reader.rewind();
    assert_eq!(reader.by_ref().count(), 303);
}
