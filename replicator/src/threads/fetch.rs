//! Disk reads that the loop must not wait for: keys that a request needs, old entries that a peer needs.

use super::{ThreadEvent, ToLoop};
use crate::api::Request;
use crate::disk_health::DiskHealth;
use crate::memory_log::{self, Unread, Wanted};
use crossbeam_channel::Receiver;
use holdfast_storage::RealStore;
use holdfast_storage::disk::real::RealDisk;
use holdfast_storage::error::chain;
use holdfast_storage::key::Key;
use holdfast_storage::log::LogReader;
use std::sync::Arc;

pub(crate) enum FetchWork {
    /// For a request of this role, by the number of the roles before it.
    Keys(Request, Vec<Key>, u64),
    Entries(Wanted),
}

pub(crate) struct FetchThread {
    pub(crate) store: Arc<RealStore>,
    pub(crate) reader: LogReader<RealDisk>,
    pub(crate) work: Receiver<FetchWork>,
    pub(crate) to_loop: ToLoop,
    pub(crate) health: Arc<DiskHealth>,
}

impl FetchThread {
    /// Until the loop hangs up.
    pub(crate) fn run(self) {
        while let Ok(work) = self.work.recv() {
            let event = match work {
                FetchWork::Keys(request, keys, of) => {
                    match keys.iter().try_for_each(|key| self.store.value(key).map(|_| ())) {
                        Ok(()) => ThreadEvent::Warmed(request, of),
                        Err(error) => {
                            self.health.read_failed(&error);
                            ThreadEvent::CouldNotWarm(request, chain(&error))
                        }
                    }
                }
                FetchWork::Entries(wanted) => {
                    let read = memory_log::fetch(&self.reader, wanted.low, wanted.high, usize::MAX);
                    if let Err(Unread::Failed(why)) = &read {
                        self.health.unreadable(why.clone());
                    }
                    ThreadEvent::Fetched(wanted, read)
                }
            };
            if self.to_loop.send(event).is_err() {
                return;
            }
        }
    }
}
