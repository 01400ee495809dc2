//! The benchmark suite's own programs: a load generator that costs little CPU beside the server it measures,
//! and the floor, a bare HTTP server that does nothing, against which every contender is read.
//!
//! `load` sends requests and times the answers, `procs` reads what the measured server costs, `report` is the
//! shape of the result, `floor` is the bare server. None of them knows a contender: `compare` (beside this
//! crate) does.

pub mod floor;
pub mod load;
pub mod procs;
pub mod report;
