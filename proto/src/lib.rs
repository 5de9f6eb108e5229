//! Generated types of everything that crosses a process or a machine. Never logic.

/// Control, status and the agent's view of the lease (tonic).
pub mod control {
    #![allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
    tonic::include_proto!("holdfast.control");
}

/// The replication stream's frame headers (prost on our own framing; see docs/formats.md).
pub mod stream {
    #![allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
    tonic::include_proto!("holdfast.stream");
}

/// Copying a whole store between nodes (tonic).
pub mod copy {
    #![allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
    tonic::include_proto!("holdfast.copy");
}

/// Mending what is damaged on one node with what the others have (tonic).
pub mod repair {
    #![allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
    tonic::include_proto!("holdfast.repair");
}
