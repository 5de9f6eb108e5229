//! What the rest of the daemon holds of the replicator.

use crate::api::{Done, Failure, Request, Scope};
use crate::clock::boottime_ms;
use crate::copy::Kept;
use crate::disk_health::DiskHealth;
use crate::dropped::{Dropped, Drops};
use crate::gate::Gate;
use crate::threads::apply::MendWork;
use crate::view::Watch;
use crate::waiting::Answer;
use holdfast_storage::RealStore;
use holdfast_storage::check::Part;
use holdfast_storage::digest::Mismatch;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::effects::CheckPart;
use holdfast_storage::error::StoreError;
use holdfast_storage::log::LogReader;
use holdfast_storage::mend::{self, Mended, State};
use holdfast_storage::recover;
use holdfast_storage::types::{Ino, LogIndex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};

/// What vip-agent reported, as far as roles depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFacts {
    pub connected: bool,
    pub eligible: bool,
    pub released_term: u64,
    pub vip_held: bool,
    pub units_healthy: bool,
    /// The PBX or its address doesn't come up here.
    pub gives_up: bool,
    /// Nothing makes this node ineligible but that the PBX failed here before.
    pub last_resort: bool,
}

pub(crate) enum Command {
    Submit(Request),
    Sync {
        scope: Scope,
        deadline_ms: u64,
        answer: Answer,
    },
    /// Answer when the lease runs.
    Hold {
        deadline_ms: u64,
        answer: Answer,
    },
    Mounted {
        term: u64,
    },
    MountEnded {
        term: u64,
    },
    OddOneOut(Option<u64>),
    Fenced {
        term: u64,
    },
    Agent(AgentFacts),
    HandOver {
        to: Option<String>,
        outcome: oneshot::Sender<Result<String, String>>,
    },
    Check {
        part: CheckPart,
        parts: mpsc::UnboundedSender<(u64, Part)>,
        index: oneshot::Sender<Result<u64, String>>,
    },
    Mend(MendWork, Option<Order>),
    Stop,
}

/// A change of what this replica has shown to nobody yet, because it isn't active: only by the word of the node that leads in
/// this term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) term: u64,
}

/// A read met blocks that don't fit their checksums; it goes on when somebody has tried to mend them.
pub struct Rotten {
    pub ino: Ino,
    pub offset: u64,
    pub len: usize,
    /// Called in a thread that may block.
    pub then: Box<dyn FnOnce() + Send>,
}

/// Reads that wait for mending.
const ROTTEN_MAX: usize = 256;

#[derive(Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) store: Arc<RealStore>,
    pub(crate) view: Watch,
    pub(crate) last_changed: Arc<[Ino]>,
    pub(crate) last_before: LogIndex,
    pub(crate) drops: Arc<Drops>,
    pub(crate) health: Arc<DiskHealth>,
    pub(crate) log: LogReader<RealDisk>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) menders: Arc<OnceLock<mpsc::Sender<Rotten>>>,
    pub(crate) recovering: Arc<AtomicBool>,
    pub(crate) log_bytes: u64,
}

impl Handle {
    fn send(&self, command: Command) {
        // The loop has ended only if the process is ending.
        let _ = self.commands.send(command);
    }

    /// Hands in a change. Never blocks: the kernel bounds how many are under way.
    pub fn submit(&self, request: Request) {
        if let Err(mpsc::error::SendError(Command::Submit(request))) = self.commands.send(Command::Submit(request)) {
            (request.done)(Err(Failure::NotActive));
        }
    }

    /// `done` when all that the scope covers, as of now, is durable on a majority.
    pub fn sync(&self, scope: Scope, deadline_ms: u64, done: Done<()>) {
        self.send(Command::Sync {
            scope,
            deadline_ms,
            answer: done,
        });
    }

    /// `done` at once if the lease runs; else when it runs again.
    pub fn answer(&self, deadline_ms: u64, done: Done<()>) {
        if self.gate.may_answer(boottime_ms()) {
            done(Ok(()));
        } else {
            self.send(Command::Hold {
                deadline_ms,
                answer: done,
            });
        }
    }

    /// A read of the store failed: if that is the disk's fault, this node isn't fit to be active.
    pub fn read_failed(&self, error: &StoreError) {
        self.health.read_failed(error);
    }

    /// The only replica that was left, waiting for the first of its new peers.
    pub fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }

    /// A majority works again.
    pub fn end_recovery(&self) -> Result<(), StoreError> {
        recover::end(self.store.data.disk())?;
        self.recovering.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub fn store(&self) -> &Arc<RealStore> {
        &self.store
    }

    /// Entries at the end of this node's log that no majority had, and that are gone.
    pub fn dropped(&self) -> Option<Dropped> {
        self.drops.all()
    }

    /// What the log has behind what this node knows to be committed: it is given up when the store is copied from another.
    pub fn give_up_tail(&self) -> Option<Dropped> {
        let committed = self.view.latest().committed;
        self.drops.note(&self.log, LogIndex(committed).next());
        self.drops.all()
    }

    /// After an unclean stop: the inodes that were changed last before it, newest first, as this node's log has it.
    pub fn last_changed(&self) -> &[Ino] {
        &self.last_changed
    }

    /// Where this node's log ended when it started.
    pub fn last_before(&self) -> LogIndex {
        self.last_before
    }

    /// Length of the log on disk, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The loop's latest snapshot; changes at every tick.
    pub fn view(&self) -> Watch {
        self.view.clone()
    }

    /// The file system of the role of this term is up.
    pub fn mounted(&self, term: u64) {
        self.send(Command::Mounted { term });
    }

    /// The node that doesn't hold what the two others do, as far as the active node knows; it may be this one.
    pub fn odd_one_out(&self, id: Option<u64>) {
        self.send(Command::OddOneOut(id));
    }

    /// Somebody has unmounted or aborted the file system of the role of this term.
    pub fn mount_ended(&self, term: u64) {
        self.send(Command::MountEnded { term });
    }

    /// Nothing uses the lost role of this term any more.
    pub fn fenced(&self, term: u64) {
        self.send(Command::Fenced { term });
    }

    pub fn agent(&self, facts: AgentFacts) {
        self.send(Command::Agent(facts));
    }

    /// Gives the active role to a standby, by name or to the one most up to date; the new active node's name when it is done.
    pub async fn hand_over(&self, to: Option<String>) -> Result<String, String> {
        let (outcome, done) = oneshot::channel();
        self.send(Command::HandOver { to, outcome });
        done.await.unwrap_or_else(|_| Err("the daemon is stopping".into()))
    }

    /// Sequences a check of one part; each replica's finding (with its Raft id) comes on the channel.
    pub async fn check(&self, part: CheckPart) -> Result<(u64, mpsc::UnboundedReceiver<(u64, Part)>), String> {
        let (parts, found) = mpsc::unbounded_channel();
        let (index, at) = oneshot::channel();
        self.send(Command::Check { part, parts, index });
        let index = at.await.unwrap_or_else(|_| Err("the daemon is stopping".into()))?;
        Ok((index, found))
    }

    /// How blocks stand on the disk, as the apply thread sees them. None: nothing is applied here any more.
    pub async fn look(&self, blocks: Vec<(Ino, u64)>) -> Option<Vec<State>> {
        let (answer, looked) = oneshot::channel();
        self.send(Command::Mend(MendWork::Look(blocks, answer), None));
        looked.await.ok()
    }

    /// Blocks that this replica can't give to anybody. What became of each. `as_of`: what they should be is known of that log
    /// index; without, by their own checksums. None: nothing is applied here any more.
    pub async fn mend_damaged(&self, as_of: Option<LogIndex>, blocks: Vec<mend::Block>) -> Option<Vec<Mended>> {
        let (answer, mended) = oneshot::channel();
        self.send(Command::Mend(MendWork::Blocks(as_of, blocks, answer), None));
        mended.await.ok()
    }

    /// Blocks that this replica has otherwise than the others at that log index, by the word of who leads in this term. None: also
    /// if this node isn't a standby in that term any more.
    pub async fn mend_blocks(&self, term: u64, as_of: LogIndex, blocks: Vec<mend::Block>) -> Option<Vec<Mended>> {
        let (answer, mended) = oneshot::channel();
        let work = MendWork::Blocks(Some(as_of), blocks, answer);
        self.send(Command::Mend(work, Some(Order { term })));
        mended.await.ok()
    }

    /// As `mend_blocks`.
    pub async fn mend_keys(&self, term: u64, as_of: LogIndex, keys: Vec<mend::Key>) -> Option<Vec<Mended>> {
        let (answer, mended) = oneshot::channel();
        let work = MendWork::Keys(as_of, keys, answer);
        self.send(Command::Mend(work, Some(Order { term })));
        mended.await.ok()
    }

    /// As `Applier::correct_digest`. None: nothing is applied here any more.
    pub async fn correct_digest(&self, mismatch: Mismatch) -> Option<()> {
        let (answer, corrected) = oneshot::channel();
        self.send(Command::Mend(MendWork::Digest(mismatch, answer), None));
        corrected.await.ok()
    }

    /// From now on reads that meet rot wait for whoever takes them from this channel.
    pub fn mend_reads(&self) -> mpsc::Receiver<Rotten> {
        let (rotten, reads) = mpsc::channel(ROTTEN_MAX);
        // A second caller would get a channel on which nothing comes; there is none.
        let _ = self.menders.set(rotten);
        reads
    }

    /// Gives it back if nobody mends, or too many wait already.
    pub fn mend_read(&self, rotten: Rotten) -> Result<(), Rotten> {
        let Some(menders) = self.menders.get() else {
            return Err(rotten);
        };
        menders.try_send(rotten).map_err(|full| match full {
            mpsc::error::TrySendError::Full(rotten) | mpsc::error::TrySendError::Closed(rotten) => rotten,
        })
    }

    /// Ends the loop; everything handed in is synced then.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }
}
