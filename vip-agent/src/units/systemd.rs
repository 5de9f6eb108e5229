//! A unit of systemd, by D-Bus.

use std::time::Duration;

use tokio::sync::Mutex;
use zbus::zvariant::DynamicType;
use zbus::{Connection, Message, OwnedObjectPath, OwnedVariant};

use crate::error::{Error, Result};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// One connection for all units, made when first needed (a machine without systemd has no use for it), and anew when it has
/// ended: the bus may be restarted under a PBX that has to be stopped later.
static BUS: Mutex<Option<Connection>> = Mutex::const_new(None);

async fn bus() -> zbus::Result<Connection> {
    let mut kept = BUS.lock().await;
    if let Some(bus) = &*kept {
        return Ok(bus.clone());
    }
    let bus = Connection::system().await?;
    *kept = Some(bus.clone());
    Ok(bus)
}

/// The next call makes another one.
async fn forget_bus() {
    *BUS.lock().await = None;
}

pub(crate) struct Systemd {
    unit: String,
}

impl Systemd {
    pub(crate) fn new(unit: &str) -> Self {
        Self { unit: unit.to_owned() }
    }

    /// Returns when the unit is active, or has failed to become so.
    pub(crate) async fn start(&self) -> Result<()> {
        self.manager("StartUnit", &(&self.unit, "replace")).await?;
        loop {
            tokio::time::sleep(POLL).await;
            match self.state().await?.as_str() {
                "active" => return Ok(()),
                "activating" | "reloading" | "deactivating" => {}
                state => {
                    return Err(Error::SystemdNotActive {
                        unit: self.unit.clone(),
                        state: state.to_owned(),
                    });
                }
            }
        }
    }

    /// Asks; whether it has stopped is seen by looking.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.manager("StopUnit", &(&self.unit, "replace")).await.map(drop)
    }

    /// All processes of the unit's cgroup by SIGKILL, then the word that it is to stay down, whatever its Restart= says.
    pub(crate) async fn kill(&self) -> Result<()> {
        let killed = self.manager("KillUnit", &(&self.unit, "all", libc::SIGKILL)).await;
        self.stop().await?;
        match killed {
            // A unit that isn't loaded or has no processes has nothing to kill.
            Err(_) if !self.runs().await? => Ok(()),
            other => other.map(drop),
        }
    }

    pub(crate) async fn runs(&self) -> Result<bool> {
        Ok(!matches!(self.state().await?.as_str(), "inactive" | "failed"))
    }

    pub(crate) async fn up(&self) -> Result<()> {
        match self.state().await?.as_str() {
            "active" | "reloading" => Ok(()),
            state => Err(Error::Unhealthy {
                what: format!("systemd says that {} is {state}", self.unit),
            }),
        }
    }

    async fn state(&self) -> Result<String> {
        let reply = self.manager("LoadUnit", &(&self.unit)).await?;
        let failed = |source: zbus::Error| self.error("LoadUnit", source);
        let path: OwnedObjectPath = reply.body().deserialize().map_err(failed)?;
        let question = ("org.freedesktop.systemd1.Unit", "ActiveState");
        let reply = self
            .call(path.as_str(), "org.freedesktop.DBus.Properties", "Get", &question)
            .await?;
        let value: OwnedVariant = reply.body().deserialize().map_err(failed)?;
        String::try_from(value).map_err(failed)
    }

    async fn manager<B>(&self, method: &str, body: &B) -> Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        self.call(MANAGER, "org.freedesktop.systemd1.Manager", method, body)
            .await
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        let ask = || async {
            let bus = bus().await?;
            bus.call_method(Some(SYSTEMD), path, Some(interface), method, body)
                .await
        };
        let asked = async {
            match ask().await {
                // The connection has ended, perhaps long ago.
                Err(error) if !is_an_answer(&error) => {
                    forget_bus().await;
                    ask().await
                }
                answered => answered,
            }
        };
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(answer) => answer.map_err(|source| self.error(method, source)),
            Err(_) => {
                forget_bus().await;
                Err(Error::SystemdSlow {
                    doing: self.doing(method),
                    after: ANSWER_WITHIN,
                })
            }
        }
    }

    fn error(&self, method: &str, source: zbus::Error) -> Error {
        Error::Systemd {
            doing: self.doing(method),
            source: Box::new(source),
        }
    }

    fn doing(&self, method: &str) -> String {
        format!("{method} for {}", self.unit)
    }
}

/// systemd, or the bus in its place, has said no.
fn is_an_answer(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(..) | zbus::Error::FDO(_))
}
