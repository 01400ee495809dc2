//! What the tests of the whole share.
//!
//! [`unruly`] is the vocabulary of the misbehaving worker in `bin/unruly-worker.rs`; [`pools`] makes pools of it, and of Python workers, in a
//! process of the test's own; [`harness`] starts the server as a program, [`http`] talks to it. Nothing here is part of the product.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, where it went wrong"
)]

use std::time::{Duration, Instant};

pub mod harness;
pub mod http;
pub mod pools;
pub mod unruly;

/// An end that only a broken build reaches.
pub const LONG: Duration = Duration::from_secs(50);

/// Waits for `future`, which has to end.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it should have ended long ago")
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process exists, if only as a zombie.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/stat")).exists()
}

/// Whether a process runs: it exists and is no zombie.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until `condition` holds, on a thread of a test without a runtime.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends SIGKILL to a process, which may be gone.
pub fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
