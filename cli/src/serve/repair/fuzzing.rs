//! What a peer asks to be mended, and where the scrub goes on.

use super::healer::sum;
use super::record::Record;
use super::scrub::bytes_of;
use holdfast_proto::repair::{BlockRequest, ExamineRequest, MendAnswer, MendRequest, ValueRequest};
use prost::Message as _;

pub(in super::super) fn requests(data: &[u8]) {
    if let Ok(mend) = MendRequest::decode(data) {
        for change in &mend.blocks {
            assert_eq!(sum(&change.is).is_ok(), change.is.len() == 16);
        }
        assert_eq!(MendRequest::decode(&mend.encode_to_vec()[..]), Ok(mend));
    }
    let _ = BlockRequest::decode(data);
    let _ = ExamineRequest::decode(data);
    let _ = ValueRequest::decode(data);
    let _ = MendAnswer::decode(data);
}

pub(in super::super) fn record(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(data) else {
        return;
    };
    let text = serde_json::to_vec(&record).expect("plain numbers and texts");
    assert_eq!(serde_json::from_slice::<Record>(&text).ok(), Some(record.clone()));
    if let Some(next) = record.next {
        let _ = bytes_of(&next);
    }
}
