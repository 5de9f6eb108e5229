//! From an inode back to a name that leads to it, for people.

use bytes::Bytes;
use holdfast_storage::RealStore;
use holdfast_storage::op::Refusal;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::Ino;

/// Entries of a directory that are looked through at once for a name.
const PAGE: usize = 1024;
/// Directories in each other; more are a circle, in a damaged store.
const DEEPEST: usize = 100_000;

/// From the root to a directory, or to a file in the directory of its first name.
pub(crate) fn path(store: &RealStore, mut ino: Ino) -> Result<String, ReadError> {
    let mut names = Vec::new();
    while ino != Ino::ROOT {
        if names.len() == DEEPEST {
            return Err(Refusal::NotFound.into());
        }
        let parent = store.inode(ino)?.parent;
        names.push(String::from_utf8_lossy(&name(store, parent, ino)?).into_owned());
        ino = parent;
    }
    names.reverse();
    Ok(names.join("/"))
}

fn name(store: &RealStore, directory: Ino, of: Ino) -> Result<Bytes, ReadError> {
    let mut after = 0;
    loop {
        let page = store.readdir(directory, after, PAGE)?;
        if let Some((_, child)) = page.iter().find(|(_, child)| child.ino == of) {
            return Ok(child.name.clone());
        }
        match page.last() {
            Some((last, _)) => after = *last,
            None => return Err(Refusal::NotFound.into()),
        }
    }
}
