//! Tells each node that differs what two others have alike, and who has it.

use super::super::repair::Healer;
use super::compare::Difference;
use bytes::Bytes;
use holdfast_proto::repair::{BlockChange, KeyChange, MendAnswer, MendRequest};
use holdfast_storage::data::sums::{DAMAGED, Sum, of_zeros};
use holdfast_storage::types::Ino;
use std::collections::BTreeMap;

/// Where a difference is, and how a node is told of it.
pub(super) trait Place {
    fn change(&self, request: &mut MendRequest, was: Option<Sum>, is: Option<Sum>, from: &[String]);
}

/// A block of a file.
impl Place for (Ino, u64) {
    fn change(&self, request: &mut MendRequest, was: Option<Sum>, is: Option<Sum>, from: &[String]) {
        let is = is.unwrap_or_else(of_zeros);
        request.blocks.push(BlockChange {
            ino: self.0.0,
            number: self.1,
            was: sum(was),
            is: sum(Some(is)),
            from: if is == of_zeros() { Vec::new() } else { from.to_vec() },
        });
    }
}

impl Place for Bytes {
    fn change(&self, request: &mut MendRequest, was: Option<Sum>, is: Option<Sum>, from: &[String]) {
        request.keys.push(KeyChange {
            key: self.clone(),
            was: sum(was),
            is: sum(is),
            from: from.to_vec(),
        });
    }
}

fn sum(sum: Option<Sum>) -> Bytes {
    sum.map_or_else(Bytes::new, |sum| Bytes::copy_from_slice(&sum))
}

/// How many of these are in order now, and what is in the way of the others.
pub(super) async fn all<P: Place>(healer: &Healer, as_of: u64, differences: &[Difference<P>]) -> (u64, Vec<String>) {
    let active = healer.name().to_owned();
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
                ..MendRequest::default()
            });
            difference.place.change(request, *was, is, &from);
        }
    }
    let mut mended = 0;
    for (node, request) in requests {
        match healer.tell(node, request).await {
            Ok(MendAnswer {
                mended: done,
                left: not,
                changed: _,
            }) => {
                mended += done;
                left.extend(not.into_iter().map(|why| format!("{node}: {why}")));
            }
            Err(why) => left.push(format!("{node}: {why}")),
        }
    }
    left.dedup();
    (mended, left)
}
