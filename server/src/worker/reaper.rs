//! Who collects which dead child.
//!
//! The server is a child subreaper: what a worker leaves behind becomes the server's child, and would stay a zombie
//! if nobody waited for it. A blind `waitpid(-1)` would collect workers too and take their exit status from the
//! task that owns them, so a child is collected here only by its pid and only when nobody has claimed it.
//!
//! The kernel keeps one list of children per process, and so does this module: a claim must hold for each sweep,
//! whoever runs it. A child started past [`Spawning`] may therefore lose its exit status; only `worker::launch`
//! starts processes. This module never signals anybody.

use std::collections::BTreeSet;
use std::{fs, io};

use parking_lot::Mutex;
use rustix::process::{Pid, RawPid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

static CHILDREN: Mutex<Children> = Mutex::new(Children { claimed: BTreeSet::new(), spawning: 0 });

/// A sweep may find something to do that no signal will tell of.
static SWEEP: Notify = Notify::const_new();

struct Children {
    claimed: BTreeSet<RawPid>,
    /// Spawns under way: their children exist, but nobody knows their pids yet.
    spawning: usize,
}

/// Makes this process the one that inherits its descendants' orphans, and collects them from now on in a task of the
/// current runtime.
pub(super) fn start() -> io::Result<()> {
    // First the handler: where SIGCHLD was inherited as ignored, the kernel would throw away exit statuses.
    let mut dead_children = signal(SignalKind::child())?;
    become_subreaper()?;
    tokio::spawn(async move {
        // A sweep reads much of /proc. Its end comes with the runtime's.
        while tokio::task::spawn_blocking(sweep).await.is_ok() {
            tokio::select! {
                _ = dead_children.recv() => {}
                () = SWEEP.notified() => {}
            }
        }
    });
    Ok(())
}

fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Holds sweeps off while a child is being made, so that one that dies at once isn't collected before it is claimed.
pub(super) struct Spawning(());

impl Spawning {
    pub(super) fn begin() -> Self {
        CHILDREN.lock().spawning += 1;
        Self(())
    }

    /// From now on only the holder of the claim collects this child.
    #[expect(clippy::unused_self, reason = "a claim is sound only while sweeps are held off")]
    pub(super) fn claim(&self, pid: Pid) -> Claim {
        CHILDREN.lock().claimed.insert(pid.as_raw_pid());
        Claim { pid, collected: false }
    }
}

impl Drop for Spawning {
    fn drop(&mut self) {
        CHILDREN.lock().spawning -= 1;
        // The signal of an orphan that died in the meantime has been spent on a sweep that was held off.
        SWEEP.notify_one();
    }
}

/// The right and the duty to collect one child. Dropped, it leaves the child to the sweeps.
#[derive(Debug)]
pub(super) struct Claim {
    pid: Pid,
    collected: bool,
}

impl Claim {
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the child has been collected, so that its pid may be anybody's.
    pub(super) fn is_collected(&self) -> bool {
        self.collected
    }

    /// Collects the child, which must have ended.
    pub(super) fn collect(&mut self) {
        // In one step with the end of the claim: a new child that gets the same pid is claimed after that.
        let mut children = CHILDREN.lock();
        let _ = waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        children.claimed.remove(&self.pid.as_raw_pid());
        self.collected = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.collected {
            CHILDREN.lock().claimed.remove(&self.pid.as_raw_pid());
            SWEEP.notify_one();
        }
    }
}

/// Collects each dead child that nobody claims.
fn sweep() {
    if !any_dead() {
        return;
    }
    let dead = match dead_children() {
        Ok(dead) => dead,
        Err(error) => return tracing::warn!("orphans of workers can't be collected: /proc: {error}"),
    };
    // From here on no child is claimed or made. One that took the pid of a listed one meanwhile is claimed already.
    let children = CHILDREN.lock();
    if children.spawning > 0 {
        return;
    }
    for pid in dead.into_iter().filter(|pid| !children.claimed.contains(&pid.as_raw_pid())) {
        // Gone already, or collected now.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Whether any child, claimed or not, waits to be collected. Looks only.
fn any_dead() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, look), Ok(Some(_)))
}

/// All dead children. `waitid` shows only one, the same one until it is collected, so that a claimed one would hide
/// the others; and many kernels are built without `/proc/self/task/*/children`.
fn dead_children() -> io::Result<Vec<Pid>> {
    let parent = getpid();
    let mut dead = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // A process that can't be read is gone, or no child of ours.
        let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
        if is_dead_child_of(parent, &String::from_utf8_lossy(&stat)) {
            dead.push(pid);
        }
    }
    Ok(dead)
}

/// `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn is_dead_child_of(parent: Pid, stat: &str) -> bool {
    let Some((_, after_name)) = stat.rsplit_once(") ") else { return false };
    let mut fields = after_name.split(' ');
    fields.next() == Some("Z")
        && fields.next().and_then(|ppid| ppid.parse().ok()) == Some(parent.as_raw_pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_children_are_told_from_all_others() {
        let parent = Pid::from_raw(17).unwrap();
        for (stat, dead) in [
            ("42 (python3) Z 17 42 42 0", true),
            ("42 (a) Z 18 (b) Z 17 42 42 0", true),
            ("42 (a) Z 17 (b) S 17 42 42 0", false),
            ("42 (python3) S 17 42 42 0", false),
            ("42 (python3) Z 170 42 42 0", false),
            ("42", false),
        ] {
            assert_eq!(is_dead_child_of(parent, stat), dead, "{stat}");
        }
    }
}
