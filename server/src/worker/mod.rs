//! Worker processes: how they come into being, what they are told, and what happens when they die.
//!
//! [`pool`] keeps the workers of one model version; each has an [`owner`], the task that launches its process, feeds it and answers for it.
//! What the owner decides is in pure modules beside it: [`state`] (its life), [`window`] and [`pace`] (how much to send ahead).

pub mod exchange;
pub mod floor;
pub mod inflight;
pub mod launch;
pub mod link;
pub mod loss;
mod oom;
pub mod orders;
pub mod output;
pub mod pace;
pub mod process;
pub mod python;
mod reaper;
pub mod shim;
pub mod state;
pub mod window;
