//! The folders on disk: made beside their place, under another name, and moved there when all is well.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_config::{Config, Node};

use crate::authority::{Authority, Pair};
use crate::error::{Error, Result};

pub(super) struct Folders {
    out: PathBuf,
    /// Where they are until `finish`; removed if that is never reached.
    beside: PathBuf,
    finished: bool,
}

impl Folders {
    pub(super) fn begin(out: &Path) -> Result<Self> {
        let failed = |source| Error::File {
            what: "making",
            path: out.to_path_buf(),
            source,
        };
        let out = std::path::absolute(out).map_err(failed)?;
        match fs::read_dir(&out) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::NotEmpty { dir: out });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let right = "name a directory that can be made";
        let name = out.file_name().ok_or_else(|| Error::Argument {
            text: out.display().to_string(),
            right,
        })?;
        let mut beside = name.to_owned();
        beside.push(format!(".new-{}", std::process::id()));
        let beside = out.with_file_name(beside);
        if let Some(parent) = out.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        folder(&beside)?;
        Ok(Self {
            out,
            beside,
            finished: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.beside
    }

    pub(super) fn config_of(&self, node: &Node) -> PathBuf {
        self.beside.join(&node.name).join("holdfast.toml")
    }

    pub(super) fn write_authority(&self, authority: &Authority) -> Result<()> {
        let Pair { certificate, key } = authority.own();
        let ca = self.beside.join("ca");
        folder(&ca)?;
        file(&ca.join("ca.pem"), 0o644, &certificate)?;
        file(&ca.join("ca.key"), 0o600, &key)
    }

    pub(super) fn write_node(&self, config: &Config, authority: &Authority) -> Result<()> {
        let name = &config.cluster.nodes[config.this].name;
        folder(&self.beside.join(name))?;
        let Pair { certificate, key } = authority.certify(name)?;
        file(&config.file, 0o644, &holdfast_config::render(config))?;
        file(&config.tls.ca, 0o644, &authority.own().certificate)?;
        file(&config.tls.cert, 0o644, &certificate)?;
        file(&config.tls.key, 0o600, &key)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        // Takes the place of an empty directory too, and of nothing else.
        let moved = fs::rename(&self.beside, &self.out);
        moved.map_err(|source| Error::File {
            what: "making",
            path: self.out.clone(),
            source,
        })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing else can be done about it: the error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.beside);
        }
    }
}

fn folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| Error::File {
        what: "making",
        path: path.to_path_buf(),
        source,
    })
}

/// A new one, with this mode from the beginning.
pub fn file(path: &Path, mode: u32, text: &str) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| Error::File {
        what: "writing",
        path: path.to_path_buf(),
        source,
    })
}
