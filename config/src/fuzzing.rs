//! The configuration's text and the certificates, for `fuzz/`: what is taken is the same when it is written and read again.
//! Not there in any other build.

use crate::document::Document;
use crate::{check, render, tls_files};
use std::path::Path;

/// What one input is given to.
pub type Target = fn(&[u8]);

/// With the names that they have in `fuzz/`.
pub const TARGETS: [(&str, Target); 2] = [("certificate", certificate), ("configuration", configuration)];

const FILE: &str = "/etc/holdfast/holdfast.toml";

pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = Path::new(FILE);
    match check::config(&Document::of(file, text)) {
        Ok(config) => {
            let again = check::config(&Document::of(file, &render(&config)));
            assert_eq!(again.expect("what this software writes"), config);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// PEM files with certificates.
pub fn certificate(data: &[u8]) {
    drop(tls_files::ends_of(Path::new("node.pem"), data));
}

/// Real encodings to begin with, each with the target that it is for.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "configuration",
            include_bytes!("../../fuzz/seeds/holdfast.toml").to_vec(),
        ),
        ("certificate", include_bytes!("../../fuzz/seeds/node.pem").to_vec()),
    ]
}

#[cfg(test)]
#[path = "../../fuzz/src/kept.rs"]
mod kept;

#[cfg(test)]
#[test]
fn every_kept_input_is_taken_or_refused() {
    kept::run(&TARGETS, &seeds());
}

#[cfg(test)]
#[test]
#[ignore = "writes fuzz/corpus: for a format that has changed"]
fn real_encodings_are_written() {
    kept::write(&seeds());
}
