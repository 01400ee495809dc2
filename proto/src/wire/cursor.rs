//! Reading fields off a payload, each length checked against what is there.

use bytes::{Buf, Bytes};

use super::frame::{Kind, WireError};

/// A payload being read from front to back.
pub(crate) struct Cursor {
    kind: Kind,
    rest: Bytes,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(crate) fn $name(&mut self) -> Result<$type, WireError> {
            let mut field = self.take(size_of::<$type>())?;
            Ok(field.$name())
        }
    };
}

impl Cursor {
    pub(crate) fn new(kind: Kind, payload: Bytes) -> Self {
        Self { kind, rest: payload }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, WireError> {
        if length > self.rest.len() {
            return Err(WireError::Short { kind: self.kind, wanted: length, left: self.rest.len() });
        }
        Ok(self.rest.split_to(length))
    }

    number!(get_u16_le, u16);
    number!(get_u32_le, u32);
    number!(get_u64_le, u64);
    number!(get_f64_le, f64);
    number!(get_u8, u8);

    pub(crate) fn skip(&mut self, length: usize) -> Result<(), WireError> {
        self.take(length).map(drop)
    }

    pub(crate) fn text(&mut self, length: usize) -> Result<String, WireError> {
        let bytes = self.take(length)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(WireError::NotUtf8 { kind: self.kind }),
        }
    }

    pub(crate) fn str16(&mut self) -> Result<String, WireError> {
        let length = self.get_u16_le()?;
        self.text(usize::from(length))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    /// What is left, as text; a peer's broken text is shown rather than refused.
    pub(crate) fn rest_lossy(self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }
}
