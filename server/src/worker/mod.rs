//! Worker processes: how they come into being, what they are told, and what happens when they die.
//!
//! [`pool`] keeps the workers of one model version; each has an [`owner`], the task that launches its process, feeds it and answers for it.
//! What the owner decides is in pure modules beside it: [`state`] (its life), [`window`] and [`pace`] (how much to send ahead).

pub mod context;
pub mod exchange;
pub mod floor;
pub mod gpu;
pub mod inflight;
pub mod launch;
pub mod link;
pub mod log;
pub mod loss;
mod oom;
pub mod orders;
pub mod output;
mod owner;
pub mod pace;
pub mod pool;
pub mod process;
pub mod python;
mod reaper;
mod runtime;
pub mod shim;
pub mod state;
pub mod status;
pub mod window;
