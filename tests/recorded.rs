//! Bytes that were recorded once, as lines of a name and hexadecimal digits: what a node of the release before sends, or has left on
//! a disk. A module of several crates' tests.
//!
//! A line is never changed: whoever does breaks the upgrade that it stands for. What is new gets a line of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file)
}

fn byte(digits: &[u8]) -> u8 {
    let digits = std::str::from_utf8(digits).expect("hexadecimal digits");
    u8::from_str_radix(digits, 16).expect("hexadecimal digits")
}

pub(crate) fn read(file: &str) -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(path(file)).expect("the recorded bytes");
    let line = |line: &str| {
        let (name, digits) = line.split_once(' ').expect("a name and digits");
        (name.to_owned(), digits.as_bytes().chunks(2).map(byte).collect())
    };
    text.lines().map(line).collect()
}

/// Adds lines for what has none.
pub(crate) fn add(file: &str, all: &[(&str, Vec<u8>)]) {
    let mut text = std::fs::read_to_string(path(file)).unwrap_or_default();
    for (name, bytes) in all {
        if !text
            .lines()
            .any(|line| line.split_once(' ').is_some_and(|(known, _)| known == *name))
        {
            write!(text, "{name} ").expect("writing to a String");
            for byte in bytes {
                write!(text, "{byte:02x}").expect("writing to a String");
            }
            text.push('\n');
        }
    }
    std::fs::write(path(file), text).expect("the recorded bytes can be written");
}

#[allow(dead_code, reason = "not each test names what it records")]
/// Every one is recorded, and what is recorded is among them.
pub(crate) fn same_names<'a>(recorded: &BTreeMap<String, Vec<u8>>, names: impl Iterator<Item = &'a str>) {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let known: Vec<&str> = recorded.keys().map(String::as_str).collect();
    assert_eq!(known, names, "run the ignored test that records what is new");
}
