//! Every errno that an application may see, and nowhere else in the project.
//!
//! EIO after a change means that its outcome isn't known: it may or may not have been carried out.
//! EAGAIN means that nothing was done, for this node isn't the active one.

use fuser::Errno;
use holdfast_replicator::api::Failure;
use holdfast_storage::op::Refusal;

/// Answer of a standby's mount to every name but its notice's.
pub(crate) const NOT_ACTIVE_HERE: Errno = Errno::EAGAIN;
pub(crate) const NO_SUCH_NAME: Errno = Errno::ENOENT;
/// The kernel stops asking and does the operation its own way, or refuses it.
pub(crate) const LEFT_TO_KERNEL: Errno = Errno::ENOSYS;
pub(crate) const NO_IOCTL: Errno = Errno::ENOTTY;
/// The value of an extended attribute, or the list of them, is larger than the caller's buffer.
pub(crate) const BUFFER_TOO_SMALL: Errno = Errno::ERANGE;
/// A seek found nothing before the end of the file, or began behind it.
pub(crate) const NOTHING_FURTHER: Errno = Errno::ENXIO;

pub(crate) fn of(failure: Failure) -> Errno {
    match failure {
        Failure::Refused(refusal) => of_refusal(refusal),
        Failure::NotActive => NOT_ACTIVE_HERE,
        Failure::Deadline | Failure::Lost | Failure::Unreadable | Failure::Rotten => Errno::EIO,
    }
}

fn of_refusal(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NotFound => NO_SUCH_NAME,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotDirectory => Errno::ENOTDIR,
        Refusal::IsDirectory => Errno::EISDIR,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NameTooLong => Errno::ENAMETOOLONG,
        Refusal::Invalid => Errno::EINVAL,
        Refusal::NotPermitted => Errno::EPERM,
        Refusal::TooManyLinks => Errno::EMLINK,
        Refusal::TooLarge => Errno::EFBIG,
        Refusal::NoSpace => Errno::ENOSPC,
        Refusal::NoAttribute => Errno::ENODATA,
        Refusal::AttributeTooLarge => Errno::E2BIG,
        Refusal::NotSupported => Errno::EOPNOTSUPP,
        Refusal::Damaged => Errno::EIO,
    }
}
