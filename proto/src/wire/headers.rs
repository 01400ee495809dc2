//! Header blocks: names and values kept as the bytes that go over the link, decoded only when somebody asks.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frame::{Kind, WireError};

/// A run of `str16 name, u32 length, value`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderBlock(Bytes);

impl HeaderBlock {
    /// A block with these entries.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut block = BytesMut::new();
        for (name, value) in pairs {
            Self::push(&mut block, name, value);
        }
        Self(block.freeze())
    }

    /// Appends one entry to a block under construction. A name longer than 64 KiB is cut: no client may send one.
    pub fn push(block: &mut BytesMut, name: &str, value: &[u8]) {
        let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
        block.reserve(6 + name.len() + value.len());
        block.put_u16_le(name.len() as u16);
        block.put_slice(name);
        block.put_u32_le(value.len() as u32);
        block.put_slice(value);
    }

    /// Takes the bytes of a block; they are checked when it is read.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes that go over the link.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The entries, in order; the last item is an error if the block is broken.
    pub fn iter(&self) -> HeaderIter {
        HeaderIter { rest: self.0.clone() }
    }

    /// The entries, in order, borrowed; ends where the block is broken.
    pub fn entries(&self) -> Entries<'_> {
        Entries { rest: &self.0 }
    }

    /// The value of the last entry with this name.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.iter().filter_map(Result::ok).filter(|(key, _)| key == name).map(|(_, value)| value).last()
    }
}

impl From<BytesMut> for HeaderBlock {
    fn from(block: BytesMut) -> Self {
        Self(block.freeze())
    }
}

/// Iterates over a block.
#[derive(Debug)]
pub struct HeaderIter {
    rest: Bytes,
}

impl HeaderIter {
    fn entry(&mut self) -> Result<(String, Bytes), WireError> {
        let name = self.field(2).and_then(|mut length| self.field(usize::from(length.get_u16_le())))?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| WireError::NotUtf8 { kind: Kind::Reply })?;
        let value = self.field(4).and_then(|mut length| self.field(length.get_u32_le() as usize))?;
        Ok((name, value))
    }

    fn field(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.rest.len() {
            return Err(WireError::Short { kind: Kind::Reply, wanted: length, left: self.rest.len() });
        }
        Ok(self.rest.split_to(length))
    }
}

impl Iterator for HeaderIter {
    type Item = Result<(String, Bytes), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest.clear();
        }
        Some(entry)
    }
}

/// Iterates over a block without allocating. Entries whose name isn't UTF-8 are passed over.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    fn field(&mut self, length: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(field)
    }

    fn entry(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let mut length = self.field(2)?;
        let name = self.field(usize::from(length.get_u16_le()))?;
        let mut length = self.field(4)?;
        let value = self.field(length.get_u32_le() as usize)?;
        Some((name, value))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (name, value) = self.entry()?;
            if let Ok(name) = std::str::from_utf8(name) {
                return Some((name, value));
            }
        }
    }
}
