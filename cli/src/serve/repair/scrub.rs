//! Reads everything that this node has stored, from time to time and paced, or at once if an operator asks.

use super::Healer;
use super::record::Record;
use bytes::Bytes;
use holdfast_proto::control::{Scrub, ScrubEvent, ScrubResult};
use holdfast_replicator::clock::{boottime_ms, unix_ms};
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::error::{StoreError, chain};
use holdfast_storage::identity::hex;
use holdfast_storage::meta::Meta as _;
use holdfast_storage::scrub::{self, Step};
use holdfast_storage::types::Ino;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

/// After a start others have a need of the disk first.
const SETTLE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(60);
const SAVE_EVERY_MS: u64 = 5_000;
/// Blocks that were being changed are looked at once more.
const AGAIN: Duration = Duration::from_secs(1);
/// What a key costs, in bytes read, for the pace.
const KEY_COST: u64 = 256;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What is known of it; the task writes, status and the operator's command read.
#[derive(Default)]
pub(in super::super) struct Scrubber {
    state: Mutex<State>,
    /// Somebody wants it now.
    now: Notify,
}

#[derive(Default)]
struct State {
    record: Record,
    keys_total: u64,
    next_unix_ms: u64,
    trouble: Option<String>,
    /// Those who wait for it, and therefore no pace.
    asking: u64,
    /// One that isn't under way is to begin.
    begin_now: bool,
    /// Scrubs that came to their end since the start.
    ended: u64,
}

impl Scrubber {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn message(&self) -> Scrub {
        let state = self.state();
        let record = &state.record;
        Scrub {
            running: record.next.is_some(),
            began_unix_ms: record.began_unix_ms,
            ended_unix_ms: record.ended_unix_ms,
            keys: record.keys,
            keys_total: state.keys_total,
            bytes: record.bytes,
            found: record.found,
            mended: record.mended,
            next_unix_ms: if record.next.is_some() { 0 } else { state.next_unix_ms },
            trouble: state.trouble.clone().unwrap_or_default(),
            metadata_differ: record.metadata_differ,
            unjudged: record.unjudged,
            last: record.last.map(|last| ScrubResult {
                keys: last.keys,
                bytes: last.bytes,
                found: last.found,
                mended: last.mended,
                metadata_differ: last.metadata_differ,
                unjudged: last.unjudged,
            }),
        }
    }

    /// Until a whole one has ended, which begins now or is another operator's, or nobody listens any more.
    pub(in super::super) async fn run_now(&self, healer: &Healer, events: mpsc::Sender<Result<ScrubEvent, Status>>) {
        let wanted = {
            let mut state = self.state();
            state.asking += 1;
            state.trouble = None;
            // What a paced one has read before doesn't count: it begins anew. Another operator's is joined.
            let is_running = state.record.next.is_some();
            if state.asking == 1 && is_running {
                state.record = state.record.begin(unix_ms());
            }
            // One whose operator is still being told of its end is no other.
            state.begin_now |= state.asking == 1 || !is_running;
            state.ended + 1
        };
        self.now.notify_one();
        loop {
            let (done, trouble) = {
                let state = self.state();
                (state.ended >= wanted, state.trouble.clone())
            };
            if let Some(why) = trouble.filter(|_| !done) {
                let _ = events.send(Err(Status::unavailable(why))).await;
                break;
            }
            let event = ScrubEvent {
                scrub: Some(self.message()),
                damaged: if done {
                    healer.shared().still_damaged()
                } else {
                    Vec::new()
                },
                done,
            };
            if events.send(Ok(event)).await.is_err() || done {
                break;
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
        self.state().asking -= 1;
    }
}

pub(in super::super) async fn follow(healer: Arc<Healer>) {
    let scrubber = &healer.shared().scrubber;
    let store = healer.shared().config.store.path.clone();
    let every_ms = healer.shared().config.scrub.every.as_millis() as u64;
    let record = Record::read(&store);
    {
        let mut state = scrubber.state();
        state.record = record;
        // What wasn't mended is known in memory alone: it is looked for, rather than forgotten until tomorrow.
        state.begin_now |= state.record.next.is_none() && state.record.found > state.record.mended;
    }
    let _ = tokio::time::timeout(SETTLE, scrubber.now.notified()).await;
    loop {
        let (is_running, left_ms) = {
            let mut state = scrubber.state();
            state.next_unix_ms = state.record.began_unix_ms.saturating_add(every_ms).max(1);
            // A wall clock that was in the future once must not put it off for ever.
            let left_ms = state.next_unix_ms.saturating_sub(unix_ms()).min(every_ms);
            (state.record.next.is_some(), left_ms)
        };
        if !is_running {
            let is_due = left_ms == 0 || scrubber.state().begin_now;
            if !is_due {
                // Or for another reason: looked at again in any case.
                let _ = tokio::time::timeout(Duration::from_millis(left_ms), scrubber.now.notified()).await;
                continue;
            }
            let mut state = scrubber.state();
            state.record = state.record.begin(unix_ms());
        }
        scrubber.state().begin_now = false;
        match through(&healer).await {
            Ok(()) => scrubber.state().trouble = None,
            Err(error) => {
                healer.shared().handle.read_failed(&error);
                let why = format!("reading what is stored here failed: {}", chain(&error));
                if scrubber.state().trouble.replace(why.clone()).is_none() {
                    tracing::error!(why, "the scrub stopped");
                }
                let _ = tokio::time::timeout(RETRY, scrubber.now.notified()).await;
                // What lies before that place is read again when its time comes.
                let mut state = scrubber.state();
                if unix_ms() >= state.record.began_unix_ms.saturating_add(every_ms) {
                    state.record = state.record.begin(unix_ms());
                }
            }
        }
        save(&healer).await;
    }
}

/// On a thread that may block: the disk may be ill.
async fn save(healer: &Healer) {
    let record = healer.shared().scrubber.state().record.clone();
    let store = healer.shared().config.store.path.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || record.write(&store)).await {
        tracing::warn!(%error, "where the scrub is can't be kept; it begins anew after a restart");
    }
}

/// From where it was to the end.
async fn through(healer: &Arc<Healer>) -> Result<(), StoreError> {
    let scrubber = &healer.shared().scrubber;
    let store = healer.shared().handle.store().clone();
    let rate = healer.shared().config.scrub.rate;
    let mut buffer = AlignedBuf::default();
    let mut saved_ms = boottime_ms();
    scrubber.state().keys_total = store.meta.count()?;
    let is_beginning = scrubber.state().record.next.as_deref() == Some("");
    if is_beginning {
        match healer.verify().await {
            Ok(as_applied) => scrubber.state().record.metadata_differ |= !as_applied,
            Err(why) => tracing::warn!(why, "the digest couldn't be verified"),
        }
    }
    loop {
        let (from, began) = {
            let state = scrubber.state();
            (
                state.record.next.clone().unwrap_or_default(),
                state.record.began_unix_ms,
            )
        };
        // Digits of its own making; others begin it anew.
        let from = bytes_of(&from).unwrap_or_default();
        let since = boottime_ms();
        let reading = store.clone();
        let read = tokio::task::spawn_blocking(move || {
            let step = scrub::step(&reading, &from, &mut buffer);
            (step, buffer)
        });
        let Ok((step, given_back)) = read.await else {
            // The runtime is ending.
            return Ok(());
        };
        buffer = given_back;
        let Step {
            next,
            keys,
            bytes,
            suspects,
            damaged,
            unreadable,
        } = step?;
        if !unreadable.is_empty() {
            tracing::error!(inodes = ?unreadable, "attributes stored here can't be read: `holdfast check --repair` puts them right");
        }
        let suspected: Vec<(Ino, u64)> = suspects.into_iter().chain(damaged).collect();
        let mut healed = healer.heal(&suspected).await;
        if !healed.again.is_empty() {
            tokio::time::sleep(AGAIN).await;
            let again = std::mem::take(&mut healed.again);
            healed.join(healer.heal(&again).await);
        }
        let is_last = next.is_none();
        let asked = {
            let mut state = scrubber.state();
            // Somebody had it begin anew.
            if state.record.began_unix_ms != began || state.record.next.is_none() {
                return Ok(());
            }
            let record = &mut state.record;
            record.keys += keys;
            record.bytes += bytes;
            record.found += healed.mended + healed.left.len() as u64;
            record.mended += healed.mended;
            record.unjudged += healed.again.len() as u64;
            record.metadata_differ |= !unreadable.is_empty();
            record.next = next.map(|key| hex(&key));
            if is_last {
                record.ended_unix_ms = unix_ms();
                record.last = None;
                state.ended += 1;
            }
            state.asking > 0
        };
        if is_last {
            let Scrub {
                keys,
                bytes,
                found,
                mended,
                ..
            } = scrubber.message();
            tracing::info!(
                keys,
                bytes,
                found,
                mended,
                "everything that is stored here has been read"
            );
            return Ok(());
        }
        if boottime_ms() >= saved_ms + SAVE_EVERY_MS {
            saved_ms = boottime_ms();
            save(healer).await;
        }
        if !asked {
            let due_ms = (bytes + keys * KEY_COST) * 1000 / rate;
            let took_ms = boottime_ms().saturating_sub(since);
            let _ = tokio::time::timeout(
                Duration::from_millis(due_ms.saturating_sub(took_ms)),
                scrubber.now.notified(),
            )
            .await;
        }
    }
}

pub(super) fn bytes_of(digits: &str) -> Option<Bytes> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}
