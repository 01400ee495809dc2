//! Whether the kernel killed for want of memory.
//!
//! A process that the kernel kills to free memory looks like any other that got SIGKILL. The cgroup of the server, in
//! which its workers run, counts such kills. Each counted kill is charged to one death only, so that a worker that
//! somebody kills by hand later isn't taken for one more.

use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

static KILLS: Mutex<Option<Kills>> = Mutex::new(None);

/// Counts from now on; earlier kills are nobody's. Calling it again changes nothing.
pub(super) fn watch() {
    let mut kills = KILLS.lock();
    if kills.is_none() {
        *kills = Kills::find(
            &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            "/sys/fs/cgroup".as_ref(),
        );
    }
}

/// Whether the kernel has killed for memory once more than was charged before; charges it. Where no counter can be
/// read the answer is no.
pub(super) fn charge() -> bool {
    KILLS.lock().as_mut().is_some_and(Kills::charge)
}

struct Kills {
    counter: PathBuf,
    charged: u64,
}

impl Kills {
    /// The counter of the cgroup that `membership` (the text of `/proc/self/cgroup`) names. Inside a container the
    /// path may be the host's; then the top of what is mounted is the container's own group.
    fn find(membership: &str, root: &Path) -> Option<Self> {
        let mut candidates = Vec::new();
        for line in membership.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                candidates.extend([root.join(path).join("memory.events"), root.join("memory.events")]);
            } else if controllers.split(',').any(|controller| controller == "memory") {
                let root = root.join("memory");
                candidates
                    .extend([root.join(path).join("memory.oom_control"), root.join("memory.oom_control")]);
            }
        }
        candidates.into_iter().find_map(|counter| Some(Self { charged: read(&counter)?, counter }))
    }

    fn charge(&mut self) -> bool {
        let more = read(&self.counter).is_some_and(|count| count > self.charged);
        if more {
            self.charged += 1;
        }
        more
    }
}

fn read(counter: &Path) -> Option<u64> {
    let text = fs::read_to_string(counter).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(membership: &str, file: &str, text: &str) -> (tempfile::TempDir, Option<Kills>) {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        let kills = Kills::find(membership, root.path());
        (root, kills)
    }

    #[test]
    fn each_kill_is_charged_once() {
        let (root, kills) = kills("0::/zoo\n", "zoo/memory.events", "oom 4\noom_kill 3\noom_group_kill 0\n");
        let mut kills = kills.unwrap();
        assert!(!kills.charge(), "kills before the start are nobody's");
        fs::write(root.path().join("zoo/memory.events"), "oom 4\noom_kill 5\n").unwrap();
        assert_eq!([kills.charge(), kills.charge(), kills.charge()], [true, true, false]);
    }

    #[test]
    fn counters_are_found_in_both_hierarchies_and_inside_containers() {
        let hybrid = "4:memory:/docker/0123\n1:cpu,cpuacct:/x\n0::/\n";
        let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!(kills(hybrid, "memory/docker/0123/memory.oom_control", control).1.unwrap().charged, 7);
        assert_eq!(kills(hybrid, "memory/memory.oom_control", control).1.unwrap().charged, 7);
        assert_eq!(kills("0::/../other", "memory.events", "oom_kill 2\n").1.unwrap().charged, 2);
        assert!(kills("0::/zoo", "zoo/memory.current", "17").1.is_none());
        assert!(kills("0::/zoo", "zoo/memory.events", "oom 1\n").1.is_none());
    }
}
