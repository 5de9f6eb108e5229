//! Tells each node that differs what the others have, and who has it.

use super::super::repair::{AT_ONCE, Healer};
use super::compare::Difference;
use bytes::Bytes;
use holdfast_proto::repair::{BlockChange, KeyChange, MendRequest};
use holdfast_storage::data::sums::{DAMAGED, HOLE, Sum};
use holdfast_storage::types::Ino;
use std::collections::BTreeMap;

/// Where a difference is, and how a node is told of it.
pub(super) trait Place {
    fn change(&self, request: &mut MendRequest, is_damaged: bool, is: Option<Sum>, from: &[String]);
}

/// A block of a file.
impl Place for (Ino, u64) {
    fn change(&self, request: &mut MendRequest, damaged: bool, is: Option<Sum>, from: &[String]) {
        request.blocks.push(BlockChange {
            ino: self.0.0,
            number: self.1,
            damaged,
            is: Bytes::copy_from_slice(&is.unwrap_or(HOLE)),
            from: from.to_vec(),
        });
    }
}

impl Place for Bytes {
    fn change(&self, request: &mut MendRequest, _: bool, is: Option<Sum>, from: &[String]) {
        request.keys.push(KeyChange {
            key: self.clone(),
            is: is.map_or_else(Bytes::new, |is| Bytes::copy_from_slice(&is)),
            from: from.to_vec(),
        });
    }
}

/// What is in the way, each once. Whether they are in order now only another look can tell.
pub(super) async fn all<P: Place>(healer: &Healer, as_of: u64, differences: &[Difference<P>]) -> Vec<String> {
    let mut left = Vec::new();
    for some in differences.chunks(AT_ONCE) {
        left.extend(tell(healer, as_of, some).await);
    }
    left.sort_unstable();
    left.dedup();
    left
}

async fn tell<P: Place>(healer: &Healer, as_of: u64, differences: &[Difference<P>]) -> Vec<String> {
    let (active, term) = (healer.name().to_owned(), healer.shared().view().term);
    let mut requests: BTreeMap<&String, MendRequest> = BTreeMap::new();
    let mut left = Vec::new();
    for difference in differences {
        let Some((is, from)) = difference.right() else {
            left.push("no two nodes agree, so nobody knows what is right".to_owned());
            continue;
        };
        for (node, was) in difference.views.iter().filter(|(_, view)| **view != is) {
            // What is damaged was never shown to anybody; anything else may be in caches of the kernel and the PBX.
            if *node == active && *was != Some(DAMAGED) {
                left.push(format!(
                    "{active} itself is the one that differs, and it is active: move the role (`holdfast switchover`), then repair again"
                ));
                continue;
            }
            let request = requests.entry(node).or_insert_with(|| MendRequest {
                as_of,
                term,
                ..MendRequest::default()
            });
            difference.place.change(request, *was == Some(DAMAGED), is, &from);
        }
    }
    for (node, request) in requests {
        match healer.tell(node, request).await {
            Ok(answer) => left.extend(answer.left.into_iter().map(|why| format!("{node}: {why}"))),
            Err(why) => left.push(format!("{node}: {why}")),
        }
    }
    left
}
