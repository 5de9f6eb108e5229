//! `holdfast import`: brings an existing directory into the mount, in as many passes as one likes.
//!
//! Each pass copies what differs and verifies each copy by hash; a file's modification time is set last, so a time
//! that agrees says that the copy was complete and verified. That is all the state there is: an interrupted pass is
//! continued by calling it again, on whatever node is active then.

mod attributes;
mod file;
mod inode;
mod pass;
mod progress;
mod report;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use holdfast_proto::control::NodeStatusRequest;
use rustix::fs::{FlockOperation, XattrFlags};

use crate::error::{Error, Result};
use crate::local::{ANSWER_WITHIN, Daemon, Target, block_on};
use crate::output;
use crate::words::bytes;

/// On the directory that is imported into, with the source's path and the number of its inode, until the final pass has
/// succeeded: an empty mount point of the same name is another one.
const MARK: &str = "trusted.holdfast.import";

/// On a copy of a directory on which another file system was mounted.
const VOLUME: &str = "trusted.holdfast.import-volume";

#[derive(Args)]
pub struct Import {
    /// The directory to bring in: a plain one, or a mounted volume
    source: PathBuf,
    /// Where to, below the mount; must be empty, or begun by an earlier pass
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// The last pass, with the PBX stopped: everything must be quiet and come out the same
    #[arg(long = "final")]
    last: bool,
    /// Compare all files by hash, also those whose size and time say that nothing has changed
    #[arg(long)]
    thorough: bool,
    /// Where to write what was found, a line each
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

impl Import {
    /// 0: all of it is as in the source; 1: see the report.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mount = self.mount()?;
        let source = absolute(&self.source)?;
        let into = place(&mount, self.into.as_deref().unwrap_or(Path::new("")))?;
        apart(&source, &into, &mount)?;
        // First, so that nothing is found out that can't be told.
        let file = self.report.as_deref().map(create_report).transpose()?;
        let _held_until_the_end = begin(&source, &into, &mount)?;
        let plan = pass::Plan {
            source: &source,
            into: &into,
            last: self.last,
            thorough: self.thorough,
        };
        let (report, outcome) = pass::run(&plan)?;
        if let (Some(mut file), Some(path)) = (file, &self.report) {
            let written = std::io::Write::write_all(&mut file, report.lines().as_bytes());
            written.map_err(|source| failed("writing the report to", path, source))?;
        }
        if let Err(error) = outcome {
            output::complain(&report.found(self.report.as_deref()));
            return Err(error);
        }
        let whole = report.is_whole();
        // Durable first: without its mark it can't be continued.
        sync(&into)?;
        if self.last && whole {
            finish(&into, &report)?;
        }
        output::print(&report.text(self.last, &source, self.report.as_deref()))?;
        Ok(ExitCode::from(u8::from(!whole)))
    }

    /// The mount of this machine's daemon, which must be the active one.
    fn mount(&self) -> Result<PathBuf> {
        let status = block_on(async {
            let daemon = Daemon::connect(self.target.resolve()?).await?;
            let mut client = daemon.client();
            daemon
                .answer(ANSWER_WITHIN, client.get_node_status(NodeStatusRequest {}))
                .await
        })?;
        if status.writable {
            return Ok(status.mount_path.into());
        }
        let active = match status.leader.as_str() {
            "" => "no node is active now: `holdfast status` says why".to_owned(),
            leader => format!(
                "call it on {leader}, or `holdfast switchover --to {}` first",
                status.name
            ),
        };
        Err(Error::NotHere {
            what: "importing",
            node: status.name,
            advice: active,
        })
    }
}

fn failed(what: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
    Error::File {
        what,
        path: path.to_owned(),
        source: source.into(),
    }
}

fn create_report(path: &Path) -> Result<File> {
    File::create(path).map_err(|source| failed("making the report", path, source))
}

fn mark(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut mark = vec![0; 8192];
    match rustix::fs::lgetxattr(path, MARK, &mut mark[..]) {
        Ok(len) => {
            mark.truncate(len);
            Ok(Some(mark))
        }
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(error) => Err(failed("looking at", path, error)),
    }
}

/// Marks the place as this source's; a place that holds anything else is refused.
fn begin(source: &Path, into: &Path, mount: &Path) -> Result<File> {
    let refuse = |right| Error::Argument {
        text: into.display().to_string(),
        right,
    };
    fs::create_dir_all(into).map_err(|error| failed("making", into, error))?;
    let (real, top) = (fs::canonicalize(into), fs::canonicalize(mount));
    let inside = matches!((&real, &top), (Ok(real), Ok(top)) if real.starts_with(top));
    if !inside || rustix::fs::lgetxattr(into, "holdfast.class", &mut [0; 64][..]).is_err() {
        return Err(refuse(
            "isn't on the mount that the daemon serves: is it mounted there? (`holdfast status`)",
        ));
    }
    for above in into.ancestors().skip(1).take_while(|above| above.starts_with(mount)) {
        if mark(above)?.is_some() {
            return Err(refuse(
                "an import into a directory above it isn't finished: it would take away again what comes here",
            ));
        }
    }
    let held = File::open(into).map_err(|error| failed("opening", into, error))?;
    match rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(refuse("another import works on this directory: wait for its end"));
        }
        Err(error) => return Err(failed("locking", into, error)),
    }
    let is_empty = |path: &Path| match fs::read_dir(path) {
        // A volume that was just made has that alone.
        Ok(entries) => Ok(entries.flatten().all(|entry| entry.file_name() == pass::LOST_FOUND)),
        Err(error) => Err(failed("reading", path, error)),
    };
    let inode = fs::metadata(source)
        .map_err(|error| failed("looking at", source, error))?
        .ino();
    let own = [
        source.as_os_str().as_encoded_bytes(),
        b"\0",
        inode.to_string().as_bytes(),
    ]
    .concat();
    let (known, empty) = (mark(into)?, is_empty(into)?);
    if known.as_ref() == Some(&own) {
        if !empty && is_empty(source)? {
            return Err(Error::Argument {
                text: source.display().to_string(),
                right: "is empty, and an earlier pass brought something in from it: is its volume mounted? (To have it all \
                        removed, remove it by hand.)",
            });
        }
        return Ok(held);
    }
    if !empty {
        return Err(match known {
            Some(other) => Error::Begun {
                into: into.to_owned(),
                from: String::from_utf8_lossy(other.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned(),
            },
            None => refuse(
                "isn't empty, and no import was begun here: name an empty directory with --into. (After a final pass it \
                 is yours, and nothing overwrites it.)",
            ),
        });
    }
    rustix::fs::setxattr(into, MARK, &own, XattrFlags::empty()).map_err(|error| failed("marking", into, error))?;
    Ok(held)
}

/// The directory's own attributes are the source's from here on.
fn finish(into: &Path, report: &report::Report) -> Result<()> {
    for volume in report.volumes() {
        let meta = fs::metadata(&volume).map_err(|error| failed("looking at", &volume, error))?;
        let done = rustix::fs::removexattr(&volume, VOLUME).and_then(|()| attributes::times(&volume, &meta));
        done.map_err(|error| failed("taking the import's mark from", &volume, error))?;
    }
    let meta = fs::metadata(into).map_err(|error| failed("looking at", into, error))?;
    let done = rustix::fs::removexattr(into, MARK).and_then(|()| attributes::times(into, &meta));
    done.map_err(|error| failed("taking the import's mark from", into, error))?;
    sync(into)
}

/// All changes form one log: what is before this directory's last change is durable with it.
fn sync(into: &Path) -> Result<()> {
    let synced = File::open(into).and_then(|directory| directory.sync_all());
    synced.map_err(|source| {
        failed(
            "it is all there, but not known to be on two disks (see `holdfast status`, then call this once more):",
            into,
            source,
        )
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let unreadable = |source| failed("reading the directory", path, source);
    let path = fs::canonicalize(path).map_err(unreadable)?;
    fs::read_dir(&path).map_err(unreadable)?;
    Ok(path)
}

fn place(mount: &Path, into: &Path) -> Result<PathBuf> {
    let inside = into.strip_prefix(mount).unwrap_or(into);
    let plain = inside
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside.is_absolute() || !plain {
        return Err(Error::Argument {
            text: into.display().to_string(),
            right: "not a directory below the mount",
        });
    }
    Ok(if inside.as_os_str().is_empty() {
        mount.to_owned()
    } else {
        mount.join(inside)
    })
}

fn apart(source: &Path, into: &Path, mount: &Path) -> Result<()> {
    let mount = fs::canonicalize(mount).unwrap_or_else(|_| mount.to_owned());
    if source.starts_with(&mount) || mount.starts_with(source) || into.starts_with(source) {
        return Err(Error::Argument {
            text: source.display().to_string(),
            right: "the source and the mount contain each other: move the old directory aside, or mount the old volume \
                    elsewhere, and name that",
        });
    }
    Ok(())
}

fn amount(number: u64) -> String {
    bytes(number)
}
