//! The binary `holdfast`, as an operator calls it.

mod daemon;
mod init;
mod questions;

use std::path::Path;
use std::process::{Command, Output};

fn holdfast(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args(arguments).env_remove("HOLDFAST_SOCKET").output().unwrap()
}

fn at(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The exit code, what was printed, and what was complained about.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().expect("an exit code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}
