//! `holdfast classes`: what changes and closing wait for in which directory, and why; and its change.

mod change;
mod text;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use holdfast_proto::control::{Classes as Listed, ListClassesRequest};

use crate::error::{Error, Result};
use crate::local::{Daemon, Target, block_on};
use crate::output;

/// Names are looked for in the directories that hold them.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Classes {
    #[command(subcommand)]
    order: Option<Order>,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Subcommand)]
enum Order {
    /// Show a file's or a directory's class and where it has it from, and a recording's seal
    Show {
        path: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Give a directory a class; what is made in it from now on inherits it
    Set {
        /// One of default, database, recordings, logs, prompts, durable
        class: String,
        directory: PathBuf,
        /// Also for all that is in it already, but for directories below it that have a class of their own
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Take a directory's own class away: it has that of the directory around it again
    Clear {
        directory: PathBuf,
        /// Also for all that is in it already, but for directories below it that have a class of their own
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        target: Target,
    },
}

impl Classes {
    pub fn run(self) -> Result<()> {
        match self.order {
            None => {
                let listed = list(&self.target)?;
                let text = if self.json {
                    text::json(&listed)
                } else {
                    text::all(&listed)
                };
                output::print(&text)?;
            }
            Some(Order::Show { path, target }) => {
                output::print(&change::show(&path, &list(&target)?)?)?;
            }
            Some(Order::Set {
                class,
                directory,
                all,
                target,
            }) => {
                if !holdfast_config::CLASSES.contains(&class.as_str()) {
                    return Err(Error::Argument {
                        text: class,
                        right: "no such class: one of default, database, recordings, logs, prompts, durable",
                    });
                }
                change::set(&directory, Some(&class))?;
                finish(&directory, all, &target)?;
            }
            Some(Order::Clear { directory, all, target }) => {
                change::set(&directory, None)?;
                finish(&directory, all, &target)?;
            }
        }
        Ok(())
    }
}

fn finish(directory: &Path, all: bool, target: &Target) -> Result<()> {
    let class = change::class(directory)?;
    let text = if all {
        let changed = change::below(directory, &list(target)?)?;
        format!(
            "{}: {class}, and with it {} below it.\n",
            directory.display(),
            crate::words::count(changed, "inode")
        )
    } else {
        format!(
            "{}: {class}, for what is made in it from now on. What is in it already keeps its class (--all changes it).\n",
            directory.display()
        )
    };
    output::print(&text).map(|_| ())
}

fn list(target: &Target) -> Result<Listed> {
    block_on(async {
        let daemon = Daemon::connect(target.resolve()?).await?;
        let mut client = daemon.client();
        daemon
            .answer(ANSWER_WITHIN, client.list_classes(ListClassesRequest {}))
            .await
    })
}
