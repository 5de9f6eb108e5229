//! A run: the places, the loads by turns, the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::fs::{XattrFlags, setxattr};

use super::figures::Figure;
use super::gluster::{self, Gluster};
use super::report::{FLOOR, GLUSTER, HOLDFAST, LOCAL, Report};
use super::{database, files, floor};
use crate::lab::{Lab, LabOptions};

const LOG_MIB: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Load {
    Append,
    Overwrite,
    Stream,
    Files,
    Record,
    Postgresql,
}

pub struct Settings {
    pub loads: Vec<Load>,
    pub rounds: u32,
    /// Of each load that goes on for as long as one likes.
    pub length: Duration,
    pub with_gluster: bool,
}

impl Load {
    pub(super) fn run(self, dir: &Path, length: Duration) -> Result<Vec<Figure>> {
        match self {
            Self::Append => files::append_and_sync(dir, length),
            Self::Overwrite => files::overwrite_and_sync(dir, length),
            Self::Stream => files::stream(dir),
            Self::Files => files::small_files(dir),
            Self::Record => files::record(dir, length),
            Self::Postgresql => database::postgresql(dir, length),
        }
    }

    /// The class of the PBX's directory for such work, on our mount; the others have the default.
    fn class(self) -> Option<&'static str> {
        match self {
            Self::Record => Some("recordings"),
            Self::Postgresql => Some("database"),
            Self::Append | Self::Overwrite | Self::Stream | Self::Files => None,
        }
    }

    /// Its row and the length of the records, if the floor has something to say about it.
    fn floor(self) -> Option<(&'static str, usize)> {
        match self {
            Self::Append => Some((files::APPEND_ROW, files::APPEND)),
            Self::Overwrite => Some((files::OVERWRITE_ROW, files::PAGE)),
            Self::Stream | Self::Files | Self::Record | Self::Postgresql => None,
        }
    }
}

/// Measures in `dir`, which lies on the disk that all of it shares; says as it goes what it sees.
pub fn run(dir: &Path, settings: &Settings) -> Result<Report> {
    println!("three nodes in network namespaces of this machine");
    let lab = Lab::up(LabOptions {
        dir: Some(dir.join("lab")),
        log_mib: LOG_MIB,
        ..LabOptions::default()
    })?;
    let active = lab.wait_active(Duration::from_secs(30))?;
    let gluster = match settings.with_gluster {
        true if gluster::is_installed() => {
            println!("GlusterFS beside them");
            Some(Gluster::up(&lab, &dir.join("gluster")).context("making GlusterFS's volume")?)
        }
        true => {
            println!("no GlusterFS here: install the package `glusterfs-server` to have it measured too");
            None
        }
        false => None,
    };
    let local = dir.join("local");
    fs::create_dir(&local)?;
    let mut places = vec![(LOCAL, local.clone())];
    places.extend(gluster.iter().map(|gluster| (GLUSTER, gluster.mnt().to_owned())));
    places.push((HOLDFAST, lab.node(&active).mnt()));
    let mut report = Report::default();
    for load in &settings.loads {
        for round in 1..=settings.rounds {
            println!("{load:?}, round {round} of {}", settings.rounds);
            measure(*load, &places, settings, &mut report)?;
            if let Some((row, size)) = load.floor() {
                let mean = floor::measure(&lab, &local, size, settings.length).context("measuring the floor")?;
                say(FLOOR, &Figure::less(row, "µs", mean));
                report.add(FLOOR, Figure::less(row, "µs", mean));
            }
        }
    }
    drop(gluster);
    lab.down(false)?;
    Ok(report)
}

/// A folder for the load in this place, with the class of the PBX's if it is ours.
pub(super) fn prepared(load: Load, root: &Path, is_ours: bool) -> Result<PathBuf> {
    let dir = root.join(format!("bench-{load:?}").to_lowercase());
    fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    if let Some(class) = load.class().filter(|_| is_ours) {
        setxattr(&dir, "holdfast.class", class.as_bytes(), XattrFlags::empty())
            .with_context(|| format!("giving {} the class {class}", dir.display()))?;
    }
    Ok(dir)
}

fn measure(load: Load, places: &[(&'static str, PathBuf)], settings: &Settings, report: &mut Report) -> Result<()> {
    for (place, root) in places {
        let dir = prepared(load, root, *place == HOLDFAST)?;
        let figures = load
            .run(&dir, settings.length)
            .with_context(|| format!("{load:?} on {place}"))?;
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        for figure in figures {
            say(place, &figure);
            report.add(place, figure);
        }
    }
    Ok(())
}

pub(super) fn say(place: &str, figure: &Figure) {
    println!(
        "  {place:<10} {:<34} {:>12.1} {}",
        figure.row, figure.value, figure.unit
    );
}
