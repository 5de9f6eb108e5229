//! What the source of a copy says.

use super::receive::Missing;
use holdfast_proto::copy::{Begun, BlocksAnswer, Ended, KeysAnswer, Piece};
use prost::Message as _;

/// Blocks are taken only where they were asked for; the other answers are at least decoded.
pub(in super::super) fn blocks(data: &[u8]) {
    if let Ok(answer) = BlocksAnswer::decode(data) {
        let mut missing = Missing([(2, 0..300), (2, 700..701), (9, 5..6)].into());
        let count = answer.sums.len() as u64 / 16;
        let before = missing
            .0
            .iter()
            .map(|(_, blocks)| blocks.end - blocks.start)
            .sum::<u64>();
        let taken = missing.take(answer.ino, answer.first, count);
        let after = missing
            .0
            .iter()
            .map(|(_, blocks)| blocks.end - blocks.start)
            .sum::<u64>();
        assert_eq!(before - after, if taken { count } else { 0 });
    }
    let _ = Begun::decode(data);
    let _ = Piece::decode(data);
    let _ = Ended::decode(data);
    if let Ok(keys) = KeysAnswer::decode(data) {
        assert_eq!(KeysAnswer::decode(&keys.encode_to_vec()[..]), Ok(keys));
    }
}
