//! A real three-node cluster on one machine: the daemons as they are shipped, each in a network namespace of its own,
//! on real mounts, with a switch between them that can be cut.
//!
//! Every lab has a folder, and everything that it makes outside that folder has a name derived from the folder's path
//! (see `names`): several labs stand side by side, and each can be taken down even after a crash of its maker.

pub mod cgroups;
pub mod cluster_status;
pub mod configure;
pub mod disk;
pub mod mounts;
pub mod names;
pub mod net;
pub mod netns;
pub mod node;
pub mod options;
pub mod state;
pub mod take_down;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use cluster_status::{CheckOutcome, CheckVerdict};
use names::{LabId, NODES};
use netns::Netns;
pub use node::Node;
pub use options::LabOptions;
use state::{Phase, State};

use crate::clock::wait_for;
use crate::process::{ProcessId, run};

/// How long a command given to `exec` or `client` may take.
const EXEC_LIMIT: Duration = Duration::from_secs(60);
const CHECK_LIMIT: Duration = Duration::from_secs(900);
const TEMPORARY: &str = "/var/tmp";
const TEMPORARY_PREFIX: &str = "holdfast-lab-";

/// A running lab. One that `up` made ends with this value; one that was `open`ed stays.
#[derive(Debug)]
pub struct Lab {
    state: State,
    nodes: Vec<Node>,
    owned: bool,
}

impl Lab {
    /// Makes a lab and waits for its active node. It is taken down when the value is dropped; if the thread panics, the
    /// ends of the logs are printed first.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "made for this call alone, and reads best so in a test"
    )]
    pub fn up(options: LabOptions) -> Result<Self> {
        let lab = Self::make(&options, ProcessId::own())?;
        lab.wait_ready(options.wait)
            .with_context(|| format!("the lab's logs:\n{}", lab.log_tails(25)))?;
        Ok(lab)
    }

    /// As `up`, without waiting for an active node.
    pub fn up_without_waiting(options: &LabOptions) -> Result<Self> {
        Self::make(options, ProcessId::own())
    }

    /// Makes a lab that outlives this process: `holdfast-lab up`. On an error it is taken down again.
    pub fn up_to_stay(options: &LabOptions) -> Result<Self> {
        let mut lab = Self::make(options, None)?;
        lab.owned = false;
        Ok(lab)
    }

    /// The lab that stands at `dir`.
    pub fn open(dir: &Path) -> Result<Self> {
        let Ok(dir) = dir.canonicalize() else {
            bail!("{}", state::no_lab(dir))
        };
        let state = State::load(&dir)?.with_context(|| state::no_lab(&dir))?;
        match state.phase {
            Phase::Up => Self::from_state(state, false),
            Phase::Kept => bail!(
                "the lab at {0} is down; `holdfast-lab up --dir {0}` starts it again",
                dir.display()
            ),
            Phase::Making => bail!(
                "the lab at {0} is half made; take it down with `holdfast-lab down --dir {0}`",
                dir.display()
            ),
        }
    }

    fn from_state(state: State, owned: bool) -> Result<Self> {
        let nodes = NODES
            .into_iter()
            .map(|name| Node::new(&state, name))
            .collect::<Result<_>>()?;
        Ok(Self { state, nodes, owned })
    }

    fn make(options: &LabOptions, owner: Option<ProcessId>) -> Result<Self> {
        preflight()?;
        let binaries = options::find_binaries(options.binaries.as_deref())?;
        let (dir, made_dir) = match &options.dir {
            Some(dir) => own_folder(dir)?,
            None => (temporary_folder()?, true),
        };
        let mut state = State::new(&dir, binaries);
        refuse_what_stands(&state, &dir)?;
        state.made_dir = made_dir;
        state.agent = options.agent;
        state.environment.clone_from(&options.environment);
        state.owner = owner;
        state.save()?;
        // From here on an error takes down what has been made.
        let mut lab = Self::from_state(state, true)?;
        net::make(&lab.state.id).context("making the lab's network")?;
        configure::init(&dir, &lab.state.id, &lab.state.binaries)?;
        for node in &lab.nodes {
            configure::write_node(&dir, node.name(), options, &lab.state.binaries)?;
        }
        for (node, kind) in lab.nodes.iter().zip(options.disks.into_iter().flatten()) {
            disk::Disk::of(node.files())
                .make(kind)
                .with_context(|| format!("making the disk of {}", node.name()))?;
        }
        for node in &lab.nodes {
            node.start()?;
        }
        lab.state = State::update(&dir, |state| state.phase = Phase::Up)?;
        Ok(lab)
    }

    pub fn dir(&self) -> &Path {
        &self.state.dir
    }
    pub fn id(&self) -> &LabId {
        &self.state.id
    }
    pub fn vip(&self) -> std::net::Ipv4Addr {
        self.state.id.vip()
    }
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    pub fn has_agent(&self) -> bool {
        self.state.agent
    }

    /// A node by name. Panics on a name that no lab has: tests name them in their text.
    pub fn node(&self, name: &str) -> &Node {
        self.find(name).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn find(&self, name: &str) -> Result<&Node> {
        let named = self.nodes.iter().find(|node| node.name() == name);
        named.with_context(|| format!("there is no node `{name}`; the nodes are {}", NODES.join(", ")))
    }

    /// All nodes but that one.
    pub fn others(&self, name: &str) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.name() != name).collect()
    }

    /// Takes the node's cable out of the switch.
    pub fn cut(&self, node: &str) -> Result<()> {
        net::cut(&self.state.id, self.find(node)?.name())?;
        self.note_cut(node)
    }

    /// All nodes send at this rate only, for the rest of the lab's life.
    pub fn slow_down(&self, mbit: u32) -> Result<()> {
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|node| net::slow_down(&self.state.id, node.name(), mbit))
    }

    /// Takes the cables of several nodes out at the same moment.
    pub fn cut_together(&self, nodes: &[String]) -> Result<()> {
        net::cut_together(&self.state.id, nodes)?;
        State::update(self.dir(), |state| state.cuts.extend(nodes.iter().cloned())).map(drop)
    }

    /// The network of a node all of whose processes are gone begins anew, with its cable in.
    pub fn reboot_network(&self, node: &str) -> Result<()> {
        net::reboot(&self.state.id, self.find(node)?.name()).with_context(|| format!("plugging {node} in again"))?;
        State::update(self.dir(), |state| state.cuts.retain(|cut| cut != node)).map(drop)
    }

    /// Loses all that the two nodes send each other; both still reach everyone else.
    pub fn cut_between(&self, one: &str, other: &str) -> Result<()> {
        net::cut_between(&self.state.id, self.find(one)?.name(), self.find(other)?.name())?;
        self.note_cut(&format!("{one}:{other}"))
    }

    fn note_cut(&self, what: &str) -> Result<()> {
        State::update(self.dir(), |state| state.cuts.push(what.to_owned())).map(drop)
    }

    /// Undoes all cuts.
    pub fn heal(&self) -> Result<()> {
        net::heal(&self.state.id)?;
        State::update(self.dir(), |state| state.cuts.clear()).map(drop)
    }

    /// What is cut now.
    pub fn cuts(&self) -> Result<Vec<String>> {
        Ok(State::load(self.dir())?.map(|state| state.cuts).unwrap_or_default())
    }

    /// Runs a command in a node's network, at most a minute.
    pub fn exec(&self, node: &str, words: &[impl AsRef<OsStr>]) -> Result<Output> {
        self.find(node)?.exec_within(words, EXEC_LIMIT)
    }

    /// Runs a command where a phone would be: on the same network, on no node.
    pub fn client(&self, words: &[impl AsRef<OsStr>]) -> Result<Output> {
        let (program, arguments) = words.split_first().context("no command given")?;
        run(self.client_command(program)?.args(arguments), EXEC_LIMIT)
    }

    /// For a command that the caller starts itself.
    pub fn client_command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        command.env("PATH", node::path_with(&self.state.binaries));
        self.client_netns().enter(&mut command)?;
        Ok(command)
    }

    pub fn client_netns(&self) -> Netns {
        Netns::named(self.state.id.namespace("client"))
    }

    /// The cluster as the best informed live node sees it.
    pub fn status(&self) -> Result<Value> {
        cluster_status::best(&self.nodes).map(|(_, view)| view)
    }

    /// Waits for an active node whose file system serves; returns its name.
    pub fn wait_active(&self, limit: Duration) -> Result<String> {
        wait_for("an active node", limit, || {
            let view = self.status()?;
            let Some(name) = cluster_status::active(&view) else {
                return Ok(None);
            };
            let entry = cluster_status::entry(&view, name);
            let serves = entry["role"] == "active" && entry["writable"] != Value::Bool(false);
            Ok(serves.then(|| name.to_owned()))
        })
    }

    /// As `wait_active`, for a node other than this one.
    pub fn wait_active_other_than(&self, former: &str, limit: Duration) -> Result<String> {
        wait_for(&format!("an active node other than {former}"), limit, || {
            Ok(Some(self.wait_active(Duration::ZERO)?).filter(|name| name != former))
        })
    }

    /// Waits until all three nodes take part and have applied what was committed when the waiting began.
    pub fn wait_all_up_to_date(&self, limit: Duration) -> Result<()> {
        let mut goal = None;
        wait_for("all three nodes up to date", limit, || {
            let view = self.status()?;
            let active = cluster_status::active(&view).context("no node is active")?;
            let committed = cluster_status::entry(&view, active)["committed"].as_u64().unwrap_or(0);
            cluster_status::all_applied(&view, *goal.get_or_insert(committed))?;
            Ok(Some(()))
        })
    }

    /// Waits until the node's mount takes a write, as an application sees it.
    pub fn wait_writable(&self, node: &str, limit: Duration) -> Result<()> {
        let node = self.find(node)?;
        let file = node.mnt().join(format!(".lab-probe-{}", std::process::id()));
        let script = "echo probe > \"$0\" && rm -f \"$0\"";
        wait_for(
            &format!("a write into {} to succeed", node.mnt().display()),
            limit,
            || {
                let words = [OsStr::new("sh"), OsStr::new("-c"), OsStr::new(script), file.as_os_str()];
                let output = node.exec_within(&words, Duration::from_secs(5))?;
                ensure!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                Ok(Some(()))
            },
        )
    }

    /// Waits until a node is active and its mount takes a write. Returns its name.
    pub fn wait_ready(&self, limit: Duration) -> Result<String> {
        let deadline = crate::clock::Deadline::after(limit);
        let active = self.wait_active(limit)?;
        self.wait_writable(&active, deadline.left())?;
        Ok(active)
    }

    /// `holdfast check`.
    pub fn check(&self) -> Result<CheckOutcome> {
        cluster_status::check(&self.nodes, CHECK_LIMIT)
    }

    /// The ends of all nodes' logs.
    pub fn log_tails(&self, lines: usize) -> String {
        self.nodes.iter().map(|node| node.log_tails(lines)).collect()
    }

    /// Takes the lab down; with `keep`, the stored files stay for a next `up`.
    pub fn down(mut self, keep: bool) -> Result<()> {
        self.owned = false;
        take_down::take_down(self.dir(), keep)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails(40));
        }
        let keep = std::env::var_os("HOLDFAST_LAB_KEEP").is_some();
        if let Err(error) = take_down::take_down(self.dir(), keep) {
            eprintln!("taking down the lab at {}: {error:#}", self.dir().display());
        }
    }
}

/// What a lab needs of the machine, said before anything is made.
fn preflight() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab makes network namespaces and mounts: run it as root"
    );
    ensure!(
        Path::new("/dev/fuse").exists(),
        "there is no /dev/fuse here: load the kernel's `fuse` module first"
    );
    for program in ["ip", "tc"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
        ensure!(
            found,
            "there is no `{program}` on the PATH: install the package iproute2"
        );
    }
    Ok(())
}

/// The folder, absolute and without links, and whether it had to be made.
fn own_folder(dir: &Path) -> Result<(PathBuf, bool)> {
    let fresh = !dir.exists();
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let dir = dir
        .canonicalize()
        .with_context(|| format!("resolving {}", dir.display()))?;
    // Whether an earlier lab made the folder is in its notes.
    let made = fresh || State::load(&dir)?.is_some_and(|state| state.made_dir);
    Ok((dir, made))
}

/// A fresh folder on a real disk; labs of tests that died are removed on the way.
pub fn temporary_folder() -> Result<PathBuf> {
    sweep_orphans();
    let dir = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .tempdir_in(TEMPORARY)
        .with_context(|| format!("making a folder in {TEMPORARY}"))?
        .keep();
    // PBX units run as other users and must get through.
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).with_context(|| format!("opening {}", dir.display()))?;
    dir.canonicalize()
        .with_context(|| format!("resolving {}", dir.display()))
}

/// Takes down the labs of tests that died without doing so.
fn sweep_orphans() {
    let Ok(entries) = fs::read_dir(TEMPORARY) else { return };
    for dir in entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX))
    {
        let Ok(Some(state)) = State::load(&dir.path()) else {
            continue;
        };
        if state.phase == Phase::Kept || state.owner.is_none_or(ProcessId::alive) {
            continue;
        }
        match take_down::take_down(&dir.path(), false) {
            // Empty by now, unless someone has put files there.
            Ok(()) => drop(fs::remove_dir(dir.path())),
            Err(error) => eprintln!("taking down the orphaned lab at {}: {error:#}", dir.path().display()),
        }
    }
}

fn refuse_what_stands(state: &State, dir: &Path) -> Result<()> {
    let shown = dir.display();
    match State::load(dir)?.map(|known| known.phase) {
        Some(Phase::Up) => {
            bail!("a lab is already up at {shown}; use it, or take it down: `holdfast-lab down --dir {shown}`")
        }
        Some(Phase::Making) => bail!("a half-made lab is at {shown}; take it down: `holdfast-lab down --dir {shown}`"),
        Some(Phase::Kept) => {}
        None => {
            for name in take_down::OWN_FOLDERS {
                ensure!(
                    !dir.join(name).exists(),
                    "{shown}/{name} exists and isn't a lab's: choose another --dir"
                );
            }
        }
    }
    let left = state
        .id
        .namespaces()
        .into_iter()
        .find(|name| Netns::named(name).exists());
    if let Some(name) = left {
        bail!("the network namespace {name} is left over; remove it: `holdfast-lab down --dir {shown}`");
    }
    Ok(())
}
