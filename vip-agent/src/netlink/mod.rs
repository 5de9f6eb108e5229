//! Verbs on the kernel's addresses, routes and rules, by netlink. No conditions on roles or leases in here.

mod address;
mod interface;
mod source;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt;
use holdfast_config::Vip;

pub use interface::Interface;
pub use source::PROTOCOL;

use crate::error::{Error, Result};

/// The kernel answers in microseconds, unless somebody holds its big networking lock.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

pub struct Netlink {
    handle: rtnetlink::Handle,
    vip: IpAddr,
    prefix: u8,
    wanted_interface: Option<String>,
    valid_s: u32,
    /// Where the address belongs, as found last; looked up anew after any error.
    place: Option<Interface>,
}

impl Netlink {
    /// Must be called on the runtime whose thread is to talk to the kernel: it hosts the socket's task.
    pub fn open(vip: &Vip) -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::NetlinkSocket)?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            vip: vip.address,
            prefix: vip.prefix,
            wanted_interface: vip.interface.clone(),
            valid_s: u32::try_from(vip.valid.as_secs()).unwrap_or(1).max(1),
            place: None,
        })
    }

    pub fn address(&self) -> IpAddr {
        self.vip
    }

    async fn place(&mut self) -> Result<Interface> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let found = self.find_interface().await?;
        self.place = Some(found.clone());
        Ok(found)
    }
}

/// Runs one request with a deadline, and says what it was for if it fails.
async fn ask<T>(
    doing: &'static str,
    request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
) -> Result<T> {
    match tokio::time::timeout(ANSWER_WITHIN, request).await {
        Ok(answer) => answer.map_err(|source| Error::Netlink {
            doing: doing.to_owned(),
            source,
        }),
        Err(_) => Err(Error::NetlinkSlow {
            doing,
            after: ANSWER_WITHIN,
        }),
    }
}

/// A dump, collected.
async fn list<T>(
    doing: &'static str,
    stream: impl futures::Stream<Item = std::result::Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>> {
    ask(doing, stream.try_collect()).await
}
