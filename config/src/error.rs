//! What can be wrong with a configuration: each error says where it is and what would be right.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: the configuration can't be read; name the file with --config, or make one with `holdfast init`", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not TOML, a key that doesn't exist, or a value of the wrong type.
    #[error("{}:{line}: {key}: {message}", file.display())]
    Syntax {
        file: PathBuf,
        line: usize,
        key: String,
        message: String,
    },
    /// A value that is well formed and can't be used.
    #[error("{}:{line}: {key}: {problem}; {right}", file.display())]
    Value {
        file: PathBuf,
        line: usize,
        key: String,
        problem: String,
        right: String,
    },
}
