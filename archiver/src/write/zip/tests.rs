//! What only shows beyond 32 bits and 65 535 entries, on a disk that keeps zeros as holes.

use std::{
    fs::File,
    io::{Read, Result},
    num::NonZeroUsize,
    process::Command,
    sync::Arc,
};

use zip::ZipArchive;

use super::*;

/// A file whose zeros take no room on the disk.
struct Sparse(File);

static ZEROS: [u8; BLOCK] = [0; BLOCK];

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if bytes == &ZEROS[..bytes.len().min(BLOCK)] {
            self.0.seek_relative(bytes.len() as i64)?;
            return Ok(bytes.len());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.0.seek(to)
    }
}

fn writer(file: &File) -> ZipWriter<Sparse> {
    ZipWriter::new(Sparse(file.try_clone().unwrap()), Pool::start(NonZeroUsize::MIN).unwrap())
}

fn head(name: &str, size: u64) -> Head {
    Head { name: name.into(), size, executable: false }
}

fn small(zip: &mut ZipWriter<Sparse>, name: &str, content: &[u8]) {
    zip.begin(&head(name, content.len() as u64), Method::Stored).unwrap();
    zip.block(Task::Store, Arc::new(content.to_vec()), None).unwrap();
    zip.end().unwrap();
}

fn python(script: &str, archive: &Path) {
    let output = Command::new("python3").args(["-c", script]).arg(archive).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn files_and_offsets_beyond_4_gib() {
    const BLOCKS: u64 = (4 << 30) / BLOCK as u64 + 3;
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut zip = writer(file.as_file());
    small(&mut zip, "before", b"first");
    zip.begin(&head("large", BLOCKS * BLOCK as u64), Method::Stored).unwrap();
    let (block, mut crc, mut one) =
        (Block::new(ZEROS.to_vec()), crc32fast::Hasher::new(), crc32fast::Hasher::new());
    one.update(&ZEROS);
    for _ in 0..BLOCKS {
        zip.block(Task::Store, Arc::clone(&block), None).unwrap();
        crc.combine(&one);
    }
    zip.end().unwrap();
    small(&mut zip, "after", b"last");
    zip.finish().unwrap();

    let mut archive = ZipArchive::new(file.reopen().unwrap()).unwrap();
    let large = archive.by_name("large").unwrap();
    assert_eq!((large.size(), large.compressed_size()), (BLOCKS * BLOCK as u64, BLOCKS * BLOCK as u64));
    assert_eq!(large.crc32(), crc.finalize());
    drop(large);
    for (name, content) in [("before", "first"), ("after", "last")] {
        let mut text = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, content);
    }
    archive.validate_header_consistency().unwrap();
    python(
        "import sys, zipfile\n\
         z = zipfile.ZipFile(sys.argv[1])\n\
         assert z.namelist() == ['before', 'large', 'after']\n\
         assert z.getinfo('large').file_size > 1 << 32\n\
         assert z.getinfo('after').header_offset > 1 << 32\n\
         assert z.read('before') == b'first' and z.read('after') == b'last'\n\
         assert z.open('large').read(1000) == bytes(1000)\n",
        file.path(),
    );
}

#[test]
fn more_entries_than_16_bits_count() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut zip = writer(file.as_file());
    for i in 0..70_000 {
        zip.begin(&head(&format!("{i}"), 0), Method::Stored).unwrap();
        zip.end().unwrap();
    }
    zip.finish().unwrap();
    assert_eq!(ZipArchive::new(file.reopen().unwrap()).unwrap().len(), 70_000);
    python(
        "import sys, zipfile\nassert len(zipfile.ZipFile(sys.argv[1]).namelist()) == 70000\n",
        file.path(),
    );
}
