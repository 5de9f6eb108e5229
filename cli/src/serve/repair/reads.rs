//! Blocks that a read or a write met as rotten are mended at once; the read waits for it. What can't be mended now is tried
//! again until it can.

use super::Healer;
use holdfast_storage::types::BLOCK;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Reads that are mended for at the same time.
const TOGETHER: usize = 8;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_secs(30);

pub(in super::super) async fn follow(healer: Arc<Healer>) {
    tokio::join!(reads(healer.clone()), rest(healer));
}

async fn reads(healer: Arc<Healer>) {
    let mut reads = healer.shared().handle.mend_reads();
    let together = Arc::new(Semaphore::new(TOGETHER));
    while let Some(rotten) = reads.recv().await {
        let turn = together.clone().acquire_owned().await;
        let healer = healer.clone();
        tokio::spawn(async move {
            let end = rotten.offset.saturating_add(rotten.len as u64);
            let blocks: Vec<_> = (rotten.offset / BLOCK..end.div_ceil(BLOCK))
                .map(|number| (rotten.ino, number))
                .collect();
            healer.heal(&blocks).await;
            drop(turn);
            let _ = tokio::task::spawn_blocking(rotten.then).await;
        });
    }
}

/// What applying and copying met, and what was left.
async fn rest(healer: Arc<Healer>) {
    let mut left = Vec::new();
    let (mut looks, retry) = (0, RETRY_EVERY.as_secs() / LOOK_EVERY.as_secs());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks += 1;
        let mut blocks = healer.shared().handle.store().take_rotten();
        if looks % retry == 0 {
            blocks.append(&mut left);
        }
        if !blocks.is_empty() {
            blocks.sort_unstable();
            blocks.dedup();
            left.extend(healer.heal(&blocks).await.left.into_keys());
        }
    }
}
