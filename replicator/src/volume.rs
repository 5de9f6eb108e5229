//! Whether the volume that this node's store lay on is there. Where it isn't mounted, the folder under it is empty, and a new store
//! in it would have a vote: two such nodes begin another, empty file system, and the PBX works with that.

use holdfast_storage::error::StoreError;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Beside the configuration, which isn't on that volume: says which store isn't on the configuration's own one.
const MARK: &str = "store-volume";

fn is_apart(store: &Path, beside: &Path) -> io::Result<bool> {
    Ok(store.metadata()?.dev() != beside.metadata()?.dev())
}

/// Of a store that is open.
pub(crate) fn remember(store: &Path, beside: &Path) {
    let mark = beside.join(MARK);
    let text = format!("{}\n", store.display());
    let noted = is_apart(store, beside).and_then(|is_apart| {
        if is_apart && !is_noted(store, &mark) {
            std::fs::write(&mark, text)?;
        }
        Ok(())
    });
    if let Err(error) = noted {
        tracing::warn!(%error, path = %mark.display(), "that the store has a volume of its own can't be noted, so it won't be missed when it isn't mounted");
    }
}

fn is_noted(store: &Path, mark: &Path) -> bool {
    std::fs::read_to_string(mark).is_ok_and(|text| Path::new(text.trim_end()) == store)
}

/// Before a store is made in this folder.
pub(crate) fn refuse_unmounted(store: &Path, beside: &Path) -> Result<(), StoreError> {
    let mark = beside.join(MARK);
    if !is_noted(store, &mark) || is_apart(store, beside).unwrap_or(false) {
        return Ok(());
    }
    Err(StoreError::Identity {
        path: store.display().to_string(),
        why: format!(
            "there is no store, and the folder lies on the same volume as {}, while this node's store had a volume of its own: mount that \
             (and have it mounted before this starts: `RequiresMountsFor=` in the unit). If the store is to begin anew here, remove {}",
            beside.display(),
            mark.display()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_store_that_had_a_volume_of_its_own_is_missed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, beside) = (folder.path().join("store"), folder.path().join("etc"));
        for path in [&store, &beside] {
            std::fs::create_dir(path).expect("makes it");
        }
        remember(&store, &beside);
        refuse_unmounted(&store, &beside).expect("it never had one");
        std::fs::write(beside.join(MARK), format!("{}\n", store.display())).expect("writes");
        let said = refuse_unmounted(&store, &beside)
            .expect_err("its volume isn't there")
            .to_string();
        assert!(said.contains("mount that"), "{said}");
        std::fs::write(beside.join(MARK), "/elsewhere\n").expect("writes");
        refuse_unmounted(&store, &beside).expect("that was another store");
    }
}
