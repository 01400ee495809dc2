//! The frame: `u32 length, u8 kind, u8 flags, u16 0`, then the payload.

use std::fmt;

use bytes::{Buf, Bytes};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 8;
/// The longest payload a frame may have.
pub const MAX_PAYLOAD: usize = 1 << 20;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $code,)* }

        impl Kind {
            /// Every kind of this version.
            pub const ALL: &[Kind] = &[$(Kind::$name),*];

            /// The kind with this code; `None` for one of a later minor version.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Kind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Version and identity; the first frame of both ends.
    Hello = 0x01,
    /// Which model to load.
    Load = 0x02,
    /// The model is loaded.
    Loaded = 0x03,
    /// The model can't be loaded.
    LoadFailed = 0x04,
    /// Items for one call of the handler.
    Batch = 0x10,
    /// Bytes of a body that was declared before.
    Body = 0x11,
    /// The answer to an item, or its head.
    Reply = 0x12,
    /// A piece of a streamed answer.
    Chunk = 0x13,
    /// The end of a streamed answer.
    End = 0x14,
    /// Acknowledges chunk bytes.
    Credit = 0x15,
    /// The answer to an item is no longer wanted.
    Cancel = 0x16,
    /// Asks for the handler's own description.
    Describe = 0x17,
    /// Metrics of the handler.
    Metric = 0x20,
    /// A log record.
    Log = 0x21,
    /// Are you there?
    Ping = 0x30,
    /// I am.
    Pong = 0x31,
    /// Finish and leave.
    Drain = 0x32,
    /// Leaving.
    Bye = 0x33,
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Flags of its kind.
    pub flags: u8,
    /// The rest.
    pub payload: Bytes,
}

/// The first eight bytes of a frame, its length already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of payload.
    pub length: usize,
    /// `None`: a kind that this version doesn't know, to be skipped.
    pub kind: Option<Kind>,
    /// Flags of its kind.
    pub flags: u8,
}

impl FrameHeader {
    /// Reads a header off the front of `bytes` without consuming it; `None` if it isn't all there yet.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let Some(mut header) = bytes.get(..HEADER_LEN) else { return Ok(None) };
        let length = header.get_u32_le() as usize;
        let code = header.get_u8();
        let flags = header.get_u8();
        if length > MAX_PAYLOAD {
            return Err(WireError::TooLong { code, length });
        }
        Ok(Some(Self { length, kind: Kind::from_code(code), flags }))
    }
}

/// How a peer can break the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// A frame longer than the limit.
    TooLong {
        /// The frame's kind as sent.
        code: u8,
        /// The length that it declares.
        length: usize,
    },
    /// A field reaches past the end of its frame.
    Short {
        /// The frame's kind.
        kind: Kind,
        /// Bytes that the field needs.
        wanted: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A text that isn't UTF-8.
    NotUtf8 {
        /// The frame's kind.
        kind: Kind,
    },
    /// A JSON payload that doesn't parse or lacks a field.
    Json {
        /// The frame's kind.
        kind: Kind,
        /// The parser's words.
        message: String,
    },
    /// Another major version.
    Version {
        /// What the peer speaks.
        theirs: u16,
    },
    /// A body larger than allowed.
    BodyTooLarge {
        /// The item it belongs to.
        item: u64,
        /// The size that was declared.
        declared: u64,
        /// The limit in force.
        limit: u64,
    },
    /// Body bytes that nobody declared, out of order, or beyond the declared end.
    StrayBody {
        /// The item named in the frame.
        item: u64,
        /// The offset named in the frame.
        offset: u64,
        /// The offset that was due.
        expected: u64,
    },
    /// A frame at a moment when it makes no sense.
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// What was being waited for.
        during: &'static str,
    },
    /// An answer to an item that is not open.
    UnknownItem {
        /// The frame's kind.
        kind: Kind,
        /// The item named in the frame.
        item: u64,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { code, length } => {
                write!(f, "frame of kind {code:#04x} declares {length} bytes, the limit is {MAX_PAYLOAD}")
            }
            Self::Short { kind, wanted, left } => {
                write!(f, "{kind:?} frame ends early: a field needs {wanted} bytes, {left} are left")
            }
            Self::NotUtf8 { kind } => write!(f, "{kind:?} frame holds a text that is not UTF-8"),
            Self::Json { kind, message } => write!(f, "{kind:?} frame holds unusable JSON: {message}"),
            Self::Version { theirs } => {
                write!(
                    f,
                    "peer speaks version {theirs} of the worker protocol, this is version {}",
                    super::MAJOR
                )
            }
            Self::BodyTooLarge { item, declared, limit } => {
                write!(f, "answer to item {item} is {declared} bytes long, the limit is {limit}")
            }
            Self::StrayBody { item, offset, expected } => {
                write!(f, "body bytes for item {item} at offset {offset}, expected {expected}")
            }
            Self::Unexpected { kind, during } => write!(f, "{kind:?} frame while {during}"),
            Self::UnknownItem { kind, item } => {
                write!(f, "{kind:?} frame for item {item}, which is not open")
            }
        }
    }
}

impl std::error::Error for WireError {}
