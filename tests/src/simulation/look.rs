//! A store as an application sees it, compared with the model.

use super::Store;
use super::model::Files;
use super::promises::Rot;
use bytes::Bytes;
use holdfast_storage::copy::Source;
use holdfast_storage::error::StoreError;
use holdfast_storage::store::ReadError;
use holdfast_storage::types::Ino;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a file, or why they can't be read. Errors on blocks whose rot is known are no difference.
pub fn file(store: &Store, ino: Ino, model: &[u8], rot: &Rot) -> Result<(), String> {
    if rot.is_doubtful(ino) {
        return Ok(());
    }
    let size = match store.inode(ino) {
        Ok(inode) => inode.size,
        Err(error) => return Err(format!("inode {ino}: {error}")),
    };
    if size != model.len() as u64 {
        return Err(format!("inode {ino} has {size} bytes, it should have {}", model.len()));
    }
    let bytes = match store.read(ino, 0, model.len()) {
        Ok(bytes) => bytes,
        Err(ReadError::Store(StoreError::Rot { .. } | StoreError::Disk { .. })) if rot.contains(ino) => return Ok(()),
        Err(error) => return Err(format!("inode {ino}: {error}")),
    };
    match bytes.iter().zip(model).position(|(one, other)| one != other) {
        None if bytes.len() == model.len() => Ok(()),
        None => Err(format!(
            "inode {ino}: {} bytes were read of {}",
            bytes.len(),
            model.len()
        )),
        Some(at) => Err(format!(
            "inode {ino}, byte {at}: {} is there, {} should be",
            bytes[at], model[at]
        )),
    }
}

/// The whole tree.
pub fn tree(store: &Store, model: &Files, rot: &Rot) -> Result<(), String> {
    let mut names = BTreeMap::new();
    for dir in model.directories.keys() {
        let listed = match store.readdir(*dir, 0, 10_000) {
            Ok(listed) => listed,
            Err(error) => return Err(format!("directory {dir}: {error}")),
        };
        for (_, child) in listed {
            match store.lookup(*dir, &child.name) {
                Ok((ino, _)) if ino == child.ino => drop(names.insert((*dir, child.name), ino)),
                other => {
                    return Err(format!(
                        "{:?} in {dir} is listed, but a lookup gives {other:?}",
                        child.name
                    ));
                }
            }
        }
    }
    if names != model.names {
        return Err(format!("names {names:?} are there, {:?} should be", model.names));
    }
    for (ino, bytes) in &model.files {
        file(store, *ino, bytes, rot)?;
    }
    Ok(())
}

/// Of all keys that replicas have in common, the checksums of all blocks among them.
pub fn hash(store: &Arc<Store>) -> Result<blake3::Hash, String> {
    let source = Source::new(store.clone());
    let mut hash = blake3::Hasher::new();
    let mut from = Bytes::new();
    loop {
        let piece = source.piece(&from).map_err(|error| error.to_string())?;
        hash.update(&piece.hash);
        if piece.to.is_empty() {
            return Ok(hash.finalize());
        }
        from = piece.to;
    }
}
