//! The address as this agent knows it to be in the kernel, and what follows for it. Decides nothing about roles.

use std::time::Duration;

use super::notices::{Notice, Notices};
use super::{Duty, VipPolicy};
use crate::clock::{BootMs, Now, UnixMs};

/// What lease and role ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Add it if it isn't here, renew it.
    Hold,
    /// Renew it if it is here.
    Keep,
    /// Not here yet, but as soon as the former owner's time is over: ask in good time whether it is still there.
    Soon,
    /// Too little of the lease is left: neither renew nor remove, the kernel's lifetime runs out by itself.
    Lapse,
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressEvent {
    /// The kernel has taken an add or a renewal that was asked for at `asked`.
    Renewed {
        asked: BootMs,
    },
    /// Read back. `interface`: where the address belongs on this machine, if there is such a one.
    Read {
        present: bool,
        interface: Result<String, String>,
        /// Somebody may be reached by it.
        has_link: bool,
    },
    /// Asked whether another machine has the address; `other`: the one that has said so since the question before.
    Asked {
        other: Option<String>,
    },
    /// An address duty failed.
    Failed {
        what: String,
    },
    SourceSet,
    SourceCleared,
    SourceFailed {
        what: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Unknown,
    Held,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Unknown,
    Set,
    Clear,
}

/// Five announcements over a second: a switch or a phone that misses one hears the next.
const ANNOUNCEMENTS: u32 = 5;
const ANNOUNCE_EVERY: Duration = Duration::from_millis(250);
/// From then on now and then, for those that were out of reach: a router may remember for hours where the address was before.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
/// A kernel answers within milliseconds.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The first only empties the ear; after the third two have had their time to be answered.
const QUESTIONS: u32 = 3;
/// So long another machine's answer stands against adding the address. A kernel looks for what has run out once a second
/// at most, and has to wait for its own locks; but some networks answer for machines that are gone, and a PBX without an
/// address helps nobody.
pub(super) const CONTESTED_MAX: Duration = Duration::from_secs(3);
const READ_EVERY: Duration = Duration::from_millis(500);
/// Routes of the node may change while the address is here; ours follow them.
const SOURCE_EVERY: Duration = Duration::from_secs(5);

pub struct Address {
    policy: VipPolicy,
    kernel: Kernel,
    /// When the kernel was last asked for a lifetime: its own count began then or later.
    renewed: BootMs,
    since: Option<UnixMs>,
    /// A renewal came too late to be safe; dropped whatever else is wanted.
    late: bool,
    read_at: Option<BootMs>,
    acted_at: Option<BootMs>,
    dropped_at: Option<BootMs>,
    /// Questions in a row that nobody answered, and when the last one was asked.
    unanswered: u32,
    asked_at: Option<BootMs>,
    /// Since when it would be here, but for what the network answers.
    wanted_since: Option<BootMs>,
    announce_left: u32,
    announce_at: BootMs,
    source: Source,
    source_at: Option<BootMs>,
    interface: Option<String>,
    no_interface: Option<String>,
}

impl Address {
    pub fn new(policy: VipPolicy) -> Self {
        Self {
            policy,
            kernel: Kernel::Unknown,
            renewed: BootMs(0),
            since: None,
            late: false,
            read_at: None,
            acted_at: None,
            dropped_at: None,
            unanswered: 0,
            asked_at: None,
            wanted_since: None,
            announce_left: 0,
            announce_at: BootMs(0),
            source: Source::Unknown,
            source_at: None,
            interface: None,
            no_interface: None,
        }
    }

    pub fn held(&self) -> bool {
        self.kernel == Kernel::Held
    }

    /// Read back as not there.
    pub fn gone(&self) -> bool {
        self.kernel == Kernel::Gone && self.source == Source::Clear
    }

    /// Here, and used as source: the PBX may be started.
    pub fn ready(&self) -> bool {
        self.kernel == Kernel::Held && self.source == Source::Set
    }

    pub fn since(&self) -> Option<UnixMs> {
        if self.held() { self.since } else { None }
    }

    pub fn interface(&self) -> Option<&str> {
        self.interface.as_deref()
    }

    pub fn trouble(&self) -> Option<&str> {
        self.no_interface.as_deref()
    }

    pub fn renew_min_lease(&self) -> Duration {
        self.policy.renew_min_lease
    }

    pub fn hear(&mut self, now: Now, event: AddressEvent, lease_left: Duration, notices: &mut Notices) {
        match event {
            AddressEvent::Renewed { asked } => self.hear_renewed(now, asked, lease_left),
            AddressEvent::Read {
                present,
                interface,
                has_link,
            } => {
                self.hear_read(now, present, notices);
                match &interface {
                    Ok(name) if !has_link => notices.go_on("vip-link", no_link(now, name), now.unix),
                    _ => notices.clear("vip-link"),
                }
                match interface {
                    Ok(name) => (self.interface, self.no_interface) = (Some(name), None),
                    Err(why) => (self.interface, self.no_interface) = (None, Some(why)),
                }
            }
            AddressEvent::Asked { other } => self.hear_asked(now, other, notices),
            AddressEvent::Failed { what } => {
                self.kernel = Kernel::Unknown;
                notices.raise(
                    "vip",
                    notice(
                        now,
                        format!("the address could not be changed or read: {what}"),
                        "it is tried again",
                        true,
                    ),
                );
            }
            AddressEvent::SourceSet => {
                self.source = Source::Set;
                notices.clear("source");
            }
            AddressEvent::SourceCleared => {
                self.source = Source::Clear;
                notices.clear("source");
            }
            AddressEvent::SourceFailed { what } => {
                self.source = Source::Unknown;
                let what = format!("the routes with the address as source could not be changed: {what}");
                notices.raise("source", notice(now, what, "it is tried again", true));
            }
        }
    }

    /// Asked for in time, but the thread may have been stopped before the kernel heard it: then a lifetime was given
    /// that may outlast the wait of a new owner.
    fn hear_renewed(&mut self, now: Now, asked: BootMs, lease_left: Duration) {
        if self.kernel != Kernel::Held || self.expired(asked) {
            self.since = Some(now.unix);
            self.announce_left = ANNOUNCEMENTS;
            self.announce_at = now.boot;
            self.source = Source::Unknown;
            self.source_at = None;
        }
        self.kernel = Kernel::Held;
        self.renewed = asked;
        self.acted_at = None;
        self.dropped_at = None;
        self.late = lease_left < self.policy.renew_min_lease;
    }

    fn hear_asked(&mut self, now: Now, other: Option<String>, notices: &mut Notices) {
        let Some(mac) = other else {
            self.unanswered += 1;
            return;
        };
        self.unanswered = 0;
        let what = format!("the machine with the MAC address {mac} answers for the virtual address");
        let advice = format!(
            "it is added here when nobody answers any more, or after {} s; if that machine isn't one of the three nodes, take the address from it",
            CONTESTED_MAX.as_secs()
        );
        notices.raise("vip-contested", notice(now, what, &advice, true));
    }

    fn hear_read(&mut self, now: Now, present: bool, notices: &mut Notices) {
        match (self.kernel, present) {
            (Kernel::Gone, true) => {
                let what = "the virtual address was found here although this node doesn't hold it".to_owned();
                let advice = "it is removed; if it comes back, something else on this node sets it: look at the network configuration";
                notices.raise("vip-stray", notice(now, what, advice, true));
            }
            (Kernel::Held, false) => {
                let what = "the virtual address was taken off the interface by something else, or ran out".to_owned();
                notices.raise(
                    "vip-vanished",
                    notice(now, what, "it is added again while the lease lasts", false),
                );
            }
            _ => {}
        }
        if present && self.kernel != Kernel::Held {
            // Found, not set by us: its lifetime isn't known, so it counts as run out and is set anew or removed.
            self.since = Some(now.unix);
            self.renewed = BootMs(0);
            self.source = Source::Unknown;
        }
        self.kernel = if present { Kernel::Held } else { Kernel::Gone };
        if !present {
            self.late = false;
            self.announce_left = 0;
        }
        self.read_at = Some(now.boot);
        notices.clear("vip");
    }

    pub fn duties(&mut self, now: Now, want: Want, duties: &mut Vec<Duty>) {
        let want = if self.late { Want::Drop } else { want };
        match want {
            Want::Hold | Want::Soon => {}
            // A lease that is short for a moment doesn't begin the waiting anew.
            Want::Keep | Want::Lapse => (self.unanswered, self.asked_at) = (0, None),
            Want::Drop => self.stop_asking(),
        }
        match want {
            Want::Hold if self.kernel == Kernel::Held && !self.expired(now.boot) => self.renew(now.boot, duties),
            Want::Hold if self.idle(now.boot) => {
                if self.nobody_else_has_it(now.boot) {
                    self.stop_asking();
                    self.acted_at = Some(now.boot);
                    duties.push(Duty::AddVip);
                } else {
                    self.ask(now.boot, duties);
                }
            }
            Want::Keep if self.kernel == Kernel::Held && !self.expired(now.boot) => self.renew(now.boot, duties),
            Want::Hold | Want::Keep | Want::Lapse => {}
            Want::Drop => self.drop_it(now.boot, duties),
            Want::Soon => {
                self.drop_it(now.boot, duties);
                self.ask(now.boot, duties);
            }
        }
        if !matches!(want, Want::Drop | Want::Soon) && self.kernel == Kernel::Held && !self.expired(now.boot) {
            self.announce(now.boot, duties);
            self.set_source(now.boot, duties);
        }
        if due(self.read_at, READ_EVERY, now.boot) && !duties.contains(&Duty::DropVip) {
            self.read_at = Some(now.boot);
            duties.push(Duty::ReadVip);
        }
    }

    /// As far as the network says, or long enough though it says otherwise.
    fn nobody_else_has_it(&mut self, now: BootMs) -> bool {
        let since = *self.wanted_since.get_or_insert(now);
        self.unanswered >= QUESTIONS || now.since(since) >= CONTESTED_MAX
    }

    fn ask(&mut self, now: BootMs, duties: &mut Vec<Duty>) {
        if due(self.asked_at, ASK_EVERY, now) {
            let anew = self.asked_at.is_none();
            self.asked_at = Some(now);
            duties.push(Duty::AskForVip { anew });
        }
    }

    fn stop_asking(&mut self) {
        (self.unanswered, self.asked_at, self.wanted_since) = (0, None, None);
    }

    fn renew(&mut self, now: BootMs, duties: &mut Vec<Duty>) {
        if now.since(self.renewed) >= self.policy.renew_every && self.idle(now) {
            self.acted_at = Some(now);
            duties.push(Duty::RenewVip);
        }
    }

    fn drop_it(&mut self, now: BootMs, duties: &mut Vec<Duty>) {
        self.announce_left = 0;
        if self.kernel != Kernel::Gone && due(self.dropped_at, RETRY, now) {
            self.dropped_at = Some(now);
            self.kernel = Kernel::Unknown;
            duties.push(Duty::DropVip);
        }
        if self.source != Source::Clear && due(self.source_at, RETRY, now) {
            self.source_at = Some(now);
            duties.push(Duty::ClearSource);
        }
    }

    fn announce(&mut self, now: BootMs, duties: &mut Vec<Duty>) {
        if now >= self.announce_at {
            self.announce_left = self.announce_left.saturating_sub(1);
            let next = if self.announce_left > 0 {
                ANNOUNCE_EVERY
            } else {
                ANNOUNCE_AGAIN
            };
            self.announce_at = now.plus(next);
            duties.push(Duty::Announce);
        }
    }

    fn set_source(&mut self, now: BootMs, duties: &mut Vec<Duty>) {
        let every = if self.source == Source::Set {
            SOURCE_EVERY
        } else {
            RETRY
        };
        if due(self.source_at, every, now) {
            self.source_at = Some(now);
            duties.push(Duty::SetSource);
        }
    }

    /// The kernel may have dropped it by itself since.
    fn expired(&self, now: BootMs) -> bool {
        now.since(self.renewed) >= self.policy.valid
    }

    fn idle(&self, now: BootMs) -> bool {
        due(self.acted_at, RETRY, now)
    }
}

/// No reason to move: a switch that fails takes the link from all three, and gives it back to one after the other.
fn no_link(now: Now, interface: &str) -> Notice {
    let what = format!("interface {interface}, on which the virtual address belongs, has no link");
    let advice = "look at its cable and its switch port; the role doesn't move for it by itself: `holdfast switchover` if callers don't reach the PBX here";
    notice(now, what, advice, true)
}

fn due(last: Option<BootMs>, every: Duration, now: BootMs) -> bool {
    last.is_none_or(|last| now.since(last) >= every)
}

fn notice(now: Now, what: String, advice: &str, serious: bool) -> Notice {
    Notice {
        what,
        advice: advice.to_owned(),
        since: now.unix,
        serious,
    }
}
