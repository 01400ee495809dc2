//! What a process and its descendants cost, read from `/proc`. Knows nothing of servers or requests.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The unit of CPU times in `/proc/<pid>/stat`: fixed to 1/100 s for programs, whatever the kernel's own tick
/// is.
const TICK: Duration = Duration::from_millis(10);

/// What a process tree has used so far and holds now.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Usage {
    /// Processes alive.
    pub processes: usize,
    /// User and system time, with that of ended children that were waited for.
    pub cpu: Duration,
    /// Resident memory, summed; pages that processes share count once for each.
    pub rss_bytes: u64,
    /// Resident memory with shared pages split between their owners: what the tree really takes.
    pub pss_bytes: u64,
}

/// The two facts that a process's line in `/proc` is read for.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    cpu: Duration,
}

/// CPU time of one process and of its ended children.
///
/// # Errors
/// When there is no such process.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    Ok(read_stat(pid)?.cpu)
}

/// CPU time that all programs of the machine have used, and the time that its host gave to others.
///
/// # Errors
/// When `/proc/stat` can't be read.
pub fn cpu_of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_machine(&text).context("/proc/stat has no line of CPU times")
}

/// Interrupts are left out: their time belongs to no program, and a program's own packets cause most of them
/// here.
fn parse_machine(text: &str) -> Option<Duration> {
    let times = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<u32> = times.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _wait, _irq, _softirq, steal, ..] = times[..] else { return None };
    Some(TICK * user + TICK * nice + TICK * system + TICK * steal)
}

/// Usage of `root` and all its descendants.
///
/// # Errors
/// When `root` isn't alive. A descendant that ends while it is read is left out.
pub fn usage_of_tree(root: u32) -> Result<Usage> {
    read_stat(root).context("the measured server isn't running")?;
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Ok(stat) = read_stat(pid)
        {
            stats.insert(pid, stat);
        }
    }
    let mut usage = Usage::default();
    for pid in tree_of(root, &stats) {
        if let Some(stat) = stats.get(&pid)
            && let Ok((rss_bytes, pss_bytes)) = read_memory(pid)
        {
            usage.processes += 1;
            usage.cpu += stat.cpu;
            usage.rss_bytes += rss_bytes;
            usage.pss_bytes += pss_bytes;
        }
    }
    Ok(usage)
}

/// `root` and its descendants.
fn tree_of(root: u32, stats: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(&pid, _)| pid));
        next += 1;
    }
    tree
}

fn read_stat(pid: u32) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_stat(&text).with_context(|| format!("{path} has an unknown form: {}", text.trim()))
}

/// The command's name may hold spaces and parentheses, so fields are counted from its closing one.
fn parse_stat(text: &str) -> Result<Stat> {
    let Some((_, fields)) = text.rsplit_once(')') else { bail!("no command name") };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| -> Result<u64> {
        let field = fields.get(index).with_context(|| format!("no field {index} after the name"))?;
        field.parse().with_context(|| format!("field {index} after the name isn't a number"))
    };
    // utime, stime, cutime and cstime stand together.
    let ticks = (11..=14).map(number).sum::<Result<u64>>()?;
    Ok(Stat { parent: u32::try_from(number(1)?)?, cpu: TICK * u32::try_from(ticks)? })
}

fn read_memory(pid: u32) -> Result<(u64, u64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_memory(&text).with_context(|| format!("{path} has no Rss or no Pss line"))
}

/// Resident and proportional size in bytes.
fn parse_memory(text: &str) -> Option<(u64, u64)> {
    let kibibytes = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((kibibytes("Rss:")? * 1024, kibibytes("Pss:")? * 1024))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_hostile_command_name_does_not_shift_the_fields() {
        let stat = parse_stat("7 (a) R 1 (b) S 42 7 7 0 -1 0 1 2 3 4 100 20 3 4 20 0 1 0 99").unwrap();
        assert_eq!(stat, Stat { parent: 42, cpu: Duration::from_millis(1270) });
        assert!(parse_stat("7 (short) S 42 7").is_err());
        assert!(parse_stat("").is_err());
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text =
            "5580-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    1884 kB\nPss:     512 kB\nPss_Dirty: 4 kB\n";
        assert_eq!(parse_memory(text), Some((1884 * 1024, 512 * 1024)));
        assert_eq!(parse_memory("Rss: 1 kB\n"), None);
    }

    #[test]
    fn the_machine_is_busy_with_programs_only() {
        let text = "cpu  1 2 3 1000 50 6 7 8 0 0\ncpu0 1 2 3 1000 50 6 7 8 0 0\n";
        assert_eq!(parse_machine(text), Some(14 * TICK));
        assert_eq!(parse_machine("cpu  1 2\n"), None);
        assert!(cpu_of_machine().unwrap() > Duration::ZERO);
    }

    #[test]
    fn grandchildren_belong_to_the_tree_and_strangers_do_not() {
        let stat = |parent| Stat { parent, cpu: Duration::ZERO };
        let stats = HashMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        let mut tree = tree_of(5, &stats);
        tree.sort_unstable();
        assert_eq!(tree, [5, 6, 7]);
    }

    #[test]
    fn a_child_adds_to_its_parents_tree_and_a_missing_root_is_an_error() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let usage = usage_of_tree(std::process::id()).unwrap();
        assert!(usage.processes >= 2);
        assert!(usage.rss_bytes >= usage.pss_bytes && usage.pss_bytes > 0);
        let pid = child.id();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(usage_of_tree(pid).unwrap_err().to_string().contains("isn't running"));
    }
}
