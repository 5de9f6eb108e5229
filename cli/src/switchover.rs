//! `holdfast switchover`: asks for a planned change of the active node and shows its steps.

use std::time::Duration;

use clap::Args;
use holdfast_proto::control::SwitchoverRequest;

use crate::error::Result;
use crate::local::{Daemon, Target, block_on};
use crate::output;

/// A step may be the orderly stop of a PBX unit, whose own limit is the agent's to keep.
const STEP_WITHIN: Duration = Duration::from_secs(1200);

#[derive(Args)]
pub struct Switchover {
    /// The node that shall become active; without it, the standby that is most up to date
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    target: Target,
}

impl Switchover {
    pub fn run(self) -> Result<()> {
        block_on(async {
            let daemon = Daemon::connect(self.target.resolve()?).await?;
            let mut client = daemon.client();
            let request = SwitchoverRequest {
                to: self.to.unwrap_or_default(),
            };
            // The first answer may wait for the first step.
            let mut events = daemon.answer(STEP_WITHIN, client.switchover(request)).await?;
            loop {
                let event = daemon.next(STEP_WITHIN, &mut events).await?;
                if !event.step.is_empty() {
                    output::print(&format!("{}\n", event.step))?;
                }
                if event.done {
                    output::print(&format!("{} is active.\n", event.active))?;
                    return Ok(());
                }
            }
        })
    }
}
