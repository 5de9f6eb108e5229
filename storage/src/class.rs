//! Classes: what the changes of a directory's files wait for, what their closing does, and who goes first.
//!
//! A class belongs to a directory and is inherited when a file or directory is made in it; each inode carries its own.

/// What a change waits for before its caller hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// It has its place in the log, in this node's memory.
    Sequenced,
    /// A second node holds it in its log, at least in memory.
    Received,
    /// It is durable on a majority.
    Committed,
}

/// What closing a file that was open for writing waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Nothing,
    /// As an fsync.
    Durable,
    /// As an fsync; and after the last writer has closed it, its hash is kept with it.
    Sealed,
}

/// How much may be acknowledged that isn't durable yet; beyond it a change waits until it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    pub bytes: u64,
    pub ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub write: Wait,
    pub close: Close,
    /// None: what may be behind is bounded by memory alone.
    pub behind: Option<Behind>,
    /// Admitted after everything else when there is no room for all.
    pub last: bool,
}

/// The numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing acknowledged is lost with one node.
    #[default]
    Default = 0,
    /// Programs that call fsync for what must stay: as any local file system does.
    Database = 1,
    /// Written once, closed, then kept: sealed when closed.
    Recordings = 2,
    /// Much, seldom read, never in the way of the rest.
    Logs = 3,
    /// Uploaded in one go.
    Prompts = 4,
    /// For programs that ought to call fsync and don't.
    Durable = 5,
}

impl Class {
    pub const ALL: [Self; 6] = [
        Self::Default,
        Self::Database,
        Self::Recordings,
        Self::Logs,
        Self::Prompts,
        Self::Durable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Database => "database",
            Self::Recordings => "recordings",
            Self::Logs => "logs",
            Self::Prompts => "prompts",
            Self::Durable => "durable",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    pub const fn profile(self) -> Profile {
        let plain = Profile {
            write: Wait::Received,
            close: Close::Nothing,
            behind: None,
            last: false,
        };
        match self {
            Self::Default => plain,
            Self::Database => Profile {
                write: Wait::Sequenced,
                ..plain
            },
            Self::Recordings => Profile {
                close: Close::Sealed,
                ..plain
            },
            Self::Logs => Profile {
                write: Wait::Sequenced,
                behind: Some(Behind {
                    bytes: 1 << 20,
                    ms: 1000,
                }),
                last: true,
                ..plain
            },
            Self::Prompts => Profile {
                write: Wait::Sequenced,
                close: Close::Durable,
                ..plain
            },
            Self::Durable => Profile {
                write: Wait::Committed,
                ..plain
            },
        }
    }

    /// Of two classes that a change concerns, the one that waits for more.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let weight = |class: Self| (class.profile().write, class.profile().behind.is_some());
        if weight(other) > weight(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_their_class() {
        for class in Class::ALL {
            assert_eq!(Class::named(class.name()), Some(class));
            assert_eq!(Class::numbered(class.number()), Some(class));
        }
        assert_eq!(Class::named("Database"), None);
        assert_eq!(Class::numbered(Class::ALL.len() as u8), None);
    }

    #[test]
    fn the_stricter_of_two_waits_for_as_much_as_each() {
        for one in Class::ALL {
            for other in Class::ALL {
                let both = one.stricter(other).profile();
                assert!(both.write >= one.profile().write && both.write >= other.profile().write);
                let bounded = [one, other]
                    .iter()
                    .any(|class| class.profile().write == both.write && class.profile().behind.is_some());
                assert_eq!(both.behind.is_some(), bounded);
            }
        }
    }
}
