//! What a user of this crate writes.

use serde_json::Value;

use crate::batch::{Answers, Batch};
use crate::context::Context;
use crate::error::LoadError;

/// A model and how it answers. One value serves one model version in one process, on the process's main thread.
///
/// ```
/// use zoo_handler::{Answers, Batch, Context, Handler, LoadError};
///
/// struct Upper;
///
/// impl Handler for Upper {
///     fn load(_: &Context) -> Result<Self, LoadError> {
///         Ok(Upper)
///     }
///
///     fn handle(&mut self, batch: Batch<'_>) -> Answers<'_> {
///         batch.each(|request| Ok(request.text()?.to_uppercase()))
///     }
/// }
/// ```
pub trait Handler: Sized {
    /// Makes the model ready. A panic counts as an error.
    fn load(context: &Context) -> Result<Self, LoadError>;

    /// Answers a batch: [`Batch::each`] one request at a time, [`Batch::together`] in one call of the model.
    ///
    /// A panic fails this batch and nothing else: its clients get status 503 and `Prediction failed`, its message goes to the
    /// log, and the next batch comes as usual.
    fn handle(&mut self, batch: Batch<'_>) -> Answers<'_>;

    /// What a client reads that asks for the model's own description.
    fn describe(&mut self) -> Value {
        Value::Null
    }

    /// What the model takes and gives, for the tensor protocols: `{"inputs": […], "outputs": […]}`, or `None` if it takes anything.
    fn signature(&self) -> Option<Value> {
        None
    }
}
