//! One worker process, from its start until nothing of it is left.
//!
//! A [`Process`] is watched and signalled through its pidfd, so a signal never reaches a stranger that got the same
//! pid. At death the owner reads the link until it would block, judges with [`Process::exited`], then calls
//! [`Process::kill_group`] and [`Process::reap`], in this order: as long as the process isn't reaped its pid, and with
//! it the number of its group, belongs to nobody else.
//!
//! Knows nothing of models, links or output.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{
    PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process, kill_process_group,
    pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::oom;
use super::reaper::Claim;

/// A live or dead worker process that is this value's to end. Dropped, it kills what is left of the process and its
/// group, and the reaper collects it.
#[derive(Debug)]
pub struct Process {
    handle: AsyncFd<Handle>,
    exit: Option<Exit>,
}

impl Process {
    #[expect(
        deprecated,
        reason = "the replacement is an unsafe fn for types that may change or close their descriptor; a handle owns \
                  one pidfd for its whole life"
    )]
    pub(super) fn new(handle: Handle) -> io::Result<Self> {
        Ok(Self { handle: AsyncFd::with_interest(handle, Interest::READABLE)?, exit: None })
    }

    /// The pid, for people to read; signals go through [`Process::signal`].
    pub fn id(&self) -> u32 {
        self.handle.get_ref().claim.pid().as_raw_nonzero().get().cast_unsigned()
    }

    /// How the process ended, once it has. Leaves it uncollected, and may be asked again. Only the latest `cx` is woken.
    pub fn poll_exited(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        if let Some(exit) = self.exit {
            return Poll::Ready(exit);
        }
        loop {
            // An error means that the runtime is shutting down: nothing will be polled again.
            let Ok(mut ready) = ready!(self.handle.poll_read_ready(cx)) else { return Poll::Pending };
            if let Some(exit) = ready.get_inner().look() {
                self.exit = Some(exit);
                return Poll::Ready(exit);
            }
            ready.clear_ready();
        }
    }

    /// Waits until the process has ended; cancel-safe.
    pub async fn exited(&mut self) -> Exit {
        poll_fn(|cx| self.poll_exited(cx)).await
    }

    /// Sends a signal to the process alone. One that has ended is left in peace.
    pub fn signal(&mut self, signal: Signal) {
        self.handle.get_mut().signal(signal);
    }

    /// Kills the process and everybody in its group.
    pub fn kill_group(&mut self) {
        self.handle.get_mut().kill_group();
    }

    /// SIGTERM to the process, then after `grace` SIGKILL to its group. Cancelled, it leaves the process where the
    /// ladder had come; calling it again starts anew.
    pub async fn stop(&mut self, grace: Duration) -> Exit {
        self.signal(Signal::TERM);
        let exit = tokio::time::timeout(grace, self.exited()).await;
        // Also after a peaceful end: its children may not have heard of it.
        self.kill_group();
        match exit {
            Ok(exit) => exit,
            Err(_) => self.exited().await,
        }
    }

    /// Waits for the end and collects the process. Cancelled, it leaves that to the reaper.
    pub async fn reap(mut self) -> Exit {
        let exit = self.exited().await;
        self.handle.get_mut().claim.collect();
        exit
    }
}

/// A child process before (and below) the runtime: what the launcher thread hands over.
#[derive(Debug)]
pub(super) struct Handle {
    pidfd: OwnedFd,
    claim: Claim,
    killed: bool,
}

impl Handle {
    /// Takes over a child that nobody has collected yet; on failure the child is killed and left to the reaper.
    pub(super) fn new(claim: Claim) -> io::Result<Self> {
        match pidfd_open(claim.pid(), PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pidfd, claim, killed: false }),
            Err(error) => {
                // The claim keeps the number from being used again.
                let _ = kill_process(claim.pid(), Signal::KILL);
                Err(error.into())
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.killed |= signal == Signal::KILL;
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(pid = %self.claim.pid(), ?signal, "a worker can't be signalled: {error}");
            }
        }
    }

    fn kill_group(&mut self) {
        if self.claim.is_collected() {
            return;
        }
        // First the process: one that hasn't made its group yet will never make it, and one that has can't add to it.
        // There is no such group before that, so nobody else is hit.
        self.signal(Signal::KILL);
        let _ = kill_process_group(self.claim.pid(), Signal::KILL);
    }

    /// How the process ended, if it has.
    fn look(&self) -> Option<Exit> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), look)) {
            Ok(None) => None,
            Ok(Some(status)) => Some(Exit::new(&status, self.killed)),
            // Somebody collected it past the reaper; its end is certain, the way is not.
            Err(_) => Some(Exit { how: How::Unknown, killed_by_us: self.killed, out_of_memory: false }),
        }
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The claim goes after this, and with it the certainty whose number it is.
        self.kill_group();
    }
}

/// Whether this kernel, and the sandbox around us if there is one, lets processes be watched through pidfds.
pub(super) fn supported() -> bool {
    let Ok(own) = pidfd_open(getpid(), PidfdFlags::empty()) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // We are no child of ourselves; a kernel that doesn't know the question says EINVAL.
    waitid(WaitId::PidFd(own.as_fd()), options).err() == Some(rustix::io::Errno::CHILD)
}

/// How a process ended. Reads as "exited with status 3", "was killed by signal 9 (SIGKILL), out of memory".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What the kernel says.
    pub how: How,
    /// We had sent SIGKILL before the end was seen.
    pub killed_by_us: bool,
    /// The kernel counted a kill for want of memory, or the status is what a shell makes of one (137).
    pub out_of_memory: bool,
}

/// What the kernel says about the end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It ended itself with this status.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// Its number.
        number: i32,
        /// It left a core file.
        core_dumped: bool,
    },
    /// Something else in this process took the exit status.
    Unknown,
}

impl Exit {
    fn new(status: &WaitIdStatus, killed_by_us: bool) -> Self {
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => How::Code(code),
            (None, Some(number)) => How::Signal { number, core_dumped: status.dumped() },
            (None, None) => How::Unknown,
        };
        let out_of_memory = match how {
            How::Code(code) => code == 128 + Signal::KILL.as_raw(),
            // Charged even if we killed it too: of a worker that the kernel kills, the end of the link is seen first.
            How::Signal { number, .. } => number == Signal::KILL.as_raw() && oom::charge(),
            How::Unknown => false,
        };
        Self { how, killed_by_us, out_of_memory }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Code(code) => write!(f, "exited with status {code}")?,
            How::Signal { number, core_dumped } => {
                write!(f, "was killed by signal {number}")?;
                if let Some(name) = name_of(number) {
                    write!(f, " ({name})")?;
                }
                if core_dumped {
                    f.write_str(", core dumped")?;
                }
            }
            How::Unknown => f.write_str("ended, nobody knows how")?,
        }
        if self.out_of_memory {
            f.write_str(", out of memory")?;
        }
        Ok(())
    }
}

fn name_of(signal: i32) -> Option<&'static str> {
    const NAMES: [(Signal, &str); 15] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    NAMES.iter().find(|(known, _)| known.as_raw() == signal).map(|&(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_read_as_sentences() {
        let exit = |how, out_of_memory| Exit { how, killed_by_us: false, out_of_memory }.to_string();
        assert_eq!(exit(How::Code(3), false), "exited with status 3");
        assert_eq!(exit(How::Code(137), true), "exited with status 137, out of memory");
        let signal = |number, core_dumped| How::Signal { number, core_dumped };
        assert_eq!(exit(signal(11, true), false), "was killed by signal 11 (SIGSEGV), core dumped");
        assert_eq!(exit(signal(9, false), true), "was killed by signal 9 (SIGKILL), out of memory");
        assert_eq!(exit(signal(40, false), false), "was killed by signal 40");
    }
}
