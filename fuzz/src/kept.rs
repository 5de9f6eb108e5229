//! What was kept of all fuzzing, tried again by each crate's own tests: this file is a module of theirs.

use std::path::Path;

/// Name and what an input is given to.
type Named<'a> = (&'a str, fn(&[u8]));

/// The files of `fuzz/corpus/TARGET`, and the real encodings, which must be among what the target takes.
pub(crate) fn run(targets: &[Named<'_>], seeds: &[(&str, Vec<u8>)]) {
    for (target, bytes) in seeds {
        let (_, take) = targets
            .iter()
            .find(|(name, _)| name == target)
            .expect("a seed's target");
        take(bytes);
    }
    for (target, take) in targets {
        take(&[]);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut tried = 0;
        for file in files {
            let file = file.expect("a file of the corpus").path();
            let bytes = std::fs::read(&file).expect("a file of the corpus");
            // Whatever panics, the name of its file stands before it.
            println!("{}", file.display());
            take(&bytes);
            tried += 1;
        }
        assert!(tried > 0, "{} is empty", folder.display());
    }
}

/// Puts the real encodings into the corpus, after a format has changed.
pub(crate) fn write(seeds: &[(&str, Vec<u8>)]) {
    for (number, (target, bytes)) in seeds.iter().enumerate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        std::fs::create_dir_all(&folder).expect("the corpus can be written");
        std::fs::write(folder.join(format!("real-{number:02}")), bytes).expect("the corpus can be written");
    }
}
