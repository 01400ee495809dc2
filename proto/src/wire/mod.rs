//! The worker protocol: frames, the messages inside them, and buffers to send and receive them.
//!
//! Read in this order: [`frame`] (a length, a kind, a payload), [`start`] (the handshake), [`batch`] (server to worker),
//! [`answer`] (worker to server), [`event`] (metrics and log lines), [`outbox`] and [`inbox`] (the two directions of a link).
//! Every length that a peer declares is checked here before anything is allocated for it.

pub mod answer;
pub mod batch;
mod cursor;
pub mod event;
pub mod frame;
pub mod headers;
pub mod inbox;
pub mod outbox;
pub mod start;

pub use frame::{Frame, Kind, WireError};
pub use headers::HeaderBlock;
pub use inbox::{Inbox, Incoming};
pub use outbox::Outbox;

/// The protocol's major version: both ends must agree on it.
pub const MAJOR: u16 = 1;
/// The protocol's minor version: informative.
pub const MINOR: u16 = 0;
/// Chunk bytes that a streaming item may have on the way without being acknowledged.
pub const STREAM_CREDIT: u32 = 256 * 1024;
