//! Archives that no honest archiver writes.

use std::io::Write;

/// A zip built record by record. The setters concern the entries after them.
pub struct RawZip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
    mode: u32,
    method: Option<u16>,
    flags: u16,
    size: Option<u64>,
}

impl RawZip {
    pub fn new() -> Self {
        let (bytes, directory) = (Vec::new(), Vec::new());
        Self { bytes, directory, entries: 0, mode: 0o100_644, method: None, flags: 0, size: None }
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn method(self, method: u16) -> Self {
        Self { method: Some(method), ..self }
    }

    pub fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    pub fn lie_about_size(self, size: u64) -> Self {
        Self { size: Some(size), ..self }
    }

    pub fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.entry(name, content, content, 0)
    }

    pub fn deflated(self, name: &[u8], content: &[u8]) -> Self {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        self.entry(name, content, &encoder.finish().unwrap(), 8)
    }

    /// An entry of another name for the bytes of the last one.
    pub fn again(mut self, name: &[u8]) -> Self {
        let last = self.directory.clone();
        let name_length = usize::from(u16::from_le_bytes([last[28], last[29]]));
        assert_eq!(name.len(), name_length);
        self.directory.extend_from_slice(&last[..46]);
        self.directory.extend_from_slice(name);
        self.directory.extend_from_slice(&last[46 + name_length..]);
        self.entries += 1;
        self
    }

    fn entry(mut self, name: &[u8], content: &[u8], packed: &[u8], method: u16) -> Self {
        let offset = self.bytes.len() as u32;
        let size = self.size.unwrap_or(content.len() as u64);
        let mut common = Vec::new();
        for value in [45, self.flags, self.method.unwrap_or(method), 0, 0x21] {
            common.extend_from_slice(&u16::to_le_bytes(value));
        }
        common.extend_from_slice(&crc32fast::hash(content).to_le_bytes());
        common.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        common.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        let mut extra = Vec::new();
        if size > u64::from(u32::MAX) {
            extra.extend_from_slice(&[1, 0, 8, 0]);
            extra.extend_from_slice(&size.to_le_bytes());
        }
        common.extend_from_slice(&(extra.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(b"PK\x03\x04");
        for part in [&common, name, &extra, packed] {
            self.bytes.extend_from_slice(part);
        }
        self.directory.extend_from_slice(b"PK\x01\x02\x2d\x03");
        self.directory.extend_from_slice(&common);
        self.directory.extend_from_slice(&[0; 6]);
        self.directory.extend_from_slice(&(self.mode << 16).to_le_bytes());
        self.directory.extend_from_slice(&offset.to_le_bytes());
        self.directory.extend_from_slice(name);
        self.directory.extend_from_slice(&extra);
        self.entries += 1;
        self
    }

    pub fn done(mut self) -> Vec<u8> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&self.directory);
        self.bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend_from_slice(&self.entries.to_le_bytes());
        self.bytes.extend_from_slice(&self.entries.to_le_bytes());
        self.bytes.extend_from_slice(&(self.directory.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&start.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
    }
}

/// A tar built header by header.
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    pub fn file(self, name: &[u8], content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, "", content)
    }

    pub fn folder(self, name: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Directory, "", b"")
    }

    pub fn special(self, name: &[u8], kind: tar::EntryType, link: &str) -> Self {
        self.entry(name, kind, link, b"")
    }

    /// The record of GNU tar that gives the next entry a name of `length` bytes.
    pub fn long_name(self, length: usize) -> Self {
        self.entry(b"././@LongLink", tar::EntryType::GNULongName, "", &vec![b'a'; length])
    }

    fn entry(mut self, name: &[u8], kind: tar::EntryType, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_link_name(link).unwrap_or(());
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn tar(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub fn gz(self) -> Vec<u8> {
        gzip(&self.tar())
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
