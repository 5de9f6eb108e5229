//! A node's store while it is being copied, question by question, as `holdfast serve` does it (`cli/src/serve/copy/receive.rs`):
//! whatever ends a session, it begins again and asks for what still differs.

use super::disk::FaultyDisk;
use bytes::Bytes;
use holdfast_replicator::copy::Basis;
use holdfast_storage::copy::{Joint, Piece, Source, Target, Wanted};
use holdfast_storage::error::StoreError;
use holdfast_storage::identity::Identity;
use holdfast_storage::meta::sim::SimMeta;
use std::collections::VecDeque;

use super::replica::Ending;

pub struct Session {
    pub source: u64,
    /// Which of its starts.
    pub start: u64,
    pub basis: Basis,
    pub from: Source<FaultyDisk, SimMeta>,
    at: At,
}

enum At {
    /// The next piece begins here.
    Piece(Bytes),
    Keys {
        piece: Piece,
        begin: Bytes,
    },
    Blocks {
        piece: Piece,
        next: Option<Bytes>,
        wanted: VecDeque<Wanted>,
    },
    End,
    Ending(Ending),
}

/// What a question has come to.
pub enum Progress {
    GoesOn,
    /// All has been compared: the source is to mark the end.
    AtEnd,
    Ending(Ending),
}

pub struct Receiver {
    pub target: Target<FaultyDisk, SimMeta>,
    pub identity: Identity,
    pub session: Option<Session>,
}

impl Receiver {
    pub fn open(disk: &FaultyDisk, meta: &SimMeta, sound: bool) -> Result<Self, StoreError> {
        let identity = Identity::read(disk)?.expect("it is formatted");
        Ok(Self {
            target: Target::begin(disk.clone(), meta.clone(), &identity, sound)?,
            identity,
            session: None,
        })
    }

    pub fn begin(&mut self, source: u64, start: u64, basis: Basis, from: Source<FaultyDisk, SimMeta>) {
        let at = At::Piece(Bytes::new());
        self.session = Some(Session {
            source,
            start,
            basis,
            from,
            at,
        });
    }

    /// One question to the source and what follows from its answer.
    pub fn step(&mut self) -> Result<Progress, StoreError> {
        let Some(session) = &mut self.session else {
            return Ok(Progress::GoesOn);
        };
        let (source, target) = (&session.from, &mut self.target);
        session.at = match std::mem::replace(&mut session.at, At::End) {
            At::Piece(from) => {
                let piece = source.piece(&from)?;
                if target.has(&piece)? {
                    after(&piece)
                } else {
                    let begin = piece.from.clone();
                    At::Keys { piece, begin }
                }
            }
            At::Keys { piece, begin } => {
                let (pairs, next) = source.keys(&begin, &piece.to)?;
                let wanted = target.take(&begin, next.as_deref().unwrap_or(&piece.to), pairs)?;
                At::Blocks {
                    piece,
                    next,
                    wanted: wanted.into(),
                }
            }
            At::Blocks {
                piece,
                next,
                mut wanted,
            } => match wanted.pop_front() {
                Some(Wanted { ino, blocks }) => {
                    target.put(&source.blocks(ino, blocks)?)?;
                    At::Blocks { piece, next, wanted }
                }
                None => {
                    target.settled();
                    match next {
                        Some(begin) => At::Keys { piece, begin },
                        None => after(&piece),
                    }
                }
            },
            At::End => return Ok(Progress::AtEnd),
            At::Ending(ending) => {
                session.at = At::Ending(ending);
                return Ok(Progress::Ending(ending));
            }
        };
        Ok(Progress::GoesOn)
    }

    pub fn wait_for(&mut self, ending: Ending) {
        if let Some(session) = &mut self.session {
            session.at = At::Ending(ending);
        }
    }

    pub fn finish(self, store: [u8; 16], joint: Joint) -> Result<Identity, StoreError> {
        self.target.finish(&self.identity, store, joint)
    }
}

fn after(piece: &Piece) -> At {
    if piece.to.is_empty() {
        At::End
    } else {
        At::Piece(piece.to.clone())
    }
}
