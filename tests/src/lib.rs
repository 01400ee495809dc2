//! What the tests of the whole share.
//!
//! [`unruly`] is the vocabulary of the misbehaving worker in `bin/unruly-worker.rs`; [`pools`] makes pools of it, and of Python workers, in a
//! process of the test's own. Nothing here is part of the product.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test, where it went wrong"
)]

use std::time::{Duration, Instant};

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

/// Sends SIGKILL to a process, which may be gone.
pub fn kill(pid: u32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
