//! No proposal leaves a node, nor anything else that only concerns the node itself.

use holdfast_replicator::wire::{PeerMessage, travels};

pub(crate) fn check(message: &PeerMessage) {
    if let PeerMessage::Raft(raft) = message {
        let kind = raft.message.msg_type;
        assert!(travels(kind), "{kind:?} leaves a node");
    }
}
