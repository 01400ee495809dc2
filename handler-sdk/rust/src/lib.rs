//! Model handlers for Zoo in Rust.
//!
//! A handler is a type that implements [`Handler`], and a `main` that hands it to [`serve`]. The program is packed as a native archive
//! and started by the server, once per worker.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use zoo_handler::{Answers, Batch, Context, Handler, LoadError};
//!
//! struct Linear {
//!     weights: Vec<f32>,
//! }
//!
//! impl Handler for Linear {
//!     fn load(context: &Context) -> Result<Self, LoadError> {
//!         let file = std::fs::read(context.model_dir().join("weights.json"))?;
//!         Ok(Linear { weights: serde_json::from_slice(&file)? })
//!     }
//!
//!     fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
//!         batch.each(|request| {
//!             let x: Vec<f32> = request.json()?;
//!             let y: f32 = self.weights.iter().zip(x).map(|(w, x)| w * x).sum();
//!             Ok(zoo_handler::Response::json(y))
//!         })
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     zoo_handler::serve::<Linear>()
//! }
//! ```
//!
//! * **Batches.** [`Batch::each`] answers request by request, [`Batch::together`] makes one call of the model for all of them.
//!   Either way each request has its own outcome: one that fails doesn't fail its neighbours.
//! * **Errors.** [`HandlerError::client`] and [`HandlerError::model`] say what the client reads; other errors, by `?`, go to the log.
//!   A panic fails its batch and not the process, if the program is built with `panic = "unwind"`, which is the default.
//! * **Streams.** [`Response::stream`] sends what an iterator yields, [`Response::write_with`] what a callback writes.
//! * **Cancellation.** [`Request::is_cancelled`] tells whether the client has left; streams of clients that left end by themselves.
//! * **Logs and metrics.** The macros of the `log` crate write to the model's log; [`Context::metrics`] takes values.
//! * **Trials.** [`testing`] runs a handler in a unit test, with no server.

mod arrivals;
mod batch;
mod channel;
mod context;
mod error;
mod handler;
mod link;
mod logger;
mod metrics;
mod request;
mod response;
mod service;
mod stream;
mod tensor;
pub mod testing;
mod worker;

pub use batch::{Answers, Batch};
pub use bytes::Bytes;
pub use context::Context;
pub use error::{HandlerError, LoadError};
pub use handler::Handler;
pub use metrics::{Metric, Metrics};
pub use request::{Part, Request};
pub use response::Response;
pub use stream::{Cancelled, ChunkWriter};
pub use tensor::{Element, Tensor};
pub use worker::serve;
