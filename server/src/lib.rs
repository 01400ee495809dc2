//! The model server.
//!
//! The way of a request, and the modules in the order in which it meets them:
//!
//! ```text
//! socket ─► listen ─► api (decode)                               connection task
//!                      │ registry: name, version → ModelVersion   a snapshot, no lock held
//!                      ▼
//!                    batch::queue  push(Job)                      full, expired, no worker → Failure at once   hop 1
//!                      ▼
//!                    worker::owner  takes its own batch           one task for each worker
//!                      ▼
//!                    worker::link ══ socket pair ══► runtime ─► handler                                       process hop
//!                      ▼
//!                    request::ticket  answer                                                                  hop 2
//!                      ▼
//!                    api (encode)                                 connection task again
//! ```
//!
//! Imports go one way only: `name ← failure ← request ← batch ← worker ← registry ← api`; a test in `zoo-e2e` checks it.

pub mod api;
pub mod batch;
pub mod config;
pub mod failure;
pub mod listen;
pub mod metrics;
pub mod model;
pub mod name;
pub mod registry;
pub mod request;
pub mod sdk;
pub mod server;
pub mod shutdown;
pub mod worker;
mod yaml;
