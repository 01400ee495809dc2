//! What clients speak. Each protocol turns its words into a [`Request`](crate::request::Request) and an
//! [`Outcome`](crate::request::Outcome) into its words; what happens in between is the same for all.

pub mod rest;
