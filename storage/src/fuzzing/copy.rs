//! What the source of a copy answers: the receiver takes it or refuses it.

use super::records::inode;
use super::{Input, SMALL, of_a_store};
use crate::copy::{Blocks, Piece, Target, Wanted, is_copied};
use crate::data::sums;
use crate::disk::sim::SimDisk;
use crate::error::StoreError;
use crate::key;
use crate::meta::sim::SimMeta;
use crate::open;
use crate::types::{BLOCK, Ino};
use bytes::Bytes;

/// A block that the source says to have: with its bytes, as a hole, as unreadable, or with bytes that don't fit.
fn answer(wanted: &Wanted, input: &mut Input<'_>) -> Blocks {
    let (mut sums, mut data) = (Vec::new(), Vec::new());
    for _ in wanted.blocks.clone() {
        let block = vec![input.u8(); BLOCK as usize];
        match input.u8() % 8 {
            0 => sums.push(sums::HOLE),
            1 => sums.push(sums::DAMAGED),
            2 => sums.push([9; 16]),
            _ => {
                sums.push(sums::of(&block));
                data.extend(block);
            }
        }
    }
    Blocks {
        ino: wanted.ino,
        first: wanted.blocks.start,
        sums,
        data: data.into(),
    }
}

/// Rounds of keys and the blocks that they make this side want.
pub fn copy(data: &[u8]) {
    let disk = SimDisk::new();
    open::format_as(&disk, &of_a_store(), SMALL).expect("formats");
    let mut target = Target::begin(disk, SimMeta::new(), &of_a_store(), true).expect("an empty store");
    let mut input = Input(data);
    // A few: each may want hundreds of blocks.
    for _ in 0..4 {
        let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
        for _ in 0..input.u8() % 16 {
            pairs.push((
                Bytes::copy_from_slice(input.piece()),
                Bytes::copy_from_slice(input.piece()),
            ));
        }
        // What the receiver asks of an answer before it takes it.
        pairs.retain(|(key, _)| is_copied(key));
        pairs.sort();
        pairs.dedup_by(|one, two| one.0 == two.0);
        match target.take(b"", b"", pairs) {
            Ok(wanted) => put(&mut target, &wanted, &mut input),
            Err(error) => assert!(
                matches!(error, StoreError::Garbled { .. } | StoreError::Disk { .. }),
                "{error}"
            ),
        }
        let piece = Piece {
            from: Bytes::copy_from_slice(input.piece()),
            to: Bytes::copy_from_slice(input.piece()),
            keys: input.number(),
            hash: [0; 32],
        };
        assert!(!target.has(&piece).expect("the simulated store reads"));
        // Of the key space, so an answer and not a defect.
        let _ = target.history();
        if input.is_empty() {
            break;
        }
    }
}

fn put(target: &mut Target<SimDisk, SimMeta>, wanted: &[Wanted], input: &mut Input<'_>) {
    for wanted in wanted {
        match target.put(&answer(wanted, input)) {
            Ok(()) => {}
            Err(error) => {
                assert!(
                    matches!(error, StoreError::Garbled { .. } | StoreError::Disk { .. }),
                    "{error}"
                );
                return;
            }
        }
    }
    target.settled();
}

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let piece = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let pair = |key: &[u8], value: &[u8]| [piece(key), piece(value)].concat();
    let sums = [sums::of(&vec![5; BLOCK as usize]), [0; 16], [8; 16]].concat();
    let keys = [
        pair(&key::sums(Ino(2), 0), &sums),
        pair(&key::sums(Ino(2), 3), &sums),
        pair(&key::inode(Ino(2)), &inode().encode()),
    ];
    let answers = [5, 7, 5, 7, 5, 7, 5, 0];
    let less = pair(&key::sums(Ino(2), 0), &sums[..16]);
    let all = [&[3][..], &keys.concat(), &answers, &[0, 0, 3], &[1], &less, &[5, 7]].concat();
    vec![("copy", all)]
}
