//! Blocks that a read or a write met as rotten are mended at once; the read waits for it. What can't be mended now is tried
//! again until it can.

use super::Healer;
use holdfast_storage::types::BLOCK;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Reads that are mended for at the same time, and such that wait for it.
const TOGETHER: usize = 8;
const WAITING: usize = 256;
/// A part of what a request may take.
const WITHIN: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// Of those that were left, in one go: what is found meanwhile waits for no more. The next are tried at once if any was mended.
const RETRIED: usize = 64;

pub(in super::super) async fn follow(healer: Arc<Healer>) {
    tokio::join!(reads(healer.clone()), rest(healer));
}

async fn reads(healer: Arc<Healer>) {
    let mut reads = healer.shared().handle.mend_reads();
    let together = Arc::new(Semaphore::new(TOGETHER));
    let waiting = Arc::new(Semaphore::new(WAITING));
    while let Some(rotten) = reads.recv().await {
        let Ok(place) = waiting.clone().try_acquire_owned() else {
            // Answered at once, as it is.
            let _ = tokio::task::spawn_blocking(rotten.then).await;
            continue;
        };
        let (healer, together) = (healer.clone(), together.clone());
        tokio::spawn(async move {
            let end = rotten.offset.saturating_add(rotten.len as u64);
            let blocks: Vec<_> = (rotten.offset / BLOCK..end.div_ceil(BLOCK))
                .map(|number| (rotten.ino, number))
                .collect();
            let heal = async {
                let _turn = together.acquire().await;
                healer.heal(&blocks).await
            };
            if tokio::time::timeout(WITHIN, heal).await.is_err() {
                // The read is answered as it is; what is mended later serves the next one.
                healer.shared().damage().look_again(&blocks);
            }
            let _ = tokio::task::spawn_blocking(rotten.then).await;
            drop(place);
        });
    }
}

/// What applying and copying met, what wasn't known at once, and from time to time what was left.
async fn rest(healer: Arc<Healer>) {
    let (mut looks, retry) = (0, RETRY_EVERY.as_secs() / LOOK_EVERY.as_secs());
    let mut goes_on = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks += 1;
        let mut blocks = healer.shared().handle.store().take_rotten();
        let retried = goes_on || looks % retry == 0;
        {
            let mut damage = healer.shared().damage();
            blocks.extend(damage.take_again());
            if retried {
                blocks.extend(damage.next_left(RETRIED));
            }
        }
        goes_on = false;
        if !blocks.is_empty() {
            blocks.sort_unstable();
            blocks.dedup();
            let healed = healer.heal(&blocks).await;
            goes_on = retried && healed.mended > 0;
        }
    }
}
