//! Classes at the edge: which one a new directory gets, and the two attributes that show a file's class and seal.
//!
//! The attributes can be asked for by name and are in no list: whatever copies lists of attributes (`cp -a`,
//! `rsync -X`, `tar`) would carry them to other files, of which they aren't true.

use crate::backend::Backend;
use bytes::Bytes;
use holdfast_replicator::api::Failure;
use holdfast_storage::class::Class;
use holdfast_storage::op::{Op, Refusal};
use holdfast_storage::record::Inode;
use holdfast_storage::types::Ino;

/// A directory that gets a class when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    /// From the mount's root.
    pub path: Vec<Bytes>,
    pub class: Class,
}

pub(crate) fn of_new(
    backend: &impl Backend,
    rules: &[ClassRule],
    parent: Ino,
    name: &[u8],
) -> Result<Option<Class>, Failure> {
    for rule in rules {
        if let Some((last, above)) = rule.path.split_last()
            && last == name
            && leads_to(backend, above, parent)?
        {
            return Ok(Some(rule.class));
        }
    }
    Ok(None)
}

fn leads_to(backend: &impl Backend, path: &[Bytes], directory: Ino) -> Result<bool, Failure> {
    let mut at = Ino::ROOT;
    for name in path {
        at = match backend.lookup(at, name) {
            Ok((ino, _)) => ino,
            Err(Failure::Refused(Refusal::NotFound | Refusal::NotDirectory)) => return Ok(false),
            Err(failure) => return Err(failure),
        };
    }
    Ok(at == directory)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Class,
    Seal,
}

impl Attribute {
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"holdfast.class" => Some(Self::Class),
            b"holdfast.seal" => Some(Self::Seal),
            _ => None,
        }
    }

    pub(crate) fn value(self, inode: &Inode) -> Result<String, Failure> {
        match (self, &inode.seal) {
            (Self::Class, _) => Ok(inode.class.name().to_owned()),
            (Self::Seal, Some(seal)) => Ok(seal.iter().map(|byte| format!("{byte:02x}")).collect()),
            (Self::Seal, None) => Err(Refusal::NoAttribute.into()),
        }
    }

    /// `None` removes it: the class is then that of the directory again.
    pub(crate) fn set(self, uid: u32, ino: Ino, value: Option<&[u8]>) -> Result<Op, Failure> {
        if uid != 0 || self == Self::Seal {
            return Err(Refusal::NotPermitted.into());
        }
        let class = match value {
            None => None,
            Some(value) => {
                let name = std::str::from_utf8(value).map_err(|_| Refusal::Invalid)?;
                Some(Class::named(name).ok_or(Refusal::Invalid)?)
            }
        };
        Ok(Op::SetClass { ino, class })
    }
}
