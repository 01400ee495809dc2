//! What the machine is doing: processors, memory, disk, GPUs. Read from the kernel, and from `nvidia-smi` where it is.

use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;
use tracing::{debug, warn};

use super::Metrics;

const MEGABYTE: f64 = 1024.0 * 1024.0;
const GIGABYTE: f64 = 1024.0 * MEGABYTE;
/// The first measurement is taken so soon, so that a scrape after the start has something to show.
const FIRST: Duration = Duration::from_millis(100);

/// Measures the machine every `interval`, on threads of its own that end with `metrics`: a GPU's driver may hang.
///
/// # Errors
/// If there can't be another thread.
pub fn measure_host(metrics: &Arc<Metrics>, interval: Duration) -> io::Result<()> {
    let mut before = None;
    repeat("host-metrics", metrics, interval, move |metrics| {
        let now = fs::read_to_string("/proc/stat").ok().as_deref().and_then(Ticks::parse);
        if let (Some(before), Some(now)) = (before, now) {
            metrics.set("CPUUtilization", now.utilization_since(before), &["Host"]);
        }
        before = now.or(before);
        measure_memory(metrics);
        measure_disk(metrics);
        true
    })?;
    repeat("gpu-metrics", metrics, interval, measure_gpus)
}

fn repeat(
    name: &str,
    metrics: &Arc<Metrics>,
    interval: Duration,
    mut measure: impl FnMut(&Metrics) -> bool + Send + 'static,
) -> io::Result<()> {
    let metrics: Weak<Metrics> = Arc::downgrade(metrics);
    let run = move || {
        // Twice at the beginning: utilization is a difference.
        let mut pause = FIRST.min(interval);
        while let Some(metrics) = metrics.upgrade() {
            if !measure(&metrics) {
                return;
            }
            drop(metrics);
            thread::sleep(std::mem::replace(&mut pause, interval));
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Time that the processors have spent, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    total: u64,
    idle: u64,
}

impl Ticks {
    fn parse(stat: &str) -> Option<Self> {
        let numbers = stat.lines().next()?.strip_prefix("cpu ")?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        // Time of guests, after the first eight, is part of user time.
        let total = numbers.get(..8)?.iter().sum();
        Some(Self { total, idle: numbers[3] + numbers[4] })
    }

    fn utilization_since(self, before: Self) -> f64 {
        let total = self.total.saturating_sub(before.total);
        let idle = self.idle.saturating_sub(before.idle).min(total);
        if total == 0 { 0.0 } else { tenths(100.0 * (total - idle) as f64 / total as f64) }
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn measure_memory(metrics: &Metrics) {
    let Some((total, available)) = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory)
    else {
        return;
    };
    let used = (total - available).max(0.0);
    metrics.set("MemoryUsed", used / MEGABYTE, &["Host"]);
    metrics.set("MemoryAvailable", available / MEGABYTE, &["Host"]);
    metrics.set("MemoryUtilization", tenths(100.0 * used / total), &["Host"]);
}

/// Bytes that there are, and those that programs can still have.
fn memory(meminfo: &str) -> Option<(f64, f64)> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
    };
    Some((bytes("MemTotal")?, bytes("MemAvailable")?)).filter(|(total, _)| *total > 0.0)
}

fn measure_disk(metrics: &Metrics) {
    match statvfs("/") {
        Ok(disk) => {
            let bytes = |blocks: u64| blocks as f64 * disk.f_frsize as f64;
            // Utilization as `df` has it: of what users can have.
            let (used, free) = (bytes(disk.f_blocks.saturating_sub(disk.f_bfree)), bytes(disk.f_bavail));
            metrics.set("DiskUsage", used / GIGABYTE, &["Host"]);
            metrics.set("DiskAvailable", free / GIGABYTE, &["Host"]);
            metrics.set("DiskUtilization", tenths(100.0 * used / (used + free).max(1.0)), &["Host"]);
        }
        Err(error) => debug!(%error, "can't measure the disk"),
    }
}

/// Whether there is any use in trying again.
fn measure_gpus(metrics: &Metrics) -> bool {
    let text = match gpus() {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
        Err(error) => {
            warn!(%error, "can't measure GPUs");
            return true;
        }
    };
    for gpu in text.lines().filter_map(Gpu::parse) {
        let labels = ["Host", gpu.id];
        if let Some(utilization) = gpu.utilization {
            metrics.set("GPUUtilization", utilization, &labels);
        }
        if let (Some(used), Some(total)) = (gpu.used, gpu.total.filter(|&total| total > 0.0)) {
            metrics.set("GPUMemoryUsed", used, &labels);
            metrics.set("GPUMemoryUtilization", 100.0 * used / total, &labels);
        }
    }
    true
}

fn gpus() -> io::Result<String> {
    let query =
        ["--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"];
    let mut command = Command::new("nvidia-smi");
    command.args(query).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text)?;
    }
    // The server collects children that nobody claims, this one too; only what it wrote matters.
    let _ = child.wait();
    Ok(text)
}

/// One line of `nvidia-smi`; what a device doesn't tell (`[N/A]`) is missing.
#[derive(Debug, PartialEq)]
struct Gpu<'a> {
    id: &'a str,
    utilization: Option<f64>,
    used: Option<f64>,
    total: Option<f64>,
}

impl<'a> Gpu<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(',').map(str::trim);
        let id = fields.next().filter(|id| id.parse::<u32>().is_ok())?;
        let mut number = || fields.next()?.parse().ok();
        Some(Self { id, utilization: number(), used: number(), total: number() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_busy_when_they_are_not_idle() {
        let ticks = |text| Ticks::parse(text).unwrap();
        let before = ticks("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 1 1 1\n");
        assert_eq!(before, Ticks { total: 1000, idle: 850 });
        let now = ticks("cpu  130 0 53 850 50 0 0 0 9 9\n");
        assert!((now.utilization_since(before) - 39.8).abs() < 1e-9);
        assert_eq!(before.utilization_since(before).to_bits(), 0.0_f64.to_bits());
        assert_eq!(Ticks::parse("cpu  1 2 3\n"), None);
        assert_eq!(Ticks::parse(""), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory(text), Some((1_024_000.0, 409_600.0)));
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
        assert_eq!(memory("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn gpus_may_keep_things_to_themselves() {
        let all = Gpu { id: "0", utilization: Some(17.0), used: Some(1024.0), total: Some(143_771.0) };
        assert_eq!(Gpu::parse("0, 17, 1024, 143771"), Some(all));
        let some = Gpu { id: "1", utilization: None, used: Some(5.0), total: None };
        assert_eq!(Gpu::parse("1, [N/A], 5, [N/A]"), Some(some));
        assert_eq!(Gpu::parse("NVIDIA-SMI has failed"), None);
    }

    #[test]
    fn this_machine_can_be_measured() {
        let metrics = Arc::new(Metrics::default());
        measure_memory(&metrics);
        measure_disk(&metrics);
        let text = metrics.text(&["MemoryAvailable".to_owned(), "DiskUsage".to_owned()]);
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 2, "{text}");
    }
}
