//! Archives from elsewhere: over HTTP or from another folder, into the model store.
//!
//! ```text
//! address ─► http (resolve, check, connect, follow) ─┐
//!        └─► copy (file://) ─────────────────────────┴─► landing (a hidden file) ─► Download (its own name)
//! ```
//!
//! Nothing has its own name before it is complete and on disk. Knows no archives: what arrives is bytes.

mod copy;
mod http;
mod landing;
mod lookup;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::{info, warn};

use super::address::{Address, Refused, Rules, file_path, loggable};
use super::register::{Registering, Trust, lost};
use crate::config::Config;
use crate::failure::Failure;
pub(super) use landing::{Download, is_partial, sweep};
pub(super) use lookup::Lookup;

use landing::Landing;

/// How much may be fetched, and how long it may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    total: Duration,
    idle: Duration,
    /// Before the first further attempt; longer before each one after.
    pause: Duration,
}

/// What a test sets for itself.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    pub(super) lookup: Lookup,
    pub(super) pause: Duration,
}

impl Outside {
    /// The real one.
    pub(super) fn real() -> Self {
        Self { lookup: Lookup::system(), pause: Duration::from_millis(250) }
    }
}

/// Brings archives.
#[derive(Debug)]
pub(super) struct Fetcher {
    rules: Arc<Rules>,
    lookup: Lookup,
    limits: Limits,
    /// Files that are being fetched.
    under_way: Mutex<HashSet<PathBuf>>,
}

/// What is to be fetched, for whom.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) address: &'a Address,
    /// The model store.
    pub(super) store: &'a Path,
    pub(super) trust: Trust,
    /// With S3's header for keys that are managed there.
    pub(super) s3_sse_kms: bool,
    pub(super) registering: &'a Arc<Registering>,
}

/// Why it didn't come.
#[derive(Debug)]
enum Trouble {
    /// It isn't allowed.
    Refused(Refused),
    /// It can't be had.
    Failed(String),
    /// It can't be had now.
    Passing(String),
    /// It can't be kept.
    Disk(String),
    /// It isn't wanted any more.
    CalledOff,
}

impl Fetcher {
    pub(super) fn new(rules: Arc<Rules>, config: &Config, outside: Outside) -> Self {
        let limits = Limits {
            bytes: config.max_download_size,
            total: config.download_timeout,
            idle: config.download_idle_timeout,
            pause: outside.pause,
        };
        Self { rules, lookup: outside.lookup, limits, under_way: Mutex::default() }
    }

    /// Brings an archive into the model store.
    pub(super) async fn fetch(&self, order: &Order<'_>) -> Result<Download, Failure> {
        let target = order.store.join(&order.address.file);
        let Some(_turn) = Turn::take(self, &target) else {
            return Err(Failure::FileExists { file: order.address.file.clone() });
        };
        info!(url = %loggable(&order.address.given), "fetching");
        let landing = self.bring(order).await.map_err(|trouble| refuse(trouble, order))?;
        let landed = tokio::task::spawn_blocking(move || landing.settle(&target)).await;
        match landed.map_err(|error| lost(&error))? {
            Ok(Some(download)) => Ok(download),
            Ok(None) => Err(Failure::FileExists { file: order.address.file.clone() }),
            Err(error) => Err(refuse(Trouble::Disk(error.to_string()), order)),
        }
    }

    async fn bring(&self, order: &Order<'_>) -> Result<Landing, Trouble> {
        let landing = Landing::create(order.store).map_err(Trouble::disk)?;
        if let Some(path) = file_path(&order.address.url).filter(|_| order.address.url.scheme() == "file") {
            copy::copy(path, &landing, self.limits, order.registering).await?;
            return Ok(landing);
        }
        let arriving = timeout(self.limits.total, self.download(order, &landing));
        let arrived = tokio::select! {
            () = order.registering.called_off() => return Err(Trouble::CalledOff),
            arrived = arriving => arrived,
        };
        let too_slow = || {
            let limit = self.limits.total;
            Trouble::Failed(format!("not complete after {limit:?} (--download-timeout)"))
        };
        arrived.unwrap_or_else(|_| Err(too_slow()))?;
        Ok(landing)
    }
}

impl Limits {
    fn check_size(&self, bytes: u64) -> Result<(), Trouble> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let limit = self.bytes;
        Err(Trouble::Failed(format!(
            "{bytes} bytes or more, where {limit} are allowed (--max-download-size)"
        )))
    }
}

impl Trouble {
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn disk(error: std::io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// What a client is told.
fn refuse(trouble: Trouble, order: &Order<'_>) -> Failure {
    let url = order.address.given.clone();
    let shown = loggable(&url);
    match trouble {
        Trouble::Refused(why) => {
            warn!(url = %shown, "refused: {why}");
            Failure::UrlNotAllowed { url }
        }
        Trouble::Failed(why) | Trouble::Passing(why) => {
            warn!(url = %shown, "failed to download: {why}");
            Failure::DownloadFailed { url, why }
        }
        Trouble::Disk(why) => {
            warn!(url = %shown, store = %order.store.display(), "failed to save: {why}");
            Failure::SaveFailed { url, why }
        }
        Trouble::CalledOff => order.registering.failure(),
    }
}

/// The right to fetch a file; nobody else fetches it at the same time.
struct Turn<'a> {
    fetcher: &'a Fetcher,
    file: PathBuf,
}

impl<'a> Turn<'a> {
    fn take(fetcher: &'a Fetcher, file: &Path) -> Option<Self> {
        let first = fetcher.under_way.lock().insert(file.to_owned());
        first.then(|| Self { fetcher, file: file.to_owned() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.fetcher.under_way.lock().remove(&self.file);
    }
}

#[cfg(test)]
pub(super) mod site;
#[cfg(test)]
mod tests;
