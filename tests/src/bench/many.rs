//! Very many files: how long they take to be walked through, what they cost in memory, and whether a failover with them is
//! as short as without.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rand::RngExt as _;
use rustix::fs::{XattrFlags, setxattr};
use rustix::process::{Resource, getrlimit};

use super::figures::{Figure, rate};
use super::files::drop_caches;
use super::report::{HOLDFAST, LOCAL, Report};
use super::run::say;
use crate::clock::now;
use crate::lab::{CheckVerdict, Lab, LabOptions, cluster_status};
use crate::process::run_ok;

const MAKERS: u64 = 4;
const IN_A_FOLDER: u64 = 1000;
const LOOKED_AT: u64 = 10_000;
const PROGRESS_EVERY: u64 = 500_000;
const WALK_LIMIT: Duration = Duration::from_secs(3600);
const BACK_LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
pub struct Many {
    /// So many empty files, a thousand in a folder.
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// So many of them open at once.
    #[arg(long, default_value_t = 0)]
    open: u64,
    /// Walk through them with `du` and `ls -lR`, beside the local disk.
    #[arg(long)]
    walk: bool,
}

struct Tree {
    root: PathBuf,
    files: u64,
}

impl Tree {
    fn folder(&self, file: u64) -> PathBuf {
        let folder = file / IN_A_FOLDER;
        self.root.join(format!("{:03}/{:03}", folder / 1000, folder % 1000))
    }

    fn path(&self, file: u64) -> PathBuf {
        self.folder(file).join(format!("call-{file:09}.wav"))
    }

    /// Several at once, each whole folders.
    fn make(&self) -> Result<f64> {
        let (began, next, made) = (now(), AtomicU64::new(0), AtomicU64::new(0));
        let maker = || -> Result<()> {
            loop {
                let first = next.fetch_add(IN_A_FOLDER, Ordering::Relaxed);
                if first >= self.files {
                    return Ok(());
                }
                fs::create_dir_all(self.folder(first))?;
                for file in first..self.files.min(first + IN_A_FOLDER) {
                    let path = self.path(file);
                    File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(maker)).collect();
            let mut told = 0;
            while !makers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                crate::clock::pause(Duration::from_millis(100));
                let made = made.load(Ordering::Relaxed);
                if made >= told + PROGRESS_EVERY {
                    told = made / PROGRESS_EVERY * PROGRESS_EVERY;
                    println!(
                        "  {told} of {} files, {:.0} s",
                        self.files,
                        began.elapsed().as_secs_f64()
                    );
                }
            }
            makers
                .into_iter()
                .try_for_each(|maker| maker.join().expect("a maker doesn't panic"))
        })?;
        Ok(rate(self.files as f64, began.elapsed()))
    }

    fn walk(&self, words: &[&str]) -> Result<f64> {
        let began = now();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&self.root).stdout(Stdio::null());
        let status = command.status().with_context(|| format!("running {}", words[0]))?;
        ensure!(status.success(), "{} ends with {status}", words.join(" "));
        ensure!(began.elapsed() < WALK_LIMIT, "{} took too long", words.join(" "));
        Ok(began.elapsed().as_secs_f64())
    }

    /// Files anywhere, in no order.
    fn look(&self) -> Result<f64> {
        let began = now();
        for _ in 0..LOOKED_AT {
            let path = self.path(rand::rng().random_range(0..self.files));
            let found = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
            ensure!(found.len() == 0, "{} has {} bytes", path.display(), found.len());
        }
        Ok(rate(LOOKED_AT as f64, began.elapsed()))
    }

    /// By as many processes as it takes.
    fn open(&self, count: u64) -> Result<(f64, Vec<Holder>)> {
        let (began, each) = (now(), may_open()?);
        let holders = (0..count).step_by(usize::try_from(each)?).map(|from| {
            let part = HoldOpen {
                root: self.root.clone(),
                from,
                count: each.min(count - from),
            };
            part.start()
        });
        let holders = holders.collect::<Result<Vec<_>>>()?;
        Ok((rate(count as f64, began.elapsed()), holders))
    }
}

/// How many files a process may have open, less what it needs for itself.
fn may_open() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    limit
        .checked_sub(100)
        .context("too few files may be open: see `ulimit -n`")
}

/// What a process of its own does: it opens them, says so, and keeps them open until its input ends.
#[derive(Debug, Args)]
pub struct HoldOpen {
    root: PathBuf,
    from: u64,
    count: u64,
}

/// Its files are closed when it is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl HoldOpen {
    fn start(&self) -> Result<Holder> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("hold-open").arg(&self.root);
        command.args([self.from.to_string(), self.count.to_string()]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut holder = Holder(child.context("starting a process that opens files")?);
        let mut said = String::new();
        BufReader::new(holder.0.stdout.take().expect("piped")).read_line(&mut said)?;
        ensure!(said.trim() == "open", "a process that opens files ended early");
        Ok(holder)
    }

    /// # Errors
    /// A file can't be opened.
    pub fn run(&self) -> Result<()> {
        let tree = Tree {
            root: self.root.clone(),
            files: self.from + self.count,
        };
        let open = |file| {
            let path = tree.path(file);
            File::open(&path).with_context(|| format!("opening {}", path.display()))
        };
        let files = (self.from..self.from + self.count)
            .map(open)
            .collect::<Result<Vec<_>>>()?;
        println!("open");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        drop(files);
        Ok(())
    }
}

/// MiB that a daemon may be resident with, however many files there are.
const ACTIVE_MAX: f64 = 256.0;
const STANDBY_MAX: f64 = 128.0;

/// In MiB: the active node, and the larger of the others.
fn memory(lab: &Lab, active: &str) -> Result<(f64, f64)> {
    let view = lab.status()?;
    let of = |node: &str| {
        let bytes = cluster_status::entry(&view, node)["resident_bytes"].as_u64();
        bytes
            .map(|bytes| bytes as f64 / f64::from(1 << 20))
            .context("no figure of memory")
    };
    let others = lab.others(active).into_iter().map(|node| of(node.name()));
    let largest = others.collect::<Result<Vec<_>>>()?.into_iter().fold(0.0, f64::max);
    Ok((of(active)?, largest))
}

/// What was measured so far; each figure is told when it is there.
#[derive(Default)]
struct Measured(Report);

impl Measured {
    fn add(&mut self, place: &'static str, figure: Figure) {
        say(place, &figure);
        self.0.add(place, figure);
    }

    fn memory(&mut self, lab: &Lab, active: &str, rows: [&'static str; 2]) -> Result<()> {
        let (own, others) = memory(lab, active)?;
        ensure!(
            own <= ACTIVE_MAX && others <= STANDBY_MAX,
            "the active node may take {ACTIVE_MAX} MiB and takes {own:.0}, a standby {STANDBY_MAX} and {others:.0}"
        );
        self.add(HOLDFAST, Figure::less(rows[0], "MiB", own));
        self.add(HOLDFAST, Figure::less(rows[1], "MiB", others));
        Ok(())
    }

    fn walks(&mut self, place: &'static str, tree: &Tree) -> Result<()> {
        for (cold, warm, words) in [
            ("du, cold", "du, warm", ["du", "-s"]),
            ("ls -lR, cold", "ls -lR, warm", ["ls", "-lR"]),
        ] {
            drop_caches()?;
            for row in [cold, warm] {
                self.add(place, Figure::less(row, "s", tree.walk(&words)?));
            }
        }
        Ok(())
    }
}

impl Many {
    /// In `dir`, which lies on the disk that all of it shares; says as it goes what it sees.
    ///
    /// # Errors
    /// A file isn't as it was made, the replicas differ, or no node takes over.
    pub fn run(&self, dir: &Path) -> Result<Report> {
        ensure!(
            self.files > 0 && self.open <= self.files,
            "no more files can be open than there are"
        );
        println!("three nodes in network namespaces of this machine");
        let lab = Lab::up(LabOptions {
            dir: Some(dir.join("lab")),
            log_mib: 1024,
            ..LabOptions::default()
        })?;
        let active = lab.wait_ready(BACK_LIMIT)?;
        let tree = |root: PathBuf| Tree {
            root,
            files: self.files,
        };
        let shared = tree(lab.node(&active).mnt().join("files"));
        let mut measured = Measured::default();
        println!("making {} files", self.files);
        fs::create_dir(&shared.root)?;
        // Programs that sync what must stay, as on the local disk.
        setxattr(&shared.root, "holdfast.class", b"database", XattrFlags::empty())?;
        measured.memory(
            &lab,
            &active,
            ["memory before, active node", "memory before, a standby"],
        )?;
        measured.add(HOLDFAST, Figure::more("made, 4 at once", "/s", shared.make()?));
        lab.wait_all_up_to_date(BACK_LIMIT)?;
        measured.memory(
            &lab,
            &active,
            ["memory when made, active node", "memory when made, a standby"],
        )?;
        if self.walk {
            println!("walking, beside the local disk");
            let local = tree(dir.join("local"));
            measured.add(LOCAL, Figure::more("made, 4 at once", "/s", local.make()?));
            measured.walks(LOCAL, &local)?;
            measured.walks(HOLDFAST, &shared)?;
            measured.memory(
                &lab,
                &active,
                ["memory when walked, active node", "memory when walked, a standby"],
            )?;
        }
        if self.open > 0 {
            println!("opening {} files at once", self.open);
            let (speed, holders) = shared.open(self.open)?;
            measured.add(HOLDFAST, Figure::more("opened", "/s", speed));
            measured.memory(
                &lab,
                &active,
                ["memory with them open, active node", "memory with them open, a standby"],
            )?;
            drop(holders);
        }
        println!("killing the active node");
        let began = now();
        lab.node(&active).kill()?;
        let next = lab.wait_active_other_than(&active, BACK_LIMIT)?;
        lab.wait_writable(&next, BACK_LIMIT)?;
        measured.add(
            HOLDFAST,
            Figure::less("failover, to the next write", "s", began.elapsed().as_secs_f64()),
        );
        let moved = tree(lab.node(&next).mnt().join("files"));
        measured.add(
            HOLDFAST,
            Figure::more("stat of 10,000 anywhere, cold", "/s", moved.look()?),
        );
        println!("comparing the replicas");
        lab.node(&active).start()?;
        lab.wait_all_up_to_date(BACK_LIMIT)?;
        let began = now();
        let checked = lab.check()?;
        ensure!(
            checked.verdict == CheckVerdict::Same,
            "`holdfast check`: {}",
            checked.said
        );
        measured.add(HOLDFAST, Figure::less("check", "s", began.elapsed().as_secs_f64()));
        measured.memory(
            &lab,
            &next,
            ["memory at the end, active node", "memory at the end, a standby"],
        )?;
        let mut size = Command::new("du");
        size.arg("-sm").arg(lab.node(&next).dir().join("store"));
        let size = run_ok(&mut size, WALK_LIMIT)?;
        let size: f64 = size.split_whitespace().next().unwrap_or("0").parse()?;
        measured.add(
            HOLDFAST,
            Figure::less("a store on its disk, its log of 1 GiB with it", "MiB", size),
        );
        lab.down(false)?;
        Ok(measured.0)
    }
}
