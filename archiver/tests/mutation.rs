//! Seeded mutation of a small corpus, for each parser of outside bytes: no panic, no hang, no lost limits.
//!
//! The same targets, in `zoo_archiver::fuzz`, serve a fuzzer, with `tests/corpus` as its seeds. A failure names
//! the seed file and round; `ROUNDS` in the environment asks for more than the usual few.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{fs, io::Write, panic, path::PathBuf};

use zoo_archiver::fuzz;

/// Splitmix64: small, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

/// Values that headers trip over.
const EDGES: [u64; 8] = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX];

fn mutate(bytes: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(6) {
            _ if bytes.is_empty() => bytes.push(0),
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let width = 1 << chance.below(4);
                let edge = EDGES[chance.below(EDGES.len())].to_le_bytes();
                bytes.iter_mut().skip(at).zip(&edge[..width]).for_each(|(byte, value)| *byte = *value);
            }
            4 => {
                let end = bytes.len().min(at + 1 + chance.below(64));
                let piece = bytes[at..end].to_vec();
                let to = chance.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => drop(bytes.drain(at..bytes.len().min(at + 1 + chance.below(16)))),
        }
    }
}

fn corpus(kind: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn hammer(kind: &str, rounds: u64, target: fn(&[u8])) {
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(rounds);
    let seeds = corpus(kind);
    assert!(seeds.len() >= 3, "the corpus of {kind} is gone");
    for (path, seed) in seeds {
        target(&seed);
        for round in 0..rounds {
            let mut bytes = seed.clone();
            mutate(&mut bytes, &mut Chance(round));
            let outcome = panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{} in round {round}: {}", path.display(), bytes.escape_ascii());
        }
    }
}

#[test]
fn archives() {
    hammer("archive", 1500, fuzz::fuzz_archive);
}

#[test]
fn tars_inside_of_sound_gzip() {
    hammer("tar", 1500, |tar| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(tar).unwrap();
        fuzz::fuzz_archive(&gz.finish().unwrap());
    });
}

#[test]
fn manifests() {
    hammer("manifest", 5000, fuzz::fuzz_manifest);
}

#[test]
fn digest_files() {
    hammer("sums", 5000, fuzz::fuzz_sums);
}

#[test]
fn the_corpus_holds_what_it_should() {
    // A corpus whose archives are refused at the first byte would mutate nothing of interest.
    for (path, bytes) in corpus("archive") {
        assert!(fuzz::reads(&bytes), "{} isn't read any more", path.display());
    }
}
