//! Writing to the terminal or into a pipe, whose reader may leave at any time.

use std::io::{self, ErrorKind, IsTerminal, Write};

use crate::error::{Error, Result};

/// Whether somebody still reads what we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// Writes all of it at once. A reader that left (`holdfast status | head -1`) is no error.
pub fn print(text: &str) -> Result<Reader> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Error::Output(error)),
    }
}

/// A line on stderr; if that is gone too there is nobody left to tell.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// One line on stderr that the next one replaces; nothing at all where stderr isn't a terminal.
pub fn progress(line: &str) {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }
}

/// Whether `progress` shows anything.
pub fn is_progress_shown() -> bool {
    io::stderr().is_terminal()
}

pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
