//! Everything that crosses a process boundary inside Zoo.
//!
//! [`wire`] is the protocol between the server and its workers; `docs/worker-protocol.md` is its specification. [`tensor`] is how a
//! tensor is labelled in it. This crate knows bytes only: no sockets, no processes, no policy.

pub mod tensor;
pub mod wire;
