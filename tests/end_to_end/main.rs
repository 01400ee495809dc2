//! The server as a program, with archives from the archiver as a program: what users see, from `curl` to `kill`.
#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod ends;
mod life;
mod metrics;
mod native;
mod registration;
mod requests;
