//! What keeps an operator's command from its work: what, where, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_config::ConfigError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no daemon answers at {}: {why}; {advice}", socket.display())]
    NoDaemon {
        socket: PathBuf,
        why: String,
        advice: &'static str,
    },
    #[error(
        "the daemon at {} didn't answer within {} s; it hangs or is stopped: see `systemctl status holdfast` and \
         `journalctl -u holdfast`",
        socket.display(),
        after.as_secs()
    )]
    Silent { socket: PathBuf, after: Duration },
    #[error("the daemon at {} refused: {why}", socket.display())]
    Refused { socket: PathBuf, why: String },
    #[error("the daemon at {} ended its answer too early; see `journalctl -u holdfast`, then try again", socket.display())]
    CutShort { socket: PathBuf },
    #[error("starting the runtime")]
    Runtime(#[source] io::Error),
    #[error("writing the output")]
    Output(#[source] io::Error),
    #[error("{text:?}: {right}")]
    Argument { text: String, right: &'static str },
    #[error("{key}: {problem}; {right}")]
    Plan {
        key: String,
        problem: String,
        right: String,
    },
    #[error("{} exists and isn't empty; name a new directory with --out, so that no keys are overwritten", dir.display())]
    NotEmpty { dir: PathBuf },
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} takes the active node's file system, and {node} isn't active: {advice}")]
    NotHere {
        what: &'static str,
        node: String,
        advice: String,
    },
    #[error(
        "an import from {from} was begun in {} and isn't finished. Finish it with --final, name another directory with \
         --into, or, if {from} is now the same under another name or on another disk, take the mark away with \
         `setfattr -x trusted.holdfast.import {}` and empty it", into.display(), into.display()
    )]
    Begun { into: PathBuf, from: String },
    #[error("making the certificate of {name:?}")]
    Certificate {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

pub type Result<T> = std::result::Result<T, Error>;
