//! Packs models into archives and reads them back.
//!
//! Two straight lines, each with its own modules in reading order:
//!
//! * packing: [`spec`] says what is wanted → [`collect`] finds the files → [`write`](mod@write) writes the archive;
//! * reading: [`read`] opens an archive, checks every byte of it as hostile input, and extracts or verifies it.
//!
//! Both share [`manifest`] (the one definition of `MAR-INF/MANIFEST.json`, which the server uses too),
//! [`digest`] (what `MAR-INF/SHA256SUMS` holds) and [`progress`]. [`workflow`] packs TorchServe workflows.
//! Nothing here knows about the server, and nothing outside `cli` prints.

#[cfg(feature = "cli")]
pub mod cli;
mod clock;
pub mod collect;
pub mod digest;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod manifest;
mod native;
mod pattern;
pub mod progress;
pub mod read;
pub mod spec;
pub mod workflow;
pub mod write;

pub use clock::created_on;
pub use error::{PackError, ReadError};
pub use manifest::{Manifest, ManifestError, Model, Runtime};
pub use read::{Archive, Limits, Staged};
pub use spec::PackSpec;

/// Folder of an archive that holds what describes it.
pub const MAR_INF: &str = "MAR-INF";
/// Where the manifest lies.
pub const MANIFEST: &str = "MAR-INF/MANIFEST.json";
/// Where the digests lie, in the form that `sha256sum -c` reads.
pub const SHA256SUMS: &str = "MAR-INF/SHA256SUMS";
