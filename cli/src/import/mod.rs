//! `holdfast import`: brings an existing directory into the mount, in as many passes as one likes.
//!
//! Each pass copies what differs and verifies each copy by hash; a file's modification time is set last, so a time
//! that agrees says that the copy was complete and verified. That is all the state there is: an interrupted pass is
//! continued by calling it again, on whatever node is active then.

mod attributes;
mod file;
mod pass;
mod progress;
mod report;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use holdfast_proto::control::NodeStatusRequest;
use rustix::fs::{FlockOperation, XattrFlags};

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::local::{ANSWER_WITHIN, Daemon, Target, block_on};
use crate::output;
use crate::words::bytes;

/// On the directory that is imported into, with the source's path, until the final pass has succeeded.
const MARK: &str = "trusted.holdfast.import";

/// Changes may be refused for a moment after a failover.
const SETTLE: Duration = Duration::from_secs(5);

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
        let _held_until_the_end = self.begin(&source, &into)?;
        let plan = pass::Plan {
            source: &source,
            into: &into,
            last: self.last,
            thorough: self.thorough,
        };
        let report = pass::run(&plan)?;
        if let Some(path) = &self.report {
            fs::write(path, report.lines()).map_err(|source| Error::File {
                what: "writing the report to",
                path: path.clone(),
                source,
            })?;
        }
        let whole = report.is_whole();
        if self.last && whole {
            self.finish(&into)?;
        } else {
            sync(&into)?;
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

    /// Marks the place as this source's; a place that holds anything else is refused.
    fn begin(&self, source: &Path, into: &Path) -> Result<File> {
        let file = |what| {
            move |source| Error::File {
                what,
                path: into.to_owned(),
                source,
            }
        };
        fs::create_dir_all(into).map_err(file("making"))?;
        let held = File::open(into).map_err(file("opening"))?;
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::Argument {
                text: into.display().to_string(),
                right: "another import works on this directory: wait for its end",
            });
        }
        let mut mark = vec![0; 8192];
        match rustix::fs::getxattr(into, MARK, &mut mark[..]) {
            Ok(len) if &mark[..len] == source.as_os_str().as_encoded_bytes() => return Ok(held),
            Ok(_) => {
                return Err(Error::Argument {
                    text: into.display().to_string(),
                    right: "an import from another directory was begun here: finish it with --final, or name \
                            another directory with --into",
                });
            }
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(file("looking at")(error.into())),
        }
        if fs::read_dir(into).map_err(file("reading"))?.next().is_some() {
            return Err(Error::Argument {
                text: into.display().to_string(),
                right: "isn't empty, and no import was begun here: name an empty directory with --into. (After a \
                        final pass it is yours, and nothing overwrites it.)",
            });
        }
        rustix::fs::setxattr(into, MARK, source.as_os_str().as_encoded_bytes(), XattrFlags::empty())
            .map_err(|error| file("marking")(error.into()))?;
        Ok(held)
    }

    /// The directory's own attributes are the source's from here on.
    fn finish(&self, into: &Path) -> Result<()> {
        let failed = |source: rustix::io::Errno| Error::File {
            what: "taking the import's mark from",
            path: into.to_owned(),
            source: source.into(),
        };
        let meta = fs::metadata(into).map_err(|error| Error::File {
            what: "looking at",
            path: into.to_owned(),
            source: error,
        })?;
        rustix::fs::removexattr(into, MARK).map_err(failed)?;
        attributes::times(into, &meta).map_err(failed)?;
        sync(into)
    }
}

/// All changes form one log: what is before this directory's last change is durable with it.
fn sync(into: &Path) -> Result<()> {
    let failed = |source| Error::File {
        what: "waiting until everything is on two disks, below",
        path: into.to_owned(),
        source,
    };
    let began = Stopwatch::start();
    loop {
        match File::open(into).and_then(|directory| directory.sync_all()) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && began.elapsed() < SETTLE => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |source| Error::File {
        what: "reading the directory",
        path: path.to_owned(),
        source,
    };
    let path = fs::canonicalize(path).map_err(failed)?;
    fs::read_dir(&path).map_err(failed)?;
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
