//! Everything that crosses a process boundary inside Zoo.
//!
//! [`wire`] is the protocol between the server and its workers; `docs/worker-protocol.md` is its specification.
//! This crate knows bytes only: no sockets, no processes, no policy.

pub mod wire;
