//! Random operations against a model: on a local file system, which tests the model, and on a cluster under faults. A
//! longer run is `make torture`.

mod common;

use std::path::PathBuf;

use common::{lab, seconds};
use holdfast_tests::lab::LabOptions;
use holdfast_tests::torture::course::{Course, Figures};

fn course(length: u64) -> Course {
    let seed = rand::random_range(0..1_000_000);
    println!("drawn from seed {seed}");
    Course {
        program: PathBuf::from(env!("CARGO_BIN_EXE_holdfast-torture")),
        seed,
        workers: 6,
        length: seconds(length),
    }
}

fn outcome(course: &Course, figures: Result<Figures, impl std::fmt::Display>) -> Figures {
    figures.unwrap_or_else(|error| panic!("seed {}: {error:#}", course.seed))
}

#[test]
fn a_local_file_system_does_what_the_model_says() {
    let folder = tempfile::Builder::new()
        .prefix("holdfast-torture-")
        .tempdir_in("/var/tmp");
    let folder = folder.unwrap();
    let course = course(8);
    let figures = outcome(&course, course.on_folder(folder.path()));
    assert!(figures.operations > 10_000, "{figures:?}");
}

#[test]
fn a_cluster_does_what_the_model_says_through_faults() {
    let lab = lab(LabOptions {
        log_mib: 1024,
        ..LabOptions::default()
    });
    let course = course(75);
    let figures = course.on_lab(&lab, |what| println!("{what}"));
    if figures.is_err() {
        eprintln!("{}", lab.log_tails(25));
    }
    let figures = outcome(&course, figures);
    assert!(figures.operations > 3_000 && figures.faults > 3, "{figures:?}");
    // Most operations end as they should; only what a fault met may not.
    assert!(figures.open < figures.operations / 5, "{figures:?}");
}
