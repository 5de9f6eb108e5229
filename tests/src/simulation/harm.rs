//! Places of a log that aren't what was written there, without anybody having been told: a write that the disk called done and
//! never did, or a byte that has rotted.

use super::random::Random;
use holdfast_storage::disk::aligned::AlignedBuf;
use holdfast_storage::disk::sim::{SimDisk, SimFile};
use holdfast_storage::disk::{Disk, DiskFile, OpenHow};
use holdfast_storage::types::BLOCK;
use std::io;
use std::sync::Arc;

const LOG: &str = "log";

pub struct Harm {
    file: Arc<SimFile>,
    offset: u64,
    is: AlignedBuf,
    should_be: AlignedBuf,
}

fn aligned(data: &[u8]) -> AlignedBuf {
    let mut buffer = AlignedBuf::zeroed(data.len());
    buffer[..data.len()].copy_from_slice(data);
    buffer
}

impl Harm {
    /// This write of whole blocks isn't done.
    pub fn lost(file: &Arc<SimFile>, data: &[u8], offset: u64) -> io::Result<Self> {
        let mut is = AlignedBuf::zeroed(data.len());
        file.read_at(&mut is, offset)?;
        Ok(Self {
            file: file.clone(),
            offset,
            is,
            should_be: aligned(data),
        })
    }

    /// A byte of a segment rots where something was written.
    pub fn rot(disk: &SimDisk, dice: &mut Random) -> io::Result<Option<Self>> {
        let paths: Vec<String> = disk
            .list(LOG)?
            .into_iter()
            .filter(|name| name.ends_with(".seg"))
            .collect();
        if paths.is_empty() {
            return Ok(None);
        }
        let file = disk.open(
            &format!("{LOG}/{}", paths[dice.between(0, paths.len() as u64) as usize]),
            OpenHow::default(),
        )?;
        let mut all = AlignedBuf::zeroed(file.len()? as usize);
        file.read_at(&mut all, 0)?;
        let written: Vec<usize> = (0..all.len()).filter(|at| all[*at] != 0).collect();
        if written.is_empty() {
            return Ok(None);
        }
        let at = dice.one_of(&written);
        let offset = at as u64 / BLOCK * BLOCK;
        let should_be = aligned(&all[offset as usize..][..BLOCK as usize]);
        let mut is = aligned(&should_be);
        is[at - offset as usize] ^= 1 << dice.between(0, 8);
        file.write_synced(&is, offset)?;
        Ok(Some(Self {
            file: Arc::new(file),
            offset,
            is,
            should_be,
        }))
    }

    /// Nothing was written there since.
    pub fn is_there(&self) -> bool {
        let mut now = AlignedBuf::zeroed(self.is.len());
        let read = self.file.read_at(&mut now, self.offset);
        read.is_ok() && now[..] == self.is[..]
    }

    pub fn undo(&self) -> io::Result<()> {
        if self.is_there() {
            self.file.write_synced(&self.should_be, self.offset)?;
        }
        Ok(())
    }
}
