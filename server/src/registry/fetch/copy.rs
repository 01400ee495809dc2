//! `file://`: a copy, so that the model store holds what is served.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zoo_archiver::progress::Progress;

use super::landing::Landing;
use super::{Limits, Trouble};
use crate::registry::register::Registering;

/// How much is copied between two looks at whether it is still wanted.
const BLOCK: u64 = 8 << 20;

/// Copies `path`.
pub(super) async fn copy(
    path: PathBuf,
    landing: &Landing,
    limits: Limits,
    registering: &Arc<Registering>,
) -> Result<(), Trouble> {
    let (source, size) = open(&path, limits)?;
    landing.check_room(size).map_err(Trouble::disk)?;
    let target = landing.writer().map_err(Trouble::disk)?;
    let registering = registering.clone();
    let copying = tokio::task::spawn_blocking(move || pour(&source, target, size, limits, &registering));
    copying.await.unwrap_or_else(|error| Err(Trouble::Failed(format!("the copying thread failed: {error}"))))
}

fn open(path: &Path, limits: Limits) -> Result<(File, u64), Trouble> {
    // Quoted, because the name comes from outside.
    let failed = |error: io::Error| Trouble::Failed(format!("can't read {path:?}: {error}"));
    // A pipe would wait for somebody to write to it.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() {
        return Err(Trouble::Failed(format!("{path:?} is no file")));
    }
    limits.check_size(data.len())?;
    Ok((file, data.len()))
}

fn pour(
    source: &File,
    mut target: File,
    size: u64,
    limits: Limits,
    registering: &Registering,
) -> Result<(), Trouble> {
    let mut done = 0;
    loop {
        registering.fetching(done, Some(size));
        if registering.cancelled() {
            return Err(Trouble::CalledOff);
        }
        // In the kernel, where that is possible.
        let copied = io::copy(&mut io::Read::take(source, BLOCK), &mut target).map_err(Trouble::disk)?;
        if copied == 0 {
            return Ok(());
        }
        done += copied;
        // It may grow while it is read.
        limits.check_size(done)?;
    }
}
