//! One machine: what outlives its processes (clock, disk, kernel), the processes themselves, and what the judges keep of it.

use super::agent::{Agent, Kernel};
use super::clock::Clock;
use super::disk::FaultyDisk;
use super::model::Files;
use super::promises::{Rot, Shadow};
use super::random::Random;
use super::receiver::Receiver;
use super::replica::Replica;
use super::timers;
use holdfast_replicator::pins::Pins;
use holdfast_storage::copy;
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::Identity;
use holdfast_storage::log::Geometry;
use holdfast_storage::meta::sim::SimMeta;
use holdfast_storage::open;
use holdfast_storage::types::{Ino, LogIndex};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub enum Daemon {
    Replica(Box<Replica>),
    Receiver(Box<Receiver>),
}

impl Daemon {
    pub fn replica(&self) -> Option<&Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Receiver(_) => None,
        }
    }
}

pub struct Machine {
    pub id: u64,
    pub clock: Clock,
    pub disk: FaultyDisk,
    pub meta: SimMeta,
    pub pins: Arc<Mutex<Pins>>,
    pub geometry: Geometry,
    pub kernel: Kernel,
    pub daemon: Option<Daemon>,
    /// Counts starts; events of an earlier one are void.
    pub start: u64,
    pub agent: Option<Agent>,
    pub agent_start: u64,
    /// When the last of what agent and daemon said to each other arrives: nothing overtakes that.
    pub agent_heard_us: u64,
    pub agent_hears_us: u64,
    /// The PBX's unit runs, whoever looks at it.
    pub unit_runs: bool,
    /// Until then it doesn't start.
    pub pbx_broken_until_us: u64,
    /// Until then the process gets no processor.
    pub daemon_frozen_us: u64,
    pub agent_frozen_us: u64,
    /// Until then the disk completes nothing.
    pub disk_held_us: u64,
    /// Not started before.
    pub away_until_us: u64,
    /// Reads of its data fail, or did.
    pub has_faulty_reads: bool,
    pub rot: Rot,
    /// All that it ever confirmed is on its disk: false from the loss of a disk until the copy is in order.
    pub whole: bool,
    /// Of what was acknowledged as received and isn't committed: what its log had when its last process ended.
    pub stored: BTreeMap<u64, u64>,
    pub shadow: Shadow,
    /// While it is active: the files as they are after all that is sequenced.
    pub sequenced: Option<Files>,
    /// Of this role: index, term, and the inodes that it touched, or names.
    pub role_ops: Vec<(u64, u64, Vec<Ino>, bool)>,
    pub offers: u32,
}

fn no_pins() -> Arc<Mutex<Pins>> {
    Arc::default()
}

impl Machine {
    pub fn new(id: u64, clock: Clock, geometry: Geometry) -> Self {
        Self {
            id,
            clock,
            disk: FaultyDisk::default(),
            meta: SimMeta::new(),
            pins: no_pins(),
            geometry,
            kernel: Kernel::default(),
            daemon: None,
            start: 0,
            agent: None,
            agent_start: 0,
            agent_heard_us: 0,
            agent_hears_us: 0,
            unit_runs: false,
            pbx_broken_until_us: 0,
            daemon_frozen_us: 0,
            agent_frozen_us: 0,
            disk_held_us: 0,
            away_until_us: 0,
            has_faulty_reads: false,
            rot: Rot::default(),
            whole: true,
            stored: BTreeMap::new(),
            shadow: Shadow::default(),
            sequenced: None,
            role_ops: Vec::new(),
            offers: 0,
        }
    }

    pub fn replica(&self) -> Option<&Replica> {
        self.daemon.as_ref()?.replica()
    }

    pub fn replica_mut(&mut self) -> Option<&mut Replica> {
        match self.daemon.as_mut()? {
            Daemon::Replica(replica) => Some(replica),
            Daemon::Receiver(_) => None,
        }
    }

    pub fn receiver_mut(&mut self) -> Option<&mut Receiver> {
        match self.daemon.as_mut()? {
            Daemon::Replica(_) => None,
            Daemon::Receiver(receiver) => Some(receiver),
        }
    }

    pub fn is_copying(&self) -> bool {
        matches!(self.daemon, Some(Daemon::Receiver(_)))
    }

    /// What `holdfast serve` does with what it finds: formats, goes on with a copy, or recovers.
    pub fn boot(&mut self, now_us: u64, random: &mut Random) -> Result<(), StoreError> {
        self.start += 1;
        let identity = match Identity::read(&self.disk)? {
            Some(identity) => identity,
            None => self.format(random)?,
        };
        self.daemon = Some(if copy::is_copying(&self.disk)? {
            self.stored.clear();
            Daemon::Receiver(Box::new(Receiver::open(&self.disk, &self.meta, false)?))
        } else {
            let (now_ms, pins) = (self.clock.at_ms(now_us), self.pins.clone());
            let replica = Replica::start(self.id, &self.disk, &self.meta, identity, pins, now_ms, random)?;
            Daemon::Replica(Box::new(replica))
        });
        Ok(())
    }

    fn format(&self, random: &mut Random) -> Result<Identity, StoreError> {
        let mut store = [0; 16];
        store[..8].copy_from_slice(&random.next().to_le_bytes());
        let identity = Identity {
            cluster: "pbx".into(),
            node: format!("n{}", self.id),
            store,
            joined: LogIndex::ZERO,
        };
        open::format_as(&self.disk, &identity, self.geometry)?;
        Ok(identity)
    }

    /// Its process is killed, or loses power, in the midst of whatever it does. `outstanding`: indexes that somebody cares for.
    pub fn end(&mut self, power: bool, outstanding: &[u64], random: &mut Random) {
        if let Some(Daemon::Replica(mut replica)) = self.daemon.take() {
            let held = |index: &u64| Some((*index, replica.reader.term(LogIndex(*index))?.0));
            self.stored = outstanding.iter().filter_map(held).collect();
            if random.chance(700) {
                replica.threads.die(&self.disk, random);
            }
        }
        self.forget_process(power, random);
    }

    /// What is left when its process is gone.
    pub fn forget_process(&mut self, power: bool, random: &mut Random) {
        self.daemon = None;
        self.start += 1;
        self.rot.process_ended();
        (self.sequenced, self.offers) = (None, 0);
        self.role_ops.clear();
        self.daemon_frozen_us = 0;
        if power {
            self.disk.crash(random.next());
            self.agent = None;
            self.agent_start += 1;
            self.agent_frozen_us = 0;
            self.unit_runs = false;
            self.kernel.drop_it();
        } else {
            self.disk.kill();
        }
        self.meta.crash(random.next());
    }

    /// It ends after a copy that it has finished and synced.
    pub fn forget_process_in_order(&mut self) {
        self.daemon = None;
        self.start += 1;
        self.disk.kill();
    }

    /// Another disk, with nothing on it.
    pub fn lose_disk(&mut self) {
        self.disk = FaultyDisk::default();
        self.meta = SimMeta::new();
        self.pins = no_pins();
        self.rot = Rot::default();
        self.stored.clear();
        self.whole = false;
    }

    pub fn valid_us(&self) -> u64 {
        self.clock.true_us(timers::VALID_MS)
    }
}
