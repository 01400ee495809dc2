//! Targets that take any bytes and must neither panic, nor hang, nor take much memory. The bounded mutation
//! test runs them over the committed corpus, and a fuzzer can call the same functions.

use std::hint::black_box;

use crate::{digest::Sums, manifest::Manifest, read, read::Limits};

const LIMITS: Limits = Limits { entries: 1000, bytes: 16 << 20, ratio: 200, ratio_from: 1 << 20 };

/// An archive of either form.
pub fn fuzz_archive(bytes: &[u8]) {
    if let Ok(contents) = read::contents_of_bytes(bytes, &LIMITS) {
        assert!(contents.files.iter().map(|file| file.size).sum::<u64>() <= LIMITS.bytes);
    }
}

/// Whether an archive is sound: seeds should be.
#[must_use]
pub fn reads(bytes: &[u8]) -> bool {
    read::contents_of_bytes(bytes, &LIMITS).is_ok()
}

/// A manifest; one that is read is written and read back unchanged.
pub fn fuzz_manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()), Ok(manifest));
    }
}

/// A `SHA256SUMS` file.
pub fn fuzz_sums(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(black_box(Sums::parse(text)));
    }
}
