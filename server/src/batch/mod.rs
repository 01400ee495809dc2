//! Requests that wait, and when a worker takes how many of them.
//!
//! [`policy`] decides and touches nothing; [`queue`] keeps the jobs and wakes workers; a [`job::Job`] is a request with the promise to answer it.
//! Nothing here knows what a worker is, beyond that it has a number and is hungry.

pub mod job;
pub mod policy;
pub mod queue;
